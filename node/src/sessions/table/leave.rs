//! What a node that leaves does with its sessions: gives each away once nothing calls it.

use super::{Entries, Table};
use crate::clock;
use proto::core::{custody::Custody, ring::Position, succession::Succession};
use proto::id::{NodeRef, Nonce};
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
    pub(in crate::sessions) fn give_idle(&self, me: NodeRef, succession: &Succession) -> Left {
        let mut entries = self.entries();
        let Entries { custody, live } = &mut *entries;
        let mut room = GIVES_MAX.saturating_sub(custody.untaken());
        live.retain(|nonce, live| {
            let busy = live.calls.load(Ordering::Acquire) > 0;
            let given = !busy && room > 0 && is_settled(custody, *nonce, me, succession) && {
                custody.give(*nonce, succession, clock::now()).is_some()
            };
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

/// A node that was given a session by another one which is not over yet can't say whose it would be
/// next: by the verdicts it is still the other one's.
fn is_settled(custody: &Custody, nonce: Nonce, me: NodeRef, succession: &Succession) -> bool {
    let owner = custody
        .record(nonce)
        .and_then(|record| succession.owner(record.birth.home, Position::of_session(nonce)));
    owner.is_some_and(|owner| owner.node == me)
}
