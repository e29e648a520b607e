//! The members of a cluster as one immutable, sorted, fingerprinted value. A change of membership
//! makes a new view; nothing edits one.

use crate::id::{Fingerprint, NodeName, NodeRef, Tag};
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr};

/// Where a member is in its life, as gossip has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Known, but not yet ready: owns nothing, is given nothing.
    Joining,
    /// Serves, and is given new sessions.
    Active,
    /// Serves what it owns, is given nothing new.
    Draining,
    /// Left, or silent for longer than gossip allows.
    Dead,
}

impl Phase {
    pub const ALL: [Self; 4] = [Self::Joining, Self::Active, Self::Draining, Self::Dead];

    pub fn word(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Dead => "dead",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.word() == word)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: NodeName,
    pub node: NodeRef,
    pub phase: Phase,
    /// Where clients reach it.
    pub listen: SocketAddr,
    /// Where nodes reach it.
    pub peer: SocketAddr,
    /// Where operators reach it.
    pub admin: SocketAddr,
    pub version: String,
}

/// All members, sorted by name, one per name.
#[derive(Clone, Debug, Default)]
pub struct View {
    members: Vec<Member>,
    /// Indices of `members`, sorted by tag.
    by_tag: Vec<(Tag, u32)>,
    fingerprint: Fingerprint,
}

impl View {
    /// Of several incarnations under one name only the latest is a member.
    pub fn new(mut members: Vec<Member>) -> Self {
        members.sort_by(|a, b| a.name.cmp(&b.name).then(b.node.inc.cmp(&a.node.inc)));
        members.dedup_by(|later, first| later.name == first.name);
        let mut by_tag: Vec<_> =
            (0u32..).zip(&members).map(|(index, member)| (member.node.tag, index)).collect();
        by_tag.sort_unstable();
        let fingerprint = fingerprint(&members);
        Self { members, by_tag, fingerprint }
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The same on all nodes that have heard the same. The dead do not count: nodes forget them at
    /// different times.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The member that now has this tag, in whatever incarnation.
    pub fn by_tag(&self, tag: Tag) -> Option<&Member> {
        self.index_by_tag(tag).map(|at| &self.members[at])
    }

    /// The member that is exactly this process.
    pub fn get(&self, node: NodeRef) -> Option<&Member> {
        self.index_of(node).map(|at| &self.members[at])
    }

    /// Where in [`members`](Self::members) this process stands.
    pub fn index_of(&self, node: NodeRef) -> Option<usize> {
        self.index_by_tag(node.tag).filter(|at| self.members[*at].node == node)
    }

    fn index_by_tag(&self, tag: Tag) -> Option<usize> {
        let at = self.by_tag.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        Some(self.by_tag[at].1 as usize)
    }

    /// Those that new sessions and keys may be given to: the nodes on the ring.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.phase == Phase::Active)
    }
}

fn fingerprint(members: &[Member]) -> Fingerprint {
    let mut bytes = Vec::with_capacity(members.len() * 32);
    for member in members.iter().filter(|member| member.phase != Phase::Dead) {
        bytes.extend_from_slice(member.name.as_str().as_bytes());
        bytes.push(0); // no name contains it
        bytes.extend_from_slice(&member.node.inc.0.to_be_bytes());
        bytes.push(member.phase as u8);
    }
    Fingerprint::of(&bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::id::Incarnation;
    use proptest::prelude::*;

    pub(crate) fn member(name: &str, inc: u64, phase: Phase) -> Member {
        let name: NodeName = name.parse().expect("a plain name");
        let any = "127.0.0.1:1".parse().expect("an address");
        let node = NodeRef { tag: Tag::of("ringway", &name), inc: Incarnation(inc) };
        Member { name, node, phase, listen: any, peer: any, admin: any, version: "0".into() }
    }

    #[test]
    fn order_of_hearing_does_not_matter() {
        let (a, b, c) =
            (member("a", 1, Phase::Active), member("b", 1, Phase::Active), member("c", 1, Phase::Joining));
        let one = View::new(vec![a.clone(), b.clone(), c.clone()]);
        let other = View::new(vec![c, a, b]);
        assert_eq!(one.fingerprint(), other.fingerprint());
        assert_eq!(one.members(), other.members());
        assert_eq!(one.fingerprint().to_string(), "4234837325c4ef44", "golden: it travels between nodes");
    }

    proptest! {
        /// Gossip tells of each process once, in any order; earlier ones under a name change nothing.
        #[test]
        fn whatever_is_heard_in_whatever_order_makes_one_view(
            heard in proptest::collection::btree_map(("[a-e]", 1u64..4), 0usize..4, 0..10)
                .prop_map(|heard| heard.into_iter().map(|((name, inc), phase)| member(&name, inc, Phase::ALL[phase])).collect::<Vec<_>>())
                .prop_flat_map(|heard| (Just(heard.clone()), Just(heard).prop_shuffle())),
        ) {
            let (one, other) = (View::new(heard.0.clone()), View::new(heard.1));
            prop_assert_eq!(one.members(), other.members());
            prop_assert_eq!(one.fingerprint(), other.fingerprint());
            for member in &heard.0 {
                let latest = heard.0.iter().filter(|other| other.name == member.name).max_by_key(|other| other.node.inc);
                prop_assert_eq!(one.by_tag(member.node.tag), latest);
                prop_assert_eq!(one.get(member.node), latest.filter(|latest| latest.node == member.node));
            }
            let dead = |member: &Member| member.phase == Phase::Dead;
            let alive = View::new(one.members().iter().filter(|member| !dead(member)).cloned().collect());
            prop_assert_eq!(alive.fingerprint(), one.fingerprint());
        }
    }

    #[test]
    fn the_latest_incarnation_is_the_member() {
        let view = View::new(vec![member("a", 1, Phase::Dead), member("a", 2, Phase::Active)]);
        assert_eq!(view.members().len(), 1);
        let old = member("a", 1, Phase::Active).node;
        assert_eq!(view.by_tag(old.tag).expect("a").node.inc, Incarnation(2));
        assert_eq!(view.get(old), None);
    }

    #[test]
    fn every_phase_counts_except_that_the_dead_are_as_good_as_absent() {
        let print =
            |phase| View::new(vec![member("a", 1, Phase::Active), member("b", 1, phase)]).fingerprint();
        let alone = View::new(vec![member("a", 1, Phase::Active)]).fingerprint();
        assert_eq!(print(Phase::Dead), alone);
        let distinct: std::collections::BTreeSet<_> = Phase::ALL.into_iter().map(print).collect();
        assert_eq!(distinct.len(), 4);
    }
}
