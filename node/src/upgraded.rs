//! A connection that has left HTTP for another protocol (RFC 9110, 7.8), as two bodies: what comes from
//! it, and what is to go to it. So it takes the same way as any request and its answer, over a hop too.
//!
//! Each direction ends by itself, as those of a TCP connection do; a connection that breaks ends both.

use crate::answer::{BodyStream, Broke};
use crate::headers::Headers;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame},
    header::{self, HeaderName, HeaderValue},
};
use std::{
    convert::Infallible,
    future::pending,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::{mpsc, oneshot},
};

/// What is read at once: as much as TLS puts into one record. It lies on the stack, so that a
/// connection that is silent for hours holds no buffer.
const CHUNK_LEN_MAX: usize = 16 * 1024;

/// Whether a request that was read, or comes from another node, wants another protocol than HTTP. No
/// other message has that header: it is taken off whatever comes in.
pub(crate) fn is_wished<'a>(mut headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> bool {
    headers.any(|(name, _)| *name == header::UPGRADE)
}

/// Puts the wish for a protocol, or the consent to it, on a message that goes out.
pub(crate) fn put(headers: &mut Headers, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// What will come from a connection that is not there yet, and where to join it to the rest. Broken
/// connections break the body in the way that is named here.
pub(crate) fn body(broke: Broke) -> (BodyStream, Joint) {
    let (half, from) = mpsc::channel(1);
    let (tear, over) = oneshot::channel();
    (Coming { from, read: None, tear: Some(tear), broke }.boxed_unsync(), Joint { half, over })
}

/// Where a connection is joined to its bodies. Dropped, it breaks the body that comes from it.
#[derive(Debug)]
pub(crate) struct Joint {
    half: mpsc::Sender<Half>,
    over: oneshot::Receiver<Torn>,
}

type Half = Box<dyn AsyncRead + Send + Unpin>;

/// The connection is no more, in either direction.
#[derive(Debug)]
struct Torn;

impl Joint {
    /// Writes `to` to the connection while what comes from it is read as a body. Resolves when both are
    /// over, or the connection is; given up before that, it closes the connection. Where `to` has ended,
    /// the other end has the time of `last_words`, if it is bounded, to end too.
    pub(crate) async fn join<T>(self, io: T, to: BodyStream, last_words: Option<Duration>)
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let Self { half, over } = self;
        if half.try_send(Box::new(read)).is_err() {
            return; // nobody reads it any more
        }
        let (written, is_written) = oneshot::channel::<Infallible>();
        let writing = async {
            let _written = written; // dropped when it is so
            write_all(write, to).await
        };
        let reading = async {
            tokio::select! {
                torn = over => torn.map_or(Ok(()), Err),
                () = passed_since(is_written, last_words) => Err(Torn),
            }
        };
        if let Err(Torn) = tokio::try_join!(writing, reading).map(|((), ())| ()) {
            tracing::debug!("an upgraded connection broke");
        }
    }
}

async fn passed_since(event: oneshot::Receiver<Infallible>, time: Option<Duration>) {
    let _ = event.await; // never sent, only dropped
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => pending().await,
    }
}

/// Writes a body, and its end. A connection that takes no more may have more to say: that is read on.
async fn write_all(mut write: impl AsyncWrite + Unpin, mut body: BodyStream) -> Result<(), Torn> {
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(|_| Torn)?.into_data() else { continue };
        if write.write_all(&bytes).await.is_err() {
            return Ok(());
        }
    }
    let _ = write.shutdown().await; // fails where the other end has closed already
    Ok(())
}

/// What comes from a connection.
struct Coming {
    /// Brings the half that is read, and says by its end that the joint is gone.
    from: mpsc::Receiver<Half>,
    read: Option<Half>,
    /// Told if the connection breaks; dropped at the end, or when nobody reads on.
    tear: Option<oneshot::Sender<Torn>>,
    broke: Broke,
}

