//! What a node does as the owner of sessions, or as one that is to become it.

use super::clients::{Ask, Asker, Kind, Op, Outcome};
use super::event::{Event, Pid, Uid};
use super::process::{Call, Opening, Reviving};
use super::rpc::{Reply, Request, RpcId};
use super::world::{World, short};
use proto::core::custody::{Holding, Parcel};
use proto::core::placement;
use proto::core::revival::Found;
use proto::core::ring::Position;
use proto::core::route::{Hop, Route};
use proto::core::tenure::{Ms, Rule};
use proto::core::view::Phase;
use proto::id::{Birth, NodeRef, Nonce, Principal, RouteId, UpstreamBirth};
use proto::wire::{GoneWhy, Item, Reason, Record, Refusal};
use std::sync::Arc;

/// A lone node, or one whose backups are slow, makes its clients wait no longer for a copy.
const COPY_PATIENCE: Ms = 200;
const END_PATIENCE: Ms = 1_000;
const RECALL_PATIENCE: Ms = 1_000;
/// As long as a view must stand still to count as settled.
const SURE_AFTER: Ms = 5_000;
const STREAM_PATIENCE: Ms = 4_000;
/// Longer than any world lasts: forgetting is not what is looked at.
const KEEP_S: u32 = 600;

impl World {
    pub(super) fn on_forwarded(&mut self, pid: Pid, asker: Asker, ask: Ask) {
        if self.attach(pid, asker, &ask) {
            return;
        }
        let route = self.decide(pid, &ask, Hop::Forwarded { same_view: false }, &[], None);
        self.carry_through(pid, asker, ask, route);
    }

    /// Does what the route says, for a request that came from wherever.
    pub(super) fn carry_through(&mut self, pid: Pid, asker: Asker, ask: Ask, route: Route) {
        match (route, &ask) {
            (Route::Open, Ask::Open(kind)) => self.open(pid, asker, *kind),
            (Route::Here, Ask::Session { nonce, op, .. }) => self.serve(pid, asker, *nonce, *op, &ask),
            (Route::Revive, Ask::Session { nonce, .. }) => self.revive(pid, asker, *nonce, ask),
            (Route::NotHere(not_here), _) => self.answer(pid, asker, Outcome::NotHere(not_here)),
            (Route::Refuse(refusal), _) => self.answer(pid, asker, Outcome::Refused(refusal)),
            (Route::Here | Route::Open | Route::Revive | Route::There(_) | Route::Wait(_), _) => {
                self.violated("I9", format!("{route:?} is no answer to a forwarded request"));
            }
        }
    }

    fn answer(&mut self, pid: Pid, asker: Asker, outcome: Outcome) {
        match asker {
            Asker::Remote(rpc) => self.reply(rpc, Reply::Forwarded(outcome)),
            Asker::Local(journey) => {
                let Some(me) = self.process(pid).map(|it| it.me()) else { return };
                self.on_outcome(journey, me, outcome);
            }
        }
    }

    // --- opening ---

    fn open(&mut self, pid: Pid, asker: Asker, kind: Kind) {
        if let Asker::Remote(_) = asker {
            self.check_placement(pid);
        }
        let mut bytes = [0; 12];
        let now = self.now;
        let (mut rng, me) = (self.rng.clone(), self.hosts[pid.host].process.as_ref().map(|it| it.me()));
        let (Some(process), Some(me)) = (self.process(pid), me) else { return };
        let nonce = placement::draw(&process.ring, me, || {
            bytes[..8].copy_from_slice(&rng.next().to_be_bytes());
            bytes[8..].copy_from_slice(&rng.next().to_be_bytes()[..4]);
            Nonce(bytes)
        });
        let upstream = UpstreamBirth { url: "u".into(), session: "s".into() };
        let upstream = (kind == Kind::Reattached).then_some(upstream);
        let birth = Birth {
            minted_s: (now / 1_000) as u32,
            home: me,
            route: RouteId(1),
            principal: Principal::ANYONE,
            upstream,
        };
        let local = process.clock.read(now);
        process.custody.own(new_record(nonce, &birth, 1), local);
        process.opening.insert(nonce, Opening { asker, birth });
        self.rng = rng;
        self.counts.sessions += 1;
        self.checker.born(nonce, kind, me);
        self.tell(pid.host, format_args!("opens {kind:?} session {}", short(nonce)));
        if self.rules.keeps(Rule::CopiedBeforeAnswered) {
            self.agenda.plan(now + COPY_PATIENCE, Event::OpenDue { at: pid, nonce });
            self.send_parcels(pid.host);
        } else {
            self.tell_opened(pid, nonce, true);
        }
    }

