//! A request on its way to the node that owns its session, and what comes back.

use super::{Kind, Message};
use crate::id::{Fingerprint, NodeRef, Principal, RouteId};
use serde::{Deserialize, Serialize, Serializer};

/// Header names and values in order, borrowed from where they lie.
pub type Headers<'a> = Vec<(&'a str, &'a [u8])>;

/// Writes each value at once: serde takes a slice for a sequence, and would write it byte by byte, to the same end.
fn headers<S: Serializer>(headers: &Headers<'_>, to: S) -> Result<S::Ok, S::Error> {
    struct Value<'a>(&'a [u8]);
    impl Serialize for Value<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_bytes(self.0)
        }
    }
    to.collect_seq(headers.iter().map(|(name, value)| (name, Value(value))))
}

/// What a forwarded request wants of the node it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errand {
    /// Open a session: this node was chosen as its home.
    Open,
    /// Serve the session that the request names in its `Mcp-Session-Id` header.
    Session,
    /// Serve a request that the ring gives to this node by a key that the client brought.
    Key,
    /// Serve a request that names a task or a state which an upstream of this node made.
    Pinned,
}

/// What a request does, as far as it matters to whoever serves it again after a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nature {
    /// To run it twice may hurt.
    Unsafe,
    /// It only reads, or sets what is set already.
    Safe,
    /// `tools/list`: its answer says which tools may be called twice.
    ListsTools,
    /// `logging/setLevel`, `resources/subscribe` and `resources/unsubscribe`: they change what is on
    /// record of the session.
    SetsLevel,
    Subscribes,
    Unsubscribes,
    /// A GET for the rest of a call's answer: of no use at any upstream session but the call's own.
    Resumes,
    /// `subscriptions/listen`: its answer lives until somebody ends it.
    Listens,
}

/// Who calls, as the entry node found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// Nobody asked.
    Anyone,
    /// Nothing was checked: only what the sessions that it opens are counted by.
    Counted(Principal),
    /// Authenticated; or a node that speaks for the session's own caller.
    Known(Principal),
}

impl Caller {
    /// Whose sessions it may use, and whose it opens.
    pub fn principal(self) -> Principal {
        match self {
            Self::Known(principal) => principal,
            Self::Anyone | Self::Counted(_) => Principal::ANYONE,
        }
    }

    /// By what the sessions that it opens are counted.
    pub fn counted(self) -> Option<Principal> {
        match self {
            Self::Known(principal) | Self::Counted(principal) => Some(principal),
            Self::Anyone => None,
        }
    }
}

/// The head of a forwarded request; its body follows until the stream ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward<'a> {
    /// The view by which the entry node decided.
    pub view: Fingerprint,
    pub route: RouteId,
    pub errand: Errand,
    pub nature: Nature,
    /// The same for every copy of one request, and for no other.
    pub uid: u64,
    /// How many copies of it were sent before: this node may have one of them.
    pub copies: u8,
    /// One of them went to an owner that is over, and may have run there.
    pub may_have_run: bool,
    pub caller: Caller,
    pub method: &'a str,
    /// Path and query as the client sent them.
    pub target: &'a str,
    #[serde(borrow, serialize_with = "headers")]
    pub headers: Headers<'a>,
}

/// The head of the answer; its body follows until the stream ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<'a> {
    pub view: Fingerprint,
    /// Sessions that the answering node owns: what placement goes by, fresher than gossip.
    pub sessions: u32,
    pub status: u16,
    #[serde(borrow, serialize_with = "headers")]
    pub headers: Headers<'a>,
}

/// This node does not serve the request. Only the entry node tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotHere {
    pub hint: Option<NodeRef>,
    pub why: NotHereWhy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotHereWhy {
    /// Another node owns it.
    NotMine,
    /// This node may serve no session at present: too few of its witnesses hear it.
    Parked,
    /// This node is draining and takes no new sessions.
    Draining,
    /// This node has no such route.
    NoRoute,
    /// This node's route has no such upstream.
    NoUpstream,
}

impl Message for Forward<'_> {
    const KIND: Kind = Kind::Forward;
}

impl Message for Answer<'_> {
    const KIND: Kind = Kind::Answer;
}

impl Message for NotHere {
    const KIND: Kind = Kind::NotHere;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Tag};
    use crate::wire::codec::tests::assert_golden;

    #[test]
    fn a_forward_and_its_answers_are_golden() {
        let headers: Headers<'_> = vec![("accept", b"application/json"), ("mcp-session-id", b"rw1.x")];
        let forward = Forward {
            view: Fingerprint(7),
            route: RouteId(9),
            errand: Errand::Session,
            nature: Nature::ListsTools,
            uid: 300,
            copies: 1,
            may_have_run: true,
            caller: Caller::Counted(Principal([7; 16])),
            method: "POST",
            target: "/mcp",
            headers: headers.clone(),
        };
        assert_golden(
            &forward,
            "01040000005207090102fb2c010101010707070707070707070707070707070704504f5354042f6d63700206616363657074106170706c69636174696f6e2f6a736f6e0e6d63702d73657373696f6e2d6964057277312e78",
            &mut Vec::new(),
        );
        let answer = Answer { view: Fingerprint(7), sessions: 300, status: 200, headers };
        assert_golden(
            &answer,
            "01050000003307fb2c01c80206616363657074106170706c69636174696f6e2f6a736f6e0e6d63702d73657373696f6e2d6964057277312e78",
            &mut Vec::new(),
        );
        let hint = Some(NodeRef { tag: Tag(0x0102_0304), inc: Incarnation(5) });
        assert_golden(
            &NotHere { hint, why: NotHereWhy::Draining },
            "01060000000801fc040302010502",
            &mut Vec::new(),
        );
        let not_here = NotHere { hint: None, why: NotHereWhy::NoUpstream };
        assert_golden(&not_here, "0106000000020004", &mut Vec::new());
        let listens = Forward {
            view: Fingerprint(7),
            route: RouteId(9),
            errand: Errand::Pinned,
            nature: Nature::Listens,
            uid: 1,
            copies: 0,
            may_have_run: false,
            caller: Caller::Anyone,
            method: "POST",
            target: "/",
            headers: Headers::new(),
        };
        assert_golden(&listens, "010400000010070903070100000004504f5354012f00", &mut Vec::new());
        let known = Forward { caller: Caller::Known(Principal([7; 16])), ..listens };
        let golden = "0104000000200709030701000002".to_owned() + &"07".repeat(16) + "04504f5354012f00";
        assert_golden(&known, &golden, &mut Vec::new());
    }
}