impl Body for Coming {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if self.tear.is_none() {
            return Poll::Ready(None);
        }
        while let Poll::Ready(half) = self.from.poll_recv(cx) {
            let Some(half) = half else {
                self.tear = None;
                return Poll::Ready(Some(Err(self.broke)));
            };
            self.read = Some(half);
        }
        let Some(read) = &mut self.read else { return Poll::Pending };
        let mut space = [0; CHUNK_LEN_MAX];
        let mut chunk = ReadBuf::new(&mut space);
        let polled = ready!(Pin::new(read).poll_read(cx, &mut chunk));
        Poll::Ready(match polled {
            Ok(()) if !chunk.filled().is_empty() => {
                Some(Ok(Frame::data(Bytes::copy_from_slice(chunk.filled()))))
            }
            Ok(()) => {
                self.tear = None;
                None
            }
            Err(_) => {
                if let Some(tear) = self.tear.take() {
                    let _ = tear.send(Torn); // who joined them may have given up
                }
                Some(Err(self.broke))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::whole;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    /// Less than what is sent, so that it can't all lie in between.
    const PIPE_LEN: usize = 64;

    async fn next(body: &mut BodyStream) -> Option<Result<Bytes, Broke>> {
        let frame = body.frame().await?;
        Some(frame.map(|frame| frame.into_data().expect("data")))
    }

    /// Two connections, joined: what a client and an upstream hold of them.
    fn tunnel() -> (DuplexStream, DuplexStream) {
        let (client, entry) = duplex(PIPE_LEN);
        let (upstream, owner) = duplex(PIPE_LEN);
        let (from_client, at_entry) = body(Broke::Client);
        let (from_upstream, at_owner) = body(Broke::Upstream);
        tokio::spawn(at_entry.join(entry, from_upstream, None));
        tokio::spawn(at_owner.join(owner, from_client, None));
        (client, upstream)
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut client, mut upstream) = tunnel();
        client.write_all(b"all that I have to say").await.expect("written");
        client.shutdown().await.expect("written");
        let mut heard = String::new();
        upstream.read_to_string(&mut heard).await.expect("read");
        assert_eq!(heard, "all that I have to say");
        // The other direction is open still.
        upstream.write_all(b"thank you").await.expect("written");
        upstream.shutdown().await.expect("written");
        heard.clear();
        client.read_to_string(&mut heard).await.expect("read");
        assert_eq!(heard, "thank you");
    }

    #[tokio::test]
    async fn who_is_gone_is_gone_for_both_directions() {
        let (mut client, mut upstream) = tunnel();
        upstream.write_all(b"good bye").await.expect("written");
        drop(upstream);
        client.write_all(b"is anybody there?").await.expect("written");
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.expect("read");
        assert_eq!(heard, "good bye");
        while client.write_all(b"hello?").await.is_ok() {}
    }

    #[tokio::test(start_paused = true)] // the time is over when nothing moves any more
    async fn what_nobody_takes_is_not_read() {
        let (mut client, _upstream) = tunnel();
        let filling = async {
            let mut sent = 0;
            while client.write_all(&[7; PIPE_LEN]).await.is_ok() {
                sent += PIPE_LEN;
                assert!(sent <= 8 * PIPE_LEN, "gathered somewhere");
            }
        };
        let stalled = tokio::time::timeout(Duration::from_secs(1), filling).await;
        assert!(stalled.is_err(), "the connection broke");
    }

    #[tokio::test]
    async fn a_connection_that_never_comes_breaks_the_body() {
        let (mut from, joint) = body(Broke::Upstream);
        drop(joint);
        assert_eq!(next(&mut from).await, Some(Err(Broke::Upstream)));
        assert_eq!(next(&mut from).await, None);
    }

    #[tokio::test]
    async fn a_join_that_is_given_up_closes_the_connection_and_breaks_the_body() {
        let (mut from, joint) = body(Broke::Client);
        let (mut client, entry) = duplex(PIPE_LEN);
        let (silence, _upstream) = body(Broke::Upstream);
        let joined = tokio::spawn(joint.join(entry, silence, None));
        client.write_all(b"hello").await.expect("written");
        assert_eq!(next(&mut from).await, Some(Ok(Bytes::from_static(b"hello"))));
        joined.abort();
        assert_eq!(next(&mut from).await, Some(Err(Broke::Client)));
        drop(from);
        assert_eq!(client.read(&mut [0; 8]).await.expect("an end"), 0);
    }

    #[tokio::test]
    async fn a_body_that_breaks_breaks_the_connection_it_goes_to() {
        let (mut from, joint) = body(Broke::Client);
        let (mut client, entry) = duplex(PIPE_LEN);
        let (broken, upstream) = body(Broke::Upstream);
        drop(upstream);
        joint.join(entry, broken, None).await;
        assert_eq!(next(&mut from).await, Some(Err(Broke::Client)));
        drop(from);
        assert_eq!(client.read(&mut [0; 8]).await.expect("an end"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_told_everything_has_some_time_to_end_too() {
        let (from, joint) = body(Broke::Client);
        let (mut client, entry) = duplex(PIPE_LEN);
        let began = tokio::time::Instant::now();
        joint.join(entry, whole("good bye"), Some(Duration::from_secs(60))).await;
        assert_eq!(began.elapsed(), Duration::from_secs(60));
        drop(from);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.expect("read");
        assert_eq!(heard, "good bye");
        client.write_all(b"hello?").await.expect_err("closed");
    }

    #[tokio::test]
    async fn whoever_stops_reading_ends_the_writing() {
        let (from, joint) = body(Broke::Client);
        let (_client, entry) = duplex(PIPE_LEN);
        drop(from);
        // Were it not for that, this would wait for what comes from the client.
        joint.join(entry, whole("hello"), None).await;
    }
}
