//! The greeting that opens every connection between nodes.

use super::{Kind, Message};
use crate::id::{NodeName, NodeRef};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What a connection carries. Calls and long-lived streams travel apart, so that the connection for
/// calls keeps a small limit of concurrent streams; gossip travels apart from both, so that a busy
/// data path neither delays it nor hides behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lane {
    Control,
    Calls,
    Streams,
}

/// The dialling node says who it is and where peers reach it. On a lifeline both say this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub lane: Lane,
    pub name: NodeName,
    pub node: NodeRef,
    pub advertise: SocketAddr,
}

/// The dialled node says who it is. `known_inc` is the highest incarnation it has seen under the
/// dialling node's name, so that a node whose clock was set back still starts above it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    pub name: NodeName,
    pub node: NodeRef,
    pub known_inc: u64,
}

impl Message for Hello {
    const KIND: Kind = Kind::Hello;
}

impl Message for HelloAck {
    const KIND: Kind = Kind::HelloAck;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Tag};
    use crate::wire::codec::tests::assert_golden;

    #[test]
    fn greetings_are_golden() {
        let node = NodeRef { tag: Tag(0x0102_0304), inc: Incarnation(5) };
        let name: NodeName = "a".parse().expect("a plain name");
        let advertise = "127.0.0.1:7400".parse().expect("an address");
        let hello = Hello { lane: Lane::Streams, name: name.clone(), node, advertise };
        assert_golden(&hello, "010100000011020161fc0403020105007f000001fbe81c", &mut Vec::new());
        assert_golden(
            &HelloAck { name, node, known_inc: 4 },
            "0102000000090161fc040302010504",
            &mut Vec::new(),
        );
    }
}
