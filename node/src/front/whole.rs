//! HTTP/1.1 as nearly every MCP client speaks it: a short request that has a length, and the answer to it, read and
//! written without hyper, in the task of its connection. What is longer, has no length, wants another protocol or is
//! not well-formed goes to hyper with all that was read of it, and so does the rest of its connection.
//!
//! A request costs one read and mostly one write. hyper's own way of the same was a fifth of what a call cost this
//! node (docs/performance.md).

use super::coming::{Coming, Request};
use super::socket::Socket;
use super::standing::Stands;
use crate::answer::{Answer, BodyStream, Head};
use crate::headers::{self, Headers};
use crate::reading::poll_read_more;
use bytes::{Buf, Bytes, BytesMut};
use hyper::{
    Method, StatusCode, Uri, Version,
    body::Body,
    header::{self, HeaderValue},
    http::Extensions,
};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, SystemTime},
};
use tokio::{io::AsyncWriteExt, time::Instant};
use tokio_util::sync::CancellationToken;

/// Of a request with its body. Also what is read ahead while one is answered.
const LEN_MAX: usize = 64 * 1024;
/// More are hyper's to refuse.
const HEADERS_MAX: usize = 64;
/// From the first byte of a request to its last; what takes longer is hyper's, with its time-outs and those of `read`.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a connection is not served here any more.
pub(super) enum Left {
    /// It is over.
    Ended,
    /// What comes next is for hyper, and begins with this.
    Hyper(BytesMut),
    /// An answer may take hours, and its connection needs nothing but that.
    Standing(Answer),
}

/// When a connection without a request ends.
pub(super) struct Ends<'a> {
    pub(super) idle_max: Duration,
    pub(super) closing: &'a CancellationToken,
}

/// Answers one request after the other.
pub(super) async fn serve<Answering>(
    socket: &mut Socket,
    answer: impl Fn(Request) -> Answering,
    ends: Ends<'_>,
) -> Left
where
    Answering: Future<Output = Answer>,
{
    let mut held = BytesMut::new();
    let mut closing = pin!(ends.closing.cancelled());
    // Set anew only when it rings: most connections are never idle for so long.
    let mut alarm = pin!(tokio::time::sleep(ends.idle_max));
    loop {
        let mut deadline = None;
        let request = loop {
            if held.is_empty() {
                held = BytesMut::new(); // the last request's memory, too
            }
            match take(&mut held) {
                Ok(Some(request)) => break request,
                Ok(None) if held.len() > LEN_MAX => return Left::Hyper(held),
                Ok(None) => {}
                Err(NotMine) => return Left::Hyper(held),
            }
            let read = if held.is_empty() {
                let idle_since = Instant::now();
                loop {
                    tokio::select! {
                        biased;
                        read = read_more(socket, &mut held) => break read,
                        () = &mut closing => return end(socket).await,
                        () = &mut alarm => {
                            if idle_since.elapsed() >= ends.idle_max {
                                return end(socket).await;
                            }
                            alarm.as_mut().reset(idle_since + ends.idle_max);
                        }
                    }
                }
            } else {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                match tokio::time::timeout_at(deadline, read_more(socket, &mut held)).await {
                    Ok(read) => read,
                    Err(_) => return Left::Hyper(held),
                }
            };
            match read {
                Ok(1..) => {}
                // Hyper knows what to say of half a request, or whether to.
                Ok(0) if !held.is_empty() => return Left::Hyper(held),
                Ok(0) => return end(socket).await,
                Err(_) => return Left::Ended,
            }
        };
        let answered = {
            // In a box: an idle connection has no room for it.
            let mut answering = Box::pin(answer(request));
            tokio::select! {
                biased;
                answer = &mut answering => answer,
                () = hangs_up(socket, &mut held) => return Left::Ended,
            }
        };
        if answered.extensions().get::<Stands>().is_some() {
            return Left::Standing(answered);
        }
        match write(socket, &mut held, answered, ends.closing.is_cancelled()).await {
            Ok(true) => {}
            Ok(false) => return end(socket).await,
            Err(_) => return Left::Ended,
        }
    }
}

