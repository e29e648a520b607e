//! Server-sent events, as far as it matters where one ends (WHATWG HTML, 9.2.6).

use bytes::{Bytes, BytesMut};
use std::borrow::Cow;

/// Finds the ends of events in a stream of chunks: an event ends with an empty line, and a line
/// with LF, CRLF or CR.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boundary {
    line_is_empty: bool,
    /// The last byte was CR: LF would belong to it.
    after_cr: bool,
    /// That CR ended an event.
    event_ended: bool,
}

impl Default for Boundary {
    fn default() -> Self {
        Self { line_is_empty: true, after_cr: false, event_ended: false }
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
                    if self.event_ended {
                        complete = at + 1;
                    }
                }
                b'\n' | b'\r' => {
                    self.event_ended = self.line_is_empty;
                    if self.event_ended {
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

/// Puts a prefix before every event id of a stream, wherever its chunks are cut.
#[derive(Debug)]
pub(crate) struct IdPrefix {
    prefix: Box<str>,
    /// How much of `id:` and the space that may follow this line begins with; none of it once it is
    /// another line.
    matched: Option<usize>,
}

impl IdPrefix {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), matched: Some(0) }
    }

    pub(crate) fn advance(&mut self, chunk: Bytes) -> Bytes {
        const FIELD: &[u8] = b"id:";
        let mut out = BytesMut::new();
        let (mut at, mut copied) = (0, 0);
        while let Some(byte) = chunk.get(at) {
            let ends_line = matches!(byte, b'\n' | b'\r');
            match self.matched {
                Some(matched) if matched < FIELD.len() && *byte == FIELD[matched] => {
                    self.matched = Some(matched + 1);
                }
                // One space belongs to the field, not to its value.
                Some(matched) if matched == FIELD.len() && *byte == b' ' => self.matched = Some(matched + 1),
                Some(matched) => {
                    self.matched = None;
                    // An empty id means none.
                    if matched >= FIELD.len() && !ends_line {
                        out.reserve(chunk.len() - copied + self.prefix.len());
                        out.extend_from_slice(&chunk[copied..at]);
                        out.extend_from_slice(self.prefix.as_bytes());
                        copied = at;
                    }
                }
                None => {}
            }
            if ends_line {
                self.matched = Some(0);
            }
            at += match self.matched {
                Some(_) => 1,
                // The rest of the line, data most often, is none of its business.
                None => {
                    chunk[at..].iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(chunk.len())
                }
            };
        }
        if copied == 0 && out.is_empty() {
            return chunk;
        }
        out.extend_from_slice(&chunk[copied..]);
        out.freeze()
    }
}

/// An event as far as a gateway must know it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// As it came, with the empty line at its end.
    pub(crate) text: &'a [u8],
    /// Its type; `None` means `message`.
    pub(crate) name: Option<&'a [u8]>,
    /// What its stream can be resumed after.
    pub(crate) id: Option<&'a [u8]>,
    /// Its data lines, joined.
    pub(crate) data: Cow<'a, [u8]>,
}

/// The events of a piece of a stream that ends with the end of one.
pub(crate) fn events(piece: &[u8]) -> impl Iterator<Item = Event<'_>> {
    let mut lines = Lines(piece);
    std::iter::from_fn(move || {
        let from = lines.0;
        let mut event = Event::default();
        while let Some(line) = lines.next() {
            if line.is_empty() {
                event.text = &from[..from.len() - lines.0.len()];
                return Some(event);
            } else if let Some(data) = field(line, b"data") {
                if event.data.is_empty() {
                    event.data = Cow::Borrowed(data);
                } else {
                    let joined = event.data.to_mut();
                    joined.push(b'\n');
                    joined.extend_from_slice(data);
                }
            } else if let Some(id) = field(line, b"id") {
                event.id = Some(id);
            } else if let Some(name) = field(line, b"event") {
                event.name = Some(name);
            }
        }
        None
    })
}

/// The value of a field, if the line is of that name. A line that is the name alone has an empty one.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    if value.is_empty() {
        return Some(value);
    }
    let value = value.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// The lines of a text, with what ends them.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut lines = Lines(text);
    std::iter::from_fn(move || {
        let from = lines.0;
        lines.next()?;
        Some(&from[..from.len() - lines.0.len()])
    })
}

/// The lines of a text, whatever ends them.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let len = self.0.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(len);
        self.0 = rest.strip_prefix(b"\r\n").or(rest.get(1..)).unwrap_or_default();
        Some(line)
    }
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
            let ends: Vec<_> = (1..=text.len())
                .filter(|end| text[..*end].ends_with(if text.contains('\r') { "\r\n\r\n" } else { "\n\n" }))
                .collect();
            for cut in 0..text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                let mut boundary = Boundary::default();
                let complete = boundary.advance(head);
                // CR alone ends a line too, so an event may be complete before the LF that belongs to it.
                let known = ends.iter().any(|end| *end == complete || *end == complete + 1);
                assert!(complete == 0 || known, "{text:?} cut at {cut}: {complete}");
                assert_eq!(boundary.advance(tail), tail.len(), "{text:?} cut at {cut}");
            }
        }
        let mut boundary = Boundary::default();
        assert_eq!(boundary.advance(b"data: x\r"), 0);
        assert_eq!(boundary.advance(b"\ndata: y"), 0, "the LF belongs to the line's CR and ends no event");
    }

    #[test]
    fn ids_get_their_prefix_wherever_the_stream_is_cut() {
        let text = "id: 1\ndata: id: 2\n\nid:3\r\ndata: x\r\n\r\nidx: 4\nid\nid:\nid: \n: c\n\n";
        let expected = text.replace("id: 1", "id: p.1").replace("id:3", "id:p.3");
        for cut in 0..=text.len() {
            let mut prefix = IdPrefix::new("p.");
            let (head, tail) = text.as_bytes().split_at(cut);
            let joined = [head, tail].map(|chunk| prefix.advance(Bytes::copy_from_slice(chunk))).concat();
            assert_eq!(String::from_utf8_lossy(&joined), expected, "cut at {cut}");
        }
    }

    #[test]
    fn events_are_read_whatever_ends_their_lines() {
        let read = |text: &str| -> Vec<(Option<String>, String)> {
            let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(events(text.as_bytes()).map(|event| event.text.len()).sum::<usize>(), text.len());
            events(text.as_bytes()).map(|event| (event.id.map(text_of), text_of(&event.data))).collect()
        };
        let event = |id: Option<&str>, data: &str| (id.map(str::to_owned), data.to_owned());
        assert_eq!(
            read("data: a\n\nid: 1\ndata: {\ndata: }\n\n"),
            [event(None, "a"), event(Some("1"), "{\n}")]
        );
        assert_eq!(
            read("id:1/2\r\ndata:a\r\n\r\n: ping\r\n\r\n"),
            [event(Some("1/2"), "a"), event(None, "")]
        );
        assert_eq!(
            read("id: 4\ndata: x\nid\ndatax: y\n\n"),
            [event(Some(""), "x")],
            "a name alone has no value"
        );
        assert_eq!(read(""), []);
        assert_eq!(read(std::str::from_utf8(&super::event(b"{}")).expect("text")), [event(None, "{}")]);
    }
}
