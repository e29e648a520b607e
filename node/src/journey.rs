//! The journey of a request, on the entry node and, by the same function, on the node that it is
//! forwarded to: classify, route, match.

use crate::answer::{Answer, TookOver};
use crate::ask::{Ask, Errand};
use crate::cluster::{Cluster, World};
use crate::events::Events;
use crate::headers::{HOPS, NODE};
use crate::peer::{Delivered, Outgoing, Peers};
use crate::sessions::Sessions;
use crate::telemetry::{Forwarded, Kind, Metrics, TRACEPARENT};
use hyper::header::{HeaderName, HeaderValue};
use proto::core::custody::Holding;
use proto::core::route::{Ask as Question, Hop, Route};
use proto::id::NodeRef;
use proto::wire::{NotHere, NotHereWhy, Reason, Refusal};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How long a request may wait for its owner to be known and reached (CONTRACT: up to 10 s).
const ROUTING_TIME: Duration = Duration::from_secs(10);
/// Nodes asked per request. Each is asked once, and again only after a pause.
const FORWARDS_MAX: usize = 5;
/// Pauses between two looks at an unchanged world; a change ends one at once. The first is about as
/// long as a session takes to go from one node to another.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Somebody waits for that node: said this often, while it is so.
const WANTED_EVERY: Duration = Duration::from_secs(1);

/// Why there is no answer to pass on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    Refused(Refusal),
    NotHere(NotHere),
}

impl NoAnswer {
    pub(crate) fn may_have_run(&self) -> bool {
        matches!(self, Self::Refused(Refusal::Undelivered { may_have_run: true, .. }))
    }
}

/// Said between nodes, and taken off before a client sees it: [`TookOver`].
const TOOK_OVER: HeaderName = HeaderName::from_static("ringway-took-over");

/// Everything a journey may need.
#[derive(Debug)]
pub(crate) struct Journey {
    name: HeaderValue,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<Events>,
}

