//! Up to 1,000 nodes, tenure alone: how long until all know of a join and of a death, and how much
//! they say to each other. Membership is given to them late, as gossip would; gossip itself is not
//! simulated.

use super::rng::Rng;
use proto::core::tenure::{Effect, Ms, Rules, Tenure};
use proto::core::view::Phase;
use proto::id::{Incarnation, NodeRef, Tag};
use proto::wire::{Note, WitnessSet};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

const TICK: Ms = 50;
/// One round of gossip; news reach all in about log2(nodes) of them.
const ROUND: Ms = 200;
const JOINS_AT: Ms = 4_000;
const DIES_AT: Ms = 9_000;
const ENDS_AT: Ms = 15_000;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Large {
    pub nodes: usize,
    /// From when a node comes until all have been told and it may serve.
    pub join_ms: Option<Ms>,
    /// From when a node dies until all know the verdict.
    pub death_ms: Option<Ms>,
    /// Datagrams that a node sends in a second when nothing happens.
    pub sent_per_node_and_s: f64,
    /// The most datagrams that one node sent within a second, at the death.
    pub burst: u64,
}

struct Crowd {
    rng: Rng,
    now: Ms,
    nodes: Vec<Option<Tenure>>,
    index: BTreeMap<Tag, usize>,
    /// What each node knows of the last one, which comes late.
    told_of_last: Vec<Ms>,
    notes: BinaryHeap<Reverse<(Ms, u64, usize)>>,
    waiting: BTreeMap<u64, Note>,
    sent: u64,
    sent_by: Vec<u64>,
}

/// Lets this many nodes live for 15 s; one more comes, and one dies.
pub fn large(count: usize, seed: u64) -> Large {
    let mut rng = Rng::new(seed);
    let refs: Vec<NodeRef> = (0..=count)
        .map(|_| NodeRef { tag: Tag((rng.next() >> 32) as u32), inc: Incarnation(1_000_000) })
        .collect();
    let rounds = u64::from(usize::BITS - count.leading_zeros()) + 1;
    let told_of_last =
        (0..=count).map(|_| JOINS_AT + ROUND * rng.between(1, rounds) + rng.below(ROUND)).collect();
    let mut nodes: Vec<_> = refs[..count].iter().map(|me| Some(Tenure::new(*me, 0, Rules::ALL))).collect();
    nodes.push(None);
    let mut crowd = Crowd {
        rng,
        now: 0,
        nodes,
        index: refs.iter().enumerate().map(|(at, node)| (node.tag, at)).collect(),
        told_of_last,
        notes: BinaryHeap::new(),
        waiting: BTreeMap::new(),
        sent: 0,
        sent_by: vec![0; count + 1],
    };
    let mut measured =
        Large { nodes: count, join_ms: None, death_ms: None, sent_per_node_and_s: 0.0, burst: 0 };
    crowd.tell_members(&refs, |_| true);
    let victim = count / 2;
    let mut quiet_from = 0;
    while crowd.now < ENDS_AT {
        crowd.step(&refs, victim);
        if crowd.now == JOINS_AT - 1_000 {
            quiet_from = crowd.sent;
        }
        if crowd.now == JOINS_AT {
            measured.sent_per_node_and_s = (crowd.sent - quiet_from) as f64 / count as f64;
        }
        if crowd.now == DIES_AT {
            crowd.sent_by.fill(0);
        }
        if crowd.now == DIES_AT + 1_000 {
            measured.burst = crowd.sent_by.iter().copied().max().unwrap_or(0);
        }
        let joined = crowd.now >= JOINS_AT
            && crowd.told_of_last.iter().all(|at| *at <= crowd.now)
            && crowd.nodes[count].as_ref().is_some_and(|it| it.is_settled() && it.may_serve(crowd.now));
        if joined && measured.join_ms.is_none() {
            measured.join_ms = Some(crowd.now - JOINS_AT);
        }
        let mut living = crowd.nodes.iter().flatten();
        if crowd.now >= DIES_AT
            && measured.death_ms.is_none()
            && living.all(|it| it.succession().is_over(refs[victim]))
        {
            measured.death_ms = Some(crowd.now - DIES_AT);
        }
    }
    measured
}

impl Crowd {
    fn tell_members(&mut self, refs: &[NodeRef], whom: impl Fn(usize) -> bool) {
        let (now, last) = (self.now, refs.len() - 1);
        for at in (0..refs.len()).filter(|at| whom(*at)) {
            let knows_last = at == last || self.told_of_last[at] <= now;
            let known = refs.iter().enumerate().filter(|(other, _)| *other != last || knows_last);
            let members = known.map(|(_, node)| (*node, Phase::Active));
            if let Some(node) = &mut self.nodes[at] {
                node.see(members, true, now);
            }
        }
    }

    fn step(&mut self, refs: &[NodeRef], victim: usize) {
        self.now += TICK;
        let now = self.now;
        while let Some(Reverse((at, id, to))) = self.notes.peek().copied() {
            if at > now {
                break;
            }
            self.notes.pop();
            let Some(note) = self.waiting.remove(&id) else { continue };
            if let Some(node) = &mut self.nodes[to] {
                node.hear(&note, at);
                self.carry_out(to, at);
            }
        }
        if now == JOINS_AT {
            let last = refs.len() - 1;
            self.nodes[last] = Some(Tenure::new(refs[last], now, Rules::ALL));
            self.told_of_last[last] = now;
        }
        let told = self.told_of_last.clone();
        self.tell_members(refs, |at| told[at] <= now && now < told[at] + TICK);
        if now == DIES_AT {
            self.kill(refs[victim], victim);
        }
        for at in 0..self.nodes.len() {
            if let Some(node) = &mut self.nodes[at] {
                node.tick(now);
                self.carry_out(at, now);
            }
        }
    }

    /// Its witnesses, and those whose witness it was, find its address refusing connections.
    fn kill(&mut self, victim: NodeRef, at: usize) {
        let Some(dead) = self.nodes[at].take() else { return };
        let of_its_own = WitnessSet::everyone(dead.witnesses());
        for node in self.nodes.iter_mut().flatten() {
            if of_its_own.contains(&node.me()) || node.witnesses().members.contains(&victim) {
                node.proven(victim, self.now + self.rng.between(5, 80));
            }
        }
    }

    fn carry_out(&mut self, at: usize, now: Ms) {
        let Some(node) = &mut self.nodes[at] else { return };
        let me = node.me();
        for effect in node.effects() {
            let Effect::Send { to, say } = effect else { continue };
            self.sent += 1;
            self.sent_by[at] += 1;
            let Some(host) = self.index.get(&to.tag) else { continue };
            self.waiting.insert(self.sent, Note { from: me, to, say });
            self.notes.push(Reverse((now + self.rng.between(1, 6), self.sent, *host)));
        }
    }
}
