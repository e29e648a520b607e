//! The QUIC endpoint: one UDP socket for everything between nodes, and how its connections are set.

use super::frames::{Reader, Writer};
use super::identity;
use crate::config::CLUSTER;
use proto::id::{ClusterSecret, NodeName, NodeRef};
use proto::wire::{CloseCode, Hello, HelloAck, Lane, StreamCode};
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::{
    client::AlwaysResolvesClientRawPublicKeys, server::AlwaysResolvesServerRawPublicKeys, version::TLS13,
};
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, OnceLock},
    time::Duration,
};

const ALPN: &[u8] = b"ringway/1";
/// The name in the TLS handshake; keys are pinned, so it is the same for every node.
const SERVER_NAME: &str = "ringway";
/// A peer that is gone is noticed here when nothing else notices it. Four keep-alives fit, so that
/// three may be lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Between nodes of one site; quinn's 333 ms would make the first lost packet of a connection cost
/// a second.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// A reader that stalls holds this much of its stream's data and no more.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Requests at once on one connection. quinn keeps a map entry per *allowed* stream: 100,000 cost
/// 15 % of CPU, 1,024 cost 3 %, 256 are lost in the noise; more load takes more connections.
pub(super) const CALLS_MAX: usize = 256;
/// Streams that stay open cost little else, so that one connection may carry more of them.
pub(super) const STREAMS_MAX: usize = 1_024;
/// Gossip messages and lookups at once on the control connection.
pub(super) const CONTROL_MAX: usize = 64;
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What this node says of itself when a connection begins.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub(crate) name: NodeName,
    pub(crate) node: NodeRef,
    pub(crate) advertise: SocketAddr,
}

/// The endpoint with its socket bound. It can dial from the start; who it is, is told before it
/// greets or answers anybody, because the peers that it meets first have a say in its incarnation.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(super) endpoint: Endpoint,
    pub(super) greeting: OnceLock<Greeting>,
}

impl Bound {
    pub(crate) fn bind(at: SocketAddr, secrets: &[ClusterSecret], name: &NodeName) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = identity::own_key(secrets, CLUSTER);
        let pinned = identity::Pinned::new(secrets, CLUSTER, provider.clone());

        let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(pinned.clone())
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.clone())));
        server.alpn_protocols = vec![ALPN.to_vec()];
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(pinned)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
        client.alpn_protocols = vec![ALPN.to_vec()];

        let transport = Arc::new(transport());
        let server = QuicServerConfig::try_from(server).map_err(io::Error::other)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(transport.clone()).migration(false);
        let client = QuicClientConfig::try_from(client).map_err(io::Error::other)?;
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport);

        // Stable keys let a restarted node reset what its predecessor left open at once (RFC 9000, 10.3).
        let own = |purpose: &str| secrets[0].derive(purpose, &format!("{CLUSTER}|{name}"));
        let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &own("reset"));
        let mut config = EndpointConfig::new(Arc::new(reset_key));
        let cid_key = u64::from_le_bytes(*own("connection-id").first_chunk().expect("32 bytes begin with 8"));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)));

        let socket = UdpSocket::bind(at)?;
        let mut endpoint = Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime))?;
        endpoint.set_default_client_config(client);
        Ok(Self { endpoint, greeting: OnceLock::new() })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Says who this node is; to be called once, before anything is accepted.
    pub(crate) fn greet_as(&self, greeting: Greeting) {
        let first = self.greeting.set(greeting).is_ok();
        debug_assert!(first, "a node has one identity");
    }

    pub(super) fn greeting(&self) -> &Greeting {
        self.greeting.get().expect("the identity is set before the endpoint is used")
    }

    /// Asks the node at `addr` for the highest incarnation it has seen under this node's name.
    pub(crate) async fn known_incarnation(&self, addr: SocketAddr, greeting: &Greeting) -> Option<u64> {
        let (connection, ack) = dial(&self.endpoint, greeting, addr, Lane::Control).await.ok()?;
        connection.close(VarInt::from_u32(CloseCode::Leaving as u32), b"");
        Some(ack.known_inc)
    }
}

/// Of what a peer allows, quinn announces streams that have become free only in batches of an
/// eighth; and the greeting took one. As many may be unusable for a while, so nobody counts on them.
pub(super) fn usable(allowed: usize) -> usize {
    allowed - allowed / 8 - 1
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("10 s are within QUIC's range");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .max_concurrent_bidi_streams(VarInt::try_from(CALLS_MAX).expect("a small number"))
        .max_concurrent_uni_streams(VarInt::try_from(CONTROL_MAX).expect("a small number"))
        .datagram_receive_buffer_size(None);
    transport
}

/// A connection of one lane to the node at `addr`, greeted.
pub(super) async fn dial(
    endpoint: &Endpoint,
    greeting: &Greeting,
    addr: SocketAddr,
    lane: Lane,
) -> Result<(Connection, HelloAck), DialError> {
    let dialled = async {
        let connection = endpoint
            .connect(addr, SERVER_NAME)
            .map_err(DialError::Connect)?
            .await
            .map_err(DialError::Handshake)?;
        let (send, recv) = connection.open_bi().await.map_err(DialError::Handshake)?;
        let Greeting { name, node, advertise } = greeting.clone();
        let mut writer = Writer::new(send, StreamCode::Malformed);
        let hello = Hello { lane, name, node, advertise };
        writer.message(&hello).await.map_err(|_| DialError::Greeting)?;
        writer.finish();
        let frame = Reader::new(recv).frame().await.map_err(|_| DialError::Greeting)?;
        let ack = frame.read::<HelloAck>().map_err(|_| DialError::Greeting)?;
        Ok((connection, ack))
    };
    tokio::time::timeout(DIAL_TIMEOUT, dialled).await.map_err(|_| DialError::TimedOut)?
}

/// Nothing of a request was sent.
#[derive(Clone, Debug)]
pub(super) enum DialError {
    Connect(quinn::ConnectError),
    Handshake(quinn::ConnectionError),
    Greeting,
    TimedOut,
    /// Every connection that may be is there, and full.
    Full,
    /// The node is not a member any more.
    Forgotten,
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Handshake(error) => error.fmt(f),
            Self::Greeting => f.write_str("no proper greeting"),
            Self::Full => f.write_str("too many requests are on their way to this node"),
            Self::Forgotten => f.write_str("not a member any more"),
            Self::TimedOut => write!(f, "no answer within {DIAL_TIMEOUT:?}"),
        }
    }
}
