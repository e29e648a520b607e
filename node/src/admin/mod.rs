//! The mouth for operators: JSON over HTTP on its own address (CONTRACT, "Admin endpoint").

mod lookup;

use crate::answer::{Answer, whole};
use crate::journey::Journey;
use crate::telemetry::{Metrics, StateLabels};
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use proto::core::{ring::POINTS_PER_NODE, view::Phase};
use proto::id::NodeRef;
use serde_json::{Value, json};
use std::sync::{Arc, atomic::Ordering};

#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) journey: Arc<Journey>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Admin {
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Answer {
        if request.method() != Method::GET {
            let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            return answer;
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
                "known are /livez, /readyz, /v1/members, /v1/ring, /v1/ring/lookup and /metrics",
            ),
        }
    }

    fn count_sessions(&self) {
        let (live, idle) = self.journey.sessions.census();
        for (state, count) in [("live", live), ("idle", idle)] {
            let gauge = self.metrics.sessions.get_or_create(&StateLabels { state }).clone();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn readiness(&self) -> Answer {
        match self.journey.cluster.phase() {
            Phase::Active => text(StatusCode::OK, "text/plain", "ready\n"),
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
