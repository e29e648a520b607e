//! Carrying a request to the node that owns its session, and its answer back.

use super::{
    frames::{Frame, FrameError, Reader, Writer},
    link::{Peers, Slot},
};
use crate::answer::{Answer, BodyStream};
use crate::ask::Payload;
use crate::headers::Headers;
use crate::upgraded;
use bytes::Bytes;
use hyper::{Method, StatusCode, header::HeaderValue};
use proto::id::{Fingerprint, NodeRef, RouteId};
use proto::wire::{self, Caller, Errand, Kind, Lane, Nature, NotHere, Reason, Refusal, StreamCode};
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
    pub(crate) caller: Caller,
    pub(crate) method: &'a Method,
    pub(crate) target: &'a str,
    pub(crate) headers: &'a Headers,
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
        // Streams that may stay open for hours, and upgraded connections; what else there is, is answered
        // and done.
        let listens = outgoing.method == Method::GET || outgoing.nature == Nature::Listens;
        let is_upgrade = upgraded::is_wished(outgoing.headers.iter());
        let lane = if listens || is_upgrade { Lane::Streams } else { Lane::Calls };
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
        let Ok(Ok((stream, recv))) = opening.await else { return Delivered::Unsent };
        let writer = Writer::new(stream, StreamCode::ClientGone);
        let forward = wire::Forward {
            view: outgoing.view,
            route: outgoing.route,
            errand: outgoing.errand,
            nature: outgoing.nature,
            uid: outgoing.uid,
            copies: outgoing.copies,
            may_have_run: outgoing.may_have_run,
            caller: outgoing.caller,
            method: outgoing.method.as_str(),
            target: outgoing.target,
            headers: outgoing.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        };
        let until_granted = match send(writer, &forward, outgoing.body, is_upgrade, &slot).await {
            Ok(writer) => writer,
            // The other end wants no more of it: it has answered already.
            Err(NotSent::Broke(FrameError::Write(WriteError::Stopped(_)))) => None,
            Err(NotSent::Gone) => return unrepeatable(),
            Err(NotSent::Broke(FrameError::Codec(error))) => {
                tracing::warn!(%error, "a request that no frame holds");
                return Delivered::Refused(Refusal::not_run(Reason::OwnerUnreachable));
            }
            Err(NotSent::Broke(error)) => {
                tracing::debug!(to = %outgoing.to, %error, "broke while the request was sent");
                return broke();
            }
        };
        let mut reader = Reader::new(recv);
        let delivered = match reader.frame().await {
            Ok(frame) => read_answer(&frame, reader, slot.clone()).unwrap_or_else(|error| {
                tracing::warn!(to = %outgoing.to, %error, "an answer that can't be read");
                broke()
            }),
            Err(error) => {
                tracing::debug!(to = %outgoing.to, %error, "broke before it answered");
                broke()
            }
        };
        if let (Delivered::Answer { answer, .. }, Some(writer)) = (&delivered, until_granted)
            && answer.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            let Some(body) = outgoing.body.take() else { return unrepeatable() };
            carry(writer, body, slot);
        }
        delivered
    }
}

/// Why a request is not on its way.
enum NotSent {
    /// Its body was sent elsewhere.
    Gone,
    Broke(FrameError),
}

impl From<FrameError> for NotSent {
    fn from(error: FrameError) -> Self {
        Self::Broke(error)
    }
}

/// Sends a request. One for an upgrade gives its writer back: what the client will say then stays whole
/// until that is granted, since there may be other nodes to ask.
async fn send(
    mut writer: Writer,
    forward: &wire::Forward<'_>,
    payload: &Payload,
    is_upgrade: bool,
    slot: &Arc<Slot>,
) -> Result<Option<Writer>, NotSent> {
    if is_upgrade {
        writer.message(forward).await?;
        return Ok(Some(writer));
    }
    match payload {
        Payload::Whole(bytes) => write_whole(writer, forward, bytes.clone()).await?,
        Payload::Passing(_) => {
            let body = payload.take().ok_or(NotSent::Gone)?;
            if let Err(error) = writer.message(forward).await {
                payload.give_back(body);
                return Err(error.into());
            }
            // The answer may begin before the request has ended, and end before it too.
            carry(writer, body, slot.clone());
        }
    }
    Ok(None)
}

/// Sends a body while its answer is read.
fn carry(writer: Writer, body: BodyStream, slot: Arc<Slot>) {
    tokio::spawn(async move {
        let stopped = writer.stopped();
        tokio::select! {
            () = writer.body(body, None) => {}
            // The other end wants no more of it, however long the next of it may be in coming.
            _ = stopped => {}
        }
        drop(slot);
    });
}

fn read_answer(frame: &Frame, reader: Reader, slot: Arc<Slot>) -> Result<Delivered, FrameError> {
    if frame.kind == Kind::NotHere {
        return Ok(Delivered::NotHere(frame.read()?));
    }
    if frame.kind == Kind::Refused {
        return Ok(Delivered::Refused(frame.read()?));
    }
    let head = frame.read::<wire::Answer<'_>>()?;
    let mut answer = Answer::new(reader.into_body(Some(slot)));
    *answer.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *answer.headers_mut() = headers(&head.headers, frame);
    Ok(Delivered::Answer { answer, sessions: head.sessions })
}

/// Headers as they came over the wire, in a frame; what is no header is left out.
pub(super) fn headers(listed: &wire::Headers<'_>, frame: &Frame) -> Headers {
    let mut headers = Headers::with_room_for(listed.len());
    for (name, value) in listed {
        if let (Ok(name), Ok(value)) =
            (crate::headers::name(name.as_bytes()), HeaderValue::from_maybe_shared(frame.piece(value)))
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
