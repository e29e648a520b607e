//! Makes an MCP server that speaks in single JSON-RPC messages (a child over stdio, a server of 2024)
//! look like one that speaks Streamable HTTP (2025-03-26 to 2025-11-25). [`session`] is one conversation
//! with such a server, [`streams`] decides which stream a message belongs to and what is kept of each
//! [`stream`], [`reader`] is what a client reads, [`respond`] what the bridge says itself. [`callers`] does
//! the same for 2026-07-28, which has no sessions.

mod callers;
mod reader;
mod respond;
mod session;
mod silence;
mod stream;
mod streams;

pub(super) use callers::Callers;

use super::{Request, pipe::Pipe};
use crate::answer::Answer;
use crate::ask::Payload;
use crate::headers::Headers;
use crate::mcp::{self, Calls, LAST_EVENT_ID, PROTOCOL_VERSION, Rpc, SESSION_ID};
use bytes::Bytes;
use hyper::{Method, header};
use proto::wire::{Nature, Reason, Refusal};
use reader::Events;
use respond::{Refused, refused};
use ring::rand::{SecureRandom, SystemRandom};
use session::{Heard, Session, Untold};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use stream::Form;
use streams::NoCall;

/// 128 random bits, so that no id can be guessed.
const ID_LEN: usize = 16;

/// The bridged sessions of this node, by their ids.
#[derive(Debug, Default)]
pub(super) struct Bridges {
    sessions: Arc<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions(Mutex<HashMap<Box<str>, Arc<Session>>>);

/// A POST, read.
struct Posted {
    messages: Vec<Bytes>,
    is_batch: bool,
    /// What decides where it goes.
    method: mcp::Method,
    nature: Nature,
    calls: Calls,
}

/// The answer of a server that has sessions only to a request of a revision that has none.
pub(super) fn has_sessions_only(body: &Payload) -> Answer {
    let calls = match body {
        Payload::Whole(body) => mcp::peek(body, false).map(|message| message.calls).unwrap_or_default(),
        Payload::Passing(_) => Calls::None,
    };
    refused(Refused::UnknownMethod, &calls)
}

impl Bridges {
    /// Answers as a server would; 404 says that there is no such session, or not any more. `open` is
    /// awaited where the request begins one, whose server then has `start_timeout` for its first answer.
    pub(super) async fn exchange(
        &self,
        open: impl Future<Output = Result<Pipe, Refusal>>,
        start_timeout: Duration,
        request: Request<'_, Headers>,
    ) -> Result<Answer, Refusal> {
        let Request { route, method, headers, body, .. } = request;
        match method {
            Method::POST => {
                let Payload::Whole(body) = body else {
                    return Err(Refusal::not_run(Reason::UpstreamInvalid));
                };
                match read(&headers, body) {
                    Ok((posted, _)) if posted.is_initialize() && !headers.contains_key(SESSION_ID) => {
                        // Its answer comes alone, so there is nothing to stream.
                        let (json, _) = accepts(&headers, "application/json");
                        let form = if json { Form::Json } else { Form::Events };
                        let initialized = self.initialize(open, start_timeout, &posted, form).await;
                        initialized.inspect_err(|refusal| {
                            tracing::warn!(route = route.path, ?refusal, "a server has not begun a session");
                        })
                    }
                    Ok((posted, form)) => self.post(&headers, posted, form).await,
                    Err(why) => Ok(refused(why, &Calls::None)),
                }
            }
            Method::GET => Ok(self.get(&headers)),
            Method::DELETE => Ok(match self.find(&headers) {
                Ok((id, _)) => {
                    self.end(id);
                    respond::ended()
                }
                Err(why) => refused(why, &Calls::None),
            }),
            _ => Ok(refused(Refused::Method, &Calls::None)),
        }
    }

    /// Ends a session with its server and its streams, if it has not ended.
    pub(super) fn end(&self, session: &str) {
        self.sessions.end(session);
    }