    pub(super) fn tell_opened(&mut self, pid: Pid, nonce: Nonce, copied: bool) {
        let Some(process) = self.process(pid) else { return };
        let Some(opening) = process.opening.remove(&nonce) else { return };
        let lives = process.custody.holding(nonce) == Holding::Live;
        let outcome = match lives {
            true => Outcome::Opened { nonce, birth: opening.birth },
            false => Outcome::Refused(Refusal::not_run(Reason::OwnerLost)),
        };
        if lives {
            self.checker.acknowledged(nonce, copied);
        }
        self.answer(pid, opening.asker, outcome);
        if lives && std::mem::take(&mut self.crash_at_next_opening) {
            // Not before the answer is on its way.
            self.agenda.plan(self.now + 5, Event::Crash(pid.host));
        }
    }

    // --- serving ---

    /// Whether the call is known here already: it runs, or has run.
    pub(super) fn attach(&mut self, pid: Pid, asker: Asker, ask: &Ask) -> bool {
        let Ask::Session { op: Op::Call { uid, .. }, .. } = ask else { return false };
        let Some(call) = self.process(pid).and_then(|it| it.calls.get_mut(uid)) else { return false };
        if call.done {
            self.answer(pid, asker, Outcome::Answered);
        } else {
            call.askers.push(asker);
        }
        true
    }

    fn serve(&mut self, pid: Pid, asker: Asker, nonce: Nonce, op: Op, ask: &Ask) {
        if self.attach(pid, asker, ask) {
            return;
        }
        self.check_dispatch(pid, nonce, op);
        let now = self.now;
        let Some(process) = self.process(pid) else { return };
        let local = process.clock.read(now);
        match op {
            Op::Call { uid, .. } => {
                process.calls.insert(uid, Call { nonce, done: false, askers: vec![asker] });
                let long = self.rng.percent(4);
                let takes = if long { self.rng.between(200, 2_500) } else { self.rng.between(1, 50) };
                self.agenda.plan(now + takes, Event::Done { at: pid, uid });
            }
            Op::Change(value) => {
                let text: Arc<str> = value.to_string().into();
                process.custody.change(nonce, |record| record.log_level = Some(text), local);
                self.send_parcels(pid.host);
                self.answer(pid, asker, Outcome::Answered);
            }
            Op::End => {
                process.custody.end(nonce, GoneWhy::Deleted, local);
                process.ending.entry(nonce).or_default().push(asker);
                self.checker.ended(nonce);
                self.tell(pid.host, format_args!("ends {}", short(nonce)));
                self.agenda.plan(now + END_PATIENCE, Event::EndDue { at: pid, nonce });
                self.send_parcels(pid.host);
            }
        }
    }

    pub(super) fn on_done(&mut self, pid: Pid, uid: Uid) {
        let Some(call) = self.process(pid).and_then(|it| it.calls.get_mut(&uid)) else { return };
        call.done = true;
        for asker in std::mem::take(&mut call.askers) {
            self.answer(pid, asker, Outcome::Answered);
        }
    }

    pub(super) fn tell_ended(&mut self, pid: Pid, nonce: Nonce, is_told: bool) {
        let Some(askers) = self.process(pid).and_then(|it| it.ending.remove(&nonce)) else { return };
        if is_told {
            let living = self.hosts.iter().filter_map(|host| Some(host.process.as_ref()?.me()));
            self.checker.end_told(nonce, living);
        }
        for asker in askers {
            self.answer(pid, asker, Outcome::Answered);
        }
    }

