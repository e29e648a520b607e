//! An upstream that agrees to another protocol than HTTP.

use crate::answer::{Answer, BodyStream, Broke};
use crate::upgraded;
use crate::upstream::strip_hop_by_hop;
use hyper::{Response, header, upgrade};
use hyper_util::rt::TokioIo;

/// The upstream's consent (101): what it says from here on is the answer's body, and `said` goes to it.
pub(super) fn switched(mut answer: Response<BodyStream>, said: BodyStream) -> Answer {
    let upgraded = upgrade::on(&mut answer);
    let (mut head, _) = Answer::from(answer).into_parts();
    let protocol = head.headers.remove(header::UPGRADE);
    strip_hop_by_hop(&mut head.headers);
    if let Some(protocol) = protocol {
        upgraded::put(&mut head.headers, protocol);
    }
    // They would be about content, which a 101 has none of.
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::CONTENT_TYPE);
    let (coming, joint) = upgraded::body(Broke::Upstream);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(io) => joint.join(TokioIo::new(io), said, None).await,
            Err(error) => tracing::warn!(%error, "an upstream that agreed to an upgrade and broke off"),
        }
    });
    Answer::from_parts(head, coming)
}
