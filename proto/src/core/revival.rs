//! A session that has become a node's own without anything of it being there: what the others say
//! of it, and what follows. Whoever asks them must ask all members, also those that are over: their
//! processes may go on, with what they had.

use crate::wire::{GoneWhy, Item, Record};

/// What has been said of one session so far.
#[derive(Clone, Debug, Default)]
pub struct Revival {
    latest: Option<Item>,
    unsure: bool,
}

/// How a session goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// From this record, as the new owner's.
    Record(Record),
    Ended(GoneWhy),
    /// Nobody has anything of it.
    Nothing,
    /// Nobody who was heard has anything of it; somebody else may.
    Unsure,
}

impl Revival {
    /// What this node or another one has of the session, if anything.
    pub fn hear(&mut self, item: Option<Item>) {
        let is_later = |item: &Item| self.latest.as_ref().is_none_or(|latest| worth(latest) < worth(item));
        self.latest = item.filter(is_later).or_else(|| self.latest.take());
    }

    /// Somebody who may have something of it was not heard.
    pub fn miss(&mut self) {
        self.unsure = true;
    }

    /// `epoch` is the new owner's by the line of owners; `settled` says that the members are all known.
    pub fn conclude(self, epoch: u32, settled: bool) -> Found {
        match self.latest {
            Some(Item::Live(record)) => Found::Record(record.owned_in(epoch)),
            Some(Item::Ended { why, .. }) => Found::Ended(why),
            Some(Item::Elsewhere { .. }) | None if self.unsure || !settled => Found::Unsure,
            Some(Item::Elsewhere { .. }) | None => Found::Nothing,
        }
    }
}

/// The end of a session outweighs every version of it.
fn worth(item: &Item) -> (u8, (u32, u32)) {
    match item {
        Item::Elsewhere { .. } => (0, (0, 0)),
        Item::Live(record) => (1, record.version()),
        Item::Ended { .. } => (2, (0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::custody::tests::record;
    use crate::id::{Incarnation, NodeRef, Nonce, Tag};

    const NONCE: Nonce = Nonce([7; 12]);
    const ENDED: Item = Item::Ended { nonce: NONCE, why: GoneWhy::Deleted };

    fn live(epoch: u32, rev: u32) -> Item {
        let home = NodeRef { tag: Tag(1), inc: Incarnation(1) };
        Item::Live(Record { epoch, rev, ..record(NONCE, home) }.into())
    }

    fn heard(items: &[Option<Item>]) -> Revival {
        let mut revival = Revival::default();
        items.iter().cloned().for_each(|item| revival.hear(item));
        revival
    }

    fn version(found: Found) -> Option<(u32, u32)> {
        match found {
            Found::Record(record) => Some(record.version()),
            Found::Ended(_) | Found::Nothing | Found::Unsure => None,
        }
    }

    #[test]
    fn a_session_goes_on_from_the_latest_that_anybody_has_whoever_is_missing() {
        let mut revival = heard(&[live(1, 5), live(2, 1), live(2, 0)].map(Some));
        revival.hear(None);
        revival.miss();
        assert_eq!(version(revival.clone().conclude(4, false)), Some((4, 1)));
        assert_eq!(version(revival.conclude(2, true)), Some((3, 1)), "the second epoch was another's");
    }

    #[test]
    fn an_end_outweighs_what_still_lives_elsewhere() {
        for items in [[live(9, 9), ENDED], [ENDED, live(9, 9)]] {
            assert_eq!(heard(&items.map(Some)).conclude(2, true), Found::Ended(GoneWhy::Deleted));
        }
    }

    #[test]
    fn it_is_lost_only_where_everybody_was_heard_and_nobody_can_be_unknown() {
        assert_eq!(heard(&[None, None]).conclude(2, true), Found::Nothing);
        assert_eq!(heard(&[None, None]).conclude(2, false), Found::Unsure);
        let mut revival = heard(&[None]);
        revival.miss();
        assert_eq!(revival.conclude(2, true), Found::Unsure);
    }
}
