//! Header values that are needed in many places, and headers that are kept or written without hyper.

use bytes::BytesMut;
use hyper::{HeaderMap, header::HeaderValue};

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// What a client of Streamable HTTP takes (2025-03-26, transports, "Sending Messages").
pub(crate) const JSON_OR_EVENTS: HeaderValue =
    HeaderValue::from_static("application/json, text/event-stream");

/// A copy: what hyper gives is a piece of its read buffer, and would keep all 8 KiB of it.
pub(crate) fn copied(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).expect("it was a header's value")
}

/// Copies all values, for as long as the headers live.
pub(crate) fn let_go(headers: &mut HeaderMap) {
    let mut copied = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    for value in headers.values() {
        copied.extend_from_slice(value.as_bytes());
    }
    let mut copied = copied.freeze();
    for value in headers.values_mut() {
        let copy = copied.split_to(value.len());
        *value = HeaderValue::from_maybe_shared(copy).expect("it was a header's value");
    }
}

/// Adds them to the first line of a head, with the empty line after them.
pub(crate) fn write(headers: &HeaderMap, head: &mut Vec<u8>) {
    for (name, value) in headers {
        head.extend_from_slice(name.as_ref());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
}
