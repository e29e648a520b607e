//! What must be true, whatever happens. Fed by the world, and apart from it: it knows everything and
//! changes nothing.

use super::clients::{Ask, Journey, Kind, Op, Told};
use super::event::{Pid, Uid};
use super::faults::Weather;
use super::world::{World, short};
use proto::core::custody::{BACKUPS, Holding};
use proto::core::ring::Position;
use proto::core::tenure::Ms;
use proto::core::view::Phase;
use proto::id::{NodeRef, Nonce};
use proto::wire::{GoneWhy, Item, Record, Verdict};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub text: String,
}

/// All that is true of a session.
#[derive(Clone, Debug)]
struct Truth {
    kind: Kind,
    home: NodeRef,
    /// The client knows of it, and whether a copy of it existed by then.
    told: Option<bool>,
    ended: bool,
    end_told: bool,
    served_by: BTreeMap<u32, NodeRef>,
    served_in: u32,
    counter: u64,
    /// How many processes had come to their end by then.
    ends_before: usize,
}

impl Truth {
    /// Nobody may go on with it. Once two processes have come to their end a copy may be left whose
    /// owner nobody remembers, and be taken up: that is beyond what is promised.
    fn has_ended_for_all(&self, ends: usize) -> bool {
        self.end_told && ends <= self.ends_before + 1
    }
}

#[derive(Debug, Default)]
pub(super) struct Checker {
    pub(super) violation: Option<Violation>,
    verdicts: BTreeMap<NodeRef, Vec<NodeRef>>,
    /// Processes that have crashed or left.
    ends: usize,
    sessions: BTreeMap<Nonce, Truth>,
    /// How often each call has run at the backend.
    runs: BTreeMap<Uid, u32>,
    /// Calls that clients were promised not to have run.
    unrun: BTreeSet<Uid>,
    /// The versions that each process has held as a copy, each with its time.
    copies: BTreeMap<(Pid, Nonce), ((u32, u32), Ms)>,
}

impl Checker {
    pub(super) fn born(&mut self, nonce: Nonce, kind: Kind, home: NodeRef) {
        let truth = Truth {
            kind,
            home,
            told: None,
            ended: false,
            end_told: false,
            served_by: BTreeMap::new(),
            served_in: 0,
            counter: 0,
            ends_before: 0,
        };
        self.sessions.insert(nonce, truth);
    }

    pub(super) fn acknowledged(&mut self, nonce: Nonce, copied: bool) {
        if let Some(truth) = self.sessions.get_mut(&nonce) {
            (truth.told, truth.ends_before) = (Some(copied), self.ends);
        }
    }

    pub(super) fn ended(&mut self, nonce: Nonce) {
        if let Some(truth) = self.sessions.get_mut(&nonce) {
            truth.ended = true;
        }
    }

    /// All who should have a copy know that it has ended. One that is over without knowing may have
    /// a copy as well: nobody counts on telling it.
    pub(super) fn end_told(&mut self, nonce: Nonce, mut living: impl Iterator<Item = NodeRef>) {
        if living.any(|node| self.verdicts.contains_key(&node)) {
            return;
        }
        if let Some(truth) = self.sessions.get_mut(&nonce) {
            truth.end_told = true;
        }
    }

    /// A backup was told that it need not keep it any more.
    pub(super) fn dropped(&mut self, pid: Pid, nonce: Nonce) {
        self.copies.remove(&(pid, nonce));
    }

    /// Nobody living knows of a verdict any more: whoever knew of it, and all who agreed on it, were
    /// lost before anybody else heard. That is beyond what is promised; what followed from it may
    /// be decided once more.
    pub(super) fn forget(&mut self, is_known: impl Fn(NodeRef) -> bool) {
        let before = self.verdicts.len();
        self.verdicts.retain(|over, _| is_known(*over));
        if self.verdicts.len() < before {
            for truth in self.sessions.values_mut() {
                truth.served_by.clear();
                (truth.served_in, truth.end_told) = (0, false);
            }
        }
    }

    pub(super) fn crashed(&mut self, pid: Pid) {
        self.ends += 1;
        self.copies.retain(|(holder, _), _| *holder != pid);
    }
}

impl World {
    pub(super) fn violated(&mut self, invariant: &'static str, text: String) {
        self.checker.violation.get_or_insert(Violation { invariant, text });
    }

    /// Everyone who might run something for this session right now.
    fn rights(&self, nonce: Nonce) -> Vec<NodeRef> {
        let running = (0..self.hosts.len()).filter_map(|host| self.running(host));
        running
            .filter(|it| it.custody.holding(nonce) == Holding::Live && it.may_serve(self.now))
            .map(|it| it.me())
            .collect()
    }

