//! What a node asks of every other one for an operator: which sessions are there, how one came to where it
//! is, that one shall end, and how much there is to do.

use super::{GoneWhy, Kind, Message};
use crate::core::view::Phase;
use crate::id::{Birth, NodeName, NodeRef, Nonce};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// About as many bytes as one answer has of sessions: half a frame, and what comes last may be 2 KiB over.
pub const LISTED_LEN_MAX: usize = 64 * 1024;
/// The parts of a client's name for itself are cut there.
pub const CLIENT_LEN_MAX: usize = 64;
/// News are a few numbers and names.
pub const NEWS_LEN_MAX: usize = 2 * 1024;

/// Asks a node for the sessions that it owns, from that nonce on, in the order of their nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    pub from: Nonce,
    pub most: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Stands for the verdicts by which the node has inherited: where nodes differ in them, a session may
    /// be between two owners.
    pub digest: u64,
    pub sessions: Vec<Seen>,
    /// The node has sessions behind the last one of these.
    pub more: bool,
}

/// A session, as its owner sees it, or who gave it away or keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub nonce: Nonce,
    pub birth: Birth,
    pub epoch: u32,
    pub whose: Whose,
    pub is_idle: bool,
    pub idle_s: u32,
    pub streams: u32,
    /// What the client calls itself.
    pub client: Option<Arc<str>>,
    /// The revision of MCP that it speaks.
    pub protocol: Option<Arc<str>>,
}

/// What a node has to do with a session that it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Whose {
    /// It owns it.
    Own,
    /// It gave it to that one, and owns it no more.
    Given { to: NodeRef },
    /// It has a copy of what is that one's by the verdicts, and nobody may have asked for it since.
    Kept { owner: NodeRef },
}

impl Seen {
    /// About as many bytes as it takes on the wire.
    pub fn wire_len(&self) -> usize {
        let upstream = self.birth.upstream.as_ref().map_or(0, |birth| birth.url.len() + birth.session.len());
        let words = [&self.client, &self.protocol].into_iter().flatten().map(|word| word.len());
        96 + upstream + words.sum::<usize>()
    }
}

/// How a session came to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Came {
    Born,
    /// Its owner was over, and this node had a copy.
    Inherited,
    /// Its owner gave it away, since it left.
    Given,
    /// Its owner was over, and somebody asked for it here.
    Revived,
}

/// Asks a node what it knows of a session, and how it came there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    pub nonce: Nonce,
}

/// What a node knows of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// The node owns it, as the owner of that number, and it was used a moment ago.
    Live {
        epoch: u32,
    },
    Idle {
        epoch: u32,
        idle_s: u32,
    },
    /// The node gave it to that one.
    Moved {
        to: NodeRef,
    },
    Ended(GoneWhy),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    pub state: SessionState,
    /// Where it owns the session.
    pub came: Option<Came>,
}

/// An operator wants this session to end; to its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub nonce: Nonce,
    pub birth: Birth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndAnswer {
    pub outcome: EndOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndOutcome {
    /// It has ended now.
    Ended,
    /// It had before.
    Gone(GoneWhy),
    /// The node does not own it; that one may.
    Elsewhere(Option<NodeRef>),
    /// Whether the node owns it is not settled at the moment.
    Unsettled,
}

/// Asks a node how much it has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {}

/// Counters since the node's start, and what there is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub phase: Phase,
    pub is_leased: bool,
    pub live: u32,
    pub idle: u32,
    pub streams: u32,
    pub children: u32,
    pub requests: u64,
    pub forwards: Vec<Forwards>,
}

/// Requests that a node sent to another one, by what became of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwards {
    pub to: NodeName,
    pub answered: u64,
    pub refused: u64,
    pub not_here: u64,
    pub unsent: u64,
}

/// Something that only the node which says it could see. Nobody answers, and it may be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News<'a> {
    pub by: NodeName,
    /// Since the Unix epoch, by that node's clock.
    pub at_ms: u64,
    pub kind: &'a str,
    /// A JSON object.
    pub facts: &'a str,
}

impl Message for List {
    const KIND: Kind = Kind::List;
}