async fn end(socket: &mut Socket) -> Left {
    let _ = socket.shutdown().await; // whoever is gone needs no goodbye
    Left::Ended
}

/// It is hyper's.
struct NotMine;

/// Takes a request off, once it is whole.
fn take(held: &mut BytesMut) -> Result<Option<Request>, NotMine> {
    if held.is_empty() {
        return Ok(None);
    }
    let read = std::mem::take(held).freeze();
    let parsed = parse(&read);
    match &parsed {
        Ok(Some((_, len))) if *len == read.len() => {}
        // The next request's beginning, of a client that does not wait for answers: few do, and a copy of at most
        // `LEN_MAX` costs less than its answer.
        Ok(Some((_, len))) => held.extend_from_slice(&read[*len..]),
        Ok(None) | Err(NotMine) => *held = BytesMut::from(read), // as it was
    }
    parsed.map(|parsed| parsed.map(|(request, _)| request))
}

/// The request that begins there, and its length. Its values and its body are pieces of what was read.
fn parse(read: &Bytes) -> Result<Option<(Request, usize)>, NotMine> {
    let mut room = [MaybeUninit::uninit(); HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let head_len = match parsed.parse_with_uninit_headers(read, &mut room) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(NotMine),
    };
    let (Some(method), Some(target), Some(1)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(NotMine);
    };
    let method = match method {
        "POST" => Method::POST,
        "GET" => Method::GET,
        "DELETE" => Method::DELETE,
        _ => return Err(NotMine),
    };
    let body_len = body_len(parsed.headers)?;
    // A length may be any number that a client can write.
    let Some(len) = head_len.checked_add(body_len).filter(|len| *len <= LEN_MAX) else {
        return Err(NotMine);
    };
    if read.len() < len {
        return Ok(None);
    }
    let mut headers = Headers::with_room_for(parsed.headers.len());
    for header in parsed.headers.iter() {
        let name = headers::name(header.name.as_bytes()).map_err(|_| NotMine)?;
        let value = HeaderValue::from_maybe_shared(read.slice_ref(header.value)).map_err(|_| NotMine)?;
        headers.append(name, value);
    }
    let uri = Uri::from_maybe_shared(read.slice_ref(target.as_bytes())).map_err(|_| NotMine)?;
    let body = Coming::Whole(read.slice(head_len..len));
    let (version, extensions) = (Version::HTTP_11, Extensions::new());
    Ok(Some((Request { method, uri, version, headers, extensions, body }, len)))
}

/// The length of the body, where that is all there is to know of it, and of the connection (RFC 9112, 6.3).
fn body_len(headers: &[httparse::Header<'_>]) -> Result<usize, NotMine> {
    let mut len = None;
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            14 if is("content-length") => {
                let digits = std::str::from_utf8(header.value).map_err(|_| NotMine)?;
                if len.is_some() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(NotMine);
                }
                len = Some(digits.parse().map_err(|_| NotMine)?);
            }
            17 if is("transfer-encoding") => return Err(NotMine),
            10 if is("connection") && !header.value.eq_ignore_ascii_case(b"keep-alive") => {
                return Err(NotMine);
            }
            7 if is("upgrade") => return Err(NotMine),
            6 if is("expect") => return Err(NotMine),
            _ => {}
        }
    }
    Ok(len.unwrap_or(0))
}

async fn read_more(socket: &mut Socket, held: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| poll_read_more(socket, held, cx)).await
}

/// Resolves when nobody waits for the answer any more. What comes meanwhile is the next request, and is kept, until
/// that is too much.
async fn hangs_up(socket: &mut Socket, held: &mut BytesMut) {
    while held.len() <= LEN_MAX {
        match read_more(socket, held).await {
            Ok(1..) => {}
            // Whoever has asked for more before it had said all still reads.
            Ok(0) if !held.is_empty() => break,
            Ok(0) | Err(_) => return,
        }
    }
    std::future::pending().await
}