    async fn initialize(
        &self,
        open: impl Future<Output = Result<Pipe, Refusal>>,
        start_timeout: Duration,
        posted: &Posted,
        form: Form,
    ) -> Result<Answer, Refusal> {
        let unreachable = Refusal::not_run(Reason::UpstreamUnreachable);
        let started = tokio::time::timeout(start_timeout, self.start(open, posted));
        // Whether it was silent or ended: nothing is left of it.
        let (started, answer) = started.await.unwrap_or(Err(unreachable))?;
        let Some(version) = mcp::negotiated(&answer) else {
            return Ok(respond::initialized(answer, form, None));
        };
        started.session.negotiated(version);
        let id = started.keep();
        Ok(respond::initialized(answer, form, Some(&id)))
    }

    /// A server's answer to its first message.
    async fn start(
        &self,
        open: impl Future<Output = Result<Pipe, Refusal>>,
        posted: &Posted,
    ) -> Result<(Started, Bytes), Refusal> {
        let unreachable = Refusal::not_run(Reason::UpstreamUnreachable);
        let started = self.sessions.start(open.await?);
        let (seat, _) = started.session.call(&posted.messages, Form::Json).await.map_err(|_| unreachable)?;
        let responses = reader::responses(seat).await.map_err(|_| unreachable)?;
        let answer = responses.into_iter().next().ok_or(unreachable)?;
        Ok((started, answer))
    }

    async fn post(&self, headers: &Headers, posted: Posted, form: Form) -> Result<Answer, Refusal> {
        let Posted { messages, is_batch, calls, .. } = &posted;
        let session = match self.find(headers) {
            Ok(_) if posted.is_initialize() => return Ok(refused(Refused::InitializedAlready, calls)),
            Ok((_, session)) => session,
            Err(why) => return Ok(refused(why, calls)),
        };
        if matches!(calls, Calls::None) {
            return match session.tell(messages).await {
                Ok(()) => Ok(respond::accepted()),
                Err(untold) => not_told(untold, calls),
            };
        }
        let (seat, first) = match session.call(messages, form).await {
            Ok(seat) => seat,
            Err(untold) => return not_told(untold, calls),
        };
        match form {
            Form::Events => Ok(respond::events(Events::of_call(seat, first))),
            Form::Json => {
                let broke = |_| Refusal::perhaps_run(Reason::UpstreamBroke);
                let responses = reader::responses(seat).await.map_err(broke)?;
                Ok(respond::responses(responses, *is_batch))
            }
        }
    }

    fn get(&self, headers: &Headers) -> Answer {
        if !accepts(headers, "text/event-stream").0 {
            return refused(Refused::NotAcceptable, &Calls::None);
        }
        let session = match self.find(headers) {
            Ok((_, session)) => session,
            Err(why) => return refused(why, &Calls::None),
        };
        match session.listen(headers.get(LAST_EVENT_ID).map(|id| id.as_bytes())) {
            Heard::Stream(seat, first) => respond::events(Events::of_listener(seat, first)),
            Heard::Over => respond::over(),
            Heard::Lost(events) => respond::all_events(events),
        }
    }

    /// The session that a request is of, in a revision that it can be of.
    fn find<'a>(&self, headers: &'a Headers) -> Result<(&'a str, Arc<Session>), Refused> {
        let id = headers.get(SESSION_ID).ok_or(Refused::NoSession)?;
        let id = id.to_str().map_err(|_| Refused::UnknownSession)?;
        let session = self.sessions.lock().get(id).cloned().ok_or(Refused::UnknownSession)?;
        match headers.get(PROTOCOL_VERSION).map(|version| String::from_utf8_lossy(version.as_bytes())) {
            // A server may have negotiated another one.
            Some(version)
                if mcp::Revision::named(&version).is_none() && session.version() != Some(&*version) =>
            {
                Err(Refused::Version(version.into_owned()))
            }
            Some(_) | None => Ok((id, session)),
        }
    }
}

