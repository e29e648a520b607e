//! Who may own sessions: one node's part in the agreement, as a state machine.
//!
//! A node may serve while a quorum of its witnesses has acknowledged a beat that it sent less than a
//! [lease](LEASE) ago. When it is gone for certain, or silent for longer than any lease, its
//! witnesses agree on a verdict: its incarnation is over, and these are its heirs. Agreeing is
//! [fencing](Acceptor::accept): a witness that has agreed acknowledges none of its beats again. So
//! by the time a verdict stands, the node it is about has no lease and never will have one.
//!
//! Everything comes in through [`Tenure::hear`] and [`Tenure::tick`], everything goes out as
//! [`Effect`]s; the network may lose, delay, repeat and reorder all of it.

mod acceptor;
mod owner;
mod proposal;
mod rules;

pub use crate::wire::Ms;
pub use rules::{Rule, Rules};

use super::succession::{Succession, VERDICTS_MAX};
use super::view::Phase;
use super::witness;
use crate::id::{Incarnation, NodeRef, Tag};
use crate::wire::{Note, Say, Verdict, WitnessSet};
use acceptor::Acceptor;
use owner::Own;
use proposal::{Proposal, Question};
use std::collections::{BTreeMap, BTreeSet};

/// How often a node beats.
pub const BEAT: Ms = 100;
/// How long after a beat was *sent* its acknowledgement lets the node serve.
pub const LEASE: Ms = 1_200;
/// How long nothing has *arrived* of a node before it counts as silent. Longer than a lease by more
/// than clocks that run 10 % apart make of it.
pub const SILENCE: Ms = 1_500;
/// Five beats in a row are lost once in 100 such rows at 40 % loss, and seldom otherwise.
const QUIET: Ms = 5 * BEAT;
/// A witness that was not running itself for this long judges nobody until it has heard the network
/// again for [`GRACE`].
const GAP: Ms = 250;
const GRACE: Ms = 300;
/// For how long a request that waits for a node keeps the interest in it alive.
const WANTED: Ms = 3_000;
/// The first in rank proposes at once; each of the others waits this much longer, so that they
/// seldom get into each other's way.
const RANK_STEP_PROOF: Ms = 40;
const RANK_STEP_SILENCE: Ms = 350;
/// Verdicts in one message: 8 with 7 heirs of 12 bytes are below the 1,100 bytes of a datagram.
const VERDICTS_AT_ONCE: usize = 8;

/// What follows from what a node was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Send {
        to: NodeRef,
        say: Say,
    },
    /// A node's incarnation is over. Learnt once for each, also of this node's own.
    Over(Verdict),
    /// This node's incarnation is over and it goes on as another; its sessions are still its own
    /// if it is its own heir.
    Reborn {
        was: NodeRef,
        heir: bool,
    },
}

/// What a node knows of another one.
#[derive(Clone, Debug)]
struct Peer {
    /// When a beat of it last came, or when it was first heard of.
    heard: Ms,
    /// When the latest beat that came was sent, by its own clock.
    beat: Option<Ms>,
    acceptor: Acceptor,
    /// Its witnesses, as far as this node has stored them.
    set: Option<WitnessSet>,
}

/// One node's part.
#[derive(Clone, Debug)]
pub struct Tenure {
    me: NodeRef,
    rules: Rules,
    /// Every member by gossip, in its latest incarnation.
    members: BTreeMap<NodeRef, Phase>,
    own: Own,
    peers: BTreeMap<NodeRef, Peer>,
    /// Processes that are gone for certain, since when.
    gone: BTreeMap<NodeRef, Ms>,
    /// The latest incarnation that is known of under each name: those before it are gone.
    latest: BTreeMap<Tag, Incarnation>,
    succession: Succession,
    proposals: BTreeMap<NodeRef, Proposal>,
    /// The last ballot that this node has made: none is used twice.
    ballots: u32,
    /// Nodes that requests wait for, with the last time.
    wanted: BTreeMap<NodeRef, Ms>,
    last_tick: Ms,
    /// No verdict by silence before this.
    judges_from: Ms,
    /// Where the next page of verdicts for who knows others begins.
    page: usize,
    /// The members have been the same for a while, and this node is not alone by mistake.
    settled: bool,
    effects: Vec<Effect>,
}

