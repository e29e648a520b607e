//! Where the head of an answer ends, and where its body does: bytes in, a head and pieces of the body
//! out. Pure. Called by [`super::whole`], which reads without hyper.

use crate::answer::Head;
use crate::headers::{self, Headers};
use bytes::{Bytes, BytesMut};
use hyper::{
    StatusCode, Version,
    header::{self, HeaderValue},
};
use std::{io, mem::MaybeUninit};

/// As hyper has it (`front::serve`).
pub(super) const HEAD_LEN_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
/// A chunk's size in hexadecimal digits, and what may follow it.
const LINE_LEN_MAX: usize = 4 * 1024;

const NOTHING: HeaderValue = HeaderValue::from_static("");

/// Takes a head off, once it is whole. What its headers say are pieces of what was read.
pub(crate) fn parse_head(held: &mut BytesMut) -> io::Result<Option<Head>> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsing = config.parse_response_with_uninit_headers(&mut parsed, held, &mut room);
    let httparse::Status::Complete(len) = parsing.map_err(malformed)? else { return Ok(None) };
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(malformed)?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    // Where each value lies, until it can be taken as a piece.
    let (start, mut places) = (held.as_ptr() as usize, [(0, 0); HEADERS_MAX]);
    let mut headers = Headers::with_room_for(parsed.headers.len());
    for (place, header) in places.iter_mut().zip(parsed.headers.iter()) {
        *place = (header.value.as_ptr() as usize - start, header.value.len());
        headers.append(headers::name(header.name.as_bytes()).map_err(malformed)?, NOTHING);
    }
    let head = held.split_to(len).freeze();
    for (value, (at, len)) in headers.values_mut().zip(places) {
        *value = HeaderValue::from_maybe_shared(head.slice(at..at + len)).map_err(malformed)?;
    }
    Ok(Some(Head { status, version, headers, ..Head::default() }))
}

/// How a body ends (RFC 9112, 6.3).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Chunked(Chunked),
    Length(u64),
    UntilClosed,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// The line with a chunk's size comes next.
    Size,
    Data(u64),
    /// The line break after a chunk's data.
    AfterData,
    /// How much of them there was.
    Trailers(usize),
    Ended,
}

impl Framing {
    pub(crate) fn of(head: &Head) -> io::Result<Self> {
        let headers = &head.headers;
        if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Self::Length(0));
        }
        if let Some(coding) = headers.get_all(header::TRANSFER_ENCODING).next_back() {
            let last = coding.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
            return match last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                true => Ok(Self::Chunked(Chunked::Size)),
                false => Ok(Self::UntilClosed),
            };
        }
        length(headers).map(|len| len.map_or(Self::UntilClosed, Self::Length))
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self, Self::Chunked(Chunked::Ended) | Self::Length(0))
    }

    /// The next piece of the body that is there.
    pub(crate) fn next(&mut self, held: &mut BytesMut) -> io::Result<Option<Bytes>> {
        let left = match self {
            Self::UntilClosed => return Ok((!held.is_empty()).then(|| held.split().freeze())),
            Self::Length(left) => left,
            Self::Chunked(chunked) => match chunked.data(held)? {
                Some(left) => left,
                None => return Ok(None),
            },
        };
        let len = held.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= len as u64;
        Ok((len > 0).then(|| held.split_to(len).freeze()))
    }
}

impl Chunked {
    /// Goes on to a chunk's data, if that is what comes next: how much of it is left.
    fn data(&mut self, held: &mut BytesMut) -> io::Result<Option<&mut u64>> {
        loop {
            *self = match self {
                Self::Data(1..) | Self::Ended => break,
                Self::Data(0) => Self::AfterData,
                Self::Size | Self::AfterData | Self::Trailers(_) => {
                    let Some(line) = take_line(held)? else { return Ok(None) };
                    match self {
                        Self::Size => match chunk_size(&line)? {
                            0 => Self::Trailers(0),
                            len => Self::Data(len),
                        },
                        Self::AfterData if line.is_empty() => Self::Size,
                        Self::AfterData => return Err(malformed("a chunk longer than its size")),
                        Self::Trailers(_) if line.is_empty() => Self::Ended,
                        Self::Trailers(HEAD_LEN_MAX..) => return Err(malformed("trailers that do not end")),
                        Self::Trailers(len) => Self::Trailers(*len + line.len() + 1),
                        Self::Data(_) | Self::Ended => break,
                    }
                }
            };
        }
        match self {
            Self::Data(left) => Ok(Some(left)),
            Self::Size | Self::AfterData | Self::Trailers(_) | Self::Ended => Ok(None),
        }
    }
}

/// Takes a line off, without its end.
fn take_line(held: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    let Some(end) = held.iter().position(|byte| *byte == b'\n') else {
        return if held.len() > LINE_LEN_MAX { Err(malformed("a line that is too long")) } else { Ok(None) };
    };
    let mut line = held.split_to(end + 1);
    line.truncate(end);
    if line.last() == Some(&b'\r') {
        line.truncate(end - 1);
    }
    Ok(Some(line))
}

fn chunk_size(line: &[u8]) -> io::Result<u64> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let digits = std::str::from_utf8(digits).map_err(malformed)?;
    if digits.starts_with('+') {
        return Err(malformed("a chunk's size with a sign"));
    }
    u64::from_str_radix(digits, 16).map_err(malformed)
}

/// The same length may be said twice, in two lines or a list, but no two (RFC 9110, 8.6).
fn length(headers: &Headers) -> io::Result<Option<u64>> {
    let lines = headers.get_all(header::CONTENT_LENGTH);
    let mut said = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let Some(len) = said.next() else { return Ok(None) };
    if said.any(|other| other != len) {
        return Err(malformed("two lengths"));
    }
    if !len.iter().all(u8::is_ascii_digit) {
        return Err(malformed("a length that is no number"));
    }
    std::str::from_utf8(len).map_err(malformed)?.parse().map(Some).map_err(malformed)
}

pub(super) fn malformed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(line: &str) -> io::Result<Framing> {
        let mut held = BytesMut::from(format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n").as_str());
        Framing::of(&parse_head(&mut held)?.expect("a whole head"))
    }

    #[test]
    fn a_length_may_be_said_twice_and_a_coding_has_its_own_name() {
        let of = |line| framing(line).expect("a framing");
        assert_eq!(of("content-length: 4, 4"), Framing::Length(4));
        assert_eq!(of("transfer-encoding: gzip, chunked"), Framing::Chunked(Chunked::Size));
        assert_eq!(of("transfer-encoding: notchunked"), Framing::UntilClosed);
        for wrong in ["content-length: 4, 5", "content-length: ", "content-length: -4", "content-length: 4,"]
        {
            assert!(framing(wrong).is_err(), "{wrong}");
        }
    }
}
