//! What a node that leaves does with its sessions: gives each away once nothing calls it.

use super::{Entries, Table};
use crate::clock;
use proto::core::succession::Succession;
use std::sync::atomic::Ordering;

/// Sessions that are being given away at once. Each waits for its taker only, some milliseconds, and
/// not for hundreds of others to be taken before it.
const GIVES_MAX: usize = 128;

/// What a node that leaves still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Sessions with calls in progress.
    pub(crate) busy: usize,
    /// Those, the others, and what was given away and has not been taken yet.
    pub(crate) all: usize,
}

impl Table {
    pub(in crate::sessions) fn parks(&self) -> bool {
        self.parks.load(Ordering::Relaxed)
    }

    pub(in crate::sessions) fn park(&self, parks: bool) {
        self.parks.store(parks, Ordering::Relaxed);
    }

    /// Gives away sessions that nothing calls at the moment.
    pub(in crate::sessions) fn give_idle(&self, succession: &Succession) -> Left {
        let mut entries = self.entries();
        let Entries { custody, live, .. } = &mut *entries;
        let mut room = GIVES_MAX.saturating_sub(custody.untaken());
        live.retain(|nonce, live| {
            let busy = live.calls.load(Ordering::Acquire) > 0;
            let given = !busy && room > 0 && custody.give(*nonce, succession, clock::now()).is_some();
            if given {
                room -= 1;
                live.go();
            }
            !given
        });
        self.changed.notify_one();
        entries.left()
    }

    pub(in crate::sessions) fn left(&self) -> Left {
        self.entries().left()
    }
}

impl Entries {
    fn left(&self) -> Left {
        let busy = self.live.values().filter(|live| live.calls.load(Ordering::Acquire) > 0).count();
        Left { busy, all: self.live.len() + self.custody.untaken() }
    }
}
