//! A node's right to serve: its witnesses, what they have acknowledged, and what it tells them.

use super::{BEAT, LEASE, Ms};
use crate::id::NodeRef;
use crate::wire::{Say, WitnessSet};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) set: WitnessSet,
    /// The highest version of it that each witness has stored.
    stored: BTreeMap<NodeRef, u32>,
    /// When the latest beat was sent that each witness has acknowledged.
    acked: BTreeMap<NodeRef, Ms>,
    /// A quorum has stored a first set: before that nobody could say who the heirs are.
    established: bool,
    /// The highest version that a quorum has stored.
    settled: u32,
    next_beat: Ms,
    /// It drains: its witnesses stay as they are.
    pub(super) retiring: bool,
    /// It has asked for its own end.
    pub(super) resigned: bool,
}

impl Own {
    pub(super) fn new() -> Self {
        Self {
            set: WitnessSet::default(),
            stored: BTreeMap::new(),
            acked: BTreeMap::new(),
            established: false,
            settled: 0,
            next_beat: 0,
            retiring: false,
            resigned: false,
        }
    }

    /// Whether a quorum has stored the set that is declared now, and no change of it is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.established
            && self.set.before.is_none()
            && self.settled == self.set.ver
            && self.set.gives == self.retiring
    }

    /// The latest moment by which a quorum has acknowledged, and a lease more.
    pub(super) fn lease_until(&self, me: NodeRef) -> Ms {
        if self.resigned || !self.established {
            return 0;
        }
        let by = |moment: Ms| {
            self.set.has_quorum(|node| node == me || self.acked.get(&node).is_some_and(|at| *at >= moment))
        };
        if by(Ms::MAX) {
            return Ms::MAX; // it needs nobody else
        }
        self.acked.values().copied().filter(|at| by(*at)).max().map_or(0, |at| at + LEASE)
    }

    /// Whether this witness has acknowledged a beat that was sent since then.
    pub(super) fn has_answered(&self, node: NodeRef, since: Ms) -> bool {
        self.set.members.contains(&node) && self.acked.get(&node).is_some_and(|at| *at >= since)
    }

    pub(super) fn acknowledged(&mut self, from: NodeRef, sent: Ms, stored: u32) {
        let acked = self.acked.entry(from).or_insert(sent);
        *acked = sent.max(*acked);
        self.stored(from, stored);
    }

    pub(super) fn stored(&mut self, from: NodeRef, ver: u32) {
        let known = self.stored.entry(from).or_default();
        *known = ver.max(*known);
    }

    /// Moves towards the witnesses that are wished for: one change at a time, and each of them in
    /// force alone only once a quorum of the old and of the new ones know of it.
    pub(super) fn change(
        &mut self,
        me: NodeRef,
        wished: Vec<NodeRef>,
        gone: impl Fn(NodeRef) -> bool,
        living: impl Iterator<Item = NodeRef>,
        joint: bool,
    ) {
        self.stored(me, self.set.ver);
        let ver = self.set.ver;
        let has = |node: NodeRef| self.stored.get(&node) == Some(&ver);
        let is_stored = ver > 0 && self.set.is_decided(has, gone, living);
        if is_stored {
            (self.established, self.settled) = (true, ver);
            if self.set.before.is_some() || self.set.gives != self.retiring {
                let gives = self.set.before.is_none() && self.retiring;
                self.set = WitnessSet { ver: ver + 1, before: None, gives, ..std::mem::take(&mut self.set) };
                self.next_beat = 0;
                return self.stored(me, ver + 1);
            }
        }
        let frozen = self.retiring && self.established;
        if self.resigned || frozen || wished == self.set.members {
            return;
        }
        let before = match self.set.before.take() {
            Some(before) => Some(before),
            // Also of a first set that is not known to be stored: it may be, and be decided by.
            None if ver > 0 && joint => Some(std::mem::take(&mut self.set.members)),
            None => None,
        };
        self.set = WitnessSet { ver: ver + 1, members: wished, before, gives: false };
        self.next_beat = 0; // while a change is on its way, more nodes are needed than before or after
        self.stored(me, ver + 1);
    }

    /// Its beat, when one is due, and its set to whoever has not stored that.
    pub(super) fn say(
        &mut self,
        me: NodeRef,
        digest: u64,
        gone: impl Fn(NodeRef) -> bool,
        living: impl Iterator<Item = NodeRef>,
        now: Ms,
    ) -> Vec<(NodeRef, Say)> {
        if now < self.next_beat {
            return Vec::new();
        }
        self.next_beat = now + BEAT;
        let mut said = Vec::new();
        for node in self.set.everyone().into_iter().filter(|node| *node != me) {
            said.push((node, Say::Beat { sent: now, digest }));
            if self.stored.get(&node).is_none_or(|ver| *ver < self.set.ver) {
                said.push((node, Say::Declare { set: self.set.clone() }));
            }
        }
        if !self.set.has_quorum(|node| !gone(node)) {
            // Then a change needs all who live.
            let everyone = self.set.everyone();
            let others = living.filter(|node| *node != me && !gone(*node) && !everyone.contains(node));
            let untold = others.filter(|node| self.stored.get(node).is_none_or(|ver| *ver < self.set.ver));
            said.extend(untold.map(|node| (node, Say::Declare { set: self.set.clone() })));
        }
        said
    }
}
