//! A stream of the server's own may stand for hours and say nothing, and hyper would keep for it what a
//! connection needs that serves requests: two buffers of 8 KiB and room for the largest future that
//! ever answers one. So once its answer has begun it leaves hyper, and holds its socket and its body.
//!
//! Only over HTTP/1.1, where a connection carries one answer at a time; it is closed afterwards.

use super::socket::Socket;
use crate::answer::Answer;
use crate::headers::{self, Headers};
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::{
    StatusCode, Version,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::SystemTime,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::Notify,
};

/// Among the extensions of an answer that may stand for long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stands;

/// A client's connection, lent to hyper until an answer stands.
#[derive(Debug)]
pub(super) struct Lent {
    socket: Mutex<Socket>,
    standing: Mutex<Option<Answer>>,
    stands: Notify,
}

impl Lent {
    pub(super) fn new(socket: Socket) -> Arc<Self> {
        Arc::new(Self { socket: Mutex::new(socket), standing: Mutex::default(), stands: Notify::new() })
    }

    pub(super) fn io(self: &Arc<Self>) -> TokioIo<Io> {
        TokioIo::new(Io(self.clone()))
    }

    /// Gives hyper an answer, but not one that stands: that is for whoever waits for [`Self::stands`].
    pub(super) async fn pass(&self, version: Version, answer: Answer) -> Answer {
        if version != Version::HTTP_11 || answer.extensions().get::<Stands>().is_none() {
            return answer;
        }
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.stands.notify_one();
        std::future::pending().await
    }

    /// Resolves when there is an answer that stands. Hyper's part is to be dropped then.
    pub(super) async fn stands(&self) {
        self.stands.notified().await;
    }

    /// The connection and its last answer if that stands, once nobody else has it.
    pub(super) fn reclaim(self: Arc<Self>) -> Option<(Socket, Option<Answer>)> {
        let Self { socket, standing, .. } = Arc::into_inner(self)?;
        let answer = standing.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some((socket.into_inner().unwrap_or_else(PoisonError::into_inner), answer))
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the answer until it ends or its client is gone. One that breaks off is cut off.
pub(super) async fn serve(mut socket: Socket, answer: Answer) -> io::Result<()> {
    let (head, mut body) = answer.into_parts();
    socket.write_all(&write_head(head.status, head.headers)).await?;
    socket.flush().await?;
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            gone = is_gone(&mut socket) => return gone,
        };
        match frame {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if !data.is_empty() {
                    let size = Bytes::from(format!("{:x}\r\n", data.len()));
                    socket.write_all_buf(&mut size.chain(data).chain(&b"\r\n"[..])).await?;
                    socket.flush().await?; // TLS keeps what the connection did not take
                }
            }
            Some(Err(broke)) => return Err(io::Error::other(broke)),
            None => {
                socket.write_all(b"0\r\n\r\n").await?;
                return socket.shutdown().await;
            }
        }
    }
}

/// Resolves when the client has closed the connection. What it says has no meaning here.
async fn is_gone(hears: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut said = [0; 64];
    while hears.read(&mut said).await? > 0 {}
    Ok(())
}

fn write_head(status: StatusCode, mut headers: Headers) -> Vec<u8> {
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now())) {
        headers.add_missing(header::DATE, date);
    }
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    headers::write(headers.iter(), &mut head);
    head
}

/// The lent connection as hyper reads and writes it. The lock is never waited for: nobody else touches
/// the connection before this is gone.
#[derive(Debug)]
pub(super) struct Io(Arc<Lent>);

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.socket()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.socket()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.socket()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.socket().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.socket()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.socket()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::whole;
    use crate::front::serve::bind;
    use crate::front::{Arrival, Request};
    use std::time::Duration;
    use tokio::net::TcpStream;
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn an_answer_that_stands_is_the_last_of_its_connection() {
        let limits = crate::front::crowd::tests::limits(10, None);
        let listener = bind(([127, 0, 0, 1], 0).into(), limits, None).await.expect("a free port");
        let addr = listener.addr;
        let answer = |_, _: Arrival, _: Request| async {
            let mut answer = Answer::new(whole("."));
            answer.extensions_mut().insert(Stands);
            answer
        };
        tokio::spawn(listener.run(answer, CancellationToken::new()));
        let mut client = TcpStream::connect(addr).await.expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("it reads");
        let mut read = String::new();
        let reading = tokio::time::timeout(Duration::from_secs(20), client.read_to_string(&mut read));
        reading.await.expect("it ends").expect("it is not reset");
        assert!(read.contains("connection: close\r\n"), "{read}");
        assert!(read.ends_with("\r\n\r\n1\r\n.\r\n0\r\n\r\n"), "{read}");
    }
}
