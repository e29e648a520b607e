//! Why a request can't be served, for whoever passes it on. What the client sees of it is the entry
//! node's affair.

use super::{Kind, Message};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why no answer of an upstream comes. The entry node turns it into what the client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no such session, and that is known: 404, the same for every reason.
    Gone(GoneWhy),
    /// The request was not served; it may have run or not.
    Undelivered { reason: Reason, may_have_run: bool },
}

impl Refusal {
    /// The request was not served, and has not run.
    pub fn not_run(reason: Reason) -> Self {
        Self::Undelivered { reason, may_have_run: false }
    }

    /// The request was not served, but some of it may have been carried out.
    pub fn perhaps_run(reason: Reason) -> Self {
        Self::Undelivered { reason, may_have_run: true }
    }

    /// Whether nothing is known of the request but that it was sent.
    pub fn is_loss(self) -> bool {
        matches!(self, Self::Undelivered { reason: Reason::OwnerBroke, may_have_run: true })
    }

    /// Whether it is certain that trying again runs nothing twice.
    pub fn may_be_tried_again(self) -> bool {
        matches!(self, Self::Undelivered { may_have_run: false, .. })
    }
}

/// For the log, the metrics and `ringway locate`; clients see one and the same 404.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GoneWhy {
    /// The id is not of this cluster, or was altered.
    Forged,
    /// Minted for another route.
    OtherRoute,
    /// Its owner does not know it any more: ended longer ago than tombstones are kept.
    Unknown,
    /// The client ended it.
    Deleted,
    /// Idle for longer than the route allows.
    Expired,
    /// The upstream forgot it.
    LostUpstream,
    /// Its owner is gone, and the route does not revive sessions.
    LostOwner,
    /// An operator ended it.
    Operator,
    /// Another caller's.
    Foreign,
}

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// The session's owner is gone for good.
    OwnerLost,
    /// The owner is a member, but can't be reached.
    OwnerUnreachable,
    /// The owner, or the way to it, broke while the request was on its way.
    OwnerBroke,
    /// Nothing accepted a connection at the upstream.
    UpstreamUnreachable,
    /// The upstream's connection broke before its answer was whole.
    UpstreamBroke,
    /// The upstream answered with a status that clients die of.
    UpstreamStatus(u16),
    /// The upstream's answer can't be passed on.
    UpstreamInvalid,
    /// The route's, or the node's, limit is reached.
    Overloaded,
    /// The session went to another node a moment ago; said between nodes only.
    Moved,
    /// It ran, and its answer was lost on the way.
    AnswerLost,
    /// It belongs to state at an upstream that no node has any more.
    NoUpstream,
    /// That limit of new sessions is reached.
    Limited(Limit),
    /// The issuer's keys are not known yet, so nobody can be told from anybody else.
    KeysUnknown,
}

/// What bounds new sessions. Each has the name of the setting that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Limit {
    /// Of the node, over all its routes.
    NodeSessions,
    RouteSessions,
    /// Of one client, on the route.
    ClientSessions,
    /// Too many at once, of which this one would wait too long for its turn.
    NewSessions {
        retry_after_ms: u32,
    },
}

impl Limit {
    /// The setting, as it is written in a configuration.
    pub fn setting(self) -> &'static str {
        match self {
            Self::NodeSessions | Self::RouteSessions => "max_sessions",
            Self::ClientSessions => "max_sessions_per_client",
            Self::NewSessions { .. } => "new_sessions_per_second",
        }
    }

    /// Whose setting it is.
    pub fn scope(self) -> &'static str {
        match self {
            Self::NodeSessions | Self::NewSessions { .. } => "node",
            Self::RouteSessions | Self::ClientSessions => "route",
        }
    }
}

macro_rules! words {
    ($type:ty { $($variant:pat => $word:literal),+ $(,)? }) => {
        impl $type {
            /// One word, as logs, metrics and clients read it.
            pub fn word(self) -> &'static str {
                match self { $($variant => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words!(GoneWhy {
    Self::Forged => "forged",
    Self::OtherRoute => "other_route",
    Self::Unknown => "unknown",
    Self::Deleted => "deleted",
    Self::Expired => "expired",
    Self::LostUpstream => "lost_upstream",
    Self::LostOwner => "lost_owner",
    Self::Operator => "ended_by_operator",
    Self::Foreign => "foreign",
});

words!(Reason {
    Self::OwnerLost => "owner_lost",
    Self::OwnerUnreachable => "owner_unreachable",
    Self::OwnerBroke => "owner_broke",
    Self::UpstreamUnreachable => "upstream_unreachable",
    Self::UpstreamBroke => "upstream_broke",
    Self::UpstreamStatus(_) => "upstream_status",
    Self::UpstreamInvalid => "upstream_invalid",
    Self::Overloaded => "overloaded",
    Self::Moved => "moved",
    Self::AnswerLost => "answer_lost",
    Self::NoUpstream => "no_upstream",
    Self::Limited(_) => "overloaded",
    Self::KeysUnknown => "keys_unknown",
});

impl Message for Refusal {
    const KIND: Kind = Kind::Refused;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::tests::assert_golden;

    #[test]
    fn refusals_are_golden() {
        assert_golden(&Refusal::Gone(GoneWhy::Expired), "0107000000020004", &mut Vec::new());
        assert_golden(&Refusal::Gone(GoneWhy::Foreign), "0107000000020008", &mut Vec::new());
        let undelivered = Refusal::Undelivered { reason: Reason::UpstreamStatus(503), may_have_run: true };
        assert_golden(&undelivered, "0107000000060105fbf70101", &mut Vec::new());
        let limited = Refusal::not_run(Reason::Limited(Limit::NewSessions { retry_after_ms: 1_000 }));
        assert_golden(&limited, "010700000007010b03fbe80300", &mut Vec::new());
    }
}
