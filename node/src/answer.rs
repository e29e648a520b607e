//! Bodies that may be long, and the answer to a request on its way to the client.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Response,
    body::{Body, Frame, SizeHint},
};
use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broke {
    /// The upstream broke off.
    Upstream,
    /// The connection to the owner was lost.
    Hop,
    /// The session has gone to another node.
    Moved,
    /// A newer request reads the stream.
    Displaced,
    /// The client broke off in the middle of its request.
    Client,
    /// The entry node gave up on it, after having been told why.
    Answer,
}

impl fmt::Display for Broke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upstream => "the upstream broke off",
            Self::Moved => "the session went to another node",
            Self::Displaced => "a newer request reads the stream",
            Self::Client => "the client broke off",
            Self::Hop => "the connection to the owner was lost",
            Self::Answer => "the answer could not be completed",
        })
    }
}

impl std::error::Error for Broke {}

pub(crate) type BodyStream = UnsyncBoxBody<Bytes, Broke>;
pub(crate) type Answer = Response<BodyStream>;

/// A body that is there already.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> BodyStream {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body that keeps something alive until it has been read or dropped: a count, a slot, a claim.
pub(crate) fn holding<T: Send + Unpin + 'static>(body: BodyStream, held: T) -> BodyStream {
    Holding { body, _held: held }.boxed_unsync()
}

/// A body of which the first part has been read already.
pub(crate) fn resumed(first: Bytes, rest: BodyStream) -> BodyStream {
    Resumed { first: Some(first), rest }.boxed_unsync()
}

struct Resumed {
    first: Option<Bytes>,
    rest: BodyStream,
}

impl Body for Resumed {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

struct Holding<T> {
    body: BodyStream,
    _held: T,
}

impl<T: Unpin> Body for Holding<T> {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