impl Tenure {
    pub fn new(me: NodeRef, now: Ms, rules: Rules) -> Self {
        Self {
            me,
            rules,
            members: BTreeMap::new(),
            own: Own::new(),
            peers: BTreeMap::new(),
            gone: BTreeMap::new(),
            latest: BTreeMap::from([(me.tag, me.inc)]),
            succession: Succession::default(),
            proposals: BTreeMap::new(),
            ballots: 0,
            wanted: BTreeMap::new(),
            last_tick: now,
            judges_from: now + GRACE,
            page: 0,
            settled: false,
            effects: Vec::new(),
        }
    }

    /// Who this node is now.
    pub fn me(&self) -> NodeRef {
        self.me
    }

    pub fn succession(&self) -> &Succession {
        &self.succession
    }

    /// The witnesses that this node has declared.
    pub fn witnesses(&self) -> &WitnessSet {
        &self.own.set
    }

    /// Who takes over from this node: those that it may give its sessions to.
    pub fn heirs(&self) -> Vec<NodeRef> {
        self.own.set.members.iter().copied().filter(|node| *node != self.me).collect()
    }

    /// Whether a quorum has stored the witnesses that this node has declared, so that whoever asks
    /// finds these and no others. A node that [retires](Self::retire) gives nothing away before.
    pub fn is_settled(&self) -> bool {
        self.own.is_settled()
    }

    /// Until when this node may serve, if nothing more is heard.
    pub fn serves_until(&self) -> Ms {
        if self.keeps(Rule::Lease) { self.own.lease_until(self.me) } else { Ms::MAX }
    }

    pub fn may_serve(&self, now: Ms) -> bool {
        now < self.serves_until()
    }

    /// Whether a node whose beats should come has missed some: what is not sent to it now can't be lost
    /// with it.
    pub fn is_quiet(&self, node: NodeRef, now: Ms) -> bool {
        let beats = |peer: &&Peer| peer.set.is_some();
        let peer = self.peers.get(&node).filter(beats);
        peer.is_some_and(|peer| self.is_gone(node) || now.saturating_sub(peer.heard) > QUIET)
    }

    /// Those whose end this node is trying to get agreed on.
    pub fn deciding(&self) -> impl Iterator<Item = NodeRef> {
        self.proposals.keys().copied()
    }

    /// How much it remembers: nodes, proposals, verdicts.
    pub fn sizes(&self) -> [usize; 3] {
        [self.peers.len(), self.proposals.len(), self.succession.len()]
    }

    /// Those whose end would matter to this node, to be watched for proof of it.
    pub fn watched(&self) -> impl Iterator<Item = NodeRef> {
        let proposed = self.proposals.values().flat_map(Proposal::everyone);
        let known = self.members.keys().chain(self.peers.keys()).copied();
        let all: BTreeSet<_> = known.chain(self.own.set.everyone()).chain(proposed).collect();
        all.into_iter().filter(|node| *node != self.me && !self.is_gone(*node))
    }

    /// What gossip says now; `settled` where that has been so for a while.
    pub fn see(&mut self, members: impl Iterator<Item = (NodeRef, Phase)>, settled: bool, now: Ms) {
        self.settled = settled;
        self.members = members.filter(|(node, _)| node.tag != self.me.tag).collect();
        for node in self.members.keys().copied().collect::<Vec<_>>() {
            self.peer(node, now);
            self.meet(node, now);
        }
    }

    /// This process is gone for certain.
    pub fn proven(&mut self, node: NodeRef, now: Ms) {
        if node != self.me {
            self.peer(node, now);
            self.has_been(node);
            self.gone.entry(node).or_insert(now);
            if self.gone.len() > VERDICTS_MAX {
                let oldest = self.gone.keys().min_by_key(|node| (node.inc, node.tag)).copied();
                oldest.and_then(|oldest| self.gone.remove(&oldest));
            }
        }
    }

    /// A request waits for what this node owns.
    pub fn want(&mut self, node: NodeRef, now: Ms) {
        if node != self.me && !self.succession.is_over(node) {
            self.peer(node, now);
            self.wanted.insert(node, now);
        }
    }

    /// From now on the witnesses of this node stay as they are: its sessions are given to them.
    pub fn retire(&mut self) {
        self.own.retiring = true;
    }

    /// This node serves nothing any more: its end shall be agreed on.
    pub fn resign(&mut self, now: Ms) {
        self.own.resigned = true;
        self.propose(self.me, now);
    }

    /// Lets time pass; to be called every 20 ms or so, and the result of [`effects`](Self::effects)
    /// to be carried out.
    pub fn tick(&mut self, now: Ms) {
        if now.saturating_sub(self.last_tick) > GAP && self.keeps(Rule::ObserverGrace) {
            self.judges_from = now + GRACE;
        }
        self.last_tick = now;
        self.keep_own(now);
        self.wanted.retain(|_, since| now.saturating_sub(*since) < WANTED);
        self.judge(now);
        self.push_proposals(now);
    }

