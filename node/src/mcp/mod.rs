//! MCP as far as a gateway must know it: pure functions over bytes and headers.

mod errors;
mod gather;
pub(crate) mod modern;
mod object;
mod peek;
mod rpc;
mod sse;
mod tools;

pub(crate) use errors::{
    HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, NOT_SERVED, PARSE_ERROR,
    SESSION_NOT_FOUND, error_body, error_code, readdressed,
};
pub(crate) use gather::Gather;
pub(crate) use peek::{Calls, Message, Method, NotRpc, peek};
pub(crate) use rpc::{About, Id, Rpc, messages, negotiated, one_line};
pub(crate) use sse::{Boundary, IdPrefix, event, events};
pub(crate) use tools::{called_tool, level, repeatable_tools, uri};

use crate::headers::Headers;
use hyper::header::HeaderName;

pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// After which event a stream shall go on.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The first revision without sessions. Revisions are dates, so they compare as text.
const MODERN_FROM: &str = "2026-07-28";
/// Batches exist in 2025-03-26, which is also what a missing header means (transports, 2025-06-18).
const BATCHES_UNTIL: &str = "2025-06-18";

/// The revisions that have sessions.
const WITH_SESSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// A revision that has sessions. One byte: each session remembers one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revision(u8);

impl Revision {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let at = WITH_SESSIONS.iter().position(|version| *version == name)?;
        u8::try_from(at).ok().map(Self)
    }

    pub(crate) fn name(self) -> &'static str {
        WITH_SESSIONS[usize::from(self.0)]
    }
}

/// Whether the request is of a revision that has no sessions.
pub(crate) fn is_modern(headers: &Headers) -> bool {
    version(headers).is_some_and(|version| version >= MODERN_FROM)
}

/// Whether the request's revision has JSON-RPC batches.
pub(crate) fn has_batches(headers: &Headers) -> bool {
    version(headers).is_none_or(|version| version < BATCHES_UNTIL)
}

fn version(headers: &Headers) -> Option<&str> {
    headers.get(PROTOCOL_VERSION)?.to_str().ok()
}

/// Whether an answer is a stream of events.
pub(crate) fn is_event_stream(headers: &Headers) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let media_type =
        headers.get(hyper::header::CONTENT_TYPE).map(|value| value.as_bytes().trim_ascii_start());
    let named = media_type.and_then(|value| value.get(..EVENTS.len()));
    named.is_some_and(|named| named.eq_ignore_ascii_case(EVENTS))
}
