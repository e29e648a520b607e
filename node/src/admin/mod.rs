//! The mouth for operators: JSON over HTTP on its own address (CONTRACT, "Admin endpoint"). [`routes`] is the
//! table of what is answered, [`guard`] decides who is; a file for each thing has the rest.

mod drain;
mod events;
mod guard;
mod health;
mod lookup;
mod members;
mod page;
mod routes;
mod sessions;
mod traffic;

pub(crate) use guard::{Guard, Token};

use crate::answer::{Answer, whole};
use crate::front::Request;
use crate::journey::Journey;
use guard::Refused;
use hyper::{
    Method, StatusCode,
    header::{self, HeaderValue},
};
use proto::id::NodeRef;
use routes::Resource;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc};

#[derive(Debug)]
pub(crate) struct Admin {
    journey: Arc<Journey>,
    /// How long a drain may take; taken by whoever runs the node.
    ask_to_drain: mpsc::Sender<Duration>,
    guard: Guard,
    /// For those who listen to events.
    room: Arc<Semaphore>,
}

impl Admin {
    pub(crate) fn new(journey: Arc<Journey>, ask_to_drain: mpsc::Sender<Duration>, guard: Guard) -> Self {
        let room = Arc::new(Semaphore::new(events::LISTENERS_MAX));
        Self { journey, ask_to_drain, guard, room }
    }

    pub(crate) async fn answer(&self, request: Request) -> Answer {
        let (method, path) = (&request.method, request.uri.path());
        if *method == Method::GET
            && let Some(page) = page::asset(path)
        {
            return page;
        }
        let found = Resource::of(path);
        if found.is_none_or(|(resource, _)| resource.is_guarded())
            && let Err(refused) = self.guard.check(method, &request.uri, &request.headers)
        {
            return refusal(refused);
        }
        let Some((resource, rest)) = found else { return error(StatusCode::NOT_FOUND, &Resource::known()) };
        let allowed = resource.method();
        if *method != allowed {
            let mut answer =
                error(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allowed} is answered here"));
            let allowed = HeaderValue::from_str(allowed.as_str()).expect("a method is plain ASCII");
            answer.headers_mut().insert(header::ALLOW, allowed);
            return answer;
        }
        let journey = &self.journey;
        let query = request.uri.query().unwrap_or_default();
        match resource {
            Resource::Livez => text(StatusCode::OK, "text/plain", "ok\n"),
            Resource::Readyz => health::readiness(journey),
            Resource::Metrics => health::metrics(journey, &request.headers),
            Resource::Members => json_answer(StatusCode::OK, &members::members(journey)),
            Resource::Ring => json_answer(StatusCode::OK, &members::ring(journey, query)),
            Resource::Lookup => match lookup::question(query) {
                Ok(question) => json_answer(StatusCode::OK, &lookup::answer(journey, &question).await),
                Err(what) => error(StatusCode::BAD_REQUEST, what),
            },
            Resource::Sessions => match sessions::wanted(query) {
                Ok(wanted) => json_answer(StatusCode::OK, &sessions::list(journey, &wanted).await),
                Err(what) => error(StatusCode::BAD_REQUEST, &what),
            },
            Resource::Session => sessions::end(journey, rest).await,
            Resource::Traffic => json_answer(StatusCode::OK, &traffic::traffic(journey).await),
            Resource::Events => events::listen(&journey.events, &self.room, &request.headers),
            Resource::Drain => drain::drain(&self.ask_to_drain, request.body).await,
        }
    }
}

/// A node's name, or its tag where the name is forgotten.
fn name_of(journey: &Journey, node: NodeRef) -> String {
    journey.cluster.name_of(node)
}

fn refusal(refused: Refused) -> Answer {
    match refused {
        Refused::NoToken => {
            let what = "this node wants its admin token: Authorization: Bearer TOKEN (see admin_token_file)";
            let mut answer = error(StatusCode::UNAUTHORIZED, what);
            let scheme = HeaderValue::from_static("Bearer realm=\"ringway admin\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            answer
        }
        Refused::Forbidden(what) => error(StatusCode::FORBIDDEN, what),
    }
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
    // What is true now is not true in a moment, and is nobody else's.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
