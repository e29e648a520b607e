//! What the micro-benchmarks call (`node/benches`): the parts of this program that read what passes through it, each as
//! a function of bytes. No part of the program.

use crate::front::events::{Events, Kind};
use crate::mcp::{Calls, IdPrefix, peek};
use bytes::Bytes;

/// Whether a body is one request that waits for an answer.
pub fn is_one_call(body: &[u8]) -> bool {
    peek(body, false).is_ok_and(|message| matches!(message.calls, Calls::One(_)))
}

/// A stream as it comes from the network.
pub fn pieces(stream: &str, len: usize) -> Vec<Bytes> {
    stream.as_bytes().chunks(len).map(Bytes::copy_from_slice).collect()
}

/// Passes a stream on to a client: the server's own, or the answer to a call. Gives the length of what was passed on.
pub fn pass_on(asked: Option<&str>, pieces: Vec<Bytes>) -> usize {
    let calls = asked.and_then(|body| peek(body.as_bytes(), false).ok()).map(|message| message.calls);
    let kind = if calls.is_some() { Kind::Answer } else { Kind::Own };
    let mut events = Events::new(kind, calls.unwrap_or_default());
    pieces.into_iter().filter_map(|piece| events.take(piece)).map(|passed| passed.len()).sum()
}

/// Puts the mark before every id of a stream. Gives the length of what came of it.
pub fn mark_ids(mark: &str, pieces: Vec<Bytes>) -> usize {
    let mut prefix = IdPrefix::new(mark);
    pieces.into_iter().map(|piece| prefix.advance(piece).len()).sum()
}
