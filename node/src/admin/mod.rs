//! The mouth for operators: JSON over HTTP on its own address (CONTRACT, "Admin endpoint").

mod lookup;

use crate::answer::{Answer, whole};
use crate::journey::Journey;
use crate::telemetry::{Metrics, StateLabels};
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use proto::core::{ring::POINTS_PER_NODE, view::Phase};
use proto::id::NodeRef;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) journey: Arc<Journey>,
    pub(crate) metrics: Arc<Metrics>,
    /// How long a drain may take; taken by whoever runs the node.
    pub(crate) ask_to_drain: mpsc::Sender<Duration>,
}

/// What a drain may take if nothing else is asked for (CONTRACT).
const DRAIN_S_DEFAULT: u64 = 60;
const DRAIN_S_MAX: u64 = 24 * 3_600;
const DRAIN_BODY_LEN_MAX: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainAsked {
    deadline_s: Option<u64>,
}

impl Admin {
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let allowed = if request.uri().path() == "/v1/drain" { Method::POST } else { Method::GET };
        if request.method() != allowed {
            let mut answer =
                error(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allowed} is answered here"));
            let allowed = HeaderValue::from_str(allowed.as_str()).expect("a method is plain ASCII");
            answer.headers_mut().insert(header::ALLOW, allowed);
            return answer;
        }
        // A page in somebody's browser must not drain a node, and nothing else sends an Origin here.
        if allowed == Method::POST && request.headers().contains_key(header::ORIGIN) {
            return error(StatusCode::FORBIDDEN, "not for web pages");
        }
        if allowed == Method::POST {
            return self.drain(request.into_body()).await;
        }
        let query = request.uri().query().unwrap_or_default();
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "text/plain", "ok\n"),
            "/readyz" => self.readiness(),
            "/v1/members" => json_answer(StatusCode::OK, &self.members()),
            "/v1/ring" => json_answer(StatusCode::OK, &self.ring()),
            "/v1/ring/lookup" => match lookup::question(query) {
                Ok(question) => json_answer(StatusCode::OK, &lookup::answer(&self.journey, &question).await),
                Err(what) => error(StatusCode::BAD_REQUEST, what),
            },
            "/metrics" => {
                let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                self.count_sessions();
                text(StatusCode::OK, open_metrics, self.metrics.render())
            }
            _ => error(
                StatusCode::NOT_FOUND,
                "known are /livez, /readyz, /v1/members, /v1/ring, /v1/ring/lookup, /v1/drain and /metrics",
            ),
        }
    }

    /// Begins to drain this node, which ends by itself then.
    async fn drain(&self, body: Incoming) -> Answer {
        let Ok(body) = Limited::new(body, DRAIN_BODY_LEN_MAX).collect().await else {
            return error(StatusCode::BAD_REQUEST, "a short JSON object is expected: {\"deadline_s\": 60}");
        };
        let body = body.to_bytes();
        let asked = match body.is_empty() {
            true => Ok(DrainAsked { deadline_s: None }),
            false => serde_json::from_slice::<DrainAsked>(&body),
        };
        match asked.map(|asked| asked.deadline_s.unwrap_or(DRAIN_S_DEFAULT)) {
            Ok(deadline_s) if deadline_s <= DRAIN_S_MAX => {
                // One that is asked for while another goes on changes nothing.
                let _ = self.ask_to_drain.try_send(Duration::from_secs(deadline_s));
                json_answer(StatusCode::ACCEPTED, &json!({ "draining": true, "deadline_s": deadline_s }))
            }
            Ok(_) => error(StatusCode::BAD_REQUEST, "deadline_s is at most 86400 (a day)"),
            Err(what) => error(StatusCode::BAD_REQUEST, &format!("not {{\"deadline_s\": SECONDS}}: {what}")),
        }
    }

    fn count_sessions(&self) {
        let (live, idle) = self.journey.sessions.census();
        for (state, count) in [("live", live), ("idle", idle)] {
            let gauge = self.metrics.sessions.get_or_create(&StateLabels { state }).clone();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.metrics.children.set(i64::try_from(self.journey.sessions.children()).unwrap_or(i64::MAX));
    }

    fn readiness(&self) -> Answer {
        match self.journey.cluster.phase() {
            Phase::Active if self.journey.cluster.is_leased() => {
                text(StatusCode::OK, "text/plain", "ready\n")
            }
            Phase::Active => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain",
                "parked: too few of the other nodes answer this one\n",
            ),
            Phase::Joining => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain",
                "joining: no other node has answered yet\n",
            ),
            Phase::Draining | Phase::Dead => {
                text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n")
            }
        }
    }

    fn members(&self) -> Value {
        let cluster = &self.journey.cluster;
        let world = cluster.world();
        let members = world.view.members().iter().enumerate().map(|(at, member)| {
            let is_self = member.node == cluster.me();
            let own = || cluster.sessions().load(Ordering::Relaxed);
            json!({
                "name": member.name,
                "incarnation": member.node.inc,
                "phase": member.phase,
                "listen": member.listen,
                "peer": member.peer,
                "admin": member.admin,
                "sessions": if is_self { own() } else { world.sessions_of(at) },
                "version": member.version,
                "self": is_self,
            })
        });
        json!({ "view": world.view.fingerprint().to_string(), "members": members.collect::<Vec<_>>() })
    }

    fn ring(&self) -> Value {
        let cluster = &self.journey.cluster;
        let world = cluster.world();
        let nodes = world.ring.shares().into_iter().filter_map(|(node, share)| {
            let member = world.view.get(node)?;
            Some(json!({ "name": member.name, "phase": member.phase, "share": share }))
        });
        json!({
            "view": world.view.fingerprint().to_string(),
            "points_per_node": POINTS_PER_NODE,
            "nodes": nodes.collect::<Vec<_>>(),
        })
    }
}

/// A node's name, or its tag where the name is forgotten.
fn name_of(journey: &Journey, node: NodeRef) -> String {
    let world = journey.cluster.world();
    world
        .view
        .by_tag(node.tag)
        .map_or_else(|| format!("{:08x}", node.tag.0), |member| member.name.to_string())
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    text(status, "application/json", format!("{value}\n"))
}

fn error(status: StatusCode, what: &str) -> Answer {
    json_answer(status, &json!({ "error": what }))
}

fn text(status: StatusCode, media_type: &'static str, text: impl Into<bytes::Bytes>) -> Answer {
    let mut answer = Answer::new(whole(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}
