//! The demo server over Streamable HTTP: a session per `initialize`, kept in this process alone.
//! That is the point of it: a request that reaches another replica finds no session there.

use super::session::Session;
use crate::answer::{Answer, whole};
use crate::config::Limits;
use crate::front::{self, Request};
use crate::mcp::{self, SESSION_ID};
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, StatusCode,
    header::{self, HeaderValue},
};
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;

const PATH: &str = "/mcp";
const BODY_LEN_MAX: usize = 4 * 1024 * 1024;
/// A demo; the oldest state is not missed, but memory would be.
const SESSIONS_MAX: usize = 10_000;

pub(super) async fn serve(at: SocketAddr) -> anyhow::Result<()> {
    let listener = front::bind(at, Limits::default(), None).await?;
    println!("ringway mcp-demo ready http://{}{PATH}", listener.addr);
    let server = Arc::new(Server::default());
    let answer = move |_, _, request| {
        let server = server.clone();
        async move { server.answer(request).await }
    };
    listener.run(answer, CancellationToken::new()).await;
    Ok(())
}

#[derive(Default)]
struct Server {
    sessions: Mutex<HashMap<String, Session>>,
}

impl Server {
    async fn answer(&self, request: Request) -> Answer {
        let id = request.headers.get(SESSION_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        if request.uri.path() != PATH {
            return status(StatusCode::NOT_FOUND);
        }
        match request.method {
            Method::POST => {}
            Method::DELETE => {
                let ended = id.and_then(|id| self.sessions().remove(&id));
                return status(if ended.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND });
            }
            _ => return status(StatusCode::METHOD_NOT_ALLOWED),
        }
        let Ok(body) = Limited::new(request.body, BODY_LEN_MAX).collect().await else {
            return status(StatusCode::PAYLOAD_TOO_LARGE);
        };
        let body = body.to_bytes();
        match (mcp::peek(&body, false).map(|message| message.method), id) {
            (Ok(mcp::Method::Initialize), _) => self.open(&body),
            (_, Some(id)) => match self.sessions().get_mut(&id) {
                Some(session) => json(session.receive(&body)),
                None => status(StatusCode::NOT_FOUND),
            },
            (_, None) => status(StatusCode::BAD_REQUEST),
        }
    }

    fn open(&self, body: &[u8]) -> Answer {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).expect("the system's random source works");
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut session = Session::default();
        let mut answer = json(session.receive(body));
        let mut sessions = self.sessions();
        if sessions.len() >= SESSIONS_MAX {
            return status(StatusCode::SERVICE_UNAVAILABLE);
        }
        answer.headers_mut().insert(SESSION_ID, HeaderValue::from_str(&id).expect("hexadecimal digits"));
        sessions.insert(id, session);
        answer
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status(status: StatusCode) -> Answer {
    let mut answer = Answer::new(whole(""));
    *answer.status_mut() = status;
    answer
}

/// 200 with the answer, or 202 where nothing was asked.
fn json(message: Option<serde_json::Value>) -> Answer {
    let Some(message) = message else { return status(StatusCode::ACCEPTED) };
    let mut answer = Answer::new(whole(message.to_string()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