    /// What ran for sessions that this process has lost is lost with them.
    pub(super) fn fail_lost_calls(&mut self, pid: Pid) {
        let Some(process) = self.process(pid) else { return };
        let custody = &process.custody;
        let lost: Vec<_> = process
            .calls
            .iter_mut()
            .filter(|(_, call)| !call.done && custody.holding(call.nonce) != Holding::Live)
            .flat_map(|(_, call)| std::mem::take(&mut call.askers))
            .collect();
        let openings: Vec<_> = process.opening.keys().copied().collect();
        for asker in lost {
            self.answer(pid, asker, Outcome::Refused(Refusal::perhaps_run(Reason::OwnerLost)));
        }
        for nonce in openings {
            self.tell_opened(pid, nonce, false);
        }
    }

    // --- reviving ---

    fn revive(&mut self, pid: Pid, asker: Asker, nonce: Nonce, ask: Ask) {
        let now = self.now;
        let Some(process) = self.process(pid) else { return };
        let me = process.me();
        let is_new = !process.reviving.contains_key(&nonce);
        process.reviving.entry(nonce).or_default().askers.push((asker, ask));
        if !is_new {
            return;
        }
        // Also those that are over: their processes may go on, with copies of what was theirs.
        let others: Vec<_> = process.seen.iter().map(|(node, _)| *node).filter(|node| *node != me).collect();
        self.tell(pid.host, format_args!("asks for copies of {}", short(nonce)));
        for node in others {
            let rpc = self.ask(pid, node, Request::Recall(nonce), RECALL_PATIENCE * 2);
            if let Some(reviving) = self.process(pid).and_then(|it| it.reviving.get_mut(&nonce)) {
                reviving.asked.insert(rpc);
            }
        }
        self.agenda.plan(now + RECALL_PATIENCE, Event::RecallDue { at: pid, nonce });
        self.revive_if_all_said(pid, nonce);
    }

    /// What `of` has, or nothing if it could not be asked.
    pub(super) fn on_recalled(
        &mut self,
        pid: Pid,
        rpc: RpcId,
        of: NodeRef,
        nonce: Nonce,
        item: Option<Option<Item>>,
    ) {
        let refuses = self.refuses(pid.host, self.by_tag[&of.tag]);
        let Some(process) = self.process(pid) else { return };
        let is_gone = refuses || process.tenure.is_gone(of);
        let Some(reviving) = process.reviving.get_mut(&nonce) else { return };
        if !reviving.asked.remove(&rpc) {
            return;
        }
        match item {
            None if is_gone => {}
            None => reviving.heard.miss(),
            Some(item) => reviving.heard.hear(item),
        }
        self.revive_if_all_said(pid, nonce);
    }

    fn revive_if_all_said(&mut self, pid: Pid, nonce: Nonce) {
        let reviving = self.process(pid).and_then(|it| it.reviving.get(&nonce));
        if reviving.is_some_and(|it| it.asked.is_empty()) {
            self.end_recall(pid, nonce);
        }
    }

