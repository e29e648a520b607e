//! A client's connection as HTTP reads and writes it: plain or TLS, with its place among the others, and given up
//! on when its client takes nothing of what is there for it.

use super::crowd::Place;
use crate::tls::TlsStream;
use bytes::BytesMut;
use socket2::SockRef;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// The system keeps no more than this that is not on its way yet: what a slow reader makes a node hold, and also
/// how much it must take for the node to see that it reads at all. 64 KiB in 60 s is 1 KB a second.
const UNSENT_LEN_MAX: u32 = 64 * 1024;

/// How HTTP/2 begins ("PRI * HTTP/2.0"), and no method of HTTP/1.1.
const HTTP_2: [u8; 3] = *b"PRI";

#[derive(Debug)]
pub(super) struct Socket {
    kind: Kind,
    /// What was read and given back: to be read again.
    ahead: BytesMut,
    /// What its client began with.
    began: [u8; 3],
    began_len: usize,
    /// Given back with the last of the connection, whoever has it then.
    _place: Place,
}

#[derive(Debug)]
enum Kind {
    Plain(Paced),
    Tls(Box<TlsStream<Paced>>),
}

impl Socket {
    pub(super) fn plain(tcp: Paced, place: Place) -> Self {
        Self { kind: Kind::Plain(tcp), ahead: BytesMut::new(), began: [0; 3], began_len: 0, _place: place }
    }

    pub(super) fn tls(tls: TlsStream<Paced>, place: Place) -> Self {
        Self {
            kind: Kind::Tls(Box::new(tls)),
            ahead: BytesMut::new(),
            began: [0; 3],
            began_len: 0,
            _place: place,
        }
    }

    /// Whether its client has begun to speak HTTP/1.
    pub(super) fn speaks_http_1(&self) -> bool {
        self.began_len > 0 && self.began != HTTP_2
    }

    /// Gives back what was read last.
    pub(super) fn unread(&mut self, read: BytesMut) {
        self.ahead = read;
    }

    fn note(&mut self, said: &[u8]) {
        for byte in said.iter().take(self.began.len() - self.began_len) {
            self.began[self.began_len] = *byte;
            self.began_len += 1;
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let len = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(len));
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new(); // its memory, too
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = match &mut self.kind {
            Kind::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Kind::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        };
        if self.began_len < self.began.len() {
            self.note(&buf.filled()[before..]);
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Kind::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Kind::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Plain(tcp) => tcp.is_write_vectored(),
            Kind::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Kind::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Kind::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// A connection whose client has to take what is sent to it. Not TCP's own time-out (`TCP_USER_TIMEOUT`): that
/// would also decide when an idle client counts as gone, for which there are probes.
#[derive(Debug)]
pub(super) struct Paced {
    tcp: TcpStream,
    send_time_max: Duration,
    /// Set while its client takes nothing.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(tcp: TcpStream, send_time_max: Duration) -> Self {
        let _ = SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_LEN_MAX);
        Self { tcp, send_time_max, patience: None }
    }

    /// What its client says first, left to be read. An error if that is nothing.
    pub(super) async fn first_byte(&self) -> io::Result<u8> {
        let mut first = [0];
        match self.tcp.peek(&mut first).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(first[0]),
        }
    }

    /// What became of an attempt to write.
    fn took<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.patience = None;
            return polled;
        }
        let time = self.send_time_max;
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        if patience.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // Closed so that the system forgets what is unsent, too.
        let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        tracing::debug!(?time, "a client takes nothing of its answer and is cut off");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.took(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.took(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
