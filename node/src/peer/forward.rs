//! Carrying a request to the node that owns its session, and its answer back.

use super::{
    frames::{Frame, FrameError, Reader, Writer},
    link::{Peers, Slot},
};
use crate::answer::Answer;
use crate::ask::Payload;
use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{HeaderName, HeaderValue},
};
use proto::id::{Fingerprint, NodeRef, RouteId};
use proto::wire::{self, Errand, Kind, Lane, Nature, NotHere, Reason, Refusal, StreamCode};
use quinn::WriteError;
use std::{net::SocketAddr, sync::Arc};
use tokio::time::Instant;

/// A request to be forwarded.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) to: NodeRef,
    pub(crate) at: SocketAddr,
    pub(crate) view: Fingerprint,
    pub(crate) route: RouteId,
    pub(crate) errand: Errand,
    pub(crate) nature: Nature,
    pub(crate) uid: u64,
    /// How many copies of it were sent before.
    pub(crate) copies: u8,
    pub(crate) may_have_run: bool,
    pub(crate) method: &'a Method,
    pub(crate) target: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Payload,
}

/// What became of it.
pub(crate) enum Delivered {
    Answer {
        answer: Answer,
        /// How many sessions the answering node owns.
        sessions: u32,
    },
    Refused(Refusal),
    NotHere(NotHere),
    /// Not a byte of it was sent.
    Unsent,
}

impl Peers {
    /// Sends the request and waits for the head of the answer. Reaching the node is bounded by
    /// `deadline`; the answer itself may take as long as the connection lives.
    pub(crate) async fn forward(self: &Arc<Self>, outgoing: &Outgoing<'_>, deadline: Instant) -> Delivered {
        if self.is_suspect(outgoing.to) {
            return Delivered::Unsent;
        }
        // Streams that may stay open for hours; what else there is, is answered and done.
        let listens = outgoing.method == Method::GET || outgoing.nature == Nature::Listens;
        let lane = if listens { Lane::Streams } else { Lane::Calls };
        let slot = match tokio::time::timeout_at(deadline, self.slot(outgoing.at, lane)).await {
            Ok(Ok(slot)) if slot.node() == outgoing.to => Arc::new(slot),
            Ok(Ok(slot)) => {
                tracing::debug!(wanted = %outgoing.to, found = %slot.node(), "another incarnation answers there");
                return Delivered::Unsent;
            }
            Ok(Err(error)) => {
                tracing::debug!(to = %outgoing.to, at = %outgoing.at, %error, "not reached");
                return Delivered::Unsent;
            }
            Err(_) => return Delivered::Unsent,
        };
        let opening = tokio::time::timeout_at(deadline, slot.connection().open_bi());
        let Ok(Ok((send, recv))) = opening.await else { return Delivered::Unsent };
        let mut writer = Writer::new(send, StreamCode::ClientGone);
        let forward = wire::Forward {
            view: outgoing.view,
            route: outgoing.route,
            errand: outgoing.errand,
            nature: outgoing.nature,
            uid: outgoing.uid,
            copies: outgoing.copies,
            may_have_run: outgoing.may_have_run,
            method: outgoing.method.as_str(),
            target: outgoing.target,
            headers: outgoing.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        };
        let sent = match outgoing.body {
            Payload::Whole(bytes) => write_whole(writer, &forward, bytes.clone()).await,
            Payload::Passing(_) => {
                let Some(body) = outgoing.body.take() else { return unrepeatable() };
                let sent = writer.message(&forward).await;
                if sent.is_ok() {
                    // The answer may begin before the request has ended, and end before it too.
                    let slot = slot.clone();
                    tokio::spawn(async move {
                        writer.body(body, None).await;
                        drop(slot);
                    });
                } else {
                    outgoing.body.give_back(body);
                }
                sent
            }
        };
        match sent {
            // The other end wants no more of it: it has answered already.
            Ok(()) | Err(FrameError::Write(WriteError::Stopped(_))) => {}
            Err(FrameError::Codec(error)) => {
                tracing::warn!(%error, "a request that no frame holds");
                return Delivered::Refused(Refusal::not_run(Reason::OwnerUnreachable));
            }
            Err(error) => {
                tracing::debug!(to = %outgoing.to, %error, "broke while the request was sent");
                return broke();
            }
        }
        let mut reader = Reader::new(recv);
        match reader.frame().await {
            Ok(frame) => read_answer(&frame, reader, slot).unwrap_or_else(|error| {
                tracing::warn!(to = %outgoing.to, %error, "an answer that can't be read");
                broke()
            }),
            Err(error) => {
                tracing::debug!(to = %outgoing.to, %error, "broke before it answered");
                broke()
            }
        }
    }
}

fn read_answer(frame: &Frame, reader: Reader, slot: Arc<Slot>) -> Result<Delivered, FrameError> {
    if frame.kind == Kind::NotHere {
        return Ok(Delivered::NotHere(frame.read()?));
    }
    if frame.kind == Kind::Refused {
        return Ok(Delivered::Refused(frame.read()?));
    }
    let head = frame.read::<wire::Answer<'_>>()?;
    let mut answer = Response::new(reader.into_body(Some(slot)));
    *answer.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *answer.headers_mut() = headers(&head.headers);
    Ok(Delivered::Answer { answer, sessions: head.sessions })
}

/// Headers as they came over the wire; what is no header is left out.
pub(super) fn headers(listed: &wire::Headers<'_>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(listed.len());
    for (name, value) in listed {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

async fn write_whole(mut writer: Writer, forward: &wire::Forward<'_>, body: Bytes) -> Result<(), FrameError> {
    writer.message(forward).await?;
    writer.chunk(body).await?;
    writer.finish();
    Ok(())
}

/// The node that was asked first has not served it, and its body is gone.
fn unrepeatable() -> Delivered {
    Delivered::Refused(Refusal::not_run(Reason::OwnerUnreachable))
}

fn broke() -> Delivered {
    Delivered::Refused(Refusal::perhaps_run(Reason::OwnerBroke))
}