    /// Everyone has been heard, or has had the time for it.
    pub(super) fn end_recall(&mut self, pid: Pid, nonce: Nonce) {
        let now = self.now;
        let Some(reviving) = self.process(pid).and_then(|it| it.reviving.remove(&nonce)) else { return };
        let Some((_, ask)) = reviving.askers.first().cloned() else { return };
        let route = self.decide(pid, &ask, Hop::Forwarded { same_view: false }, &[], None);
        let (Route::Revive, Ask::Session { birth, kind, .. }) = (route, &ask) else {
            return self.ask_anew(pid, reviving.askers);
        };
        let has_met_seeds = self.has_met_seeds(pid.host);
        let Some(process) = self.process(pid) else { return };
        // Who has been away, or sees the members change, does not know whom to ask.
        let stood = now.saturating_sub(process.view_changed.max(process.reborn));
        let settled = has_met_seeds && stood >= SURE_AFTER;
        let epoch = process.tenure.succession().owner(birth.home, Position::of_session(nonce)).epoch;
        let mut heard = reviving.heard.clone();
        // A copy may have come after the verdict that made this node the owner.
        heard.hear(process.custody.recall(nonce));
        if !reviving.asked.is_empty() {
            heard.miss();
        }
        let (me, local) = (process.me(), process.clock.read(now));
        let refusal = match heard.conclude(epoch, settled) {
            Found::Record(record) => {
                process.custody.own(record, local);
                None
            }
            Found::Ended(why) => {
                process.custody.keep(me, &Item::Ended { nonce, why }, local);
                Some(Refusal::Gone(why))
            }
            Found::Nothing | Found::Unsure if *kind == Kind::Reattached => {
                process.custody.own(new_record(nonce, birth, epoch), local);
                None
            }
            Found::Nothing => Some(Refusal::Gone(GoneWhy::LostOwner)),
            Found::Unsure => Some(Refusal::not_run(Reason::OwnerUnreachable)),
        };
        if let Some(refusal) = refusal {
            return self.answer_all(pid, &reviving, Outcome::Refused(refusal));
        }
        self.counts.revivals += 1;
        self.tell(pid.host, format_args!("revives {} in epoch {epoch}", short(nonce)));
        self.send_parcels(pid.host);
        self.ask_anew(pid, reviving.askers);
    }

    fn answer_all(&mut self, pid: Pid, reviving: &Reviving, outcome: Outcome) {
        for (asker, _) in &reviving.askers {
            self.answer(pid, *asker, outcome.clone());
        }
    }

    fn ask_anew(&mut self, pid: Pid, askers: Vec<(Asker, Ask)>) {
        for (asker, ask) in askers {
            // An entry node that has lost its right meanwhile looks again, as if somebody had told it.
            self.on_forwarded(pid, asker, ask);
        }
    }

    // --- copies ---

    pub(super) fn keep(&mut self, pid: Pid, to: NodeRef, items: &[Item]) {
        let now = self.now;
        for item in items {
            if self.is_told() {
                let text = words(item);
                self.tell(pid.host, format_args!("is told to keep {text}"));
            }
            let Some(process) = self.process(pid) else { return };
            let local = process.clock.read(now);
            process.custody.keep(to, item, local);
            match item {
                Item::Live(record) => self.check_copy(pid, record.nonce),
                Item::Ended { .. } => {}
                Item::Elsewhere { nonce, .. } => self.checker.dropped(pid, *nonce),
            }
        }
    }

    pub(super) fn on_kept(&mut self, pid: Pid, by: NodeRef, items: &[Item]) {
        let now = self.now;
        let Some(process) = self.process(pid) else { return };
        let local = process.clock.read(now);
        process.custody.kept(by, items, local);
        for item in items {
            match item {
                Item::Live(record) => {
                    let copied = self.process(pid).is_some_and(|it| it.custody.kept_by(record.nonce) > 0);
                    if copied {
                        self.tell_opened(pid, record.nonce, true);
                    }
                }
                Item::Ended { .. } | Item::Elsewhere { .. } => self.send_parcels(pid.host),
            }
        }
        let Some(process) = self.process(pid) else { return };
        let told: Vec<_> =
            process.ending.keys().filter(|nonce| !process.custody.is_end_untold(**nonce)).copied().collect();
        for nonce in told {
            self.tell_ended(pid, nonce, true);
        }
    }

    pub(super) fn send_parcels(&mut self, host: usize) {
        let now = self.now;
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        let (pid, local) = (process.pid, process.clock.read(now));
        for parcel in process.custody.parcels(local) {
            let (to, request) = match parcel {
                Parcel::Keep { to, items } => (to, Request::Keep(items)),
                Parcel::Give { to, record } => (to, Request::Give(record)),
            };
            self.ask(pid, to, request, STREAM_PATIENCE);
        }
    }

    // --- leaving ---

