//! chitchat's transport over whatever carries its messages between nodes.

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::{
    ChitchatMessage, Deserializable, Serializable,
    transport::{Socket, Transport},
};
use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};
use tokio::sync::mpsc;

/// How messages leave and arrive. Sending never waits; what can't be sent is lost.
pub(crate) struct Wire {
    pub(crate) send: Box<dyn Fn(SocketAddr, Bytes) + Send + Sync>,
    pub(crate) inbox: mpsc::Receiver<(SocketAddr, Bytes)>,
}

/// Gives its wire to the one socket that chitchat opens.
pub(super) struct Carrier(Mutex<Option<Wire>>);

impl Carrier {
    pub(super) fn new(wire: Wire) -> Self {
        Self(Mutex::new(Some(wire)))
    }
}

#[async_trait]
impl Transport for Carrier {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let wire = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let wire = wire.ok_or_else(|| anyhow::anyhow!("the wire is in use already"))?;
        Ok(Box::new(WireSocket { wire }))
    }
}

struct WireSocket {
    wire: Wire,
}

#[async_trait]
impl Socket for WireSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        (self.wire.send)(to, Bytes::from(message.serialize_to_vec()));
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (from, bytes) =
                self.wire.inbox.recv().await.ok_or_else(|| anyhow::anyhow!("the peer endpoint is closed"))?;
            match ChitchatMessage::deserialize(&mut bytes.as_ref()) {
                Ok(message) => return Ok((from, message)),
                Err(error) => tracing::warn!(%from, %error, "gossip that can't be read"),
            }
        }
    }
}