impl Sessions {
    /// A conversation that nobody knows of yet. It ends unless it is kept.
    fn start(self: &Arc<Self>, pipe: Pipe) -> Started {
        let mut id = [0; ID_LEN];
        SystemRandom::new().fill(&mut id).expect("the system's random source works");
        let tag = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
        let id: Box<str> = id.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        let (session, conversation) = Session::begin(tag, pipe);
        self.lock().insert(id.clone(), session.clone());
        let (sessions, key) = (self.clone(), id.clone());
        tokio::spawn(async move {
            conversation.await;
            sessions.end(&key);
        });
        Started { sessions: self.clone(), id: Some(id), session }
    }

    fn end(&self, id: &str) {
        let ended = self.lock().remove(id);
        if let Some(session) = ended {
            session.end();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session whose client has not heard of it: dropped, it ends.
#[derive(Debug)]
struct Started {
    sessions: Arc<Sessions>,
    id: Option<Box<str>>,
    session: Arc<Session>,
}

impl Started {
    fn keep(mut self) -> Box<str> {
        self.id.take().unwrap_or_default()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.sessions.end(&id);
        }
    }
}

impl Posted {
    fn is_initialize(&self) -> bool {
        let method = self.messages.first().map(|message| Rpc::read(message));
        !self.is_batch && matches!(method, Some(Ok(Rpc::Request { method, .. })) if method == "initialize")
    }
}

/// What a POST holds, and how it is to be answered.
fn read(headers: &Headers, body: &Bytes) -> Result<(Posted, Form), Refused> {
    if !is_json(headers) {
        return Err(Refused::MediaType);
    }
    let form = match (accepts(headers, "text/event-stream"), accepts(headers, "application/json")) {
        ((_, true), _) => Form::Events,
        (_, (true, _)) => Form::Json,
        ((true, false), _) => Form::Events,
        ((false, _), (false, _)) => return Err(Refused::NotAcceptable),
    };
    // A batch in a revision that has none was refused where the request came from.
    let mcp::Message { method, nature, calls } = mcp::peek(body, true).map_err(Refused::NotRpc)?;
    let messages = mcp::messages(body).map_err(Refused::NotRpc)?;
    let is_batch = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    Ok((Posted { messages, is_batch, method, nature, calls }, form))
}

fn is_json(headers: &Headers) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether the client takes answers of a media type, and whether it names that type. Without `Accept`
/// it takes all (RFC 9110, 12.5.1).
fn accepts(headers: &Headers, media_type: &str) -> (bool, bool) {
    if !headers.contains_key(header::ACCEPT) {
        return (true, false);
    }
    let family = media_type.split_inclusive('/').next().unwrap_or_default();
    let lines = headers.get_all(header::ACCEPT).filter_map(|line| line.to_str().ok());
    let ranges = lines.flat_map(|line| line.split(',')).filter_map(|range| range.split(';').next());
    let mut accepted = (false, false);
    for range in ranges.map(|range| range.trim().to_ascii_lowercase()) {
        let named = range == media_type;
        accepted.0 |= named || range == "*/*" || range.strip_suffix('*') == Some(family);
        accepted.1 |= named;
    }
    accepted
}

fn not_told(untold: Untold, calls: &Calls) -> Result<Answer, Refusal> {
    match untold {
        Untold::Ended { may_have_run: false } => Ok(refused(Refused::UnknownSession, calls)),
        Untold::Ended { may_have_run: true } => Err(Refusal::perhaps_run(Reason::UpstreamBroke)),
        Untold::Busy | Untold::NoCall(NoCall::TooMany) => Err(Refusal::not_run(Reason::Overloaded)),
        Untold::NoCall(NoCall::InProgress) => Ok(refused(Refused::InProgress, calls)),
    }
}

#[cfg(test)]
mod tests;