    /// Every living process with anything of a session.
    fn holders(&self, nonce: Nonce) -> Vec<NodeRef> {
        let living = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let has = |it: &&super::process::Process| {
            it.custody.record(nonce).is_some() || matches!(it.custody.recall(nonce), Some(Item::Live(_)))
        };
        living.filter(has).map(|it| it.me()).collect()
    }

    /// I2, I3, I5 and I15, at the moment in which a call gets to the backend.
    pub(super) fn check_dispatch(&mut self, pid: Pid, nonce: Nonce, op: Op) {
        let Some(process) = self.process(pid) else { return };
        let (me, epoch) = (process.me(), process.custody.record(nonce).map_or(0, |record| record.epoch));
        let others: Vec<_> = self.rights(nonce).into_iter().filter(|node| *node != me).collect();
        if self.is_told() {
            self.tell(pid.host, format_args!("runs {op:?} for {} in epoch {epoch}", short(nonce)));
        }
        if let Some(other) = others.first() {
            let text = format!("{} and {} may both serve {}", self.word(me), self.word(*other), short(nonce));
            self.violated("I3", text);
        }
        let Some(truth) = self.checker.sessions.get_mut(&nonce) else { return };
        truth.counter += 1;
        let first = *truth.served_by.entry(epoch).or_insert(me);
        let (before, end_told) = (truth.served_in, truth.has_ended_for_all(self.checker.ends));
        truth.served_in = before.max(epoch);
        if first != me {
            let text = format!(
                "epoch {epoch} of {} was {}'s and is {}'s",
                short(nonce),
                self.word(first),
                self.word(me)
            );
            self.violated("I2", text);
        }
        if epoch < before {
            self.violated("I3", format!("{} was served in epoch {before}, now in {epoch}", short(nonce)));
        }
        if end_told {
            self.violated(
                "I15",
                format!("{} has ended, as all its backups know, and is served", short(nonce)),
            );
        }
        let Op::Call { uid, safe } = op else { return };
        let runs = self.checker.runs.entry(uid).or_default();
        *runs += 1;
        if *runs > 1 && !safe {
            self.violated("I5", format!("call {uid:x} of {} runs again", short(nonce)));
        }
        if self.checker.unrun.contains(&uid) {
            self.violated("I6", format!("call {uid:x} runs, and its client was told that it did not"));
        }
    }

    /// I4: one verdict for each incarnation, and by then no right of it is left.
    pub(super) fn check_verdict(&mut self, host: usize, verdict: &Verdict) {
        let (over, heirs) = (verdict.over, verdict.heirs.clone());
        if self.is_told() {
            let names: Vec<_> = heirs.iter().map(|heir| self.word(*heir)).collect();
            let over = self.word(over);
            self.tell(host, format_args!("learns that {over} is over, heirs: {}", names.join(" ")));
        }
        if let Some(first) = self.checker.verdicts.get(&over) {
            if *first != heirs {
                let names =
                    |heirs: &[NodeRef]| heirs.iter().map(|it| self.word(*it)).collect::<Vec<_>>().join(" ");
                let text = format!(
                    "the heirs of {} are {} and also {}",
                    self.word(over),
                    names(first),
                    names(&heirs)
                );
                self.violated("I4", text);
            }
            return;
        }
        self.checker.verdicts.insert(over, heirs);
        self.counts.verdicts += 1;
        let owner = self.running(self.by_tag[&over.tag]).filter(|it| it.me() == over);
        let Some(owner) = owner else { return };
        let (serves, thawed, resigned) = (owner.may_serve(self.now), owner.thawed, owner.drain.is_some());
        let was_up = self.now.saturating_sub(thawed.max(self.quiet_since(self.by_tag[&over.tag]))) > 4_000;
        if serves {
            self.violated("I4", format!("{} is over, and may serve", self.word(over)));
        } else if was_up && !resigned {
            let text = format!("{} ran and could be heard for 4 s, and is over", self.word(over));
            self.violated("I4", text);
        }
    }

    /// Since when nothing is wrong with a node's own links.
    fn quiet_since(&self, host: usize) -> Ms {
        if self.net.is_troubled(host) { self.now } else { self.trouble_ended[host] }
    }

    /// I14: nothing new for who has announced that it leaves.
    pub(super) fn check_placement(&mut self, pid: Pid) {
        let Some(process) = self.process(pid) else { return };
        let others = process.view.active().any(|member| member.node.tag != process.me().tag);
        if process.phase != Phase::Active && others {
            let text = format!(
                "{} opens a session while {}",
                self.names[pid.host],
                self.hosts[pid.host].process.as_ref().map_or("gone", |it| it.phase.word())
            );
            self.violated("I14", text);
        }
    }