impl Journey {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        sessions: Arc<Sessions>,
        peers: Arc<Peers>,
        metrics: Arc<Metrics>,
        events: Arc<Events>,
    ) -> Self {
        let name = HeaderValue::from_str(cluster.name().as_str()).expect("a node's name is plain ASCII");
        Self { name, cluster, sessions, peers, metrics, events }
    }

    /// Finds who answers and gets the answer, as far as its head. To be called again with the same ask
    /// where the answer's body was lost before any of it was passed on.
    pub(crate) async fn run(&self, ask: &Ask, hop: Hop) -> Result<Answer, NoAnswer> {
        let deadline = Instant::now() + ROUTING_TIME;
        let mut round = Round::default();
        let mut pauses = Pauses::default();
        let (mut refused, mut waited) = (None, false);
        loop {
            let (node, answered) = match self.decide(ask, hop, &round) {
                Route::Here => (self.cluster.me(), self.stamped(self.serve(ask).await, hop, waited)),
                Route::Open => {
                    let welcomed = Box::pin(self.sessions.welcome(ask)).await;
                    (self.cluster.me(), self.stamped(welcomed, hop, false))
                }
                Route::Revive => match Box::pin(self.revive(ask)).await {
                    Ok(()) => {
                        waited = true;
                        continue;
                    }
                    Err(refusal) => return Err(NoAnswer::Refused(refusal)),
                },
                Route::There(node) if round.forwards < FORWARDS_MAX => {
                    round.forwards += 1;
                    match Box::pin(self.forward(node, ask, deadline)).await {
                        Delivered::Answer { answer, .. } => return Ok(hopped(answer, waited)),
                        Delivered::Refused(refusal) if refusal.is_loss() && round.may_repeat(ask) => {
                            // Its owner is asked again, or says what became of it by being over.
                            refused = Some(refusal);
                            round.pass_over(node, None);
                            continue;
                        }
                        Delivered::Refused(refusal) => (node, Err(refusal)),
                        Delivered::NotHere(NotHere { hint, .. }) => {
                            round.pass_over(node, hint);
                            continue;
                        }
                        Delivered::Unsent => {
                            round.pass_over(node, None);
                            continue;
                        }
                    }
                }
                Route::Wait(_) | Route::There(_) if Instant::now() >= deadline => {
                    // By every node that could be asked, or by none in time.
                    return Err(refused.map_or_else(unreachable, NoAnswer::Refused));
                }
                Route::Wait(_) if refused.is_some_and(|refusal: Refusal| !refusal.is_loss()) => {
                    return Err(refused.map_or_else(unreachable, NoAnswer::Refused));
                }
                Route::Wait(owner) => {
                    if let Some(owner) = owner {
                        self.cluster.want(owner);
                        waited |= matches!(ask.errand, Errand::Session(_));
                    }
                    pauses.pause(&self.cluster, deadline).await;
                    round = Round::default();
                    continue;
                }
                Route::There(_) => {
                    pauses.pause(&self.cluster, deadline).await;
                    round = Round::default();
                    continue;
                }
                Route::NotHere(answer) => return Err(NoAnswer::NotHere(answer)),
                // A copy of it went to an owner that has been lost since.
                Route::Refuse(_) if hop == Hop::Entry && ask.sent.may_have_run() && ask.is_call() => {
                    return Err(NoAnswer::Refused(Refusal::perhaps_run(Reason::OwnerLost)));
                }
                Route::Refuse(refusal) => return Err(NoAnswer::Refused(refusal)),
            };
            match answered {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Undelivered { reason: Reason::Moved, .. }) => {
                    if let Hop::Forwarded { .. } = hop {
                        return Err(NoAnswer::NotHere(NotHere { hint: None, why: NotHereWhy::NotMine }));
                    }
                    round.pass_over(node, None);
                    if Instant::now() >= deadline {
                        return Err(unreachable());
                    }
                    pauses.pause(&self.cluster, deadline).await;
                    round = Round::default();
                }
                Err(refusal)
                    if hop == Hop::Entry
                        && Instant::now() < deadline
                        && round.may_open_elsewhere(ask, node, refusal) =>
                {
                    round.pass_over(node, None);
                    refused = Some(refusal);
                }
                Err(refusal) => return Err(NoAnswer::Refused(refusal)),
            }
        }
    }

    async fn revive(&self, ask: &Ask) -> Result<(), Refusal> {
        match &ask.errand {
            Errand::Session(id) => self.sessions.revive(ask, id).await,
            Errand::Open | Errand::Key(_) | Errand::Pinned(_) | Errand::Anyone => Ok(()),
        }
    }

    fn decide(&self, ask: &Ask, hop: Hop, round: &Round) -> Route {
        let (question, holding) = match &ask.errand {
            Errand::Open => (Question::Open { chosen: self.cluster.place(&round.tried) }, Holding::Unknown),
            Errand::Session(id) => {
                (Question::Session { birth: &id.birth, nonce: id.nonce }, self.sessions.holding(id))
            }
            Errand::Key(position) => (Question::Key(*position), Holding::Unknown),
            Errand::Pinned(pin) => {
                let is_mine = pin.upstream_of(&ask.route).is_some();
                (Question::Pinned { home: pin.home, is_mine, position: pin.position() }, Holding::Unknown)
            }
            Errand::Anyone => (Question::Anyone, Holding::Unknown),
        };
        self.cluster.route(question, hop, &round.tried, round.hint, holding, ask.route.on_loss)
    }

    async fn forward(&self, node: NodeRef, ask: &Ask, deadline: Instant) -> Delivered {
        let world = self.cluster.world();
        let (Some(member), Some(errand)) = (world.view.get(node), ask.errand.on_the_wire()) else {
            return Delivered::Unsent; // it left between the decision and now
        };
        // The end of its lifeline may be among what the system has for this node and nobody has looked at yet: what has
        // just died is not to be sent anything that would be lost. So that is looked at first.
        tokio::task::yield_now().await;
        if self.cluster.is_quiet(node) {
            return Delivered::Unsent;
        }
        let (copies, may_have_run) = ask.sent.before(node);
        let mut span = self.metrics.traces.child(ask.headers.get_all(TRACEPARENT), Kind::Client, "forward");
        let traced = span.as_ref().map(|span| {
            let mut headers = ask.headers.clone();
            span.put_into(&mut headers);
            headers
        });
        let outgoing = Outgoing {
            to: node,
            at: member.peer,
            view: world.view.fingerprint(),
            route: ask.route.id,
            errand,
            nature: ask.nature,
            uid: ask.uid,
            copies,
            may_have_run,
            caller: ask.caller,
            method: &ask.method,
            target: &ask.target,
            headers: traced.as_ref().unwrap_or(&ask.headers),
            body: &ask.body,
        };
        let began = Instant::now();
        let delivered = self.patiently(node, self.peers.forward(&outgoing, deadline)).await;
        match delivered {
            Delivered::Unsent | Delivered::NotHere(_) => {}
            Delivered::Answer { .. } | Delivered::Refused(_) => ask.sent.note(node),
        }
        let outcome = match &delivered {
            Delivered::Answer { .. } => Forwarded::Answered,
            Delivered::Refused(_) => Forwarded::Refused,
            Delivered::NotHere(_) => Forwarded::NotHere,
            Delivered::Unsent => Forwarded::Unsent,
        };
        self.metrics.peer(member).count(outcome, began.elapsed().as_secs_f64());
        if let Some(span) = &mut span {
            span.note("ringway.peer", member.name.to_string());
            match &delivered {
                Delivered::Answer { answer, .. } => span.note_status(answer.status()),
                Delivered::Refused(_) | Delivered::NotHere(_) | Delivered::Unsent => {
                    span.fail(outcome.word())
                }
            }
        }
        match delivered {
            Delivered::Answer { answer, sessions } => {
                self.cluster.observe_load(node, sessions);
                Delivered::Answer { answer, sessions }
            }
            Delivered::NotHere(answer) => {
                tracing::debug!(peer = %member.name, why = ?answer.why, hint = ?answer.hint, "not there");
                Delivered::NotHere(answer)
            }
            other @ (Delivered::Refused(_) | Delivered::Unsent) => other,
        }
    }

    /// An answer may take long. As long as it does, this node wants to know whether its owner lives:
    /// if that turns out to be over, its connections are closed, and the wait ends.
    async fn patiently(&self, node: NodeRef, forward: impl Future<Output = Delivered>) -> Delivered {
        tokio::pin!(forward);
        loop {
            match tokio::time::timeout(WANTED_EVERY, &mut forward).await {
                Ok(delivered) => return delivered,
                Err(_) => self.cluster.want(node),
            }
        }
    }

    /// Puts this node's name on an answer of its own; `waited` where its request did, for a new owner.
    fn stamped(&self, answer: Result<Answer, Refusal>, hop: Hop, waited: bool) -> Result<Answer, Refusal> {
        let mut answer = answer?;
        answer.headers_mut().remove(TOOK_OVER); // an upstream knows nothing of that
        if waited {
            answer.extensions_mut().insert(TookOver);
        }
        if matches!(hop, Hop::Forwarded { .. }) && answer.extensions_mut().remove::<TookOver>().is_some() {
            answer.headers_mut().insert(TOOK_OVER, HeaderValue::from_static("1"));
        }
        answer.headers_mut().insert(NODE, self.name.clone());
        answer.headers_mut().insert(HOPS, HeaderValue::from_static("0"));
        Ok(answer)
    }

    async fn serve(&self, ask: &Ask) -> Result<Answer, Refusal> {
        match &ask.errand {
            Errand::Session(id) => self.sessions.serve(ask, id).await,
            Errand::Open | Errand::Key(_) | Errand::Pinned(_) | Errand::Anyone => {
                Box::pin(self.sessions.pass(ask)).await
            }
        }
    }
}

