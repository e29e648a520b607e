//! Answers of upstreams that are read without hyper: the same head and body wherever they are cut, and
//! nothing of the body lost or made up.

use super::cuts::cut;
use crate::answer;
use crate::upstream::framing::{Framing, parse_head};
use bytes::BytesMut;

pub(super) const TOKENS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 204 \r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "content-length: ",
    "4",
    "\r\n",
    "\r\n\r\n",
    "transfer-encoding: chunked\r\n",
    "gzip, chunked",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    ";x=y",
    "\n",
    "+",
    "ffffffffffffffff\r\n",
    "t: 1\r\n",
];

/// What came of an answer.
#[derive(Debug, PartialEq)]
struct Read {
    head: Option<Head>,
    body: Vec<u8>,
    end: End,
}

/// Its status and headers.
type Head = (u16, Vec<(String, Vec<u8>)>);

#[derive(Debug, PartialEq)]
enum End {
    /// More is to come, or the connection's end.
    Open,
    Whole,
    Malformed,
}

pub fn heads(input: &[u8]) {
    let (text, pieces) = cut(input);
    let (whole, split) = (read(&[text]), read(&pieces));
    assert_eq!(whole.head, split.head, "the same head wherever it is cut");
    assert_eq!(whole.end, split.end, "the same end wherever it is cut");
    assert_eq!(whole.body, split.body, "the same body wherever it is cut");
    // Every byte of the body was there, in this order.
    let mut left = text.iter();
    assert!(whole.body.iter().all(|byte| left.any(|sent| sent == byte)), "bytes that nobody sent");
}

fn read(pieces: &[&[u8]]) -> Read {
    let mut held = BytesMut::new();
    let mut read = Read { head: None, body: Vec::new(), end: End::Open };
    let mut framing: Option<Framing> = None;
    for piece in pieces {
        held.extend_from_slice(piece);
        while framing.is_none() {
            match parse_head(&mut held) {
                Ok(Some(head)) if head.status.is_informational() => {}
                Ok(Some(head)) => {
                    read.head = Some(plain(&head));
                    match Framing::of(&head) {
                        Ok(of) => framing = Some(of),
                        Err(_) => return Read { end: End::Malformed, ..read },
                    }
                }
                Ok(None) => break,
                Err(_) => return Read { end: End::Malformed, ..read },
            }
        }
        let Some(framing) = &mut framing else { continue };
        loop {
            match framing.next(&mut held) {
                Ok(Some(data)) => {
                    assert!(!data.is_empty(), "an empty piece would be asked for again and again");
                    read.body.extend_from_slice(&data);
                }
                Ok(None) => break,
                Err(_) => return Read { end: End::Malformed, ..read },
            }
        }
        if framing.has_ended() {
            return Read { end: End::Whole, ..read };
        }
    }
    read
}

fn plain(head: &answer::Head) -> Head {
    let headers = head.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_owned()));
    (head.status.as_u16(), headers.collect())
}
