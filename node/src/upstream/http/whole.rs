//! A request that is there whole, and its answer, without hyper: one write, and mostly one read, in the task that
//! waits for them. hyper gives each connection a task of its own, so that every request passes two channels and
//! wakes somebody twice; that was a quarter of what a call cost this node (docs/performance.md).
//!
//! What is answered with a stream may stand for hours and say nothing, and hyper would keep two buffers of 8 KiB
//! for it. Here an idle one holds its socket, and a buffer only while half a chunk's head is in it.

use super::framing::{Framing, HEAD_LEN_MAX, malformed, parse_head};
use super::pool::{Failure, Pool, Reusable, connect};
use crate::answer::{Answer, Broke, Head, whole};
use crate::headers::{self, Changed, Headers};
use crate::reading::poll_read_more;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    Method, StatusCode, Version,
    body::{Body, Frame, SizeHint},
    header,
};
use std::{
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// Longer ones are hyper's: a server that answers before it has read them would wait for us as we for it. This much
/// fits into what the system keeps of a connection.
pub(super) const BODY_LEN_MAX: usize = 64 * 1024;

/// A request to be written.
pub(super) struct Whole<'a> {
    pub(super) method: &'a Method,
    /// See [`is_target`].
    pub(super) target: &'a str,
    /// Without a length.
    pub(super) headers: &'a Changed<'a>,
    pub(super) body: Bytes,
}

impl Reusable for TcpStream {
    fn is_open(&self) -> bool {
        // Neither an end nor a word that nobody asked for. What the system has not told yet costs no call.
        let looked = self.try_read(&mut [0]);
        looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn is_ready(&self) -> bool {
        true
    }
}

/// Sends a request over an idle connection, or a new one.
pub(super) async fn send(pool: &Arc<Pool<TcpStream>>, request: Whole<'_>) -> Result<Answer, Failure> {
    let head = request.head();
    while let Some(stream) = pool.take() {
        match exchange(pool, stream, &head, &request).await {
            // The server has closed it a moment ago.
            Err(Failure::Unreachable(..)) => {}
            answered => return answered,
        }
    }
    let stream = connect(&pool.address).await.map_err(|error| Failure::Unreachable(error, ()))?;
    exchange(pool, stream, &head, &request).await
}

/// One that does not end its line, nor the target before its end.
pub(super) fn is_target(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| byte > b' ' && byte != 0x7f)
}

impl Whole<'_> {
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(1024);
        for part in [self.method.as_str(), " ", self.target, " HTTP/1.1\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        // Some servers insist on a length even of nothing (411).
        if !self.body.is_empty() || !matches!(*self.method, Method::GET | Method::HEAD | Method::DELETE) {
            headers::write_length(self.body.len(), &mut head);
        }
        headers::write(self.headers.iter(), &mut head);
        head
    }
}

async fn exchange(
    pool: &Arc<Pool<TcpStream>>,
    mut stream: TcpStream,
    head: &[u8],
    request: &Whole<'_>,
) -> Result<Answer, Failure> {
    let mut unsent = head.chain(request.body.clone());
    let len = unsent.remaining();
    if let Err(error) = stream.write_all_buf(&mut unsent).await {
        return Err(match unsent.remaining() == len {
            true => Failure::Unreachable(error, ()),
            false => Failure::Broke(error),
        });
    }
    let (mut held, mut head) = read_head(&mut stream).await.map_err(Failure::Broke)?;
    let mut framing = match *request.method {
        Method::HEAD => Framing::Length(0),
        _ => Framing::of(&head).map_err(Failure::Broke)?,
    };
    if matches!(framing, Framing::Chunked(_) | Framing::UntilClosed) {
        // Beside another framing it is not to be believed, and not to be passed on (RFC 9112, 6.3).
        head.headers.remove(header::CONTENT_LENGTH);
    }
    let back = (head.version == Version::HTTP_11 && !closes(&head.headers)).then(|| pool.clone());
    let body = match framing {
        // It has come with its head.
        Framing::Length(len) if len <= held.len() as u64 => {
            let body = framing.next(&mut held).map_err(Failure::Broke)?.unwrap_or_default();
            if let Some(pool) = back.filter(|_| held.is_empty()) {
                pool.put_back(stream);
            }
            whole(body)
        }
        Framing::Length(_) | Framing::Chunked(_) | Framing::UntilClosed => {
            Coming { stream: Some(stream), held, framing, back }.boxed_unsync()
        }
    };
    Ok(Answer::from_parts(head, body))
}

/// Whether the server closes the connection after this answer.
fn closes(headers: &Headers) -> bool {
    let lists = headers.get_all(header::CONNECTION).filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|one| one.trim().eq_ignore_ascii_case("close"))
}

/// The head, and what has come after it.
async fn read_head(stream: &mut TcpStream) -> io::Result<(BytesMut, Head)> {
    let mut held = BytesMut::new();
    loop {
        if std::future::poll_fn(|cx| poll_read_more(stream, &mut held, cx)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some(head) = parse_head(&mut held)? {
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(malformed("another protocol, which nobody asked for"));
            }
            // 100 Continue and the like: the answer follows.
            if !head.status.is_informational() {
                return Ok((held, head));
            }
        }
        if held.len() > HEAD_LEN_MAX {
            return Err(malformed("a head that is too long"));
        }
    }
}

/// The rest of an answer. Read to its end it gives the connection back; dropped earlier it closes it, which is how
/// an HTTP/1.1 server learns that nobody reads any more.
struct Coming {
    /// `None` once it is given back.
    stream: Option<TcpStream>,
    /// Read and not passed on.
    held: BytesMut,
    framing: Framing,
    /// Where the connection may serve another request.
    back: Option<Arc<Pool<TcpStream>>>,
}

impl Coming {
    fn ended(&mut self) {
        if let (Some(stream), Some(pool)) = (self.stream.take(), self.back.take())
            && self.held.is_empty()
        {
            pool.put_back(stream);
        }
    }
}

impl Body for Coming {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let this = &mut *self;
        loop {
            match this.framing.next(&mut this.held) {
                Ok(Some(data)) => {
                    if this.framing.has_ended() {
                        this.ended();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(None) if this.framing.has_ended() => {
                    this.ended();
                    return Poll::Ready(None);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "an upstream's answer can't be read");
                    this.stream = None;
                    return Poll::Ready(Some(Err(Broke::Upstream)));
                }
            }
            if this.held.is_empty() {
                drop(mem::take(&mut this.held)); // its memory, too
            }
            let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
            match ready!(poll_read_more(stream, &mut this.held, cx)) {
                Ok(1..) => {}
                Ok(0) if this.framing == Framing::UntilClosed => {
                    this.stream = None;
                    return Poll::Ready(None);
                }
                Ok(0) | Err(_) => {
                    this.stream = None;
                    return Poll::Ready(Some(Err(Broke::Upstream)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.framing.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(len) => SizeHint::with_exact(len),
            Framing::Chunked(_) | Framing::UntilClosed => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncReadExt, net::TcpListener};

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
        let mut headers = Headers::new();
        headers.insert(header::HOST, header::HeaderValue::from_static("x"));
        let pool = Arc::new(Pool::new(address.as_str().into()));
        let (method, target) = (&Method::GET, "/mcp?a=1");
        let answer =
            send(&pool, Whole { method, target, headers: &Changed::of(&headers), body: Bytes::new() }).await;
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
        let trailers = "x: y\r\n".repeat(HEAD_LEN_MAX);
        let endless = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{trailers}\r\n");
        assert!(read(&endless, 20).await.is_err());
    }
}
