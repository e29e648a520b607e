//! Node processes as values, one clock, one agenda, one seed.

use super::checker::Checker;
use super::clients::{Client, Journey, JourneyId};
use super::event::{Agenda, Event, Pid};
use super::faults::{Fault, Plan, Weather};
use super::gossip::Sight;
use super::network::Network;
use super::process::{Clock, Process};
use super::rng::Rng;
use super::rpc::{Rpc, RpcId};
use super::story::{Story, Telling};
use super::{Counts, Report};
use proto::core::tenure::{Effect, Ms, Rules};
use proto::core::view::Phase;
use proto::id::{Incarnation, NodeName, NodeRef, Nonce, Tag};
use proto::wire::{Note, Say};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

const TICK: Ms = 20;
/// Of the wall clock when worlds begin.
const WALL: u64 = 1_000_000;
/// After everything is healed: when every session must be served, and when all must be at rest.
const PROBED_AFTER: Ms = 6_000;
const AT_REST_AFTER: Ms = 14_000;

#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) process: Option<Process>,
    starts: u32,
    /// The incarnation that the last process began with, on its disk.
    persisted: Option<Incarnation>,
    /// By how much its wall clock is wrong.
    pub(super) wall: i64,
    /// It has left for good.
    pub(super) left: bool,
}

impl Host {
    pub(super) fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|it| it.pid)
    }

    pub(super) fn has_started(&self) -> bool {
        self.starts > 0
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Ms,
    pub(super) rng: Rng,
    pub(super) agenda: Agenda,
    pub(super) net: Network,
    pub(super) hosts: Vec<Host>,
    pub(super) names: Vec<NodeName>,
    pub(super) by_tag: BTreeMap<Tag, usize>,
    pub(super) address: SocketAddr,
    pub(super) rpcs: BTreeMap<RpcId, Rpc>,
    pub(super) last_rpc: RpcId,
    pub(super) journeys: BTreeMap<JourneyId, Journey>,
    pub(super) last_journey: JourneyId,
    pub(super) clients: Vec<Client>,
    pub(super) clients_rest: bool,
    pub(super) think: Ms,
    pub(super) rules: Rules,
    pub(super) plan: Plan,
    pub(super) checker: Checker,
    pub(super) counts: Counts,
    pub(super) crash_at_next_opening: bool,
    /// When the links of each host were last in trouble.
    pub(super) trouble_ended: Vec<Ms>,
    story: Story,
    telling: Telling,
}

/// As people read it.
pub(super) fn short(nonce: Nonce) -> impl fmt::Display {
    struct Short(Nonce);
    impl fmt::Display for Short {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "s:{:02x}{:02x}{:02x}", self.0.0[0], self.0.0[1], self.0.0[2])
        }
    }
    Short(nonce)
}

