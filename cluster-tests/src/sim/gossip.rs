//! Membership as nodes hear of it: late, in different orders, sometimes wrong.
//!
//! An abstraction of chitchat: nodes exchange all they know in pairs; who has not been heard of for
//! about 5 s is taken for dead.

use super::event::{Event, Pid};
use super::world::World;
use proto::core::ring::Ring;
use proto::core::seeds::Seeds;
use proto::core::tenure::Ms;
use proto::core::view::{Member, Phase, View};
use proto::id::{Incarnation, NodeRef, Tag};

/// How long a node may be silent before gossip calls it dead.
const DEAD_AFTER: Ms = 5_000;
/// How long a view must stand still to count as settled.
const SETTLED_AFTER: Ms = 5_000;

/// What is known of a node; the higher incarnation, then the later beat is the news.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) inc: Incarnation,
    pub(super) beat: u64,
    pub(super) phase: Phase,
    /// When this node last heard something new of it.
    pub(super) risen: Ms,
}

impl World {
    /// A process tells a random other one what it knows, and the other way round.
    pub(super) fn gossip(&mut self, pid: Pid) {
        let now = self.now;
        let next = now + self.rng.between(120, 260);
        self.agenda.plan(next, Event::Gossip(pid));
        self.say_own(pid);
        let others: Vec<usize> = (0..self.hosts.len())
            .filter(|host| *host != pid.host && self.net.is_up_both_ways(pid.host, *host, now))
            .filter(|host| self.running(*host).is_some())
            .collect();
        let deaf = |world: &Self, host: usize| world.running(host).is_none_or(|it| it.deaf_until > now);
        let partner = self.rng.pick(&others).filter(|host| !deaf(self, pid.host) && !deaf(self, *host));
        if let Some(partner) = partner {
            self.exchange(pid.host, partner);
            self.look(partner);
        }
        self.look(pid.host);
        self.find_proofs(pid);
    }

    fn say_own(&mut self, pid: Pid) {
        let now = self.now;
        let Some(process) = self.process(pid) else { return };
        process.beat += 1;
        let me = process.me();
        let sight = Sight { inc: me.inc, beat: process.beat, phase: process.phase, risen: now };
        process.known.insert(me.tag, sight);
    }

    pub(super) fn exchange(&mut self, one: usize, other: usize) {
        let now = self.now;
        for (from, to) in [(one, other), (other, one)] {
            let Some(news) = self.running(from).map(|it| it.known.clone()) else { continue };
            let Some(process) = self.hosts[to].process.as_mut() else { continue };
            process.met_others = true;
            for (tag, sight) in news.into_iter().filter(|(tag, _)| *tag != process.tenure.me().tag) {
                let known = process.known.get(&tag);
                if known.is_none_or(|known| (known.inc, known.beat) < (sight.inc, sight.beat)) {
                    process.known.insert(tag, Sight { risen: now, ..sight });
                }
            }
        }
    }

    /// Makes a view of what is known, and tells the process of it if it is another one.
    pub(super) fn look(&mut self, host: usize) {
        let now = self.now;
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        let me = process.me();
        let phase_of = |tag: Tag, sight: &Sight| {
            let flaps = process.flap.is_some_and(|(flapping, until)| flapping == tag && now < until);
            let silent = tag != me.tag && now.saturating_sub(sight.risen) > DEAD_AFTER;
            if flaps || silent { Phase::Dead } else { sight.phase }
        };
        let seen: Vec<_> = process
            .known
            .iter()
            .map(|(tag, sight)| (NodeRef { tag: *tag, inc: sight.inc }, phase_of(*tag, sight)))
            .collect();
        let changed = seen != process.seen;
        if changed {
            let member = |(node, phase): &(NodeRef, Phase)| {
                let at = self.by_tag[&node.tag];
                let (name, address) = (self.names[at].clone(), self.address);
                Member {
                    name,
                    node: *node,
                    phase: *phase,
                    listen: address,
                    peer: address,
                    admin: address,
                    version: String::new(),
                }
            };
            process.view = View::new(seen.iter().map(member).collect());
            process.ring = Ring::new(&process.view);
            process.seen = seen;
            process.view_changed = now;
        }
        let still = now.saturating_sub(process.view_changed) > SETTLED_AFTER;
        let settled = still && self.has_met_seeds(host);
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        let local = process.clock.read(now);
        process.tenure.see(process.seen.iter().copied(), settled, local);
        if changed {
            let pid = process.pid;
            if self.is_told() {
                let text: Vec<_> = self.hosts[host].process.as_ref().map_or(Vec::new(), |it| {
                    it.seen.iter().map(|(node, phase)| format!("{}={phase}", self.word(*node))).collect()
                });
                self.tell(host, format_args!("sees {}", text.join(" ")));
            }
            self.wake_all(pid);
        }
    }

    /// Whether nobody can be at the hosts that the cluster began with whom this one has not heard of.
    pub(super) fn has_met_seeds(&self, host: usize) -> bool {
        let Some(process) = self.hosts[host].process.as_ref() else { return false };
        let seeds = (0..self.plan.nodes).filter(|seed| *seed != host);
        let is_known = |seed: &usize| process.known.contains_key(&self.tag(*seed));
        let all = seeds.clone().count();
        let known = seeds.filter(|seed| is_known(seed) || self.refuses(host, *seed)).count();
        Seeds { all, known }.are_met(self.now - process.began)
    }

    /// Whether a connection is refused: nobody is there.
    pub(super) fn refuses(&self, from: usize, host: usize) -> bool {
        self.hosts[host].process.is_none() && self.net.is_up_both_ways(from, host, self.now)
    }

    /// Whoever is watched and has another process at its address by now is gone for certain: its
    /// address refuses connections, or answers with a later incarnation.
    fn find_proofs(&mut self, pid: Pid) {
        let Some(process) = self.running(pid.host) else { return };
        let watched: Vec<_> = process.tenure.watched().collect();
        for node in watched {
            let host = self.by_tag[&node.tag];
            let is_there = self.hosts[host].process.as_ref().is_some_and(|it| it.me() == node);
            if !is_there && self.net.is_up_both_ways(pid.host, host, self.now) {
                let at = self.now + self.rng.between(5, 80);
                self.agenda.plan(at, Event::Proof { at: pid, of: node });
            }
        }
    }

    pub(super) fn on_proof(&mut self, at: Pid, of: NodeRef) {
        let host = self.by_tag[&of.tag];
        let now = self.now;
        if !self.net.is_up_both_ways(at.host, host, now) {
            return; // looked for again with the next gossip
        }
        let there = self.hosts[host].process.as_ref();
        if there.is_some_and(|it| it.frozen_since.is_some() || it.me().inc <= of.inc) {
            return;
        }
        let Some(process) = self.process(at) else { return };
        if process.tenure.watched().any(|node| node == of) {
            let local = process.clock.read(now);
            process.tenure.proven(of, local);
            let text = self.word(of);
            self.tell(at.host, format_args!("has proof that {text} is gone"));
            self.carry_out(at.host);
        }
    }
}