/// One round of looking for who answers, between two pauses.
#[derive(Debug, Default)]
struct Round {
    /// Nodes that did not serve the request.
    tried: Vec<NodeRef>,
    /// Where the last of them pointed to.
    hint: Option<NodeRef>,
    forwards: usize,
}

impl Round {
    fn pass_over(&mut self, node: NodeRef, hint: Option<NodeRef>) {
        self.tried.push(node);
        self.hint = hint;
    }

    /// A request whose answer was lost may be sent again: to its owner, which knows its number, or to
    /// the next one, which knows that it may have run. A session that was opened and never told to
    /// anybody does no harm. Who serves what has no session keeps no numbers.
    fn may_repeat(&self, ask: &Ask) -> bool {
        match ask.errand {
            Errand::Session(_) | Errand::Open => true,
            Errand::Key(_) | Errand::Pinned(_) | Errand::Anyone => !ask.is_call(),
        }
    }

    /// A session that was certainly not opened at one node may be opened at the next.
    fn may_open_elsewhere(&self, ask: &Ask, node: NodeRef, refusal: Refusal) -> bool {
        matches!(ask.errand, Errand::Open) && refusal.may_be_tried_again() && !self.tried.contains(&node)
    }
}

/// Pauses of one journey.
#[derive(Debug, Default)]
struct Pauses {
    watching: Option<watch::Receiver<Arc<World>>>,
    next: Duration,
}

impl Pauses {
    /// Waits until the world changes, but not for long. The first call only begins to watch: the look
    /// that follows it sees what changed before.
    async fn pause(&mut self, cluster: &Cluster, deadline: Instant) {
        let Some(worlds) = &mut self.watching else {
            self.watching = Some(cluster.worlds());
            self.next = PAUSE_MIN;
            return;
        };
        let end = deadline.min(Instant::now() + self.next);
        self.next = PAUSE_MAX.min(self.next * 2);
        // A change and the end of the pause lead to the same: another look.
        let _ = tokio::time::timeout_at(end, worlds.changed()).await;
    }
}

/// The answer came from another node, which has put its own name on it; `waited` where its request did
/// before it was sent there.
fn hopped(mut answer: Answer, waited: bool) -> Answer {
    if answer.headers_mut().remove(TOOK_OVER).is_some() || waited {
        answer.extensions_mut().insert(TookOver);
    }
    answer.headers_mut().insert(HOPS, HeaderValue::from_static("1"));
    answer
}

fn unreachable() -> NoAnswer {
    NoAnswer::Refused(Refusal::not_run(Reason::OwnerUnreachable))
}
