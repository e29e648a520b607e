//! What child processes print: the same lines however they come, and messages that are one line of JSON.

use super::cuts::cut;
use crate::upstream::lines::{Cut, Lines, message};
use bytes::Bytes;
use serde_json::Value;

pub(super) const TOKENS: &[&str] = &[
    "\n",
    "\r\n",
    "\r",
    "{\"a\":1}",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}",
    "\"\\u00e4\"",
    "[1, 2]",
    " ",
    "\u{feff}",
];

/// Short, so that inputs pass it.
const LINE_LEN_MAX: usize = 100;

pub fn lines(input: &[u8]) {
    let (text, pieces) = cut(input);
    let (whole, split) = (read(&[text]), read(&pieces));
    assert_eq!(whole, split, "the same lines wherever they are cut");
    for line in whole.0 {
        assert!(line.len() <= LINE_LEN_MAX && !line.contains(&b'\n'));
        is_one_line_of_json(&line);
    }
    assert_eq!(logged(&[text]), logged(&pieces));
}

/// The lines, and what is left; `None` for a line that is too long.
fn read(pieces: &[&[u8]]) -> (Vec<Bytes>, Option<Bytes>) {
    let (mut lines, mut got) = (Lines::new(LINE_LEN_MAX), Vec::new());
    for piece in pieces {
        lines.room().extend_from_slice(piece);
        loop {
            match lines.next() {
                Ok(Some(line)) => got.push(line),
                Ok(None) => break,
                Err(_) => return (got, None),
            }
        }
    }
    (got, Some(lines.rest()))
}

fn is_one_line_of_json(line: &Bytes) {
    let meant = serde_json::from_slice::<Value>(line);
    match (message(line.clone()), meant) {
        (Some(message), Ok(meant)) => {
            assert!(!message.contains(&b'\r'));
            assert_eq!(serde_json::from_slice::<Value>(&message).expect("it was JSON"), meant);
        }
        // What only a full reading finds (a number that is too large, half a surrogate pair) passes.
        (Some(message), Err(_)) => assert!(std::str::from_utf8(&message).is_ok()),
        (None, meant) => assert!(meant.is_err(), "{line:?} is JSON"),
    }
}

fn logged(pieces: &[&[u8]]) -> Vec<String> {
    let (mut cut, mut lines) = (Cut::new(20), Vec::new());
    for piece in pieces {
        cut.push(piece, |line| lines.push(line));
    }
    cut.finish(|line| lines.push(line));
    lines
}