impl Message for Listed {
    const KIND: Kind = Kind::Listed;
}

impl Message for Explain {
    const KIND: Kind = Kind::Explain;
}

impl Message for Explained {
    const KIND: Kind = Kind::Explained;
}

impl Message for End {
    const KIND: Kind = Kind::End;
}

impl Message for EndAnswer {
    const KIND: Kind = Kind::EndAnswer;
}

impl Message for Count {
    const KIND: Kind = Kind::Count;
}

impl Message for Counted {
    const KIND: Kind = Kind::Counted;
}

impl Message for News<'_> {
    const KIND: Kind = Kind::News;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Principal, RouteId, Tag, UpstreamBirth};
    use crate::wire::codec::{self, PAYLOAD_LEN_MAX, tests::assert_golden};

    fn birth(upstream: Option<UpstreamBirth>) -> Birth {
        let home = NodeRef { tag: Tag(1), inc: Incarnation(2) };
        Birth { minted_s: 3, home, route: RouteId(4), principal: Principal::ANYONE, upstream }
    }

    fn seen(upstream: Option<UpstreamBirth>, client: &str) -> Seen {
        Seen {
            nonce: Nonce([9; 12]),
            birth: birth(upstream),
            epoch: 2,
            whose: Whose::Own,
            is_idle: true,
            idle_s: 61,
            streams: 1,
            client: Some(client.into()),
            protocol: Some("2025-11-25".into()),
        }
    }

    #[test]
    fn what_operators_ask_for_is_golden() {
        let nonce = Nonce([9; 12]);
        let bytes = &mut Vec::new();
        assert_golden(&List { from: nonce, most: 300 }, GOLDEN[0], bytes);
        let listed = Listed { digest: 7, sessions: vec![seen(None, "c/1")], more: true };
        assert_golden(&listed, GOLDEN[1], bytes);
        assert_golden(&Explain { nonce }, GOLDEN[2], bytes);
        let state = SessionState::Live { epoch: 2 };
        assert_golden(&Explained { state, came: Some(Came::Given) }, GOLDEN[3], bytes);
        assert_golden(&End { nonce, birth: birth(None) }, GOLDEN[4], bytes);
        assert_golden(&EndAnswer { outcome: EndOutcome::Gone(GoneWhy::Deleted) }, GOLDEN[5], bytes);
        assert_golden(&Count {}, GOLDEN[6], bytes);
        let to = "b".parse().expect("a plain name");
        let forwards = vec![Forwards { to, answered: 1, refused: 2, not_here: 3, unsent: 4 }];
        let counted = Counted {
            phase: Phase::Draining,
            is_leased: true,
            live: 1,
            idle: 2,
            streams: 3,
            children: 4,
            requests: 300,
            forwards,
        };
        assert_golden(&counted, GOLDEN[7], bytes);
        let by = "a".parse().expect("a plain name");
        assert_golden(&News { by, at_ms: 5, kind: "parked", facts: "{}" }, GOLDEN[8], bytes);
    }
    const GOLDEN: [&str; 9] = [
        "01110000000f090909090909090909090909fb2c01",
        "01120000003a07010909090909090909090909090301020400000000000000000000000000000000000200013d010103632f31010a323032352d31312d323501",
        "01130000000c090909090909090909090909",
        "01140000000400020102",
        "011500000021090909090909090909090909030102040000000000000000000000000000000000",
        "0116000000020103",
        "011700000000",
        "011800000010020101020304fb2c0101016201020304",
        "01190000000d016105067061726b6564027b7d",
    ];

    #[test]
    fn the_longest_list_fits_a_frame() {
        let upstream = UpstreamBirth { url: "u".repeat(512).into(), session: "s".repeat(1_024).into() };
        let one = seen(Some(upstream), &"c".repeat(2 * CLIENT_LEN_MAX + 1));
        let count = LISTED_LEN_MAX / one.wire_len() + 1;
        let listed = Listed { digest: u64::MAX, sessions: vec![one.clone(); count], more: true };
        let len = codec::frame(&listed).expect("short enough").len();
        assert!(len < PAYLOAD_LEN_MAX && len <= count * one.wire_len() + 32, "{len} bytes");
    }
}
