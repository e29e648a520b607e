//! Gossip's messages, and news for operators, over the same endpoint: one unidirectional stream each, on the
//! control lane.
//! Like the datagrams that they stand for, they may be lost: a full queue or a peer that can't be
//! reached drops them, and gossip goes on.

use super::{
    endpoint::{Bound, DialError},
    frames::{Frame, FrameError, Reader},
    link::{Link, Peers},
};
use bytes::Bytes;
use proto::wire::{
    FrameHead, Kind, Lane, News,
    codec::{self, PAYLOAD_LEN_MAX},
};
use quinn::RecvStream;
use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
};
use tokio::sync::mpsc;

/// A second and more of gossip at the shortest interval; older news is worth nothing.
pub(super) const QUEUE_LEN_MAX: usize = 32;

impl Peers {
    /// Sends a message, if it can be done without waiting.
    pub(crate) fn gossip(self: &Arc<Self>, to: SocketAddr, message: Bytes) {
        if message.len() > PAYLOAD_LEN_MAX {
            return; // beyond what chitchat itself allows (65,507)
        }
        let head = FrameHead { kind: Kind::Gossip, len: message.len() }.write();
        let _ = self.link(to).gossip.try_send([head.as_slice(), &message].concat().into());
    }

    /// The same for news: what does not fit into the queue is lost.
    pub(crate) fn pass_on(self: &Arc<Self>, to: SocketAddr, news: &News<'_>) {
        if let Ok(frame) = codec::frame(news) {
            let _ = self.link(to).gossip.try_send(frame.into());
        }
    }
}

/// Sends what is queued for one peer, in order: whole frames.
pub(super) async fn send_queued(bound: Arc<Bound>, link: Weak<Link>, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(frame) = queue.recv().await {
        let Some(link) = link.upgrade() else { return };
        if let Err(error) = send(&bound, &link, &frame).await {
            tracing::debug!(%error, "gossip not sent");
        }
    }
}

async fn send(bound: &Bound, link: &Link, frame: &[u8]) -> Result<(), DialError> {
    let slot = link.slot(bound, Lane::Control).await?;
    let mut stream = slot.connection().open_uni().await.map_err(DialError::Handshake)?;
    let _ = stream.write_all(frame).await;
    Ok(())
}

/// One message that a peer has sent.
pub(super) enum Heard {
    Gossip(Bytes),
    News(Frame),
}

pub(super) async fn receive(stream: RecvStream) -> Result<Heard, FrameError> {
    let frame = Reader::new(stream).frame().await?;
    if frame.kind == Kind::News { Ok(Heard::News(frame)) } else { frame.gossip().map(Heard::Gossip) }
}
