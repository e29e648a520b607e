//! What an owner writes about its session, and how copies of it travel: on streams, since they are
//! long and must arrive.

use super::{GoneWhy, Kind, Message};
use crate::id::{Birth, NodeRef, Nonce, UpstreamBirth};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// A client's `initialize` that is longer is not kept: its session can be reattached, but not
/// reinitialized.
pub const INITIALIZE_LEN_MAX: usize = 16 * 1024;
/// What a client may have on record besides: subscriptions, and tools that may be called twice.
pub const ON_RECORD_LEN_MAX: usize = 16 * 1024;
/// Records in one message, and how long they may be together: one alone is at most 3 x 16 KiB and its
/// upstream's address, so that all fit a frame of 128 KiB.
pub const RECORDS_AT_ONCE: usize = 64;
pub const RECORDS_LEN_MAX: usize = 64 * 1024;

/// What must outlive a session's owner and can't be read from the session's id. Only the owner
/// writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub nonce: Nonce,
    pub birth: Birth,
    /// How many nodes have owned the session; grows with each new owner.
    pub epoch: u32,
    /// Grows with each change, whoever makes it.
    pub rev: u32,
    /// Where it lives now: its upstream, and the id which that knows it by.
    pub lives: Option<UpstreamBirth>,
    /// How often it was reinitialized: what an upstream session before the last one said has no
    /// meaning any more.
    pub renewals: u32,
    /// The client's `initialize`, as it came; empty where it was too long to be kept.
    pub initialize: Arc<[u8]>,
    /// The value of the client's last `logging/setLevel`.
    pub log_level: Option<Arc<str>>,
    /// Resources that the client has subscribed to.
    pub subscriptions: BTreeSet<Arc<str>>,
    /// Tools that the upstream says may be called twice.
    pub repeatable: Arc<BTreeSet<String>>,
    /// For how long a backup keeps it unasked; 0 where the session shall end with its owner.
    pub keep_s: u32,
}

impl Record {
    /// About as many bytes as it takes on the wire.
    pub fn wire_len(&self) -> usize {
        let subscriptions: usize = self.subscriptions.iter().map(|uri| uri.len() + 2).sum();
        let repeatable: usize = self.repeatable.iter().map(|name| name.len() + 2).sum();
        let births = [&self.birth.upstream, &self.lives].into_iter().flatten();
        let upstreams: usize = births.map(|birth| birth.url.len() + birth.session.len()).sum();
        128 + self.initialize.len() + subscriptions + repeatable + upstreams
    }

    /// As the record of its next owner. That comes after whoever wrote it, also where nobody knows any
    /// more of a verdict or a gift which made that one the owner.
    pub fn owned_in(&self, epoch: u32) -> Self {
        Self { epoch: epoch.max(self.epoch + 1), ..self.clone() }
    }

    /// Orders what one session's owners have written.
    pub fn version(&self) -> (u32, u32) {
        (self.epoch, self.rev)
    }
}

/// What a backup is told about a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    Live(Arc<Record>),
    Ended {
        nonce: Nonce,
        why: GoneWhy,
    },
    /// Others keep the copies now: those of this version and before are not needed any more.
    Elsewhere {
        nonce: Nonce,
        version: (u32, u32),
    },
}

/// An owner to a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    pub from: NodeRef,
    /// Not for who it is by the time it reads this, if that is somebody else.
    pub to: NodeRef,
    pub items: Vec<Item>,
}

/// The backup to the owner: it has them all, or newer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {}

/// A node that drains to the one that shall own the session from now on; the record has the new
/// epoch already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Give {
    pub from: NodeRef,
    /// Not for who it is by the time it reads this, if that is somebody else.
    pub to: NodeRef,
    pub record: Arc<Record>,
}

/// The answer: it owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {}

/// A new owner without a copy, to the others: who has one?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    pub nonce: Nonce,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recalled {
    pub item: Option<Item>,
}

impl Message for Keep {
    const KIND: Kind = Kind::Keep;
}

impl Message for Kept {
    const KIND: Kind = Kind::Kept;
}

impl Message for Give {
    const KIND: Kind = Kind::Give;
}

impl Message for Taken {
    const KIND: Kind = Kind::Taken;
}

impl Message for Recall {
    const KIND: Kind = Kind::Recall;
}

impl Message for Recalled {
    const KIND: Kind = Kind::Recalled;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Principal, RouteId, Tag};
    use crate::wire::codec::tests::assert_golden;

    #[test]
    fn records_are_golden() {
        let home = NodeRef { tag: Tag(1), inc: Incarnation(2) };
        let upstream = UpstreamBirth { url: "u".into(), session: "s".into() };
        let record = Arc::new(Record {
            nonce: Nonce([9; 12]),
            birth: Birth {
                minted_s: 3,
                home,
                route: RouteId(4),
                principal: Principal::ANYONE,
                upstream: Some(upstream.clone()),
            },
            epoch: 2,
            rev: 5,
            lives: Some(upstream),
            renewals: 1,
            initialize: b"{}".as_slice().into(),
            log_level: Some("info".into()),
            subscriptions: ["a:b".into()].into(),
            repeatable: Arc::new(["echo".to_owned()].into()),
            keep_s: 60,
        });
        let items =
            vec![Item::Live(record.clone()), Item::Ended { nonce: Nonce([8; 12]), why: GoneWhy::Deleted }];
        assert_golden(
            &Keep { from: home, to: home, items },
            "010b00000056010201020200090909090909090909090909030102040000000000000000000000000000000001017501730205010175017301027b7d0104696e666f0103613a6201046563686f3c0108080808080808080808080803",
            &mut Vec::new(),
        );
        assert_golden(&Kept {}, "010c00000000", &mut Vec::new());
        assert_golden(
            &Give { from: home, to: home, record: record.clone() },
            "010d0000004601020102090909090909090909090909030102040000000000000000000000000000000001017501730205010175017301027b7d0104696e666f0103613a6201046563686f3c",
            &mut Vec::new(),
        );
        assert_golden(&Taken {}, "010e00000000", &mut Vec::new());
        assert_golden(
            &Recall { nonce: Nonce([9; 12]) },
            "010f0000000c090909090909090909090909",
            &mut Vec::new(),
        );
        assert_golden(
            &Recalled { item: Some(Item::Live(record)) },
            "0110000000440100090909090909090909090909030102040000000000000000000000000000000001017501730205010175017301027b7d0104696e666f0103613a6201046563686f3c",
            &mut Vec::new(),
        );
    }
}