    /// I15: what a backup has kept never gets older.
    pub(super) fn check_copy(&mut self, pid: Pid, nonce: Nonce) {
        let now = self.now;
        let Some(process) = self.process(pid) else { return };
        let version = match process.custody.recall(nonce) {
            Some(Item::Live(record)) => Some(record.version()),
            Some(Item::Ended { .. } | Item::Elsewhere { .. }) | None => {
                process.custody.record(nonce).map(|record| record.version())
            }
        };
        let is_live = process.custody.record(nonce).is_some();
        let Some(version) = version else { return };
        let known = self.checker.copies.get(&(pid, nonce)).copied();
        match known {
            Some((before, _)) if before > version && !is_live => {
                let text = format!(
                    "{} had {} in version {before:?} and has {version:?}",
                    self.names[pid.host],
                    short(nonce)
                );
                self.violated("I15", text);
            }
            Some((before, _)) if before == version => {}
            Some(_) | None => {
                self.checker.copies.insert((pid, nonce), (version, now));
            }
        }
    }

    /// I15: an heir goes on from the latest copy that it could have had.
    pub(super) fn check_inherited(&mut self, host: usize, record: &Record) {
        let nonce = record.nonce;
        let Some(pid) = self.hosts[host].pid() else { return };
        let mine = record.log_level.clone();
        let now = self.now;
        let mut better = None;
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            let Some(process) = self.running(other) else { continue };
            let Some(copy) = process.custody.copies().find(|copy| copy.nonce == nonce) else { continue };
            let since = self.checker.copies.get(&(process.pid, nonce)).map_or(now, |(_, since)| *since);
            // Before adopting, versions were comparable: its epoch then was one of an earlier owner.
            let newer = copy.epoch + 1 == record.epoch && copy.log_level != mine;
            if newer && now > since + 2_500 && self.net.is_up_both_ways(host, other, now) {
                better = Some((other, copy.version()));
            }
        }
        let own = self.checker.copies.get(&(pid, nonce)).map(|(version, _)| *version);
        let thawed = self.running(host).map_or(now, |it| it.thawed);
        if now.saturating_sub(self.quiet_since(host).max(thawed)) < 4_000 {
            return; // its owner could not tell it
        }
        if let (Some((other, version)), Some(own)) = (better, own)
            && own < version
        {
            let text = format!(
                "{} goes on with {} from version {own:?}; {} has had {version:?} for long",
                self.names[host],
                short(nonce),
                self.names[other]
            );
            self.violated("I15", text);
        }
    }

    /// I6, I7, I8 and I14, when a client is told something.
    pub(super) fn judge_end(&mut self, id: u64, journey: &Journey, told: &Told) {
        let process = self.hosts[journey.pid.host].process.as_ref();
        let frozen = process.map_or(0, |it| it.frozen_total) - journey.frozen_before;
        if self.now > journey.deadline + 1_000 + frozen {
            self.violated("I6", format!("request {id} was answered {} ms late", self.now - journey.deadline));
        }
        let calm = self.plan.weather == Weather::Calm;
        match (&journey.ask, told) {
            (_, Told::Failed { may_have_run }) => {
                let uid = match journey.ask {
                    Ask::Session { op: Op::Call { uid, .. }, .. } => Some(uid),
                    Ask::Open(_) | Ask::Session { .. } => None,
                };
                if let Some(uid) = uid.filter(|_| !may_have_run) {
                    self.checker.unrun.insert(uid);
                    if self.checker.runs.contains_key(&uid) {
                        self.violated(
                            "I6",
                            format!("call {uid:x} has run, and its client is told it has not"),
                        );
                    }
                }
                if calm {
                    self.violated("I14", format!("request {id} fails, though nodes only come and leave"));
                }
            }
            (Ask::Session { nonce, .. }, Told::Gone(why)) => self.check_gone(*nonce, *why),
            (Ask::Open(_), Told::Gone(why)) => {
                self.violated("I8", format!("opening a session: {why:?}"));
            }
            (_, Told::Answered | Told::Opened { .. }) => {}
        }
    }

    /// I7 and I8: 404 only for what has ended, or is lost with its owner and all copies.
    fn check_gone(&mut self, nonce: Nonce, why: GoneWhy) {
        let Some(truth) = self.checker.sessions.get(&nonce).cloned() else { return };
        let expired = truth.kind == Kind::Expiring && self.checker.verdicts.contains_key(&truth.home);
        if truth.ended || expired {
            return;
        }
        let holders: Vec<_> = self.holders(nonce).into_iter().map(|node| self.word(node)).collect();
        let what = format!("404 ({why:?}) for {} ({:?})", short(nonce), truth.kind);
        if truth.kind == Kind::Reattached {
            self.violated("I8", format!("{what}, which could be reattached"));
        } else if !holders.is_empty() && truth.told == Some(true) {
            self.violated("I8", format!("{what}, of which there is a record at {}", holders.join(", ")));
        } else if truth.told == Some(true) && self.checker.ends <= truth.ends_before + 1 {
            self.violated("I7", format!("{what}, and at most one process has come to its end"));
        }
    }

    // --- at the end ---

    /// I10: once everything is healed, every session is served from everywhere.
    pub(super) fn probe(&mut self) {
        let entries: Vec<_> = (0..self.hosts.len())
            .filter_map(|host| self.running(host))
            .filter(|it| it.drain.is_none())
            .map(|it| it.pid)
            .collect();
        let known: Vec<_> = self.clients.iter().flat_map(|client| client.sessions.clone()).collect();
        for (nonce, birth, kind) in known {
            if self.is_lost(nonce) {
                continue;
            }
            for entry in &entries {
                let op = Op::Call { uid: self.rng.next(), safe: true };
                let ask = Ask::Session { nonce, birth: birth.clone(), kind, op };
                self.begin(None, *entry, ask, AT_MOST);
            }
        }
    }

    fn is_lost(&self, nonce: Nonce) -> bool {
        let Some(truth) = self.checker.sessions.get(&nonce) else { return true };
        let unheld = truth.kind != Kind::Reattached && self.holders(nonce).is_empty();
        truth.ended
            || unheld
            || (truth.kind == Kind::Expiring && self.checker.verdicts.contains_key(&truth.home))
    }

    pub(super) fn on_probed(&mut self, journey: &Journey, told: &Told) {
        if let (Ask::Session { nonce, .. }, false) = (&journey.ask, *told == Told::Answered)
            && !self.is_lost(*nonce)
        {
            let entry = self.names[journey.pid.host].clone();
            self.violated("I10", format!("{} is not served from {entry}: {told:?}", short(*nonce)));
        }
    }

    pub(super) fn check_rest(&mut self) {
        if let Some((id, journey)) = self.journeys.iter().next() {
            let text = format!("request {id} never ends: {:?}", journey.ask);
            return self.violated("I6", text);
        }
        for host in 0..self.hosts.len() {
            let Some(process) = self.hosts[host].process.as_ref() else { continue };
            let name = &self.names[host];
            if process.drain.is_some() {
                return self.violated("I10", format!("{name} still drains"));
            }
            if !process.may_serve(self.now) {
                return self.violated("I10", format!("{name} is parked"));
            }
            let deciding = process.tenure.deciding().next();
            if let Some(over) = deciding {
                let text = format!("{name} still tries to end {}", self.word(over));
                return self.violated("I10", text);
            }
            let sizes = self.running(host).map_or([0; 3], |it| it.tenure.sizes());
            if sizes.iter().any(|size| *size > 400) {
                return self.violated("I17", format!("{name} keeps {sizes:?} things"));
            }
        }
        for nonce in self.checker.sessions.keys().copied().collect::<Vec<_>>() {
            self.check_session_at_rest(nonce);
        }
    }

    fn check_session_at_rest(&mut self, nonce: Nonce) {
        let owners: Vec<_> = (0..self.hosts.len())
            .filter(|host| self.running(*host).is_some_and(|it| it.custody.holding(nonce) == Holding::Live))
            .collect();
        let name = short(nonce);
        let truth = &self.checker.sessions[&nonce];
        let told = truth.told.is_some() && !truth.ended;
        let ended = truth.has_ended_for_all(self.checker.ends);
        if owners.len() > 1 || (ended && !owners.is_empty()) {
            let names: Vec<_> = owners.iter().map(|host| self.names[*host].as_str()).collect();
            return self.violated("I10", format!("{name} is owned by {}", names.join(", ")));
        }
        let Some(owner) = owners.first().and_then(|host| self.running(*host)) else { return };
        let Some(record) = owner.custody.record(nonce) else { return };
        let backups: Vec<_> =
            owner.custody.heirs().successors(Position::of_session(nonce)).take(BACKUPS).collect();
        for backup in backups {
            let there = self.running(self.by_tag[&backup.tag]).filter(|it| it.me() == backup);
            let copy = there.and_then(|it| it.custody.copies().find(|copy| copy.nonce == nonce));
            if told && copy.map(|copy| copy.version()) != Some(record.version()) {
                let text = format!(
                    "{name} is in version {:?} at {}, and {:?} at its backup {}",
                    record.version(),
                    self.word(owner.me()),
                    copy.map(|copy| copy.version()),
                    self.word(backup)
                );
                return self.violated("I10", text);
            }
        }
    }

    pub(super) fn unprobed(&mut self, journey: &Journey) {
        let text = format!("an entry node went away while probed: {:?}", journey.ask);
        self.violated("I10", text);
    }
}

/// For a probe: everything is healed, and has been for a while.
const AT_MOST: Ms = 7_000;
