//! Bodies that may be long, and the answer to a request on its way to the client.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::Response;
use std::{convert::Infallible, fmt};

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broke {
    /// The upstream broke off.
    Upstream,
    /// The connection to the owner was lost.
    Hop,
    /// The client broke off in the middle of its request.
    Client,
    /// The entry node gave up on it, after having been told why.
    Answer,
}

impl fmt::Display for Broke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upstream => "the upstream broke off",
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