/// Writes an answer; whether its connection goes on.
async fn write(
    socket: &mut Socket,
    held: &mut BytesMut,
    answer: Answer,
    is_closing: bool,
) -> io::Result<bool> {
    let (mut head, mut body) = answer.into_parts();
    if is_closing {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let goes_on = head.headers.get(header::CONNECTION).is_none_or(|value| value != "close");
    let has_body = !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let len = body.size_hint().exact();
    let written = write_head(head, len.filter(|_| has_body), has_body);
    if !has_body {
        socket.write_all(&written).await?;
        socket.flush().await?;
        return Ok(goes_on);
    }
    let mut left = len;
    let mut first = Some(written);
    loop {
        let next = match next_frame(socket, held, &mut body, first.is_some()).await {
            Some(next) => next,
            // Nobody reads any more.
            None => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        match next {
            Next::Data(data) => {
                if let Some(left) = &mut left {
                    // Never more than was announced: it would be read as the next answer.
                    *left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                }
                let before = first.take().unwrap_or_default();
                write_piece(socket, before, data, len.is_none()).await?;
            }
            Next::NotYet => {
                let before = first.take().unwrap_or_default();
                socket.write_all(&before).await?;
                socket.flush().await?;
            }
            Next::End if left.is_some_and(|left| left > 0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Next::End => {
                let mut last = first.take().unwrap_or_default();
                if len.is_none() {
                    last.extend_from_slice(b"0\r\n\r\n");
                }
                socket.write_all(&last).await?;
                socket.flush().await?;
                return Ok(goes_on);
            }
            Next::Broke => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        if left == Some(0) {
            return Ok(goes_on);
        }
    }
}

async fn write_piece(socket: &mut Socket, before: Vec<u8>, data: Bytes, is_chunk: bool) -> io::Result<()> {
    if is_chunk {
        let size = Bytes::from(format!("{:x}\r\n", data.len()));
        let piece = Bytes::from(before).chain(size).chain(data);
        socket.write_all_buf(&mut piece.chain(&b"\r\n"[..])).await?;
    } else {
        socket.write_all_buf(&mut Bytes::from(before).chain(data)).await?;
    }
    socket.flush().await // TLS keeps what the connection did not take
}

enum Next {
    Data(Bytes),
    End,
    /// It broke off, and so must the answer.
    Broke,
    /// Nothing is there, and there is something that need not wait for it.
    NotYet,
}

/// What comes next of a body; `None` where the client has hung up.
async fn next_frame(
    socket: &mut Socket,
    held: &mut BytesMut,
    body: &mut BodyStream,
    in_a_hurry: bool,
) -> Option<Next> {
    let mut hangs_up = pin!(hangs_up(socket, held));
    poll_fn(|cx| {
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => return Poll::Ready(Some(Next::Data(data))),
                    Err(_) => continue, // trailers, which nobody asked for
                },
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Next::Broke)),
                Poll::Ready(None) => return Poll::Ready(Some(Next::End)),
                Poll::Pending if in_a_hurry => return Poll::Ready(Some(Next::NotYet)),
                Poll::Pending => return hangs_up.as_mut().poll(cx).map(|()| None),
            }
        }
    })
    .await
}

fn write_head(mut head: Head, len: Option<u64>, has_body: bool) -> Vec<u8> {
    let mut written = Vec::with_capacity(512);
    match head.status {
        StatusCode::OK => written.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        status => {
            let reason = status.canonical_reason().unwrap_or_default();
            written.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
        }
    }
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::TRANSFER_ENCODING);
    match len {
        Some(len) => headers::write_length(usize::try_from(len).unwrap_or(usize::MAX), &mut written),
        None if has_body => written.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        None => {}
    }
    if !head.headers.contains_key(header::DATE) {
        write_date(&mut written);
    }
    headers::write(head.headers.iter(), &mut written);
    written
}

/// The date, which is made once a second.
fn write_date(head: &mut Vec<u8>) {
    thread_local! {
        static MADE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    MADE.with_borrow_mut(|(made, text)| {
        if *made != second || text.is_empty() {
            *made = second;
            *text = format!("date: {}\r\n", httpdate::fmt_http_date(now));
        }
        head.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
mod tests;