    pub(super) fn take(&mut self, pid: Pid, from: Pid, to: NodeRef, record: &Arc<Record>) {
        let now = self.now;
        let Some(process) = self.process(pid) else { return };
        let local = process.clock.read(now);
        let taken = process.custody.take(to, record, local).is_some();
        self.check_copy(pid, record.nonce);
        if taken {
            self.counts.given += 1;
            let (nonce, giver) = (short(record.nonce), self.names[from.host].clone());
            self.tell(pid.host, format_args!("takes {nonce} from {giver} in epoch {}", record.epoch));
            self.wake_all(pid);
            self.send_parcels(pid.host);
        }
    }

    /// One step of leaving in an orderly way.
    pub(super) fn drain_on(&mut self, pid: Pid) {
        let now = self.now;
        let Some(process) = self.process(pid) else { return };
        let Some(mut drain) = process.drain else { return };
        let local = process.clock.read(now);
        let leaves = match drain.resigned {
            Some(since) => {
                let over = process.me() != drain.me;
                let asked = self.journeys.values().any(|journey| journey.pid == pid);
                // Those whom it answers shall have heard where everything is now.
                (over && !asked && now > since + 300) || now > since + 3_000
            }
            None => {
                let process = self.process(pid).expect("just there");
                if process.me() != drain.me {
                    // It was silenced meanwhile, and has come back as somebody without sessions.
                    drain.resigned = Some(now);
                } else if process.tenure.is_settled() && process.tenure.may_serve(local) {
                    self.give_all(pid);
                }
                let process = self.process(pid).expect("just there");
                let empty = process.custody.owned().count() == 0 && process.custody.untaken() == 0;
                if drain.resigned.is_none() && (empty || now > drain.deadline) {
                    drain.resigned = Some(now);
                    process.tenure.resign(local);
                    self.tell(pid.host, format_args!("resigns{}", if empty { "" } else { ", too late" }));
                    self.carry_out(pid.host);
                }
                false
            }
        };
        if let Some(process) = self.process(pid) {
            process.drain = Some(drain);
        }
        if leaves {
            self.leave(pid);
        }
    }

    fn give_all(&mut self, pid: Pid) {
        let now = self.now;
        let Some(process) = self.process(pid) else { return };
        let local = process.clock.read(now);
        let nonces: Vec<_> = process.custody.owned().map(|record| record.nonce).collect();
        let mut any = false;
        for nonce in nonces {
            let Some(process) = self.process(pid) else { return };
            if process.is_running_calls_of(nonce) || process.opening.contains_key(&nonce) {
                continue;
            }
            any |= process.custody.give(nonce, process.tenure.succession(), local).is_some();
        }
        if any {
            self.send_parcels(pid.host);
        }
    }

    pub(super) fn start_draining(&mut self, host: usize) {
        let now = self.now;
        let deadline = now + self.rng.between(4_000, 8_000);
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        if process.drain.is_some() {
            return;
        }
        process.phase = Phase::Draining;
        process.tenure.retire();
        process.drain =
            Some(super::process::Drain { me: process.me(), since: now, deadline, resigned: None });
        let pid = process.pid;
        self.tell(host, format_args!("drains"));
        self.announce(pid);
    }
}

fn words(item: &Item) -> String {
    match item {
        Item::Live(record) => format!("{} in version {:?}", short(record.nonce), record.version()),
        Item::Ended { nonce, why } => format!("{} as ended ({why})", short(*nonce)),
        Item::Elsewhere { nonce, version } => format!("{} no more, up to version {version:?}", short(*nonce)),
    }
}

pub(super) fn new_record(nonce: Nonce, birth: &Birth, epoch: u32) -> Record {
    Record {
        nonce,
        birth: birth.clone(),
        epoch,
        rev: 0,
        lives: birth.upstream.clone(),
        renewals: 0,
        initialize: b"{}".as_slice().into(),
        log_level: None,
        subscriptions: Default::default(),
        repeatable: Default::default(),
        keep_s: KEEP_S,
    }
}
