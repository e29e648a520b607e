//! A stream of a server's own, read without hyper: it may stand for hours and say nothing, and hyper
//! would keep two buffers of 8 KiB for it. Here an idle one holds its socket, and a buffer only while
//! half a chunk's head is in it. Its connection is its own, and ends with it.

use super::pool::{Failure, connect};
use crate::answer::{BodyStream, Broke};
use crate::headers;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Frame},
    header::{self, HeaderName, HeaderValue},
};
use std::{
    io,
    mem::{self, MaybeUninit},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

/// As hyper has it (`front::serve`).
const HEAD_LEN_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
/// A chunk's size in hexadecimal digits, and what may follow it.
const LINE_LEN_MAX: usize = 4 * 1024;
/// Read at once, on the stack.
const READ_LEN: usize = 8 * 1024;

/// Whether the answer may be a stream that stands for long.
pub(super) fn is_asked_for(request: &Request<BodyStream>) -> bool {
    let accepts = request.headers().get_all(header::ACCEPT).iter();
    let accepts_events =
        accepts.filter_map(|accept| accept.to_str().ok()).any(|accept| accept.contains("text/event-stream"));
    *request.method() == Method::GET && request.body().is_end_stream() && accepts_events
}

/// Asks for a stream. The request has no body.
pub(super) async fn get(
    address: &str,
    request: Request<BodyStream>,
) -> Result<Response<BodyStream>, Failure> {
    let mut stream = match connect(address).await {
        Ok(stream) => stream,
        Err(error) => return Err(Failure::Unreachable(error, Box::new(request))),
    };
    let (request, mut held) = (write_head(&request), BytesMut::new());
    let head = async {
        stream.write_all(&request).await?;
        read_head(&mut stream, &mut held).await
    };
    let mut head = head.await.map_err(Failure::Broke)?;
    let framing = Framing::of(&head).map_err(Failure::Broke)?;
    if matches!(framing, Framing::Chunked(_) | Framing::UntilClosed) {
        // Beside another framing it is not to be believed, and not to be passed on (RFC 9112, 6.3).
        head.headers_mut().remove(header::CONTENT_LENGTH);
    }
    Ok(head.map(|()| Standing { stream, held, framing }.boxed_unsync()))
}

fn write_head(request: &Request<BodyStream>) -> Vec<u8> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("{} {target} HTTP/1.1\r\n", request.method()).into_bytes();
    headers::write(request.headers(), &mut head);
    head
}

async fn read_head(stream: &mut TcpStream, held: &mut BytesMut) -> io::Result<Response<()>> {
    loop {
        match parse_head(held)? {
            // 100 Continue and the like: the answer follows.
            Some(head) if head.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(malformed("another protocol, which nobody asked for"));
            }
            Some(head) if head.status().is_informational() => continue,
            Some(head) => return Ok(head),
            None if held.len() > HEAD_LEN_MAX => return Err(malformed("a head that is too long")),
            None if stream.read_buf(held).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    }
}

/// Takes a head off, once it is whole.
fn parse_head(held: &mut BytesMut) -> io::Result<Option<Response<()>>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(len) = parsed.parse(held).map_err(malformed)? else { return Ok(None) };
    let mut head = Response::new(());
    let code = parsed.code.unwrap_or_default();
    *head.status_mut() = StatusCode::from_u16(code).map_err(malformed)?;
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(malformed)?;
        head.headers_mut().append(name, HeaderValue::from_bytes(header.value).map_err(malformed)?);
    }
    let _ = held.split_to(len);
    Ok(Some(head))
}

/// How a body ends (RFC 9112, 6.3).
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Chunked(Chunked),
    Length(u64),
    UntilClosed,
}

#[derive(Debug, PartialEq, Eq)]
enum Chunked {
    /// The line with a chunk's size comes next.
    Size,
    Data(u64),
    /// The line break after a chunk's data.
    AfterData,
    Trailers,
    Ended,
}