    /// A message of another node's.
    pub fn hear(&mut self, note: &Note, now: Ms) {
        let from = note.from;
        if note.to != self.me || from == self.me {
            return;
        }
        // What still comes of whoever is gone was under way.
        if self.is_gone(from) {
            return;
        }
        self.meet(from, now);
        match &note.say {
            Say::Beat { sent, digest } => self.witness_beat(from, *sent, *digest, now),
            Say::Acked { sent, stored, digest } => {
                let from_when = if self.keeps(Rule::LeaseFromSending) { *sent } else { now };
                self.own.acknowledged(from, from_when, *stored);
                self.tell_news(from, *digest);
            }
            Say::Fenced => self.step_down(now),
            Say::Declare { set } => self.store_set(from, set, now),
            Say::Stored { ver } => self.own.stored(from, *ver),
            &Say::Prepare { over, ballot, ver, ref without } => {
                let answer = self.on_prepare(Question { from, over, ballot, ver, without }, now);
                self.send(from, answer);
            }
            &Say::Accept { over, ballot, ver, ref without, ref heirs } => {
                let answer = self.on_accept(Question { from, over, ballot, ver, without }, heirs, now);
                self.send(from, answer);
            }
            Say::Promised { over, ballot, accepted } => self.on_promise(from, *over, *ballot, accepted, now),
            Say::Accepted { over, ballot } => self.on_accepted(from, *over, *ballot, now),
            Say::No { over, ballot, why } => self.on_no(*over, *ballot, why, now),
            Say::Verdicts(verdicts) => verdicts.iter().for_each(|verdict| self.learn(verdict, now)),
        }
    }

    /// What is to be done now, in the order in which it was decided.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    // --- as a witness of others ---

    fn witness_beat(&mut self, from: NodeRef, sent: Ms, digest: u64, now: Ms) {
        if let Some(verdict) = self.succession.verdict(from) {
            return self.send(from, Say::Verdicts(vec![verdict]));
        }
        let fences = self.keeps(Rule::AgreeingFences);
        let peer = self.peer(from, now);
        if peer.acceptor.is_fencing() && fences {
            return self.send(from, Say::Fenced);
        }
        // One that comes again, or late, is no sign of life: whoever listens on the way can play it back.
        // It is acknowledged all the same, which lets nobody serve for longer.
        if peer.beat.is_none_or(|latest| latest < sent) {
            (peer.beat, peer.heard) = (Some(sent), now);
        }
        let stored = peer.set.as_ref().map_or(0, |set| set.ver);
        self.send(from, Say::Acked { sent, stored, digest: self.succession.digest() });
        self.tell_news(from, digest);
    }

    fn store_set(&mut self, from: NodeRef, set: &WitnessSet, now: Ms) {
        if self.succession.is_over(from) {
            return;
        }
        let peer = self.peer(from, now);
        // What it has agreed on was by the set that it had.
        if peer.acceptor.is_fencing() {
            return self.send(from, Say::Fenced);
        }
        if peer.set.as_ref().is_none_or(|stored| stored.ver < set.ver) {
            peer.set = Some(set.clone());
        }
        let ver = peer.set.as_ref().map_or(0, |set| set.ver);
        self.send(from, Say::Stored { ver });
    }

    /// Whether this node, by what it has seen itself, may agree that `node` is over.
    fn has_evidence(&self, node: NodeRef, now: Ms) -> bool {
        if !self.keeps(Rule::OwnEvidence) {
            return true;
        }
        self.peers.get(&node).is_some_and(|peer| {
            self.is_gone(node)
                || peer.acceptor.is_fencing()
                || (now >= self.judges_from && now.saturating_sub(peer.heard) > self.silence())
        })
    }

    fn silence(&self) -> Ms {
        if self.keeps(Rule::SilenceOutlastsLease) { SILENCE } else { LEASE / 2 }
    }

    /// Whether the process is gone for certain, or goes on as a later incarnation: then nothing it is
    /// asked will be answered. A verdict alone is no reason to think so: until it hears of it, a
    /// silent node may still agree to others' ends.
    pub fn is_gone(&self, node: NodeRef) -> bool {
        let latest = if node.tag == self.me.tag { Some(&self.me.inc) } else { self.latest.get(&node.tag) };
        self.gone.contains_key(&node) || latest.is_some_and(|inc| *inc > node.inc)
    }

