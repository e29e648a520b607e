//! The journey of a request, on the entry node and, by the same function, on the node that it is
//! forwarded to: classify, route, match.

use crate::answer::Answer;
use crate::ask::{Ask, Errand};
use crate::cluster::{Cluster, World};
use crate::peer::{Delivered, Outgoing, Peers};
use crate::sessions::Sessions;
use crate::telemetry::{ForwardLabels, Metrics};
use hyper::header::{HeaderName, HeaderValue};
use proto::core::route::{Ask as Question, Holding, Hop, Route};
use proto::id::NodeRef;
use proto::wire::{NotHere, Reason, Refusal};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How long a request may wait for its owner to be known and reached (CONTRACT: up to 10 s).
const ROUTING_TIME: Duration = Duration::from_secs(10);
/// Nodes asked per request. Each is asked once, and again only after a pause.
const FORWARDS_MAX: usize = 5;
/// A pause between two looks at an unchanged world; a change ends it at once.
const PAUSE: Duration = Duration::from_millis(250);

/// Why there is no answer to pass on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    Refused(Refusal),
    NotHere(NotHere),
}

/// Which node answered, and over how many hops: on every answer that a client gets.
pub(crate) const NODE: HeaderName = HeaderName::from_static("ringway-node");
pub(crate) const HOPS: HeaderName = HeaderName::from_static("ringway-hops");

/// Everything a journey may need.
#[derive(Debug)]
pub(crate) struct Journey {
    name: HeaderValue,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) peers: Arc<Peers>,
    metrics: Arc<Metrics>,
}

impl Journey {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        sessions: Arc<Sessions>,
        peers: Arc<Peers>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let name = HeaderValue::from_str(cluster.name().as_str()).expect("a node's name is plain ASCII");
        Self { name, cluster, sessions, peers, metrics }
    }

    pub(crate) async fn run(&self, ask: &Ask, hop: Hop) -> Result<Answer, NoAnswer> {
        let deadline = Instant::now() + ROUTING_TIME;
        let mut round = Round::default();
        let mut watching = None;
        let mut refused = None;
        loop {
            let (node, answered) = match self.decide(ask, hop, &round) {
                Route::Here => (self.cluster.me(), self.stamped(self.serve(ask).await)),
                Route::Open => (self.cluster.me(), self.stamped(self.sessions.open(ask).await)),
                Route::There(node) if round.forwards < FORWARDS_MAX => {
                    round.forwards += 1;
                    match self.forward(node, ask, deadline).await {
                        Delivered::Answer { answer, .. } => return Ok(answer),
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
                Route::Wait | Route::There(_) if refused.is_some() || Instant::now() >= deadline => {
                    // By every node that could be asked, or by none in time.
                    return Err(refused.map_or_else(unreachable, NoAnswer::Refused));
                }
                Route::Wait | Route::There(_) => {
                    self.pause(&mut watching, deadline).await;
                    round = Round::default();
                    continue;
                }
                Route::NotHere(answer) => return Err(NoAnswer::NotHere(answer)),
                Route::Refuse(refusal) => return Err(NoAnswer::Refused(refusal)),
            };
            match answered {
                Ok(answer) => return Ok(answer),
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

    /// Waits until the world changes, but not for long. The first call only begins to watch: the
    /// look that follows it sees what changed before.
    async fn pause(&self, watching: &mut Option<watch::Receiver<Arc<World>>>, deadline: Instant) {
        if let Some(worlds) = watching {
            let end = deadline.min(Instant::now() + PAUSE);
            // A change and the end of the pause lead to the same: another look.
            let _ = tokio::time::timeout_at(end, worlds.changed()).await;
        } else {
            *watching = Some(self.cluster.worlds());
        }
    }

    fn decide(&self, ask: &Ask, hop: Hop, round: &Round) -> Route {
        let (question, holding) = match &ask.errand {
            Errand::Open => (Question::Open { chosen: self.cluster.place(&round.tried) }, Holding::Unknown),
            Errand::Session(id) => (Question::Session(&id.birth), self.sessions.holding(id)),
            Errand::Key(position) => (Question::Key(*position), Holding::Unknown),
            Errand::Anyone => (Question::Anyone, Holding::Unknown),
        };
        self.cluster.route(question, hop, &round.tried, round.hint, holding, ask.route.on_loss)
    }

    async fn forward(&self, node: NodeRef, ask: &Ask, deadline: Instant) -> Delivered {
        let world = self.cluster.world();
        let (Some(member), Some(errand)) = (world.view.get(node), ask.errand.on_the_wire()) else {
            return Delivered::Unsent; // it left between the decision and now
        };
        let outgoing = Outgoing {
            to: node,
            at: member.peer,
            view: world.view.fingerprint(),
            route: ask.route.id,
            errand,
            method: &ask.method,
            target: &ask.target,
            headers: &ask.headers,
            body: &ask.body,
        };
        let delivered = self.peers.forward(&outgoing, deadline).await;
        let outcome = match &delivered {
            Delivered::Answer { .. } => "answered",
            Delivered::Refused(_) => "refused",
            Delivered::NotHere(_) => "not_here",
            Delivered::Unsent => "unsent",
        };
        let labels = ForwardLabels { peer: member.name.to_string(), outcome };
        self.metrics.forwards.get_or_create(&labels).inc();
        match delivered {
            Delivered::Answer { answer, sessions } => {
                self.cluster.observe_load(node, sessions);
                Delivered::Answer { answer: hopped(answer), sessions }
            }
            Delivered::NotHere(answer) => {
                tracing::debug!(peer = %member.name, why = ?answer.why, hint = ?answer.hint, "not there");
                Delivered::NotHere(answer)
            }
            other @ (Delivered::Refused(_) | Delivered::Unsent) => other,
        }
    }

    /// Puts this node's name on an answer of its own.
    fn stamped(&self, answer: Result<Answer, Refusal>) -> Result<Answer, Refusal> {
        let mut answer = answer?;
        answer.headers_mut().insert(NODE, self.name.clone());
        answer.headers_mut().insert(HOPS, HeaderValue::from_static("0"));
        Ok(answer)
    }

    async fn serve(&self, ask: &Ask) -> Result<Answer, Refusal> {
        match &ask.errand {
            Errand::Session(id) => self.sessions.exchange(ask, id).await,
            Errand::Open | Errand::Key(_) | Errand::Anyone => self.sessions.pass(ask).await,
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

    /// A session that was certainly not opened at one node may be opened at the next.
    fn may_open_elsewhere(&self, ask: &Ask, node: NodeRef, refusal: Refusal) -> bool {
        matches!(ask.errand, Errand::Open) && refusal.may_be_tried_again() && !self.tried.contains(&node)
    }
}

/// The answer came from another node, which has put its own name on it.
fn hopped(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(HOPS, HeaderValue::from_static("1"));
    answer
}

fn unreachable() -> NoAnswer {
    NoAnswer::Refused(Refusal::not_run(Reason::OwnerUnreachable))
}
