//! The messages in a stream of events, rewritten one by one as they pass.

use crate::mcp::sse::{self, Boundary};
use bytes::{Bytes, BytesMut};

/// An event up to this size is held until it is whole, and can be rewritten. The Python SDK's client
/// takes no longer one.
const HELD_LEN_MAX: usize = 1024 * 1024;

/// Rewrites what passes through it, wherever its chunks are cut.
#[derive(Debug, Default)]
pub(crate) struct Rewriter {
    boundary: Boundary,
    /// The beginning of an event whose end has not come yet.
    held: BytesMut,
    /// The beginning of an event too long to be held has been passed on.
    committed: bool,
}

impl Rewriter {
    /// What can be passed on now that `chunk` has come, each message in it replaced by what
    /// `rewrite` makes of it, if anything.
    pub(crate) fn advance(&mut self, chunk: &Bytes, rewrite: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Bytes {
        let complete = self.boundary.advance(chunk);
        if self.committed {
            // The end of the long event can't be told from whole ones after it, and both pass as they are.
            self.committed = complete == 0;
            self.held.extend_from_slice(&chunk[complete..]);
            return if self.committed { self.held.split().freeze() } else { chunk.slice(..complete) };
        }
        let before = self.held.len();
        self.held.extend_from_slice(chunk);
        let whole = if complete > 0 { self.held.split_to(before + complete).freeze() } else { Bytes::new() };
        let mut passed = rewritten(whole, rewrite);
        if self.held.len() > HELD_LEN_MAX {
            self.committed = true;
            passed.unsplit(self.held.split());
        }
        passed.freeze()
    }

    /// What is left when the stream has ended in the middle of an event.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.held.split().freeze()
    }
}

fn rewritten(whole: Bytes, rewrite: impl Fn(&[u8]) -> Option<Vec<u8>>) -> BytesMut {
    let mut passed = BytesMut::with_capacity(whole.len());
    for event in sse::events(&whole) {
        match rewrite(&event.data) {
            Some(message) => with_data(event.text, &message, &mut passed),
            None => passed.extend_from_slice(event.text),
        }
    }
    passed
}

/// An event with other data: the first of its data lines holds it, and the others are gone.
fn with_data(event: &[u8], data: &[u8], passed: &mut BytesMut) {
    let mut data = Some(data);
    for line in sse::lines(event) {
        if !line.starts_with(b"data:") {
            passed.extend_from_slice(line);
        } else if let Some(data) = data.take() {
            let end = line.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
            let space = if line.starts_with(b"data: ") { b"data: ".as_slice() } else { b"data:" };
            passed.extend_from_slice(space);
            // A line break between its tokens, which joined lines have, is white space to JSON.
            passed.extend(data.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
            passed.extend_from_slice(&line[end..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `a` becomes `bb`, in messages that have one.
    fn double(message: &[u8]) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(message);
        text.contains('a').then(|| text.replace('a', "bb").into_bytes())
    }

    #[test]
    fn messages_are_rewritten_wherever_the_stream_is_cut() {
        for (stream, expected) in [
            (": ka\n\nid: a\ndata: [\"a\"]\n\ndata:x\n\n", ": ka\n\nid: a\ndata: [\"bb\"]\n\ndata:x\n\n"),
            ("event: a\r\ndata:a\r\n\r\ndata: a\r\n\r\n", "event: a\r\ndata:bb\r\n\r\ndata: bb\r\n\r\n"),
            (
                "data: {\ndata: a}\nid: 7\n\ndata: {\ndata: }\n\n",
                "data: { bb}\nid: 7\n\ndata: {\ndata: }\n\n",
            ),
            ("data: a", "data: a"),
        ] {
            for cut in 0..=stream.len() {
                let mut rewriter = Rewriter::default();
                let (head, tail) = stream.split_at(cut);
                let mut passed = rewriter.advance(&Bytes::copy_from_slice(head.as_bytes()), double).to_vec();
                passed.extend(rewriter.advance(&Bytes::copy_from_slice(tail.as_bytes()), double));
                passed.extend(rewriter.rest());
                assert_eq!(String::from_utf8_lossy(&passed), expected, "{stream:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn whole_events_are_not_held_back() {
        let mut rewriter = Rewriter::default();
        let mut pass = |chunk: &'static str| rewriter.advance(&Bytes::from_static(chunk.as_bytes()), double);
        assert_eq!(pass("data: a\n\ndata: "), "data: bb\n\n");
        assert_eq!(pass("a\n"), "");
        assert_eq!(pass("\n"), "data: bb\n\n");
    }

    #[test]
    fn an_event_that_is_too_long_passes_as_it_is_and_those_after_it_are_rewritten() {
        let long = format!("data: a{}", "x".repeat(HELD_LEN_MAX));
        let mut rewriter = Rewriter::default();
        let mut pass = |chunk: &str| rewriter.advance(&Bytes::copy_from_slice(chunk.as_bytes()), double);
        assert_eq!(pass(&long), long);
        assert_eq!(pass("a"), "a");
        assert_eq!(pass("a\n\ndata: a"), "a\n\n");
        assert_eq!(pass("a\n\n"), "data: bbbb\n\n");
    }
}
