//! Server-sent events, as far as it matters where one ends (WHATWG HTML, 9.2.6).

use bytes::Bytes;

/// Finds the ends of events in a stream of chunks: an event ends with an empty line, and a line
/// with LF, CRLF or CR.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boundary {
    line_is_empty: bool,
    after_cr: bool,
}

impl Default for Boundary {
    fn default() -> Self {
        Self { line_is_empty: true, after_cr: false }
    }
}

impl Boundary {
    /// How many bytes of `chunk` belong to events that are complete with it: 0 if none ends here.
    pub(crate) fn advance(&mut self, chunk: &[u8]) -> usize {
        let mut complete = 0;
        for (at, byte) in chunk.iter().enumerate() {
            match byte {
                // The second half of CRLF ends nothing, but belongs to what CR ended.
                b'\n' if self.after_cr => {
                    self.after_cr = false;
                    if complete == at {
                        complete = at + 1;
                    }
                }
                b'\n' | b'\r' => {
                    if self.line_is_empty {
                        complete = at + 1;
                    }
                    self.line_is_empty = true;
                    self.after_cr = *byte == b'\r';
                }
                _ => (self.line_is_empty, self.after_cr) = (false, false),
            }
        }
        complete
    }
}

/// One `message` event with `json` (which holds no line breaks) as its data.
pub(crate) fn event(json: &[u8]) -> Bytes {
    Bytes::from([b"event: message\ndata: ".as_slice(), json, b"\n\n"].concat())
}

/// The data lines of the last event in `events`, joined.
pub(crate) fn last_data(events: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(events).replace("\r\n", "\n").replace('\r', "\n");
    let last = text.trim_end_matches('\n').rsplit("\n\n").next().unwrap_or_default();
    let data: Vec<_> =
        last.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
    data.join("\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_ends_with_an_empty_line_whatever_the_line_ends() {
        for (text, complete) in [
            ("data: x\n\n", 9),
            ("data: x\r\n\r\n", 11),
            ("data: x\r\r", 9),
            ("data: x\n", 0),
            ("data: x\n\ndata: y", 9),
            ("data: x\n\ndata: y\n\n", 18),
            (": ping\n\n", 8),
            ("", 0),
        ] {
            assert_eq!(Boundary::default().advance(text.as_bytes()), complete, "{text:?}");
        }
    }

    #[test]
    fn chunks_may_be_cut_anywhere() {
        for text in ["id: 1\ndata: x\n\n: c\n\ndata: y\n\n", "data: x\r\n\r\ndata: y\r\n\r\n"] {
            for cut in 0..text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                let mut boundary = Boundary::default();
                boundary.advance(head);
                assert_eq!(boundary.advance(tail), tail.len(), "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn the_last_events_data_is_found() {
        assert_eq!(last_data(b"data: a\n\nid: 1\ndata: {\ndata: }\n\n"), b"{\n}");
        assert_eq!(last_data(b""), b"");
        assert_eq!(last_data(&event(b"{}")), b"{}");
    }
}
