//! Virtual clients, and what the node that a client happens to reach does for it: the same loop as
//! the product's `journey.rs`.

use super::event::{Event, Pid, Uid};
use super::rpc::Request;
use super::world::World;
use proto::core::placement;
use proto::core::route::{self, Hop, OnLoss, Route, Situation};
use proto::core::tenure::{Ms, Rule};
use proto::core::view::Phase;
use proto::id::{Birth, NodeRef, Nonce};
use proto::wire::{GoneWhy, NotHere, NotHereWhy, Reason, Refusal};

pub(super) const ROUTING_TIME: Ms = 10_000;
const FORWARDS_MAX: usize = 5;
const PAUSE: Ms = 250;
/// A hop that hangs is given up after this long.
const HOP_PATIENCE: (Ms, Ms) = (3_000, 9_000);

pub(super) type JourneyId = u64;

/// What becomes of a session when its owner is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reattached at its upstream, by the id alone if need be.
    Reattached,
    /// Reinitialized from its record.
    Reinitialized,
    /// Nothing: the client starts anew.
    Expiring,
}

impl Kind {
    pub(super) fn on_loss(self) -> OnLoss {
        match self {
            Self::Reattached | Self::Reinitialized => OnLoss::Reinitialize,
            Self::Expiring => OnLoss::Expire,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Call {
        uid: Uid,
        safe: bool,
    },
    /// Something that goes on record.
    Change(u64),
    End,
}

#[derive(Clone, Debug)]
pub(super) enum Ask {
    Open(Kind),
    Session { nonce: Nonce, birth: Birth, kind: Kind, op: Op },
}

/// Who waits for what a node does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Local(JourneyId),
    Remote(super::rpc::RpcId),
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Answered,
    Opened { nonce: Nonce, birth: Birth },
    Refused(Refusal),
    NotHere(NotHere),
}

/// What the client is told in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Answered,
    Opened {
        nonce: Nonce,
        birth: Birth,
    },
    /// 404.
    Gone(GoneWhy),
    Failed {
        may_have_run: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    ToLook,
    ForAnswer,
    Pausing,
}

#[derive(Clone, Debug)]
pub(super) struct Journey {
    pub(super) client: Option<usize>,
    pub(super) pid: Pid,
    pub(super) ask: Ask,
    pub(super) deadline: Ms,
    /// How long its node had been frozen when it began.
    pub(super) frozen_before: Ms,
    tried: Vec<NodeRef>,
    hint: Option<NodeRef>,
    forwards: usize,
    /// Hops in all.
    hops: usize,
    /// An unsafe call may be running there: nobody else is asked.
    bound: Option<NodeRef>,
    may_have_run: bool,
    refused: Option<Refusal>,
    waiting: Waiting,
    round: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub(super) sessions: Vec<(Nonce, Birth, Kind)>,
    /// The last entry node that it was told to leave alone.
    pub(super) busy: bool,
}

impl World {
    // --- the clients ---

    pub(super) fn on_client(&mut self, client: usize) {
        if self.clients_rest || self.clients[client].busy {
            return;
        }
        let Some(entry) = self.some_entry() else {
            return self.agenda.plan(self.now + 200, Event::Client(client));
        };
        let sessions = self.clients[client].sessions.len();
        let opens = sessions == 0 || (sessions < 4 && self.rng.percent(15));
        let ask = if opens {
            let kind = [Kind::Reattached, Kind::Reinitialized, Kind::Reinitialized, Kind::Expiring];
            Ask::Open(kind[self.rng.index(kind.len())])
        } else {
            let (nonce, birth, kind) = self.clients[client].sessions[self.rng.index(sessions)].clone();
            let op = match self.rng.below(100) {
                0..5 => Op::End,
                5..17 => Op::Change(self.rng.next()),
                percent => Op::Call { uid: self.rng.next(), safe: percent < 50 },
            };
            if op == Op::End {
                self.clients[client].sessions.retain(|(known, ..)| *known != nonce);
            }
            Ask::Session { nonce, birth, kind, op }
        };
        self.clients[client].busy = true;
        self.begin(Some(client), entry, ask, ROUTING_TIME);
    }

