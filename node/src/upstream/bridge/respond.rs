//! The answers of a bridge that are not its server's: those of any Streamable HTTP server (2025-11-25,
//! transports), with the codes that the SDKs' servers use.

use super::reader::Events;
use super::stream::Form;
use crate::answer::{Answer, BodyStream, whole};
use crate::headers::{EVENT_STREAM, JSON};
use crate::mcp::{
    Calls, HEADER_MISMATCH, INVALID_REQUEST, METHOD_NOT_FOUND, NotRpc, PARSE_ERROR, SESSION_ID,
    SESSION_NOT_FOUND, error_body, event,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};

const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A request that is not passed on.
#[derive(Debug)]
pub(super) enum Refused {
    Method,
    /// The body is not JSON.
    MediaType,
    /// The client takes nothing that could be sent.
    NotAcceptable,
    NotRpc(NotRpc),
    Version(String),
    NoSession,
    UnknownSession,
    InitializedAlready,
    /// Of a server that has sessions only.
    UnknownMethod,
    /// The headers do not say what the body says.
    HeaderMismatch(String),
    /// A call with the same id is in progress.
    InProgress,
}

pub(super) fn refused(why: Refused, calls: &Calls) -> Answer {
    let (status, code, message) = match why {
        Refused::Method => (StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, "Method not allowed".into()),
        Refused::MediaType => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            INVALID_REQUEST,
            "Unsupported Media Type: Content-Type must be application/json".into(),
        ),
        Refused::NotAcceptable => (
            StatusCode::NOT_ACCEPTABLE,
            INVALID_REQUEST,
            "Not Acceptable: Accept must list application/json and text/event-stream".into(),
        ),
        Refused::NotRpc(NotRpc::NotJson(error)) => {
            (StatusCode::BAD_REQUEST, PARSE_ERROR, format!("Parse error: {error}"))
        }
        Refused::NotRpc(NotRpc::Invalid(what)) => {
            (StatusCode::BAD_REQUEST, INVALID_REQUEST, format!("Invalid request: {what}"))
        }
        Refused::Version(version) => (
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            format!("Bad Request: unsupported MCP-Protocol-Version {version:?} in this session"),
        ),
        Refused::NoSession => (
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            "Bad Request: Mcp-Session-Id header is required".into(),
        ),
        Refused::UnknownSession => (StatusCode::NOT_FOUND, SESSION_NOT_FOUND, "Session not found".into()),
        Refused::UnknownMethod => (StatusCode::NOT_FOUND, METHOD_NOT_FOUND, "Method not found".into()),
        Refused::HeaderMismatch(what) => {
            (StatusCode::BAD_REQUEST, HEADER_MISMATCH, format!("Header mismatch: {what}"))
        }
        Refused::InitializedAlready => {
            (StatusCode::BAD_REQUEST, INVALID_REQUEST, "Invalid request: initialized already".into())
        }
        Refused::InProgress => (
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            "Invalid request: a request with this id is in progress".into(),
        ),
    };
    let mut answer = json(error_body(calls, code, &message, None));
    *answer.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE"));
    }
    answer
}

/// There is nothing to listen to: the stream has nothing after the event that the client names. All
/// clients take this for the end of it, while they ask again and again after an empty stream.
pub(super) fn over() -> Answer {
    refused(Refused::Method, &Calls::None)
}

pub(super) fn initialized(message: Bytes, form: Form, session: Option<&str>) -> Answer {
    let mut answer = match form {
        Form::Json => json(message),
        Form::Events => event_stream(whole(event(&message))),
    };
    if let Some(session) = session {
        let session = HeaderValue::from_str(session).expect("hexadecimal digits");
        answer.headers_mut().insert(SESSION_ID, session);
    }
    answer
}

/// The responses of calls, as one message or as a batch.
pub(super) fn responses(mut responses: Vec<Bytes>, is_batch: bool) -> Answer {
    match responses.pop() {
        Some(only) if !is_batch => json(only),
        last => {
            responses.extend(last);
            json([b"[".as_slice(), &responses.join(&b","[..]), b"]"].concat())
        }
    }
}

pub(super) fn events(events: Events) -> Answer {
    event_stream(events.boxed_unsync())
}

/// Events that are all there.
pub(super) fn all_events(events: Bytes) -> Answer {
    event_stream(whole(events))
}

pub(super) fn accepted() -> Answer {
    let mut answer = Answer::new(whole(Bytes::new()));
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer
}

pub(super) fn ended() -> Answer {
    Answer::new(whole(Bytes::new()))
}

/// A message of the server's with a status of its own.
pub(super) fn json_with(status: StatusCode, message: impl Into<Bytes>) -> Answer {
    let mut answer = json(message);
    *answer.status_mut() = status;
    answer
}

fn json(body: impl Into<Bytes>) -> Answer {
    let mut answer = Answer::new(whole(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
    answer
}

pub(super) fn event_stream(body: BodyStream) -> Answer {
    let mut answer = Answer::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // nginx and those who follow it hold events back otherwise.
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    answer
}