impl World {
    pub(super) fn new(seed: u64, rules: Rules, telling: Telling) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng, seed);
        let mut net = Network::new(&mut rng);
        if plan.weather == Weather::Calm {
            (net.late_permille, net.spread) = (0, 4);
        }
        let hosts = plan.nodes + plan.spares;
        let names: Vec<NodeName> =
            (0..hosts).map(|at| format!("n{}", at + 1).parse().expect("a plain name")).collect();
        // Names that hash to other tags in each world, so that rings and ranks differ.
        let cluster = format!("world-{seed}");
        let by_tag = names.iter().enumerate().map(|(at, name)| (Tag::of(&cluster, name), at)).collect();
        let clients = plan.clients;
        let think = rng.between(100, 900);
        let mut world = Self {
            now: 0,
            rng,
            agenda: Agenda::default(),
            net,
            hosts: (0..hosts).map(|_| Host::default()).collect(),
            names,
            by_tag,
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            rpcs: BTreeMap::new(),
            last_rpc: 0,
            journeys: BTreeMap::new(),
            last_journey: 0,
            clients: vec![Client::default(); clients],
            clients_rest: false,
            think,
            rules,
            plan,
            checker: Checker::default(),
            counts: Counts::default(),
            crash_at_next_opening: false,
            trouble_ended: vec![0; hosts],
            story: Story::new(telling),
            telling,
        };
        world.begin_all();
        world
    }

    fn begin_all(&mut self) {
        let at_once = self.plan.at_once;
        for host in 0..self.plan.nodes {
            let at = if at_once { 0 } else { self.rng.between(0, 1_500) };
            if at == 0 {
                self.start(host, false);
            } else {
                self.agenda.plan(at, Event::Start { host, clock_back: false });
            }
        }
        if at_once {
            for (one, other) in (0..self.plan.nodes).zip(1..self.plan.nodes) {
                self.exchange(one, other);
            }
            for (one, other) in (0..self.plan.nodes).zip(1..self.plan.nodes).rev() {
                self.exchange(one, other);
            }
        }
        for client in 0..self.clients.len() {
            let at = self.rng.between(200, 3_000);
            self.agenda.plan(at, Event::Client(client));
        }
        for (index, (at, _)) in self.plan.faults.iter().enumerate() {
            self.agenda.plan(*at, Event::Fault(index));
        }
        let heal = self.plan.safety;
        self.agenda.plan(heal, Event::Heal);
        self.agenda.plan(heal + PROBED_AFTER, Event::Probe);
        self.agenda.plan(heal + AT_REST_AFTER, Event::Last);
    }

    pub(super) fn run(mut self) -> Report {
        while let Some((at, event)) = self.agenda.pop() {
            self.now = at;
            if let Event::Last = event {
                self.check_rest();
                break;
            }
            self.happen(event);
            if self.checker.violation.is_some() {
                break;
            }
        }
        self.counts.events = self.agenda.count();
        self.counts.worlds = 1;
        if let Some(violation) = &self.checker.violation {
            let text = format!("VIOLATED {}: {}", violation.invariant, violation.text);
            self.story.tell(self.now, &"checker", format_args!("{text}"));
        }
        Report { violation: self.checker.violation, counts: self.counts, hash: self.story.hash() }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(pid) => self.tick(pid),
            Event::Gossip(pid) => {
                if self.is_frozen(pid) {
                    return self.put_off(pid.host, Event::Gossip(pid));
                }
                if self.process(pid).is_some() {
                    self.gossip(pid);
                }
            }
            Event::Note { host, note } => self.on_note(host, note),
            Event::Proof { at, of } => {
                if self.is_frozen(at) {
                    return self.put_off(at.host, Event::Proof { at, of });
                }
                self.on_proof(at, of);
            }
            Event::Request(rpc) => self.on_request(rpc),
            Event::Reply(rpc, reply) => self.on_reply(rpc, *reply),
            Event::Broken(rpc) => self.on_broken(rpc),
            Event::Done { at, uid } => match self.is_frozen(at) {
                true => self.put_off(at.host, Event::Done { at, uid }),
                false => self.on_done(at, uid),
            },
            Event::OpenDue { at, nonce } => match self.is_frozen(at) {
                true => self.put_off(at.host, Event::OpenDue { at, nonce }),
                false => self.tell_opened(at, nonce, false),
            },
            Event::EndDue { at, nonce } => match self.is_frozen(at) {
                true => self.put_off(at.host, Event::EndDue { at, nonce }),
                false => self.tell_ended(at, nonce, false),
            },
            Event::RecallDue { at, nonce } => match self.is_frozen(at) {
                true => self.put_off(at.host, Event::RecallDue { at, nonce }),
                false => self.end_recall(at, nonce),
            },
            Event::Resume { journey, round } => self.on_resume(journey, round),
            Event::Deadline(journey) => self.on_deadline(journey),
            Event::Client(client) => self.on_client(client),
            Event::Fault(index) => {
                let fault: Fault = self.plan.faults[index].1.clone();
                self.inject(fault);
            }
            Event::Thaw(host) => self.thaw(host),
            Event::Crash(host) => self.crash(host),
            Event::Start { host, clock_back } => self.start(host, clock_back),
            Event::Calm(trouble) => {
                for host in (0..self.hosts.len()).filter(|host| self.net.is_troubled(*host)) {
                    self.trouble_ended[host] = self.now;
                }
                self.net.calm(&trouble);
                self.tell_all(format_args!("over: {trouble:?}"));
            }
            Event::Heal => self.heal(),
            Event::Probe => self.probe(),
            Event::Last => {}
        }
    }

    // --- processes ---

    pub(super) fn process(&mut self, pid: Pid) -> Option<&mut Process> {
        self.hosts[pid.host].process.as_mut().filter(|it| it.pid == pid)
    }

    /// The process at this host, unless it is frozen.
    pub(super) fn running(&self, host: usize) -> Option<&Process> {
        self.hosts[host].process.as_ref().filter(|it| it.frozen_since.is_none())
    }

    pub(super) fn is_frozen(&self, pid: Pid) -> bool {
        let process = self.hosts[pid.host].process.as_ref();
        process.is_some_and(|it| it.pid == pid && it.frozen_since.is_some())
    }

    /// A frozen process meets with this once it runs again.
    pub(super) fn put_off(&mut self, host: usize, event: Event) {
        if let Some(process) = self.hosts[host].process.as_mut() {
            process.inbox.push(event);
        }
    }

    /// A process starts at this host and is told what the others have heard of its name.
    pub(super) fn start(&mut self, host: usize, clock_back: bool) {
        if self.hosts[host].process.is_some() || self.hosts[host].left {
            return;
        }
        let others: Vec<usize> =
            (0..self.hosts.len()).filter(|it| *it != host && self.running(*it).is_some()).collect();
        let now = self.now;
        let reached: Vec<usize> =
            others.iter().copied().filter(|it| self.net.is_up_both_ways(host, *it, now)).collect();
        if reached.is_empty() && (!others.is_empty() || self.hosts[host].starts > 0) && now > 0 {
            return self.agenda.plan(now + 300, Event::Start { host, clock_back });
        }
        let tag = self.tag(host);
        let sights = reached.iter().filter_map(|it| self.running(*it)?.known.get(&tag));
        let known = sights.map(|sight| sight.inc).max().max(self.hosts[host].persisted);
        let wall = (WALL + now).saturating_add_signed(self.hosts[host].wall);
        let inc = Incarnation::at_start(if clock_back { 1 } else { wall }, known);
        self.hosts[host].persisted = Some(inc);
        let me = NodeRef { tag, inc };
        let clock = Clock { zero: self.rng.below(1_000_000), permille: self.rng.between(950, 1_050) };
        self.hosts[host].starts += 1;
        let pid = Pid { host, start: self.hosts[host].starts };
        let mut process = Process::new(pid, me, clock, now, self.rules);
        process.known.insert(tag, Sight { inc: me.inc, beat: 0, phase: Phase::Joining, risen: now });
        self.hosts[host].process = Some(process);
        self.tell(host, format_args!("starts as incarnation {}", me.inc.0));
        let tick = now + self.rng.below(TICK);
        self.agenda.plan(tick, Event::Tick(pid));
        let gossip = now + self.rng.between(1, 150);
        self.agenda.plan(gossip, Event::Gossip(pid));
    }

    fn tick(&mut self, pid: Pid) {
        if self.is_frozen(pid) {
            return self.put_off(pid.host, Event::Tick(pid));
        }
        let now = self.now;
        let plan = &self.plan;
        let alone = plan.nodes + plan.spares == 1;
        let Some(process) = self.process(pid) else { return };
        let local = process.clock.read(now);
        process.tenure.tick(local);
        let heirs = process.tenure.heirs();
        process.custody.entrust(heirs, local);
        let ready =
            process.tenure.is_settled() && (process.met_others || alone || now > process.began + 2_000);
        if process.phase == Phase::Joining && ready {
            process.phase = Phase::Active;
            self.announce(pid);
        }
        self.carry_out(pid.host);
        self.send_parcels(pid.host);
        self.drain_on(pid);
        self.agenda.plan(now + TICK, Event::Tick(pid));
    }

    /// Others hear of it at once, as far as the next exchange with one of them counts as that.
    pub(super) fn announce(&mut self, pid: Pid) {
        let now = self.now;
        if let Some(process) = self.process(pid) {
            process.beat += 1;
            let me = process.me();
            let sight = Sight { inc: me.inc, beat: process.beat, phase: process.phase, risen: now };
            process.known.insert(me.tag, sight);
        }
        self.look(pid.host);
    }

    fn on_note(&mut self, host: usize, note: Note) {
        let now = self.now;
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        if process.frozen_since.is_some() {
            return process.inbox.push(Event::Note { host, note });
        }
        let local = process.clock.read(now);
        process.tenure.hear(&note, local);
        self.carry_out(host);
    }

    /// Does what the tenure of the process there has decided.
    pub(super) fn carry_out(&mut self, host: usize) {
        loop {
            let Some(process) = self.hosts[host].process.as_mut() else { return };
            let effects = process.tenure.effects();
            if effects.is_empty() {
                return;
            }
            let me = process.me();
            let reborn = effects.iter().find_map(|effect| match effect {
                Effect::Reborn { was, .. } => Some(*was),
                Effect::Send { .. } | Effect::Over(_) => None,
            });
            let mut as_whom = reborn.unwrap_or(me);
            for effect in effects {
                match effect {
                    Effect::Send { to, say } => self.send(host, Note { from: as_whom, to, say }),
                    Effect::Over(verdict) => self.on_over(host, &verdict),
                    Effect::Reborn { was, heir } => {
                        as_whom = me;
                        self.on_reborn(host, was, heir);
                    }
                }
            }
        }
    }

    fn send(&mut self, host: usize, note: Note) {
        let to = self.by_tag[&note.to.tag];
        self.counts.messages += 1;
        if self.is_told() && !matches!(note.say, Say::Beat { .. } | Say::Acked { .. }) {
            let (from, whom) = (self.word(note.from), self.word(note.to));
            self.tell(host, format_args!("{from} to {whom}: {}", self.words(&note.say)));
        }
        for at in self.net.datagram(host, to, self.now, &mut self.rng).into_iter().flatten() {
            self.agenda.plan(at, Event::Note { host: to, note: note.clone() });
        }
    }

    fn on_over(&mut self, host: usize, verdict: &proto::wire::Verdict) {
        self.check_verdict(host, verdict);
        let now = self.now;
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        let (pid, local) = (process.pid, process.clock.read(now));
        let inherited = process.custody.inherit(process.tenure.succession(), local);
        if !inherited.is_empty() {
            self.counts.inherited += inherited.len() as u64;
            let over = self.word(verdict.over);
            self.tell(host, format_args!("inherits {} sessions of {over}", inherited.len()));
            for record in &inherited {
                self.check_inherited(host, record);
            }
            self.send_parcels(host);
        }
        self.wake_all(pid);
    }

    fn on_reborn(&mut self, host: usize, was: NodeRef, heir: bool) {
        let now = self.now;
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        let (pid, me, local) = (process.pid, process.me(), process.clock.read(now));
        process.reborn = now;
        process.custody.be_reborn(me, heir, process.tenure.succession(), local);
        self.counts.reborn += 1;
        let (old, new) = (self.word(was), self.word(me));
        let text = if heir { "keeps its sessions" } else { "drops its sessions" };
        self.tell(host, format_args!("{old} goes on as {new} and {text}"));
        self.announce(pid);
        self.fail_lost_calls(pid);
        self.wake_all(pid);
    }

    /// The process is no more; others find its address refusing connections.
    pub(super) fn crash(&mut self, host: usize) {
        let Some(process) = self.hosts[host].process.take() else { return };
        let (pid, me) = (process.pid, process.me());
        drop(process);
        self.checker.crashed(pid);
        let living: Vec<_> = self.hosts.iter().filter_map(|host| host.process.as_ref()).collect();
        self.checker.forget(|over| living.iter().any(|it| it.tenure.succession().is_over(over)));
        self.abort_journeys(pid);
        self.break_streams(pid);
        for other in 0..self.hosts.len() {
            let Some(at) = self.hosts[other].pid() else { continue };
            let soon = self.now + self.rng.between(5, 80);
            self.agenda.plan(soon, Event::Proof { at, of: me });
        }
    }

    pub(super) fn leave(&mut self, pid: Pid) {
        if let Some(process) = self.process(pid) {
            process.phase = Phase::Dead;
        }
        self.announce(pid);
        for other in 0..self.hosts.len() {
            let there = other != pid.host && self.running(other).is_some();
            if there && self.net.is_up_both_ways(pid.host, other, self.now) {
                self.exchange(pid.host, other);
                self.look(other);
            }
        }
        self.tell(pid.host, format_args!("leaves"));
        self.hosts[pid.host].left = true;
        self.crash(pid.host);
    }

    // --- words ---

    pub(super) fn tag(&self, host: usize) -> Tag {
        let found = self.by_tag.iter().find(|(_, at)| **at == host);
        *found.expect("every host has a tag").0
    }

    pub(super) fn word(&self, node: NodeRef) -> String {
        format!("{}.{}", self.names[self.by_tag[&node.tag]], node.inc.0)
    }

    fn words(&self, say: &Say) -> String {
        let mut text = format!("{say:?}");
        for (tag, host) in &self.by_tag {
            let long = format!("NodeRef {{ tag: Tag({}), inc: Incarnation(", tag.0);
            while let Some(at) = text.find(&long) {
                let end = text[at + long.len()..].find(") }").map_or(text.len(), |end| at + long.len() + end);
                let inc = text[at + long.len()..end].to_owned();
                text.replace_range(at..(end + 3).min(text.len()), &format!("{}.{inc}", self.names[*host]));
            }
        }
        text
    }

    pub(super) fn is_told(&self) -> bool {
        self.telling != Telling::Silent
    }

    pub(super) fn tell(&mut self, host: usize, what: fmt::Arguments<'_>) {
        if self.is_told() {
            self.story.tell(self.now, &self.names[host], what);
        }
    }

    pub(super) fn tell_all(&mut self, what: fmt::Arguments<'_>) {
        if self.is_told() {
            self.story.tell(self.now, &"world", what);
        }
    }
}