    /// A balancer knows nothing but who refuses connections and who has said for a while that it drains.
    fn some_entry(&mut self) -> Option<Pid> {
        let hosts: Vec<Pid> = (0..self.hosts.len())
            .filter_map(|host| self.hosts[host].process.as_ref())
            .filter(|it| it.drain.is_none_or(|drain| self.now < drain.since + 100))
            .filter(|it| it.phase != Phase::Joining)
            .map(|it| it.pid)
            .collect();
        self.rng.pick(&hosts)
    }

    pub(super) fn begin(&mut self, client: Option<usize>, pid: Pid, ask: Ask, time: Ms) -> JourneyId {
        self.last_journey += 1;
        let id = self.last_journey;
        let frozen = |it: &super::process::Process| {
            it.frozen_total + it.frozen_since.map_or(0, |since| self.now - since)
        };
        let journey = Journey {
            client,
            pid,
            ask,
            deadline: self.now + time,
            frozen_before: self.hosts[pid.host].process.as_ref().map_or(0, frozen),
            tried: Vec::new(),
            hint: None,
            forwards: 0,
            hops: 0,
            bound: None,
            may_have_run: false,
            refused: None,
            waiting: Waiting::ToLook,
            round: 0,
        };
        self.agenda.plan(journey.deadline, Event::Deadline(id));
        self.counts.requests += 1;
        self.journeys.insert(id, journey);
        self.agenda.plan(self.now, Event::Resume { journey: id, round: 0 });
        id
    }

    // --- the entry node ---

    pub(super) fn on_resume(&mut self, id: JourneyId, round: u32) {
        let Some(pid) = self.journeys.get(&id).map(|journey| journey.pid) else { return };
        if self.is_frozen(pid) {
            return self.put_off(pid.host, Event::Resume { journey: id, round });
        }
        let Some(journey) = self.journeys.get_mut(&id) else { return };
        if journey.round != round || journey.waiting == Waiting::ForAnswer {
            return;
        }
        if journey.waiting == Waiting::Pausing {
            (journey.tried, journey.hint, journey.forwards) = (Vec::new(), None, 0);
        }
        journey.waiting = Waiting::ToLook;
        self.advance(id);
    }

    /// Looks who answers, until somebody has been asked or nobody can be for now.
    fn advance(&mut self, id: JourneyId) {
        let Some(journey) = self.journeys.get(&id) else { return };
        let (pid, ask) = (journey.pid, journey.ask.clone());
        if let Some(owner) = journey.bound {
            return self.ask_again(id, owner);
        }
        let forwards = journey.forwards;
        let route = self.decide(pid, &ask, Hop::Entry, &journey.tried.clone(), journey.hint);
        match route {
            Route::Here | Route::Open | Route::Revive => {
                self.wait_for_answer(id);
                self.carry_through(pid, Asker::Local(id), ask, route);
            }
            Route::There(node) if forwards < FORWARDS_MAX => self.forward(id, node),
            Route::Wait(wanted) => {
                let now = self.now;
                if let (Some(node), Some(process)) = (wanted, self.process(pid)) {
                    let local = process.clock.read(now);
                    process.tenure.want(node, local);
                }
                self.pause(id, PAUSE);
            }
            Route::There(_) => self.pause(id, PAUSE),
            Route::NotHere(_) => {
                self.violated("I9", format!("an entry node passes request {id} by: {route:?}"));
            }
            Route::Refuse(refusal) => self.finish_refused(id, refusal),
        }
    }

    fn wait_for_answer(&mut self, id: JourneyId) {
        if let Some(journey) = self.journeys.get_mut(&id) {
            journey.waiting = Waiting::ForAnswer;
        }
    }

