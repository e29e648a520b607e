//! A node's witnesses: those whose acknowledgements let it serve, who together can end it, and who
//! then are its heirs. Each node declares its own set and is the only one that changes it.

use crate::id::{NodeRef, Tag};
use crate::wire::WitnessSet;
use xxhash_rust::xxh3::xxh3_64;

/// Of many nodes seven are enough: three may fail, and what a node says each beat stays the same
/// from 7 nodes to 1,000.
pub const WITNESSES_MAX: usize = 7;

impl WitnessSet {
    /// Everyone who has a say, each once.
    pub fn everyone(&self) -> Vec<NodeRef> {
        let mut all = self.members.clone();
        all.extend(self.before.iter().flatten());
        all.sort_unstable();
        all.dedup();
        all
    }

    pub fn has_quorum(&self, voted: impl Fn(NodeRef) -> bool) -> bool {
        is_majority(&self.members, &voted)
            && self.before.as_ref().is_none_or(|before| is_majority(before, &voted))
    }

    /// Those that `voted`, if they are enough; where so many are `gone` for certain that the others
    /// never can be, all others of the `living` must have.
    pub fn is_decided(
        &self,
        voted: impl Fn(NodeRef) -> bool,
        gone: impl Fn(NodeRef) -> bool,
        mut living: impl Iterator<Item = NodeRef>,
    ) -> bool {
        if self.has_quorum(|node| !gone(node)) {
            return self.has_quorum(voted);
        }
        self.everyone().into_iter().all(|node| gone(node) || voted(node))
            && living.all(|node| gone(node) || voted(node))
    }
}

/// More than half of the weight. Of an even number the lowest one weighs half as much again, so that
/// a cluster of two that is cut in half keeps one side.
fn is_majority(members: &[NodeRef], voted: impl Fn(NodeRef) -> bool) -> bool {
    let lowest = members.iter().min().filter(|_| members.len().is_multiple_of(2));
    let weight = |node: &NodeRef| if Some(node) == lowest { 3 } else { 2 };
    let total: usize = members.iter().map(weight).sum();
    let got: usize = members.iter().filter(|node| voted(**node)).map(weight).sum();
    got * 2 > total
}

/// The witnesses of `me`: itself and up to six of the others, by rendezvous hashing (Thaler and
/// Ravishankar, 1998), so that one node's coming or going changes few sets.
pub fn choose(me: NodeRef, others: impl Iterator<Item = NodeRef>) -> Vec<NodeRef> {
    let mut ranked: Vec<_> = others.filter(|node| node.tag != me.tag).collect();
    ranked.sort_by_cached_key(|node| (rank(me.tag, *node), *node));
    ranked.truncate(WITNESSES_MAX - 1);
    ranked.push(me);
    ranked.sort_unstable();
    ranked
}

/// In which order nodes take an interest in `subject`: the lowest first.
pub(super) fn rank(subject: Tag, node: NodeRef) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&subject.0.to_be_bytes());
    bytes[4..].copy_from_slice(&node.tag.0.to_be_bytes());
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;

    fn nodes(count: u32) -> Vec<NodeRef> {
        (1..=count).map(|tag| NodeRef { tag: Tag(tag), inc: Incarnation(1) }).collect()
    }

    fn set(count: u32) -> WitnessSet {
        WitnessSet { ver: 1, members: nodes(count), before: None, gives: false }
    }

    fn voted(tags: &[u32]) -> impl Fn(NodeRef) -> bool {
        move |node| tags.contains(&node.tag.0)
    }

    #[test]
    fn two_quorums_always_share_a_member() {
        for count in 1..=7u32 {
            let all: Vec<_> = (0..1u32 << count).collect();
            let is_quorum = |votes: u32| set(count).has_quorum(|node| votes >> (node.tag.0 - 1) & 1 == 1);
            let quorums: Vec<_> = all.into_iter().filter(|votes| is_quorum(*votes)).collect();
            assert!(quorums.iter().all(|one| quorums.iter().all(|other| one & other != 0)), "{count}");
            assert!(is_quorum((1 << count) - 1));
        }
    }

    #[test]
    fn of_two_the_lowest_goes_on_alone_and_the_other_never() {
        assert!(set(2).has_quorum(voted(&[1])));
        assert!(!set(2).has_quorum(voted(&[2])));
        assert!(set(4).has_quorum(voted(&[1, 4])));
        assert!(!set(4).has_quorum(voted(&[3, 4])));
    }

    #[test]
    fn a_change_needs_both_memberships() {
        let joint =
            WitnessSet { ver: 2, members: nodes(3), before: Some(nodes(5)[2..].to_vec()), gives: false };
        assert!(!joint.has_quorum(voted(&[1, 2])));
        assert!(!joint.has_quorum(voted(&[4, 5])));
        assert!(joint.has_quorum(voted(&[2, 3, 4])));
    }

    #[test]
    fn the_last_ones_decide_together_once_the_others_are_gone_for_certain() {
        let three = set(3);
        let decided = |votes: &[u32], gone: &[u32], living: u32| {
            three.is_decided(voted(votes), voted(gone), nodes(living).into_iter())
        };
        assert!(decided(&[2, 3], &[1], 3));
        assert!(!decided(&[3], &[1], 3), "the second one can still be asked");
        assert!(decided(&[3], &[1, 2], 3));
        assert!(!decided(&[3], &[1, 2], 5), "two more may know better");
        assert!(decided(&[3, 4, 5], &[1, 2], 5));
    }

    #[test]
    fn witnesses_are_few_and_stay_when_another_node_comes() {
        let many = nodes(100);
        let me = many[0];
        let before = choose(me, many[..99].iter().copied());
        let after = choose(me, many.iter().copied());
        assert_eq!(before.len(), WITNESSES_MAX);
        assert!(before.contains(&me));
        assert!(before.iter().filter(|node| !after.contains(node)).count() <= 1);
        assert_eq!(choose(me, nodes(3).into_iter()), nodes(3));
    }
}
