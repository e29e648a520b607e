//! Who owns a session, as a function of its birth and of the verdicts: no pointer is kept for any
//! session, so none can be lost or disagree.

use super::ring::{Position, Ring};
use crate::id::{Fingerprint, NodeRef};
use crate::wire::Verdict;
use std::collections::BTreeMap;

/// Nodes die a few times a day; 1,000 verdicts last for as long as sessions do.
pub const VERDICTS_MAX: usize = 1_000;

/// All verdicts that a node has learnt. Knowing more of them never changes who owned what before:
/// it only tells of further owners.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    verdicts: BTreeMap<NodeRef, Heirs>,
    digest: u64,
}

#[derive(Clone, Debug)]
struct Heirs {
    listed: Vec<NodeRef>,
    ring: std::sync::Arc<Ring>,
}

/// Where a session is in its line of owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub node: NodeRef,
    /// Its place in the line, from 1: how many nodes have owned the session.
    pub epoch: u32,
}

impl Succession {
    /// Whether that was news.
    pub fn learn(&mut self, verdict: &Verdict) -> bool {
        if self.verdicts.contains_key(&verdict.over) {
            return false;
        }
        let heirs = Heirs { listed: verdict.heirs.clone(), ring: Ring::over(verdict.heirs.clone()).into() };
        self.verdicts.insert(verdict.over, heirs);
        self.digest ^= digest_of(verdict);
        if self.verdicts.len() > VERDICTS_MAX {
            // The same one on all nodes: the incarnation that began first.
            let oldest = self.verdicts.keys().min_by_key(|node| (node.inc, node.tag)).copied();
            if let Some(verdict) = oldest.and_then(|oldest| self.verdict(oldest)) {
                self.verdicts.remove(&verdict.over);
                self.digest ^= digest_of(&verdict);
            }
        }
        true
    }

    pub fn is_over(&self, node: NodeRef) -> bool {
        self.verdicts.contains_key(&node)
    }

    pub fn verdict(&self, over: NodeRef) -> Option<Verdict> {
        let heirs = self.verdicts.get(&over)?.listed.clone();
        Some(Verdict { over, heirs })
    }

    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.verdicts.iter().map(|(over, heirs)| Verdict { over: *over, heirs: heirs.listed.clone() })
    }

    pub fn len(&self) -> usize {
        self.verdicts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.verdicts.is_empty()
    }

    /// The same where the same is known.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The owner of what was born on `home` at this position; `None` where nobody of its line is left.
    pub fn owner(&self, home: NodeRef, position: Position) -> Option<Owner> {
        self.owner_after(home, position, None)
    }

    /// Who may have kept copies for the owners before `me`, `count` for each; `None` while one of these
    /// is not over.
    pub fn kept_before(
        &self,
        home: NodeRef,
        position: Position,
        me: NodeRef,
        count: usize,
    ) -> Option<Vec<NodeRef>> {
        let (mut line, mut next, mut kept) = (Vec::new(), vec![home], Vec::new());
        while let Some(node) = next.pop() {
            if node == me {
                return Some(kept);
            }
            if !line.contains(&node) {
                line.push(node);
                let heirs = &self.verdicts.get(&node)?.ring;
                kept.extend(heirs.successors(position).take(count));
                let first = next.len();
                next.extend(heirs.successors(position));
                next[first..].reverse();
            }
        }
        None
    }

    /// The owner, were the incarnation `leaving.0` over and `leaving.1` its heirs.
    ///
    /// Of each node that is over the heirs come in the order of their ring, each with its own heirs
    /// before the next one. So whatever else becomes known later only adds to the end of the line.
    pub fn owner_after(
        &self,
        home: NodeRef,
        position: Position,
        leaving: Option<(NodeRef, &Ring)>,
    ) -> Option<Owner> {
        let mut line: Vec<NodeRef> = Vec::new();
        let mut next = vec![home];
        while let Some(node) = next.pop() {
            if line.contains(&node) {
                continue;
            }
            line.push(node);
            let heirs = match (self.verdicts.get(&node), leaving) {
                (Some(heirs), _) => &*heirs.ring,
                (None, Some((leaver, heirs))) if leaver == node => heirs,
                (None, _) => {
                    let epoch = u32::try_from(line.len()).unwrap_or(u32::MAX);
                    return Some(Owner { node, epoch });
                }
            };
            let first = next.len();
            next.extend(heirs.successors(position));
            next[first..].reverse();
        }
        None
    }
}