    /// Not one to count on: over, or gone.
    fn is_out(&self, node: NodeRef) -> bool {
        self.succession.is_over(node) || self.is_gone(node)
    }

    /// Something came from this incarnation: those before it are gone.
    fn meet(&mut self, from: NodeRef, now: Ms) {
        if self.has_been(from) {
            let first = NodeRef { inc: Incarnation(0), ..from };
            let earlier: Vec<_> = self.peers.range(first..from).map(|(node, _)| *node).collect();
            earlier.into_iter().for_each(|node| self.proven(node, now));
        }
    }

    /// There is or was this incarnation, so there is none before it any more. Whether it is the
    /// latest that is known of.
    fn has_been(&mut self, node: NodeRef) -> bool {
        let latest = self.latest.entry(node.tag).or_insert(Incarnation(0));
        let is_news = *latest < node.inc;
        *latest = node.inc.max(*latest);
        is_news
    }

    // --- verdicts ---

    fn learn(&mut self, verdict: &Verdict, now: Ms) {
        if !self.succession.learn(verdict) {
            return;
        }
        self.has_been(verdict.over);
        self.proposals.remove(&verdict.over);
        self.wanted.remove(&verdict.over);
        self.peers.remove(&verdict.over);
        self.effects.push(Effect::Over(verdict.clone()));
        if verdict.over == self.me {
            self.be_reborn(verdict, now);
        }
    }

    /// Goes on as a new incarnation, with nothing but what everybody knows.
    fn be_reborn(&mut self, verdict: &Verdict, now: Ms) {
        let was = self.me;
        self.me = next_of(was);
        self.latest.insert(self.me.tag, self.me.inc);
        let retiring = self.own.retiring;
        self.own = Own::new();
        self.own.retiring = retiring;
        self.own.resigned = retiring;
        self.proposals.clear();
        self.judges_from = now + GRACE;
        self.effects.push(Effect::Reborn { was, heir: verdict.heirs == [self.me] });
    }

    /// Tells a page of what is known here to whoever knows something else.
    fn tell_news(&mut self, to: NodeRef, digest: u64) {
        if digest == self.succession.digest() || self.succession.is_empty() {
            return;
        }
        let from = self.page % self.succession.len();
        let page: Vec<_> = self.succession.verdicts().skip(from).take(VERDICTS_AT_ONCE).collect();
        self.page = from + page.len();
        self.send(to, Say::Verdicts(page));
    }

    // --- as the owner of sessions ---

    fn keep_own(&mut self, now: Ms) {
        // Gossip alone turns away no witness that still answers.
        let answers = |node: NodeRef| self.own.has_answered(node, now.saturating_sub(SILENCE));
        let eligible = |(node, phase): (&NodeRef, &Phase)| {
            let serves = *phase == Phase::Active || (*phase == Phase::Dead && answers(*node));
            (serves && !self.is_out(*node)).then_some(*node)
        };
        let wished = witness::choose(self.me, self.members.iter().filter_map(eligible));
        let digest = self.succession.digest();
        let (all_gone, latest) = (&self.gone, &self.latest);
        let gone = |node: NodeRef| {
            all_gone.contains_key(&node) || latest.get(&node.tag).is_some_and(|inc| *inc > node.inc)
        };
        let living = self.members.keys().copied().chain([self.me]);
        let joint = self.rules.keeps(Rule::JointChange);
        self.own.change(self.me, wished, gone, living.clone(), joint);
        let said = self.own.say(self.me, digest, gone, living, now);
        self.effects.extend(said.into_iter().map(|(to, say)| Effect::Send { to, say }));
    }

    /// A witness has agreed that this node is over. It serves nothing more as who it is, and asks to
    /// go on as its own heir; if others have become its heirs already, it learns that instead.
    fn step_down(&mut self, now: Ms) {
        if !self.own.resigned {
            self.own.resigned = true;
            self.propose(self.me, now);
        }
    }

    // --- small things ---

    fn peer(&mut self, node: NodeRef, now: Ms) -> &mut Peer {
        self.peers.entry(node).or_insert_with(|| Peer {
            heard: now,
            beat: None,
            acceptor: Acceptor::default(),
            set: None,
        })
    }

    fn send(&mut self, to: NodeRef, say: Say) {
        self.effects.push(Effect::Send { to, say });
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.rules.keeps(rule)
    }
}

/// Who goes on in the same process.
fn next_of(node: NodeRef) -> NodeRef {
    NodeRef { tag: node.tag, inc: node.inc.reborn() }
}

#[cfg(test)]
mod tests;
