//! What operators are shown of the table.

use super::super::listing::{Row, Served};
use super::{IDLE_AFTER, Live, Table};
use proto::core::{custody::Holding, succession::Succession};
use proto::id::Nonce;
use proto::wire::{Explained, GoneWhy, SessionState, Whose};
use std::sync::{Arc, atomic::Ordering};

impl Table {
    /// The sessions of this node, those that it has given away and those that it keeps for others, from that nonce on, and what stands for
    /// the verdicts by which it has them.
    pub(in crate::sessions) fn list(
        &self,
        from: Nonce,
        most: usize,
        succession: &Succession,
    ) -> (u64, Vec<Row>) {
        let entries = self.entries();
        let (mut rows, mut next) = (Vec::new(), Some(from));
        // Again where some were passed over: those are few.
        while let Some(from) = next.filter(|_| rows.len() < most) {
            let listed = entries.custody.listed(from, most, succession);
            let last = listed.last().map(|(record, _)| record.nonce);
            next = last.filter(|_| listed.len() == most).and_then(Nonce::next);
            rows.extend(listed.into_iter().filter_map(|(record, whose)| {
                let served = entries.live.get(&record.nonce).map(|live| self.served(live));
                // What no route of this node's serves is nobody's.
                (served.is_some() || whose != Whose::Own).then_some(Row { record, whose, served })
            }));
        }
        rows.truncate(most);
        (entries.digest, rows)
    }

    /// What this node knows of a session, and how it came here.
    pub(in crate::sessions) fn explain(&self, nonce: Nonce) -> Explained {
        let entries = self.entries();
        let epoch = entries.custody.record(nonce).map_or(1, |record| record.epoch);
        let live = entries.live.get(&nonce);
        let state = match (live, entries.custody.holding(nonce)) {
            (Some(live), _) if self.is_idle(live, IDLE_AFTER) => {
                SessionState::Idle { epoch, idle_s: seconds(self.idle_for(live).as_secs()) }
            }
            (Some(_), _) => SessionState::Live { epoch },
            (None, Holding::Given(to)) => SessionState::Moved { to },
            (None, Holding::Ended(why)) => SessionState::Ended(why),
            (None, Holding::Live | Holding::Unknown) => SessionState::Ended(GoneWhy::Unknown),
        };
        Explained { state, came: live.map(|live| live.came) }
    }

    fn served(&self, live: &Arc<Live>) -> Served {
        let streams = live.streams.load(Ordering::Relaxed);
        // An old client's one stream is its outbox's.
        let is_read = live.outbox.get().is_some_and(|outbox| outbox.is_read());
        let is_busy = is_read || streams + live.calls() > 0;
        Served {
            is_idle: self.is_idle(live, IDLE_AFTER),
            idle_s: if is_busy { 0 } else { seconds(self.idle_for(live).as_secs()) },
            streams: streams + u32::from(is_read),
            protocol: live.protocol.get().copied(),
        }
    }
}

fn seconds(long: u64) -> u32 {
    u32::try_from(long).unwrap_or(u32::MAX)
}