impl Framing {
    fn of(head: &Response<()>) -> io::Result<Self> {
        let headers = head.headers();
        if matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Self::Length(0));
        }
        if let Some(coding) = headers.get_all(header::TRANSFER_ENCODING).iter().next_back() {
            return match coding.as_bytes().trim_ascii().to_ascii_lowercase().ends_with(b"chunked") {
                true => Ok(Self::Chunked(Chunked::Size)),
                false => Ok(Self::UntilClosed),
            };
        }
        length(headers).map(|len| len.map_or(Self::UntilClosed, Self::Length))
    }

    fn has_ended(&self) -> bool {
        matches!(self, Self::Chunked(Chunked::Ended) | Self::Length(0))
    }

    /// The next piece of the body that is there.
    fn next(&mut self, held: &mut BytesMut) -> io::Result<Option<Bytes>> {
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
                Self::Size | Self::AfterData | Self::Trailers => {
                    let Some(line) = take_line(held)? else { return Ok(None) };
                    match self {
                        Self::Size => match chunk_size(&line)? {
                            0 => Self::Trailers,
                            len => Self::Data(len),
                        },
                        Self::AfterData if line.is_empty() => Self::Size,
                        Self::AfterData => return Err(malformed("a chunk longer than its size")),
                        Self::Trailers if line.is_empty() => Self::Ended,
                        Self::Trailers | Self::Data(_) | Self::Ended => Self::Trailers,
                    }
                }
            };
        }
        match self {
            Self::Data(left) => Ok(Some(left)),
            Self::Size | Self::AfterData | Self::Trailers | Self::Ended => Ok(None),
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

/// The same length may be said twice, but no two.
fn length(headers: &HeaderMap) -> io::Result<Option<u64>> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(len) = lines.next() else { return Ok(None) };
    if lines.any(|other| other != len) {
        return Err(malformed("two lengths"));
    }
    let digits = len.to_str().map_err(malformed)?;
    if digits.starts_with('+') {
        return Err(malformed("a length with a sign"));
    }
    digits.parse().map(Some).map_err(malformed)
}

fn malformed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

struct Standing {
    stream: TcpStream,
    /// Read and not passed on.
    held: BytesMut,
    framing: Framing,
}

impl Body for Standing {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let this = &mut *self;
        loop {
            match this.framing.next(&mut this.held) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) if this.framing.has_ended() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "an upstream's stream can't be read");
                    return Poll::Ready(Some(Err(Broke::Upstream)));
                }
            }
            if this.held.is_empty() {
                drop(mem::take(&mut this.held)); // its memory, too
            }
            let mut room = [MaybeUninit::uninit(); READ_LEN];
            let mut read = ReadBuf::uninit(&mut room);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => this.held.extend_from_slice(read.filled()),
                Ok(()) if this.framing == Framing::UntilClosed => return Poll::Ready(None),
                Ok(()) | Err(_) => return Poll::Ready(Some(Err(Broke::Upstream))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.framing.has_ended()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What is read of an answer that is sent in two pieces, cut there, and how it ends.
    async fn read(text: &str, cut: usize) -> Result<(u16, String), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (head, tail) = text.split_at(cut);
        let (head, tail) = (head.to_owned(), tail.to_owned());
        let serving = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.expect("a client");
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert!(client.read_buf(&mut asked).await.expect("it asks") > 0);
            }
            client.write_all(head.as_bytes()).await.expect("it reads");
            tokio::task::yield_now().await;
            client.write_all(tail.as_bytes()).await.expect("it reads");
            String::from_utf8(asked).expect("text")
        });
        let request = Request::get("/mcp?a=1").header(header::HOST, "x").body(crate::answer::whole(""));
        let answer = get(&address, request.expect("a request")).await;
        assert_eq!(serving.await.expect("it served"), "GET /mcp?a=1 HTTP/1.1\r\nhost: x\r\n\r\n");
        match answer {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let said = answer.headers().get(header::CONTENT_LENGTH).cloned();
                let body = answer.into_body().collect().await.map_err(|broke| broke.to_string())?;
                let body = String::from_utf8(body.to_bytes().to_vec()).expect("text");
                assert!(
                    said.is_none_or(|said| said == body.len().to_string()),
                    "another length is passed on"
                );
                Ok((status, body))
            }
            Err(Failure::Broke(error)) | Err(Failure::Unreachable(error, _)) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn a_body_ends_where_its_head_says_wherever_it_is_cut() {
        for (text, body) in [
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked\r\n\r\n3;x=y\r\nabc\r\n0a\r\n0123456789\r\n0\r\nt: 1\r\n\r\n",
                "abc0123456789",
            ),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcdxx", "abcd"),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                "abc",
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\nContent-Length: 4\r\n\r\nabcd", "abcd"),
            ("HTTP/1.1 200 OK\r\n\r\nabc", "abc"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        ] {
            for cut in 0..text.len() {
                assert_eq!(read(text, cut).await, Ok((200, body.to_owned())), "{text:?} cut at {cut}");
            }
        }
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n", 1).await, Ok((204, String::new())));
    }

    #[tokio::test]
    async fn what_breaks_off_or_is_no_answer_is_an_error() {
        for text in [
            "",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +4\r\n\r\nabcd",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
            "HTTP/1.1 200 OK\r\nx: 1\r\n folded: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11111111111111111\r\n",
        ] {
            assert!(read(text, text.len() / 2).await.is_err(), "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(HEAD_LEN_MAX + 1));
        assert!(read(&endless, 20).await.is_err());
    }
}
