//! Bodies that may be long, and the answer to a request on its way to the client.

use crate::headers::Headers;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode, Version,
    body::{Body, Frame, SizeHint},
    http::{Extensions, response::Parts},
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

/// An answer, of which the body is still to come. As hyper's own it would hold a map for its headers.
#[derive(Debug)]
pub(crate) struct Answer {
    head: Head,
    body: BodyStream,
}

/// What is known of an answer before its body.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: Headers,
    /// Marks, which hardly any answer has: [`TookOver`], `front::standing::Stands`, and hyper's.
    pub(crate) extensions: Extensions,
}

impl Answer {
    /// 200, without headers.
    pub(crate) fn new(body: BodyStream) -> Self {
        Self { head: Head::default(), body }
    }

    pub(crate) fn from_parts(head: Head, body: BodyStream) -> Self {
        Self { head, body }
    }

    pub(crate) fn into_parts(self) -> (Head, BodyStream) {
        (self.head, self.body)
    }

    pub(crate) fn into_body(self) -> BodyStream {
        self.body
    }

    pub(crate) fn map(self, change: impl FnOnce(BodyStream) -> BodyStream) -> Self {
        Self { head: self.head, body: change(self.body) }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.head.status
    }

    pub(crate) fn status_mut(&mut self) -> &mut StatusCode {
        &mut self.head.status
    }

    pub(crate) fn headers(&self) -> &Headers {
        &self.head.headers
    }

    pub(crate) fn headers_mut(&mut self) -> &mut Headers {
        &mut self.head.headers
    }

    pub(crate) fn extensions(&self) -> &Extensions {
        &self.head.extensions
    }

    pub(crate) fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.head.extensions
    }
}

/// As hyper has read it.
impl From<Response<BodyStream>> for Answer {
    fn from(answer: Response<BodyStream>) -> Self {
        let (head, body) = answer.into_parts();
        let Parts { status, version, headers, extensions, .. } = head;
        Self { head: Head { status, version, headers: headers.into(), extensions }, body }
    }
}

/// As hyper is to write it.
impl From<Answer> for Response<BodyStream> {
    fn from(answer: Answer) -> Self {
        let Answer { head: Head { status, version, headers, extensions }, body } = answer;
        let mut answer = Self::new(body);
        *answer.status_mut() = status;
        *answer.version_mut() = version;
        *answer.headers_mut() = headers.into();
        *answer.extensions_mut() = extensions;
        answer
    }
}

/// Put on an answer that its request has waited for, since the session's owner was lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TookOver;

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
