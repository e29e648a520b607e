//! What nodes say to each other about who may serve: small, sealed datagrams that may be lost.

use super::{Kind, Message};
use crate::id::NodeRef;
use serde::{Deserialize, Serialize};

/// Milliseconds of a clock that only runs forward, also while the machine sleeps; from any zero.
pub type Ms = u64;

/// One message, from one incarnation to another: what was meant for an earlier one is not heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub from: NodeRef,
    pub to: NodeRef,
    pub say: Say,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Say {
    /// An owner to its witnesses: it is there. `digest` stands for the verdicts that it knows.
    Beat {
        sent: Ms,
        digest: u64,
    },
    /// A witness to an owner: the beat sent then is acknowledged, and this set is stored.
    Acked {
        sent: Ms,
        stored: u32,
        digest: u64,
    },
    /// A witness to an owner: it has agreed that the owner is over.
    Fenced,
    /// An owner to its witnesses: who they are.
    Declare {
        set: WitnessSet,
    },
    Stored {
        ver: u32,
    },
    /// A proposer: is `over` over? `ver` is the version of its witnesses that the proposer goes by,
    /// `without` those of them that are gone for certain where the others are not enough.
    Prepare {
        over: NodeRef,
        ballot: Ballot,
        ver: u32,
        without: Vec<NodeRef>,
    },
    Promised {
        over: NodeRef,
        ballot: Ballot,
        accepted: Option<(Ballot, Vec<NodeRef>)>,
    },
    Accept {
        over: NodeRef,
        ballot: Ballot,
        ver: u32,
        without: Vec<NodeRef>,
        heirs: Vec<NodeRef>,
    },
    Accepted {
        over: NodeRef,
        ballot: Ballot,
    },
    No {
        over: NodeRef,
        ballot: Ballot,
        why: WhyNot,
    },
    /// What has been agreed on.
    Verdicts(Vec<Verdict>),
}

/// The witnesses that a node has declared, itself included.
///
/// While they change there are two memberships, and whatever needs a quorum needs one of each (Raft's
/// joint consensus, Ongaro and Ousterhout, 2014, section 6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessSet {
    /// Grows with every change.
    pub ver: u32,
    /// Sorted.
    pub members: Vec<NodeRef>,
    /// The last membership that was in force alone.
    pub before: Option<Vec<NodeRef>>,
    /// It leaves, and gives its sessions to the members: its heirs are these, whatever becomes of
    /// them, and no others.
    pub gives: bool,
}

/// The number of a proposal: ordered, and unique, since each proposer uses each number once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    pub n: u32,
    pub by: NodeRef,
}

/// An incarnation is over: it serves nothing any more, and its sessions are its heirs'. Its
/// witnesses agree on one verdict for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub over: NodeRef,
    pub heirs: Vec<NodeRef>,
}

/// Why a witness does not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhyNot {
    /// It has heard the node lately.
    NoEvidence,
    /// It has promised a higher ballot.
    Promised(Ballot),
    /// The node has declared other witnesses since.
    Newer(WitnessSet),
}

impl Message for Note {
    const KIND: Kind = Kind::Note;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Tag};
    use crate::wire::codec::{self, tests::assert_golden};

    fn node(tag: u32) -> NodeRef {
        NodeRef { tag: Tag(tag), inc: Incarnation(u64::from(tag) + 4) }
    }

    #[test]
    fn notes_are_golden() {
        let ballot = Ballot { n: 3, by: node(1) };
        let set =
            WitnessSet { ver: 2, members: vec![node(1), node(2)], before: Some(vec![node(1)]), gives: false };
        let heirs = vec![node(1)];
        for (say, golden) in [
            (Say::Beat { sent: 7, digest: 9 }, "010a0000000701050206000709"),
            (Say::Acked { sent: 7, stored: 2, digest: 9 }, "010a000000080105020601070209"),
            (Say::Fenced, "010a000000050105020602"),
            (Say::Declare { set: set.clone() }, "010a0000001001050206030202010502060101010500"),
            (Say::Stored { ver: 2 }, "010a00000006010502060402"),
            (
                Say::Prepare { over: node(2), ballot, ver: 2, without: vec![node(3)] },
                "010a0000000e0105020605020603010502010307",
            ),
            (
                Say::Promised { over: node(2), ballot, accepted: Some((ballot, heirs.clone())) },
                "010a000000110105020606020603010501030105010105",
            ),
            (
                Say::Accept { over: node(2), ballot, ver: 2, without: Vec::new(), heirs: heirs.clone() },
                "010a0000000f010502060702060301050200010105",
            ),
            (Say::Accepted { over: node(2), ballot }, "010a0000000a01050206080206030105"),
            (
                Say::No { over: node(2), ballot, why: WhyNot::NoEvidence },
                "010a0000000b0105020609020603010500",
            ),
            (
                Say::No { over: node(2), ballot, why: WhyNot::Promised(ballot) },
                "010a0000000e0105020609020603010501030105",
            ),
            (
                Say::No { over: node(2), ballot, why: WhyNot::Newer(set) },
                "010a0000001601050206090206030105020202010502060101010500",
            ),
            (Say::Verdicts(vec![Verdict { over: node(2), heirs }]), "010a0000000b010502060a010206010105"),
        ] {
            assert_golden(&Note { from: node(1), to: node(2), say }, golden, &mut Vec::new());
        }
    }

    #[test]
    fn the_longest_note_fits_a_datagram() {
        let far = |tag: u32| NodeRef { tag: Tag(u32::MAX - tag), inc: Incarnation(u64::MAX - 1) };
        let heirs: Vec<_> = (0..7).map(far).collect();
        let set =
            WitnessSet { ver: u32::MAX, members: heirs.clone(), before: Some(heirs.clone()), gives: true };
        let ballot = Ballot { n: u32::MAX, by: far(9) };
        let verdicts = vec![Verdict { over: far(9), heirs: heirs.clone() }; 8];
        let (over, without, ver) = (far(9), vec![far(8); 13], u32::MAX);
        for say in [
            Say::Verdicts(verdicts),
            Say::No { over, ballot, why: WhyNot::Newer(set) },
            Say::Accept { over, ballot, ver, without, heirs },
        ] {
            let note = Note { from: far(1), to: far(2), say };
            let len = codec::frame(&note).expect("short enough").len();
            assert!(len <= 1_100, "{len} bytes");
        }
    }
}
