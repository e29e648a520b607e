//! Makes an MCP server that speaks in single messages serve requests of 2026-07-28, which have no
//! session: one server for each caller, shared by all that this one has open. [`conversation`] is what
//! is said to it and by it, [`reader`] what a client reads of that.

mod conversation;
mod reader;

use super::respond::{self, Refused, refused};
use super::{Form, read};
use crate::answer::Answer;
use crate::ask::Payload;
use crate::config::Route;
use crate::headers::Headers;
use crate::mcp::{self, Calls, modern};
use crate::upstream::{Request, pipe::Pipe};
use bytes::Bytes;
use conversation::{Conversation, Seat};
use hyper::{Method, StatusCode};
use proto::id::{Principal, RouteId};
use proto::wire::{Nature, Reason, Refusal};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::OnceCell;

/// How long the first word on a request may take before its client hears that it is being served: a
/// refusal, which has a status of its own, is said sooner.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// For so long it is remembered that a route's server has sessions only, and none is started to ask
/// it again; then it may have been replaced.
const ERA_KNOWN_FOR: Duration = Duration::from_secs(600);

/// Of each caller on a route: its server, once that has been started.
type Servers = HashMap<(RouteId, Principal), Arc<OnceCell<Arc<Conversation>>>>;

/// The servers of this node's callers.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Callers {
    servers: Mutex<Servers>,
    has_sessions_only: Mutex<HashMap<RouteId, Instant>>,
}

impl Callers {
    /// Answers as a server would. `open` is awaited where the caller has no server yet.
    pub(in crate::upstream) async fn exchange(
        &self,
        open: impl Future<Output = Result<Pipe, Refusal>>,
        request: Request<'_, Headers>,
    ) -> Result<Answer, Refusal> {
        let Request { route, method, headers, body, caller, .. } = request;
        let (Payload::Whole(body), Some(caller)) = (body, caller) else {
            return Err(Refusal::not_run(Reason::UpstreamInvalid));
        };
        if method != Method::POST {
            return Ok(refused(Refused::Method, &Calls::None));
        }
        let (posted, form) = match read(&headers, body) {
            Ok(read) => read,
            Err(why) => return Ok(refused(why, &Calls::None)),
        };
        if posted.is_batch {
            return Err(Refusal::not_run(Reason::UpstreamInvalid)); // this revision has none
        }
        let is_probe = posted.method == mcp::Method::Discover;
        if is_probe && self.has_sessions_only(route.id) {
            return Ok(refused(Refused::UnknownMethod, &posted.calls));
        }
        let server = self.server(route, caller, open).await?;
        if let Some(what) = server.mismatch(&headers, body) {
            return Ok(refused(Refused::HeaderMismatch(what), &posted.calls));
        }
        let Calls::One(_) = &posted.calls else {
            return match server.tell(body).await {
                Ok(()) => Ok(respond::accepted()),
                Err(untold) => Err(untold),
            };
        };
        let seat = server.call(body, posted.nature == Nature::ListsTools).await?;
        let answer = answered(seat, form, modern::is_complete(body)).await?;
        if is_probe && answer.status() == StatusCode::NOT_FOUND {
            self.has_sessions_only
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(route.id, Instant::now());
            self.end(route.id, caller);
        }
        Ok(answer)
    }

    pub(in crate::upstream) fn end_all(&self) {
        let ended = std::mem::take(&mut *self.servers());
        ended.into_values().filter_map(|server| server.get().cloned()).for_each(|server| server.end());
    }

    fn end(&self, route: RouteId, caller: Principal) {
        let ended = self.servers().remove(&(route, caller));
        if let Some(server) = ended.as_ref().and_then(|server| server.get()) {
            server.end();
        }
    }

    fn has_sessions_only(&self, route: RouteId) -> bool {
        let known = self.has_sessions_only.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&route).is_some_and(|since| since.elapsed() < ERA_KNOWN_FOR)
    }

    /// The caller's server, which is started where there is none.
    async fn server(
        &self,
        route: &Route,
        caller: Principal,
        open: impl Future<Output = Result<Pipe, Refusal>>,
    ) -> Result<Arc<Conversation>, Refusal> {
        let server = {
            let mut servers = self.servers();
            // One that could not be started is in nobody's hands, and would take its place for ever.
            servers.retain(|_, server| match server.get() {
                Some(started) => !started.has_ended(),
                None => Arc::strong_count(server) > 1,
            });
            let of_route = servers.keys().filter(|(id, _)| *id == route.id).count();
            let is_new = !servers.contains_key(&(route.id, caller));
            if is_new && of_route >= route.sessions_max {
                return Err(Refusal::not_run(Reason::Overloaded));
            }
            servers.entry((route.id, caller)).or_default().clone()
        };
        let started = server.get_or_try_init(async || {
            let pipe = open.await?;
            Ok(Conversation::begin(pipe, route.idle_timeout))
        });
        let started: Result<_, Refusal> = started.await;
        started.cloned()
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a request, whose form follows from the first thing that the server says about it.
async fn answered(mut seat: Seat, form: Form, is_complete: bool) -> Result<Answer, Refusal> {
    let first = match tokio::time::timeout(HEAD_TIME_MAX, seat.next()).await {
        Ok(Some(first)) => Some(first),
        Ok(None) => return Err(Refusal::perhaps_run(Reason::UpstreamBroke)),
        Err(_) => None,
    };
    let refused = first.as_ref().filter(|said| said.is_error);
    let status = refused.map_or(StatusCode::OK, |said| status(&said.pieces.concat(), is_complete));
    if let Some(refused) = refused.filter(|_| form == Form::Json || status != StatusCode::OK) {
        return Ok(respond::json_with(status, refused.pieces.concat()));
    }
    match form {
        Form::Events => Ok(respond::event_stream(reader::events(seat, first))),
        Form::Json => {
            let mut last = first;
            while last.as_ref().is_none_or(|said| !said.is_answer) {
                last = Some(seat.next().await.ok_or(Refusal::perhaps_run(Reason::UpstreamBroke))?);
            }
            Ok(respond::json_with(StatusCode::OK, last.map(|said| said.pieces.concat()).unwrap_or_default()))
        }
    }
}

/// What HTTP says of an error (2026-07-28, Streamable HTTP, and what the SDKs' servers do): what is
/// wrong with the parameters is the method's own affair, unless the request is not one of its revision.
fn status(error: &[u8], is_complete: bool) -> StatusCode {
    match mcp::error_code(error) {
        Some(-32602) if is_complete => StatusCode::OK,
        Some(-32700 | -32600 | -32602 | -32022..=-32020) => StatusCode::BAD_REQUEST,
        Some(-32601) => StatusCode::NOT_FOUND,
        Some(_) | None => StatusCode::OK,
    }
}

/// One message in the pieces that it was put together from.
type Pieces = Vec<Bytes>;
