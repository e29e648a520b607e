//! The journey of a request, on the entry node and, by the same function, on the node that it is
//! forwarded to: classify, route, match.

use crate::answer::Answer;
use crate::ask::{Ask, Errand};
use crate::cluster::Cluster;
use crate::peer::{Delivered, Outgoing, Peers};
use crate::sessions::Sessions;
use crate::telemetry::{ForwardLabels, Metrics};
use hyper::header::{HeaderName, HeaderValue};
use proto::core::route::{Ask as Question, Holding, Hop, Route};
use proto::id::NodeRef;
use proto::wire::{NotHere, Reason, Refusal};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

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
        let mut worlds = self.cluster.worlds();
        let mut tried: Vec<NodeRef> = Vec::new();
        let mut hint = None;
        let mut refused = None;
        let mut forwards = 0;
        loop {
            worlds.mark_unchanged();
            let (node, answered) = match self.decide(ask, hop, &tried, hint) {
                Route::Here => (self.cluster.me(), self.stamped(self.serve(ask).await)),
                Route::Open => (self.cluster.me(), self.stamped(self.sessions.open(ask).await)),
                Route::There(_) if forwards == FORWARDS_MAX => return Err(unreachable()),
                Route::There(node) => {
                    forwards += 1;
                    match self.forward(node, ask, deadline).await {
                        Delivered::Answer { answer, sessions } => {
                            self.cluster.observe_load(node, sessions);
                            return Ok(hopped(answer));
                        }
                        Delivered::Refused(refusal) => (node, Err(refusal)),
                        Delivered::NotHere(answer) => {
                            tracing::debug!(%node, why = ?answer.why, hint = ?answer.hint, "not there");
                            tried.push(node);
                            hint = answer.hint;
                            continue;
                        }
                        Delivered::Unsent => {
                            tried.push(node);
                            continue;
                        }
                    }
                }
                Route::Wait if Instant::now() >= deadline => return Err(unreachable()),
                Route::Wait => {
                    if let Some(refusal) = refused {
                        return Err(NoAnswer::Refused(refusal)); // by every node that could be asked
                    }
                    let pause = deadline.min(Instant::now() + PAUSE);
                    // A change and the end of the pause lead to the same: another look.
                    let _ = tokio::time::timeout_at(pause, worlds.changed()).await;
                    tried.clear();
                    hint = None;
                    forwards = 0; // the deadline bounds the rounds
                    continue;
                }
                Route::NotHere(answer) => return Err(NoAnswer::NotHere(answer)),
                Route::Refuse(refusal) => return Err(NoAnswer::Refused(refusal)),
            };
            match (answered, &ask.errand) {
                (Ok(answer), _) => return Ok(answer),
                // A session that could not be opened there, and was not, may be opened elsewhere.
                (Err(refusal @ Refusal::Undelivered { may_have_run: false, .. }), Errand::Open)
                    if hop == Hop::Entry && !tried.contains(&node) =>
                {
                    tried.push(node);
                    refused = Some(refusal);
                }
                (Err(refusal), _) => return Err(NoAnswer::Refused(refusal)),
            }
        }
    }

    fn decide(&self, ask: &Ask, hop: Hop, tried: &[NodeRef], hint: Option<NodeRef>) -> Route {
        let (question, holding) = match &ask.errand {
            Errand::Open => (Question::Open { chosen: self.cluster.place(tried) }, Holding::Unknown),
            Errand::Session(id) => (Question::Session(&id.birth), self.sessions.holding(id)),
            Errand::Key(position) => (Question::Key(*position), Holding::Unknown),
            Errand::Anyone => (Question::Anyone, Holding::Unknown),
        };
        self.cluster.route(question, hop, tried, hint, holding, ask.route.on_loss)
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
        delivered
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

/// The answer came from another node, which has put its own name on it.
fn hopped(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(HOPS, HeaderValue::from_static("1"));
    answer
}

fn unreachable() -> NoAnswer {
    NoAnswer::Refused(Refusal::Undelivered { reason: Reason::OwnerUnreachable, may_have_run: false })
}