fn digest_of(verdict: &Verdict) -> u64 {
    let mut bytes = Vec::with_capacity(16 * (1 + verdict.heirs.len()));
    for node in std::iter::once(&verdict.over).chain(&verdict.heirs) {
        bytes.extend_from_slice(&node.tag.0.to_be_bytes());
        bytes.extend_from_slice(&node.inc.0.to_be_bytes());
    }
    Fingerprint::of(&bytes).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Tag};
    use proptest::prelude::*;

    fn node(tag: u32) -> NodeRef {
        NodeRef { tag: Tag(tag), inc: Incarnation(1) }
    }

    fn verdict(over: u32, heirs: &[u32]) -> Verdict {
        Verdict { over: node(over), heirs: heirs.iter().map(|tag| node(*tag)).collect() }
    }

    #[test]
    fn a_session_stays_at_home_until_that_is_over_and_then_goes_down_the_line() {
        let mut known = Succession::default();
        let at = Position(42);
        assert_eq!(known.owner(node(1), at), Some(Owner { node: node(1), epoch: 1 }));
        assert!(known.learn(&verdict(1, &[2, 3])));
        assert!(!known.learn(&verdict(1, &[3])), "the first verdict is the only one");
        let taker = known.owner(node(1), at).expect("two heirs");
        assert_eq!(taker.epoch, 2);
        let other = if taker.node == node(2) { 3 } else { 2 };
        assert!(known.learn(&Verdict { over: taker.node, heirs: vec![node(1), node(other)] }));
        assert_eq!(known.owner(node(1), at), Some(Owner { node: node(other), epoch: 3 }));
        assert!(known.learn(&verdict(other, &[1])));
        assert_eq!(known.owner(node(1), at), None, "nobody of the line is left");
    }

    #[test]
    fn a_leavers_sessions_are_given_to_whoever_will_own_them_once_it_is_over() {
        let mut known = Succession::default();
        let heirs = Ring::over(vec![node(2), node(3), node(4)]);
        for at in (0..64u64).map(|at| Position(at << 58)) {
            let given = known.owner_after(node(1), at, Some((node(1), &heirs))).expect("three heirs");
            assert_eq!(known.owner(node(1), at).expect("the leaver").node, node(1));
            let mut later = known.clone();
            later.learn(&verdict(1, &[2, 3, 4]));
            assert_eq!(later.owner(node(1), at), Some(given));
        }
        known.learn(&verdict(9, &[1]));
    }

    #[test]
    fn old_verdicts_are_forgotten_alike_on_all_nodes() {
        let (mut one, mut other) = (Succession::default(), Succession::default());
        let count = u32::try_from(VERDICTS_MAX).expect("a small number") + 10;
        let all: Vec<_> = (0..count).map(|tag| verdict(tag + 1, &[9_999])).collect();
        assert!(all.iter().all(|verdict| one.learn(verdict)));
        assert!(all.iter().rev().all(|verdict| other.learn(verdict)));
        assert_eq!((one.len(), other.len()), (VERDICTS_MAX, VERDICTS_MAX));
        assert_eq!(one.digest(), other.digest());
    }

    proptest! {
        /// Whatever is learnt later, and in whatever order, the line of owners only grows at its end.
        #[test]
        fn the_line_of_owners_only_grows(
            verdicts in proptest::collection::vec((1u32..8, proptest::collection::vec(1u32..8, 1..5)), 0..8),
            at in any::<u64>(),
        ) {
            let mut known = Succession::default();
            let mut line: Vec<Owner> = Vec::new();
            for (over, heirs) in verdicts {
                let before = known.owner(node(1), Position(at));
                known.learn(&verdict(over, &heirs));
                let after = known.owner(node(1), Position(at));
                if before != after {
                    let before = before.expect("nothing follows an end");
                    prop_assert!(known.is_over(before.node));
                    if let Some(after) = after {
                        prop_assert!(after.epoch > before.epoch);
                        prop_assert!(line.iter().all(|earlier| earlier.node != after.node));
                    }
                    line.push(before);
                }
            }
        }
    }
}
