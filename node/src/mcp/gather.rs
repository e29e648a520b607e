//! Whole events from a stream that comes in chunks, where messages are read one by one instead of being
//! passed on as they come.

use super::Boundary;
use bytes::{Bytes, BytesMut};

/// rmcp's own client takes no longer events, and MCP's servers send what fits their peers: 16 MiB are
/// four times what a request may have by default.
pub(crate) const EVENT_LEN_MAX: usize = 16 * 1024 * 1024;

/// An event is longer than [`EVENT_LEN_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// What has come of a stream of events and is not a whole event yet.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    held: BytesMut,
    boundary: Boundary,
}

impl Gather {
    /// Whether there is nothing of an event that is not whole yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The events that are whole now that `chunk` has come; empty if none is.
    pub(crate) fn take(&mut self, chunk: &[u8]) -> Result<Bytes, TooLong> {
        let complete = self.boundary.advance(chunk);
        let ready = if complete > 0 { self.held.len() + complete } else { 0 };
        self.held.extend_from_slice(chunk);
        if self.held.len() - ready > EVENT_LEN_MAX {
            return Err(TooLong);
        }
        Ok(self.held.split_to(ready).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_wherever_their_stream_is_cut() {
        let text = b"data: 1\n\nid: 2\ndata: 3\n\n";
        for cut in 0..=text.len() {
            let mut gather = Gather::default();
            let (head, tail) = text.split_at(cut);
            let first = gather.take(head).expect("short");
            assert!(first.is_empty() || first.ends_with(b"\n\n"), "cut at {cut}");
            let second = gather.take(tail).expect("short");
            assert_eq!([first, second].concat(), text, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let (mut gather, chunk) = (Gather::default(), vec![b'x'; 1024 * 1024]);
        let taken = (0..=EVENT_LEN_MAX / chunk.len()).map(|_| gather.take(&chunk)).find(Result::is_err);
        assert_eq!(taken, Some(Err(TooLong)));
    }
}
