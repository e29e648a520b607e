//! Framing: what comes out of a child's pipes, as lines. Pure.

use bytes::{Buf, Bytes, BytesMut};
use serde::de::IgnoredAny;

/// As much as is read at once when little comes: a session that idles keeps this.
const READ_LEN: usize = 8 * 1024;

/// A line is longer than it may be, so what follows can't be told apart any more.
#[derive(Debug, PartialEq)]
pub(crate) struct TooLong;

/// Of a buffer that had to grow beyond this nothing is kept: a pipe holds no more, so that what is begun
/// behind a long line is short.
const BUFFER_KEPT: usize = 64 * 1024;

/// Bytes in, whole lines out. Each is a copy of its own, so that whoever keeps a short one does not keep
/// the buffer.
#[derive(Debug)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// So much of the buffer is known to hold no line's end.
    searched: usize,
    len_max: usize,
}

impl Lines {
    pub(crate) fn new(len_max: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, len_max }
    }

    /// Where what is read goes.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_LEN); // it grows by doubling
        &mut self.buffer
    }

    /// The next line without its end, if it has come whole.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let len = self.searched + end.unwrap_or(self.buffer.len() - self.searched);
        if len > self.len_max {
            return Err(TooLong);
        }
        if end.is_none() {
            self.searched = len;
            return Ok(None);
        }
        self.searched = 0;
        let line = Bytes::copy_from_slice(&self.buffer[..len]);
        self.buffer.advance(len + 1);
        if len > BUFFER_KEPT {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(Some(line))
    }

    /// What has come of a line that will never be whole.
    pub(crate) fn rest(self) -> Bytes {
        self.buffer.freeze()
    }
}

/// The line as a message, if it is JSON: one line without carriage returns, which are line breaks to
/// others, at its end (Windows) or between tokens (JSON allows that; within a string it does not).
pub(crate) fn message(line: Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(&line).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let line = line.slice_ref(text.trim_ascii().as_bytes());
    if !line.contains(&b'\r') {
        return Some(line);
    }
    Some(line.iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }).collect())
}

/// Bytes in, lines of text out, each cut where it becomes too long for a log.
#[derive(Debug)]
pub(crate) struct Cut {
    line: Vec<u8>,
    /// Bytes of this line that were left out.
    left_out: usize,
    len_max: usize,
}

impl Cut {
    pub(crate) fn new(len_max: usize) -> Self {
        Self { line: Vec::new(), left_out: 0, len_max }
    }

    /// Gives every line that these bytes end to `each`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(String)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, is_whole) = part.strip_suffix(b"\n").map_or((part, false), |part| (part, true));
            let kept = part.len().min(self.len_max - self.line.len());
            self.line.extend_from_slice(&part[..kept]);
            self.left_out += part.len() - kept;
            if is_whole {
                self.end(&mut each);
            }
        }
    }

    /// Ends the line that has begun, if one has.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(String)) {
        if !self.line.is_empty() {
            self.end(&mut each);
        }
    }

    fn end(&mut self, each: &mut impl FnMut(String)) {
        let mut line = String::from_utf8_lossy(self.line.trim_ascii_end()).into_owned();
        if self.left_out > 0 {
            line.push_str(&format!(" ... ({} bytes more)", self.left_out));
        }
        self.line.clear();
        self.left_out = 0;
        each(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<Bytes> {
        std::iter::from_fn(|| lines.next().expect("short lines")).collect()
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = b"{\"a\":1}\n\nsecond\nthird";
        for cut in 0..text.len() {
            let mut lines = Lines::new(10);
            lines.room().extend_from_slice(&text[..cut]);
            let mut got = all(&mut lines);
            lines.room().extend_from_slice(&text[cut..]);
            got.extend(all(&mut lines));
            assert_eq!(got, [&b"{\"a\":1}"[..], b"", b"second"], "cut at {cut}");
            assert_eq!(lines.rest(), &b"third"[..]);
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_the_bound_and_no_longer() {
        let mut lines = Lines::new(4);
        lines.room().extend_from_slice(b"1234\n12345");
        assert_eq!(lines.next(), Ok(Some(Bytes::from_static(b"1234"))));
        assert_eq!(lines.next(), Err(TooLong));
        lines.room().extend_from_slice(b"\n");
        assert_eq!(lines.next(), Err(TooLong), "it does not recover");
    }

    #[test]
    fn a_long_line_leaves_no_large_buffer() {
        let mut lines = Lines::new(1024 * 1024);
        lines.room().extend_from_slice(&[b'x'; 1024 * 1024]);
        lines.room().extend_from_slice(b"\nnext");
        assert_eq!(lines.next().map(|line| line.map(|line| line.len())), Ok(Some(1024 * 1024)));
        assert!(lines.room().capacity() <= BUFFER_KEPT);
        assert_eq!(lines.rest(), &b"next"[..]);
    }

    #[test]
    fn only_json_is_a_message_and_it_is_one_line() {
        let read = |line: &'static [u8]| message(Bytes::from_static(line));
        assert_eq!(read(b" {\"a\":\t[1]} \r"), Some(Bytes::from_static(b"{\"a\":\t[1]}")));
        assert_eq!(read(b"{\"a\":\r1}"), Some(Bytes::from_static(b"{\"a\": 1}")));
        for noise in
            [&b""[..], b"  ", b"Server started", b"[INFO] ready [x]", b"{\"a\":1", b"{\"a\":\"\xff\"}"]
        {
            assert_eq!(message(Bytes::from_static(noise)), None, "{noise:?}");
        }
    }

    #[test]
    fn a_deep_message_is_no_trouble() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(message(Bytes::from(deep)).map(|message| message.len()), Some(200_000));
    }

    #[test]
    fn long_lines_for_the_log_are_cut_and_say_so() {
        let mut cut = Cut::new(5);
        let mut lines = Vec::new();
        for part in ["one\r\n123", "45", "67\n", "\nend"] {
            cut.push(part.as_bytes(), |line| lines.push(line));
        }
        cut.finish(|line| lines.push(line));
        cut.finish(|line| lines.push(line));
        assert_eq!(lines, ["one", "12345 ... (2 bytes more)", "", "end"]);
    }
}
