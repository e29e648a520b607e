//! A client's request as it comes in. What follows its head is there already, or still to be read by hyper.

use crate::headers::Headers;
use bytes::Bytes;
use hyper::{
    Method, Uri, Version,
    body::{Body, Frame, Incoming, SizeHint},
    http::{Extensions, request::Parts},
};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: Headers,
    /// Hyper's, by which its connection may be taken over.
    pub(crate) extensions: Extensions,
    pub(crate) body: Coming,
}

/// As hyper has read it.
impl From<hyper::Request<Incoming>> for Request {
    fn from(request: hyper::Request<Incoming>) -> Self {
        let (head, body) = request.into_parts();
        let Parts { method, uri, version, headers, extensions, .. } = head;
        let (headers, body) = (headers.into(), Coming::Passing(body));
        Self { method, uri, version, headers, extensions, body }
    }
}

#[derive(Debug)]
pub(crate) enum Coming {
    Whole(Bytes),
    Passing(Incoming),
}

impl Body for Coming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Passing(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Passing(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Passing(body) => body.size_hint(),
        }
    }
}
