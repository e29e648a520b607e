//! Nodes talking to nodes: one port, everything on it authenticated by the cluster secret. The only
//! folder that names quinn and rustls.
//!
//! [`endpoint`] is how connections are made, [`link`] keeps the ones to a peer, [`frames`] reads and
//! writes messages on their streams. [`forward`] carries a request to its owner and [`accept`] (this
//! node as the owner) receives one, [`calls`] keeps it from running twice; [`ask_once`] carries short
//! questions, [`gossip`] chitchat's messages. [`datagrams`] shares QUIC's UDP socket for what must
//! arrive at once or not at all, and [`lifeline`] is the TCP connection whose end tells of a death.
//! [`upkeep`] replaces connections when the secrets change, [`strangers`] bounds and counts those who have
//! none of them.

mod accept;
mod ask_once;
mod calls;
mod datagrams;
mod endpoint;
mod forward;
mod frames;
mod gossip;
mod identity;
mod lifeline;
mod link;
#[cfg(test)]
mod scene;
mod strangers;
mod upkeep;

pub(crate) use accept::Acceptor;
pub(crate) use datagrams::ControlInbox;
pub(crate) use endpoint::{Bound, Greeting};
pub(crate) use forward::{Delivered, Outgoing};
pub(crate) use lifeline::{Found, Lifelines, Sign, accept_lifelines};
pub(crate) use link::Peers;
pub(crate) use strangers::At;
