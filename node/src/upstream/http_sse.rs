//! MCP servers that speak HTTP+SSE (2024-11-05). One answer without end brings all that the server says;
//! its first event says where messages to the server are POSTed.

use super::{http::Http, pipe::Pipe};
use crate::answer::{Answer, BodyStream};
use crate::ask::Payload;
use crate::config::UpstreamUrl;
use crate::headers::{self, Changed, EVENT_STREAM, Headers, JSON};
use crate::mcp::{self, Calls, Gather, LAST_EVENT_ID, PROTOCOL_VERSION, SESSION_ID};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, StatusCode, Uri,
    header::{self},
    http::uri::PathAndQuery,
};
use proto::wire::{Reason, Refusal};
use serde_json::json;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// From the GET to the event that says where to send messages; servers say it at once.
const OPEN_TIME_MAX: Duration = Duration::from_secs(10);
/// For a POST, which servers answer as soon as they have read it.
const POST_TIME_MAX: Duration = Duration::from_secs(30);
/// Messages that wait in either direction. Whoever sends more waits, too.
const WAITING_MAX: usize = 64;
/// What is read of the answer to a POST, so that its connection can be used again: it says "Accepted".
const ACCEPTED_LEN_MAX: usize = 64 * 1024;

/// Opens a session at such a server. `headers` are those of the client's first request: what it shows
/// of itself goes along with each of the session's.
pub(super) async fn open(http: &Arc<Http>, url: &UpstreamUrl, mut headers: Headers) -> Result<Pipe, Refusal> {
    for of_another_transport in [SESSION_ID, LAST_EVENT_ID, PROTOCOL_VERSION] {
        headers.remove(of_another_transport);
    }
    for of_the_body in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::ACCEPT_ENCODING, header::ACCEPT]
    {
        headers.remove(of_the_body);
    }
    let opening = listen(http, url, headers.clone());
    let Ok(opened) = tokio::time::timeout(OPEN_TIME_MAX, opening).await else {
        tracing::warn!(upstream = %url, "the upstream does not say where to send messages");
        return Err(Refusal::not_run(Reason::UpstreamUnreachable));
    };
    let (listening, endpoint) = opened?;
    headers.insert(header::CONTENT_TYPE, JSON);
    headers::let_go(&mut headers); // they are the session's, for hours
    let speaking = Speaking { http: http.clone(), url: url.clone(), endpoint, headers };
    let (to, messages) = mpsc::channel(WAITING_MAX);
    let (told, from) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        // The end of one direction is the end of the session: dropping the stream tells the server.
        tokio::select! {
            () = listening.pass_on(&told) => {}
            () = speaking.post_all(messages, &told) => {}
            () = told.closed() => {}
        }
    });
    Ok(Pipe { to, from })
}

async fn listen(
    http: &Http,
    url: &UpstreamUrl,
    mut headers: Headers,
) -> Result<(Listening, String), Refusal> {
    headers.insert(header::ACCEPT, EVENT_STREAM);
    let nothing = Payload::Whole(Bytes::new());
    let asked = Changed::of(&headers);
    let answer = http.send_to(url, &own_target(url), Method::GET, asked, &nothing).await?;
    if !answer.status().is_success() {
        return Err(Refusal::not_run(Reason::UpstreamStatus(answer.status().as_u16())));
    }
    let invalid = |what: &str| {
        tracing::warn!(upstream = %url, what, "the upstream does not speak HTTP+SSE");
        Refusal::not_run(Reason::UpstreamInvalid)
    };
    if !mcp::is_event_stream(answer.headers()) {
        return Err(invalid("no stream of events"));
    }
    let mut listening =
        Listening { body: answer.into_body(), gather: Gather::default(), ready: VecDeque::new() };
    loop {
        match listening.next().await {
            Some(event) if event.is_endpoint => {
                let said = String::from_utf8_lossy(&event.data);
                let endpoint = resolve(url, said.trim()).ok_or_else(|| invalid(&said))?;
                return Ok((listening, endpoint));
            }
            Some(_) => {} // there is nobody yet to whom it could be said
            None => return Err(invalid("the stream ended before its first event")),
        }
    }
}

/// What the server says.
struct Listening {
    body: BodyStream,
    gather: Gather,
    ready: VecDeque<Event>,
}

struct Event {
    is_endpoint: bool,
    /// On one line.
    data: Bytes,
}

