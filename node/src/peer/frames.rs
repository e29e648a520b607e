//! Messages on QUIC streams, and the raw body that may follow them.

use super::link::Slot;
use crate::answer::{BodyStream, Broke, holding};
use crate::ask::Payload;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{self, Body};
use proto::wire::{CodecError, FRAME_HEAD_LEN, FrameHead, Kind, Message, StreamCode, codec};
use quinn::{ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use serde::{Deserialize, Serialize};
use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};
use tokio_util::sync::CancellationToken;

/// As much as is taken from a stream at once: several packets' worth.
const CHUNK_LEN_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(super) enum FrameError {
    Read(ReadError),
    Write(WriteError),
    Codec(CodecError),
    /// The stream ended in the middle.
    Short,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Write(error) => error.fmt(f),
            Self::Codec(error) => error.fmt(f),
            Self::Short => f.write_str("the stream ended in the middle of a message"),
        }
    }
}

/// One message, still packed: it may borrow from these bytes.
pub(super) struct Frame {
    pub(super) kind: Kind,
    payload: Bytes,
}

impl Frame {
    pub(super) fn read<'a, M: Message + Deserialize<'a>>(&'a self) -> Result<M, FrameError> {
        codec::payload(self.kind, &self.payload).map_err(FrameError::Codec)
    }

    /// What was borrowed from it, kept without a copy.
    pub(super) fn piece(&self, borrowed: &[u8]) -> Bytes {
        self.payload.slice_ref(borrowed)
    }

    /// The bytes of a message of chitchat's.
    pub(super) fn gossip(self) -> Result<Bytes, FrameError> {
        if self.kind == Kind::Gossip {
            Ok(self.payload)
        } else {
            Err(FrameError::Codec(CodecError::Unexpected(self.kind)))
        }
    }
}

/// The sending half of a stream. Given up before [`finish`](Self::finish) it is reset with its code:
/// what was cut off never looks like what has ended.
pub(super) struct Writer {
    send: SendStream,
    given_up: StreamCode,
    finished: bool,
}

impl Writer {
    pub(super) fn new(send: SendStream, given_up: StreamCode) -> Self {
        Self { send, given_up, finished: false }
    }

    pub(super) async fn message<M: Message + Serialize>(&mut self, message: &M) -> Result<(), FrameError> {
        let frame = codec::frame(message).map_err(FrameError::Codec)?;
        self.send.write_all(&frame).await.map_err(FrameError::Write)
    }

    pub(super) async fn chunk(&mut self, bytes: Bytes) -> Result<(), FrameError> {
        self.send.write_chunk(bytes).await.map_err(FrameError::Write)
    }

    /// A body as it comes, and its end if it has one; `leaving` cuts off one that has none.
    pub(super) async fn body(mut self, mut body: BodyStream, leaving: Option<&CancellationToken>) {
        loop {
            let frame = match leaving {
                None => body.frame().await,
                Some(leaving) => match leaving.run_until_cancelled(body.frame()).await {
                    Some(frame) => frame,
                    None => return self.give_up(StreamCode::Leaving),
                },
            };
            match frame {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    if self.chunk(bytes).await.is_err() {
                        return;
                    }
                }
                Some(Err(Broke::Moved)) => return self.give_up(StreamCode::Leaving),
                Some(Err(Broke::Displaced)) => return self.give_up(StreamCode::Displaced),
                Some(Err(_)) => return,
                None => return self.finish(),
            }
        }
    }

    pub(super) fn finish(mut self) {
        self.finished = true;
        let _ = self.send.finish(); // fails only on a stream that has failed already
    }

    /// The end of the stream, once the other end has all of it; whether it has.
    pub(super) async fn deliver(mut self) -> bool {
        self.finished = true;
        self.send.finish().is_ok() && matches!(self.send.stopped().await, Ok(None))
    }

    /// Resolves when the other end wants no more, or is gone.
    pub(super) fn stopped(&self) -> impl Future<Output = Result<Option<VarInt>, StoppedError>> + use<> {
        self.send.stopped()
    }

    /// Gives the stream up for a reason of its own.
    pub(super) fn give_up(mut self, code: StreamCode) {
        self.given_up = code;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.send.reset(VarInt::from_u32(self.given_up as u32));
        }
    }
}

