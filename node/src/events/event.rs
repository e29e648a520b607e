//! What can change, as one closed list.

use proto::id::NodeName;
use serde_json::{Map, Value, json};
use std::{net::SocketAddr, time::Duration};

/// How a death is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Its process is gone for certain.
    Proven,
    /// It has not been heard for too long.
    Silent,
    /// Its witnesses say so, and were faster than this node's own eyes.
    Agreed,
}

#[derive(Debug)]
pub(crate) enum Event {
    /// A member that was not there before.
    Joined {
        name: NodeName,
        peer: SocketAddr,
        incarnation: u64,
    },
    /// It may own sessions.
    Active {
        name: NodeName,
    },
    /// It takes no new sessions.
    Draining {
        name: NodeName,
    },
    /// It has said good-bye.
    Left {
        name: NodeName,
    },
    Died {
        name: NodeName,
        how: How,
    },
    /// It is over for good; what it owned is its heirs'.
    Verdict {
        over: String,
        heirs: Vec<String>,
    },
    /// This node has taken over what a node owned.
    Takeover {
        from: String,
        sessions: usize,
    },
    /// The others took this node for gone, and it goes on as another one.
    Reborn {
        incarnation: u64,
        lost: usize,
    },
    /// This node may serve its sessions.
    Leased,
    /// Too few of the others answer: this node serves no session until they do.
    Parked,
    DrainBegan {
        deadline: Duration,
        sessions: u32,
    },
    DrainProgress {
        sessions: usize,
        busy: usize,
    },
    /// `lost` are those that nobody has taken.
    DrainEnded {
        took: Duration,
        lost: usize,
    },
    SessionEnded {
        session: String,
        route: String,
    },
    /// A file has changed, and what it holds is in use.
    Reloaded {
        what: &'static str,
    },
    /// A file has changed to something that can't be used; what was in use stays so.
    Refused {
        what: &'static str,
        why: String,
    },
}

impl How {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Silent => "silent",
            Self::Agreed => "agreed",
        }
    }
}

impl Event {
    /// One word, for scripts.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Joined { .. } => "joined",
            Self::Active { .. } => "active",
            Self::Draining { .. } => "draining",
            Self::Left { .. } => "left",
            Self::Died { .. } => "died",
            Self::Verdict { .. } => "verdict",
            Self::Takeover { .. } => "takeover",
            Self::Reborn { .. } => "reborn",
            Self::Leased => "leased",
            Self::Parked => "parked",
            Self::DrainBegan { .. } => "drain_began",
            Self::DrainProgress { .. } => "drain_progress",
            Self::DrainEnded { .. } => "drain_ended",
            Self::SessionEnded { .. } => "session_ended",
            Self::Reloaded { .. } => "reloaded",
            Self::Refused { .. } => "refused",
        }
    }

    /// Whether the other nodes see it themselves.
    pub(super) fn is_seen_everywhere(&self) -> bool {
        match self {
            Self::Joined { .. }
            | Self::Active { .. }
            | Self::Draining { .. }
            | Self::Left { .. }
            | Self::Died { .. }
            | Self::Verdict { .. } => true,
            Self::Takeover { .. }
            | Self::Reborn { .. }
            | Self::Leased
            | Self::Parked
            | Self::DrainBegan { .. }
            | Self::DrainProgress { .. }
            | Self::DrainEnded { .. }
            | Self::SessionEnded { .. }
            | Self::Reloaded { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// What there is to say besides.
    pub(super) fn facts(&self) -> Map<String, Value> {
        let facts = match self {
            Self::Joined { name, peer, incarnation } => {
                json!({ "name": name, "peer": peer, "incarnation": incarnation })
            }
            Self::Active { name } | Self::Draining { name } | Self::Left { name } => json!({ "name": name }),
            Self::Died { name, how } => json!({ "name": name, "how": how.word() }),
            Self::Verdict { over, heirs } => json!({ "name": over, "heirs": heirs }),
            Self::Takeover { from, sessions } => json!({ "from": from, "sessions": sessions }),
            Self::Reborn { incarnation, lost } => json!({ "incarnation": incarnation, "lost": lost }),
            Self::Leased | Self::Parked => json!({}),
            Self::DrainBegan { deadline, sessions } => {
                json!({ "deadline_s": deadline.as_secs_f64(), "sessions": sessions })
            }
            Self::DrainProgress { sessions, busy } => json!({ "sessions": sessions, "busy": busy }),
            Self::DrainEnded { took, lost } => json!({ "seconds": took.as_secs_f64(), "lost": lost }),
            Self::SessionEnded { session, route } => {
                json!({ "session": session, "route": route, "by": "operator" })
            }
            Self::Reloaded { what } => json!({ "what": what }),
            Self::Refused { what, why } => json!({ "what": what, "why": why }),
        };
        match facts {
            Value::Object(facts) => facts,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Map::new()
            }
        }
    }
}