impl Listening {
    async fn pass_on(mut self, told: &mpsc::Sender<Bytes>) {
        while let Some(event) = self.next().await {
            if !event.is_endpoint && told.send(event.data).await.is_err() {
                return;
            }
        }
    }

    /// The next event that says something; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let Ok(chunk) = self.body.frame().await?.ok()?.into_data() else { continue };
            let Ok(whole) = self.gather.take(&chunk) else {
                tracing::warn!("an upstream's event is too long");
                return None;
            };
            let said = mcp::events(&whole).filter(|event| !event.data.is_empty());
            self.ready.extend(said.map(|event| Event {
                is_endpoint: event.name == Some(b"endpoint"),
                data: mcp::one_line(event.data.into_owned().into()),
            }));
        }
    }
}

/// What the server is told.
struct Speaking {
    http: Arc<Http>,
    url: UpstreamUrl,
    endpoint: String,
    headers: Headers,
}

impl Speaking {
    /// One after the other, as the SDKs' own clients do, so that they arrive in their order.
    async fn post_all(self, mut messages: mpsc::Receiver<Bytes>, told: &mpsc::Sender<Bytes>) {
        while let Some(message) = messages.recv().await {
            let calls = mcp::peek(&message, true).map(|message| message.calls).unwrap_or_default();
            let posted = tokio::time::timeout(POST_TIME_MAX, self.post(message)).await;
            let refusal = match posted {
                Ok(Ok(StatusCode::NOT_FOUND)) => return, // the server has lost the session
                Ok(Ok(status)) if status.is_success() => continue,
                Ok(Ok(status)) => Refusal::perhaps_run(Reason::UpstreamStatus(status.as_u16())),
                Ok(Err(refusal)) => refusal,
                Err(_) => Refusal::perhaps_run(Reason::UpstreamBroke),
            };
            tracing::warn!(upstream = %self.url, ?refusal, "the upstream did not take a message");
            for error in errors(calls, refusal) {
                if told.send(error).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn post(&self, message: Bytes) -> Result<StatusCode, Refusal> {
        let (headers, body) = (Changed::of(&self.headers), Payload::Whole(message));
        let answer: Answer =
            self.http.send_to(&self.url, &self.endpoint, Method::POST, headers, &body).await?;
        let (head, body) = answer.into_parts();
        let _ = Limited::new(body, ACCEPTED_LEN_MAX).collect().await;
        Ok(head.status)
    }
}

/// The errors that answer calls which the server did not take, one message for each.
fn errors(calls: Calls, refusal: Refusal) -> impl Iterator<Item = Bytes> {
    let data = match refusal {
        Refusal::Undelivered { reason: Reason::UpstreamStatus(status), may_have_run } => {
            json!({"reason": "upstream_status", "status": status, "mayHaveRun": may_have_run})
        }
        Refusal::Undelivered { reason, may_have_run } => {
            json!({"reason": reason.word(), "mayHaveRun": may_have_run})
        }
        Refusal::Gone(why) => json!({"reason": why.word(), "mayHaveRun": false}),
    };
    let each = match calls {
        Calls::None => Vec::new(),
        Calls::One(id) => vec![id],
        Calls::Many(ids) => ids,
    };
    each.into_iter().map(move |id| {
        let message = "The MCP server did not take the request";
        mcp::error_body(&Calls::One(id), mcp::NOT_SERVED, message, Some(&data))
    })
}

fn own_target(url: &UpstreamUrl) -> String {
    url.target("/", "/")
}

/// Path and query of the endpoint that the server names, if it is of the same origin: whoever answers
/// there gets the client's credentials.
fn resolve(url: &UpstreamUrl, endpoint: &str) -> Option<String> {
    let endpoint = endpoint.split('#').next().unwrap_or_default();
    let absolute = endpoint.strip_prefix("//").or_else(|| endpoint.strip_prefix("http://"));
    let target = if let Some(rest) = absolute {
        let uri: Uri = format!("http://{rest}").parse().ok()?;
        let is_same = uri.authority()?.as_str().as_bytes().eq_ignore_ascii_case(url.host().as_bytes());
        is_same.then(|| uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned())?
    } else if endpoint.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
        return None; // another scheme
    } else {
        let base = own_target(url);
        match endpoint.chars().next()? {
            '/' => endpoint.to_owned(),
            '?' => base + endpoint,
            _ => {
                let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{folder}/{endpoint}")
            }
        }
    };
    target.parse::<PathAndQuery>().ok().map(|target| target.as_str().to_owned())
}

#[cfg(test)]
mod tests;
