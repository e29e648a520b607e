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

    /// The owner of what was born on `home` at this position.
    pub fn owner(&self, home: NodeRef, position: Position) -> Owner {
        self.owner_after(home, position, None)
    }

    /// The owner, were the incarnation `leaving.0` over and `leaving.1` its heirs.
    pub fn owner_after(&self, home: NodeRef, position: Position, leaving: Option<(NodeRef, &Ring)>) -> Owner {
        let mut line = Line::new(home);
        loop {
            let node = line.next();
            let heirs = match (self.verdicts.get(&node), leaving) {
                (Some(heirs), _) => &*heirs.ring,
                (None, Some((leaver, heirs))) if leaver == node => heirs,
                (None, _) => return Owner { node, epoch: line.len() },
            };
            line.go_on(heirs.successors(position));
        }
    }

    /// The owners of what was born on `home` at this position, up to the present one.
    pub fn line(&self, home: NodeRef, position: Position) -> Vec<NodeRef> {
        let (mut line, mut owners) = (Line::new(home), Vec::new());
        loop {
            let node = line.next();
            owners.push(node);
            let Some(heirs) = self.verdicts.get(&node) else { return owners };
            line.go_on(heirs.ring.successors(position));
        }
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
        let (mut line, mut kept) = (Line::new(home), Vec::new());
        loop {
            let node = line.next();
            if node == me {
                return Some(kept);
            }
            let heirs = &self.verdicts.get(&node)?.ring;
            kept.extend(heirs.successors(position).take(count));
            line.go_on(heirs.successors(position));
        }
    }
}

/// The owners of a session, one after the other.
///
/// Of each node that is over the heirs come in the order of their ring, each with its own heirs
/// before the next one. So whatever else becomes known later only adds to the end of the line. Two
/// nodes may be the heirs of each other: where all are over, those come who they have become, in the
/// same order.
struct Line {
    passed: Vec<NodeRef>,
    next: Vec<NodeRef>,
    reborn: usize,
}

impl Line {
    fn new(home: NodeRef) -> Self {
        Self { passed: Vec::new(), next: vec![home], reborn: 0 }
    }

    /// There always is one: who the latest of a name's incarnations has become did not come before.
    fn next(&mut self) -> NodeRef {
        loop {
            let node = self.next.pop().unwrap_or_else(|| {
                let was = self.passed[self.reborn];
                self.reborn += 1;
                NodeRef { inc: was.inc.reborn(), ..was }
            });
            if !self.passed.contains(&node) {
                self.passed.push(node);
                return node;
            }
        }
    }

    /// The last one is over, and these are its heirs.
    fn go_on(&mut self, heirs: impl Iterator<Item = NodeRef>) {
        let first = self.next.len();
        self.next.extend(heirs);
        self.next[first..].reverse();
    }

    fn len(&self) -> u32 {
        u32::try_from(self.passed.len()).unwrap_or(u32::MAX)
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
        assert_eq!(known.owner(node(1), at), Owner { node: node(1), epoch: 1 });
        assert!(known.learn(&verdict(1, &[2, 3])));
        assert!(!known.learn(&verdict(1, &[3])), "the first verdict is the only one");
        let taker = known.owner(node(1), at);
        assert_eq!(taker.epoch, 2);
        let other = if taker.node == node(2) { 3 } else { 2 };
        assert!(known.learn(&Verdict { over: taker.node, heirs: vec![node(1), node(other)] }));
        assert_eq!(known.owner(node(1), at), Owner { node: node(other), epoch: 3 });
    }

    #[test]
    fn where_nodes_have_ended_each_other_it_goes_on_with_who_they_have_become() {
        let mut known = Succession::default();
        let at = Position(42);
        assert!(known.learn(&verdict(1, &[2])) && known.learn(&verdict(2, &[1])));
        let reborn = |tag| NodeRef { inc: Incarnation(2), ..node(tag) };
        assert_eq!(known.owner(node(1), at), Owner { node: reborn(1), epoch: 3 });
        assert!(known.learn(&Verdict { over: reborn(1), heirs: vec![node(2)] }));
        assert_eq!(known.owner(node(1), at), Owner { node: reborn(2), epoch: 4 });
        assert_eq!(known.kept_before(node(1), at, reborn(2), 1), Some(vec![node(2), node(1), node(2)]));
    }

    #[test]
    fn a_leavers_sessions_are_given_to_whoever_will_own_them_once_it_is_over() {
        let mut known = Succession::default();
        let heirs = Ring::over(vec![node(2), node(3), node(4)]);
        for at in (0..64u64).map(|at| Position(at << 58)) {
            let given = known.owner_after(node(1), at, Some((node(1), &heirs)));
            assert_eq!(known.owner(node(1), at).node, node(1));
            let mut later = known.clone();
            later.learn(&verdict(1, &[2, 3, 4]));
            assert_eq!(later.owner(node(1), at), given);
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
                    prop_assert!(known.is_over(before.node));
                    prop_assert!(after.epoch > before.epoch);
                    prop_assert!(line.iter().all(|earlier| earlier.node != after.node));
                    line.push(before);
                }
            }
        }
    }
}