    fn forward(&mut self, id: JourneyId, node: NodeRef) {
        self.wait_for_answer(id);
        let patience = self.rng.between(HOP_PATIENCE.0, HOP_PATIENCE.1);
        let Some(journey) = self.journeys.get_mut(&id) else { return };
        journey.forwards += 1;
        journey.hops += 1;
        let (from, ask, hops) = (journey.pid, journey.ask.clone(), journey.hops);
        if hops > 400 {
            return self.violated("I9", format!("request {id} was forwarded {hops} times"));
        }
        self.ask(from, node, Request::Forward { journey: id, ask }, patience);
    }

    /// An unsafe call that may have run is asked for where it may have run, and nowhere else.
    fn ask_again(&mut self, id: JourneyId, owner: NodeRef) {
        let Some(journey) = self.journeys.get(&id) else { return };
        let Some(process) = self.process(journey.pid) else { return };
        let lost = process.tenure.succession().is_over(owner) || process.tenure.is_gone(owner);
        if lost {
            return self.finish(id, Told::Failed { may_have_run: true });
        }
        self.forward(id, owner);
    }

    fn pause(&mut self, id: JourneyId, pause: Ms) {
        let Some(journey) = self.journeys.get_mut(&id) else { return };
        journey.waiting = Waiting::Pausing;
        journey.round += 1;
        let round = journey.round;
        self.agenda.plan(self.now + pause, Event::Resume { journey: id, round });
    }

    /// The world of this process has changed: whoever waits looks again.
    pub(super) fn wake_all(&mut self, pid: Pid) {
        let pausing = |journey: &Journey| journey.pid == pid && journey.waiting == Waiting::Pausing;
        let woken: Vec<_> =
            self.journeys.iter().filter(|(_, it)| pausing(it)).map(|(id, it)| (*id, it.round)).collect();
        for (journey, round) in woken {
            self.agenda.plan(self.now, Event::Resume { journey, round });
        }
    }

    pub(super) fn on_outcome(&mut self, id: JourneyId, node: NodeRef, outcome: Outcome) {
        let Some(journey) = self.journeys.get_mut(&id) else { return };
        match outcome {
            Outcome::Answered => self.finish(id, Told::Answered),
            Outcome::Opened { nonce, birth } => self.finish(id, Told::Opened { nonce, birth }),
            Outcome::Refused(refusal)
                if matches!(journey.ask, Ask::Open(_))
                    && refusal.may_be_tried_again()
                    && !journey.tried.contains(&node) =>
            {
                (journey.refused, journey.waiting) = (Some(refusal), Waiting::ToLook);
                journey.tried.push(node);
                journey.hint = None;
                self.advance(id);
            }
            Outcome::Refused(refusal) => self.finish_refused(id, refusal),
            Outcome::NotHere(NotHere { why: NotHereWhy::Parked, .. }) if journey.bound.is_some() => {
                self.pause(id, PAUSE);
            }
            Outcome::NotHere(NotHere { hint, .. }) => {
                // It was read there, did not run, and never will: that node serves the session no more.
                journey.bound = None;
                journey.tried.push(node);
                (journey.hint, journey.waiting) = (hint, Waiting::ToLook);
                self.advance(id);
            }
        }
    }

    pub(super) fn on_broken_hop(&mut self, id: JourneyId, node: NodeRef, sent: bool) {
        let never_twice = self.rules.keeps(Rule::NeverTwice);
        let Some(journey) = self.journeys.get_mut(&id) else { return };
        let unsafe_call = matches!(journey.ask, Ask::Session { op: Op::Call { safe: false, .. }, .. });
        journey.may_have_run |= sent;
        if journey.bound.is_some() || (sent && unsafe_call && never_twice) {
            journey.bound = Some(node);
            return self.pause(id, PAUSE);
        }
        journey.tried.push(node);
        (journey.hint, journey.waiting) = (None, Waiting::ToLook);
        self.advance(id);
    }

    pub(super) fn on_deadline(&mut self, id: JourneyId) {
        let Some(journey) = self.journeys.get(&id) else { return };
        let pid = journey.pid;
        if self.is_frozen(pid) {
            return self.put_off(pid.host, Event::Deadline(id));
        }
        // While an answer is awaited, it may be running.
        let may_have_run = journey.may_have_run || journey.waiting == Waiting::ForAnswer;
        self.finish(id, Told::Failed { may_have_run });
    }