/// A stream that is read frame by frame, and then to its end.
pub(super) struct Reader {
    recv: RecvStream,
    /// Read from the stream, not yet asked for.
    ahead: Bytes,
}

impl Reader {
    pub(super) fn new(recv: RecvStream) -> Self {
        Self { recv, ahead: Bytes::new() }
    }

    pub(super) async fn frame(&mut self) -> Result<Frame, FrameError> {
        let head = self.take(FRAME_HEAD_LEN).await?;
        let head = head.first_chunk().expect("as many as were asked for");
        let head = FrameHead::read(*head).map_err(FrameError::Codec)?;
        Ok(Frame { kind: head.kind, payload: self.take(head.len).await? })
    }

    /// The next piece of the body, `None` at its clean end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        if !self.ahead.is_empty() {
            return Ok(Some(std::mem::take(&mut self.ahead)));
        }
        Ok(self.recv.read_chunk(CHUNK_LEN_MAX, true).await?.map(|chunk| chunk.bytes))
    }

    /// The whole body, if it has at most `len_max` bytes.
    pub(super) async fn rest(&mut self, len_max: usize) -> Result<Bytes, FrameError> {
        let Some(first) = self.chunk().await.map_err(FrameError::Read)? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await.map_err(FrameError::Read)? else { return Ok(first) };
        // Put together once all are there: something that grows copies what it has again and again.
        let (mut len, mut chunks) = (first.len() + second.len(), vec![first, second]);
        while let Some(chunk) = self.chunk().await.map_err(FrameError::Read)? {
            len += chunk.len();
            if len > len_max {
                return Err(FrameError::Short);
            }
            chunks.push(chunk);
        }
        let mut whole = BytesMut::with_capacity(len);
        chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
        Ok(whole.freeze())
    }

    /// What is left, to be passed on as it comes.
    pub(super) async fn into_payload(mut self) -> Result<Payload, FrameError> {
        match self.chunk().await.map_err(FrameError::Read)? {
            None => Ok(Payload::Whole(Bytes::new())),
            Some(first) => {
                self.ahead = first;
                Ok(Payload::passing(self.into_body(None)))
            }
        }
    }

    /// What is left, as a body.
    pub(super) fn into_body(self, slot: Option<Arc<Slot>>) -> BodyStream {
        let body = ReaderBody(self).boxed_unsync();
        match slot {
            Some(slot) => holding(body, slot),
            None => body,
        }
    }

    async fn take(&mut self, len: usize) -> Result<Bytes, FrameError> {
        if self.ahead.len() < len {
            let mut gathered = BytesMut::from(std::mem::take(&mut self.ahead));
            while gathered.len() < len {
                let chunk = self.recv.read_chunk(CHUNK_LEN_MAX, true).await.map_err(FrameError::Read)?;
                gathered.extend_from_slice(&chunk.ok_or(FrameError::Short)?.bytes);
            }
            self.ahead = gathered.freeze();
        }
        Ok(self.ahead.split_to(len))
    }
}

/// The rest of a stream as a body. Dropped unread it tells the other end that nobody wants it.
struct ReaderBody(Reader);

impl Body for ReaderBody {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<body::Frame<Bytes>, Broke>>> {
        // The future holds nothing between polls but the stream itself, so it is made anew each time.
        let chunk = pin!(self.0.chunk());
        chunk.poll(cx).map(|chunk| match chunk {
            Ok(Some(bytes)) => Some(Ok(body::Frame::data(bytes))),
            Ok(None) => None,
            Err(ReadError::Reset(code)) if code == VarInt::from_u32(StreamCode::UpstreamBroke as u32) => {
                Some(Err(Broke::Upstream))
            }
            Err(ReadError::Reset(code)) if code == VarInt::from_u32(StreamCode::ClientGone as u32) => {
                Some(Err(Broke::Client))
            }
            Err(ReadError::Reset(code)) if code == VarInt::from_u32(StreamCode::Displaced as u32) => {
                Some(Err(Broke::Displaced))
            }
            Err(_) => Some(Err(Broke::Hop)),
        })
    }
}
