//! Gossip's messages over the same endpoint: one unidirectional stream each, on the control lane.
//! Like the datagrams that they stand for, they may be lost: a full queue or a peer that can't be
//! reached drops them, and gossip goes on.

use super::{
    endpoint::{Bound, DialError},
    frames::{FrameError, Reader},
    link::{Link, Peers},
};
use bytes::Bytes;
use proto::wire::{FrameHead, Kind, Lane, codec::PAYLOAD_LEN_MAX};
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
        let _ = self.link(to).gossip.try_send(message);
    }
}

/// Sends what is queued for one peer, in order.
pub(super) async fn send_queued(bound: Arc<Bound>, link: Weak<Link>, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(message) = queue.recv().await {
        let Some(link) = link.upgrade() else { return };
        if let Err(error) = send(&bound, &link, &message).await {
            tracing::debug!(%error, "gossip not sent");
        }
    }
}

async fn send(bound: &Bound, link: &Link, message: &[u8]) -> Result<(), DialError> {
    if message.len() > PAYLOAD_LEN_MAX {
        return Ok(()); // beyond what chitchat itself allows (65,507)
    }
    let slot = link.slot(bound, Lane::Control).await?;
    let mut stream = slot.connection().open_uni().await.map_err(DialError::Handshake)?;
    let head = FrameHead { kind: Kind::Gossip, len: message.len() }.write();
    let _ = stream.write_all(&[head.as_slice(), message].concat()).await;
    Ok(())
}

/// One message that a peer has sent.
pub(super) async fn receive(stream: RecvStream) -> Result<Bytes, FrameError> {
    Reader::new(stream).frame().await?.gossip()
}