    fn finish_refused(&mut self, id: JourneyId, refusal: Refusal) {
        let Some(journey) = self.journeys.get(&id) else { return };
        let told = match refusal {
            Refusal::Gone(why) => Told::Gone(why),
            Refusal::Undelivered { may_have_run, .. } => {
                Told::Failed { may_have_run: may_have_run || journey.may_have_run }
            }
        };
        self.finish(id, told);
    }

    fn finish(&mut self, id: JourneyId, told: Told) {
        let Some(journey) = self.journeys.remove(&id) else { return };
        if self.is_told() {
            let what = match &journey.ask {
                Ask::Open(kind) => format!("open {kind:?}"),
                Ask::Session { nonce, op, .. } => format!("{} {op:?}", super::world::short(*nonce)),
            };
            self.tell(journey.pid.host, format_args!("request {id} ({what}) ends: {told:?}"));
        }
        self.judge_end(id, &journey, &told);
        let Some(client) = journey.client else { return self.on_probed(&journey, &told) };
        match (&journey.ask, told) {
            (Ask::Open(kind), Told::Opened { nonce, birth }) => {
                self.clients[client].sessions.push((nonce, birth, *kind));
            }
            (Ask::Session { nonce, .. }, Told::Gone(_)) => {
                self.clients[client].sessions.retain(|(known, ..)| known != nonce);
            }
            (Ask::Open(_) | Ask::Session { .. }, _) => {}
        }
        self.clients[client].busy = false;
        let think = self.rng.between(5, self.think);
        self.agenda.plan(self.now + think, Event::Client(client));
    }

    /// The entry node is gone, and with it the connection of its client.
    pub(super) fn abort_journeys(&mut self, gone: Pid) {
        let lost: Vec<_> = self.journeys.iter().filter(|(_, it)| it.pid == gone).map(|(id, _)| *id).collect();
        for id in lost {
            let Some(journey) = self.journeys.remove(&id) else { continue };
            if let Some(client) = journey.client {
                self.clients[client].busy = false;
                self.agenda.plan(self.now + 50, Event::Client(client));
            } else {
                self.unprobed(&journey);
            }
        }
    }

    // --- any node ---

    pub(super) fn decide(
        &mut self,
        pid: Pid,
        ask: &Ask,
        hop: Hop,
        tried: &[NodeRef],
        hint: Option<NodeRef>,
    ) -> Route {
        let dice = [self.rng.next(), self.rng.next()];
        let now = self.now;
        let Some(process) = self.process(pid) else {
            return Route::Refuse(Refusal::not_run(Reason::OwnerBroke));
        };
        let me = process.me();
        let (on_loss, holding) = match ask {
            Ask::Open(kind) => (kind.on_loss(), proto::core::custody::Holding::Unknown),
            Ask::Session { nonce, kind, .. } => (kind.on_loss(), process.custody.holding(*nonce)),
        };
        let question = match ask {
            Ask::Open(_) => {
                let nodes = process.ring.nodes();
                let load = |at: usize| match nodes[at] == me {
                    true => process.custody.owned().count() as u32,
                    false => process.loads.get(&nodes[at]).copied().unwrap_or(0),
                };
                let chosen =
                    placement::choose(me, &process.ring, load, |at| !tried.contains(&nodes[at]), dice);
                route::Ask::Open { chosen }
            }
            Ask::Session { birth, nonce, .. } => route::Ask::Session { birth, nonce: *nonce },
        };
        let situation = Situation {
            me,
            my_phase: process.phase,
            view: &process.view,
            ring: &process.ring,
            succession: process.tenure.succession(),
            leased: process.tenure.may_serve(process.clock.read(now)),
            hop,
            tried,
            hint,
            holding,
            on_loss,
        };
        let route = route::route(question, &situation);
        if let (Ask::Open(_), Route::There(node)) = (ask, route) {
            *process.loads.entry(node).or_default() += 1;
        }
        route
    }
}
