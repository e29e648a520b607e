//! Nodes talking to nodes: one QUIC endpoint for everything, mutually authenticated by the cluster
//! secret. The only folder that names quinn and rustls.
//!
//! [`endpoint`] is how connections are made, [`link`] keeps the ones to a peer, [`frames`] reads and
//! writes messages on their streams. [`forward`] carries a request to its owner and [`accept`] (this
//! node as the owner) receives one; [`gossip`] carries chitchat's messages.

mod accept;
mod endpoint;
mod forward;
mod frames;
mod gossip;
mod identity;
mod link;

pub(crate) use accept::Acceptor;
pub(crate) use endpoint::{Bound, Greeting};
pub(crate) use forward::{Delivered, Outgoing};
pub(crate) use link::Peers;
