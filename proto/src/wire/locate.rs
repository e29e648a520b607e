//! What a node knows of a session: asked by `ringway locate`.

use super::{GoneWhy, Kind, Message};
use crate::id::NodeRef;
use serde::{Deserialize, Serialize};

/// Asks a node what it knows of a session that it should own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locate<'a> {
    pub session: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    pub state: SessionState,
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

impl Message for Locate<'_> {
    const KIND: Kind = Kind::Locate;
}

impl Message for Located {
    const KIND: Kind = Kind::Located;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::tests::assert_golden;

    #[test]
    fn lookups_are_golden() {
        assert_golden(&Locate { session: "rw1.x" }, "010800000006057277312e78", &mut Vec::new());
        assert_golden(
            &Located { state: SessionState::Idle { epoch: 2, idle_s: 61 } },
            "01090000000301023d",
            &mut Vec::new(),
        );
    }
}
