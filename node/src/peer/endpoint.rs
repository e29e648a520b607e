//! The port that nodes reach each other at: the QUIC endpoint, how its connections are set, and what
//! shares its number.

use super::datagrams::{Control, ControlInbox};
use super::frames::{Reader, Writer};
use super::identity::{self, SERVER_NAME};
use super::lifeline::LifelinePort;
use crate::config::CLUSTER;
use proto::id::{ClusterSecret, NodeName, NodeRef};
use proto::wire::{CloseCode, Hello, HelloAck, Lane, StreamCode};
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

const ALPN: &[u8] = b"ringway/1";
/// A free UDP port is rarely taken for TCP, and never 16 times in a row by chance.
const PORTS_TRIED_MAX: usize = 16;
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

/// The endpoint with its sockets bound. It can dial from the start; who it is, is told before it
/// greets or answers anybody, because the peers that it meets first have a say in its incarnation.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(super) endpoint: Endpoint,
    pub(super) control: Control,
    pub(super) lifeline: LifelinePort,
    greeting: watch::Sender<Option<Greeting>>,
}

impl Bound {
    /// Binds the address, or any port of it, for UDP and for TCP; also what control datagrams arrive in.
    pub(crate) fn bind(
        at: SocketAddr,
        secrets: &[ClusterSecret],
        name: &NodeName,
    ) -> io::Result<(Self, ControlInbox)> {
        let (server, client) = identity::tls(secrets, CLUSTER, ALPN).map_err(io::Error::other)?;
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

        // A peer may clear the bit that tells QUIC from control datagrams only if it is invited to.
        config.grease_quic_bit(false);

        let (socket, listener) = bind_both(at)?;
        let (control, quic, inbox) = Control::share(socket, secrets)?;
        let mut endpoint =
            Endpoint::new_with_abstract_socket(config, Some(server), quic, Arc::new(TokioRuntime))?;
        endpoint.set_default_client_config(client);
        let lifeline = LifelinePort::new(listener, secrets)?;
        Ok((Self { endpoint, control, lifeline, greeting: watch::Sender::new(None) }, inbox))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Says who this node is: before anything is accepted, and again when it begins a new life under
    /// another incarnation. Accepted lifelines are closed then, so that those who hold them see it.
    pub(crate) fn greet_as(&self, greeting: Greeting) {
        self.greeting.send_replace(Some(greeting));
    }

    pub(crate) fn greeting(&self) -> Greeting {
        known(self.greeting.borrow().as_ref())
    }

    /// Who this node is, and word of when that changes.
    pub(super) fn greeting_until_changed(&self) -> (Greeting, watch::Receiver<Option<Greeting>>) {
        let mut changes = self.greeting.subscribe();
        let greeting = known(changes.borrow_and_update().as_ref());
        (greeting, changes)
    }

    /// Asks the node at `addr` for the highest incarnation it has seen under this node's name.
    pub(crate) async fn known_incarnation(&self, addr: SocketAddr, greeting: &Greeting) -> Option<u64> {
        let (connection, ack) = dial(&self.endpoint, greeting, addr, Lane::Control).await.ok()?;
        connection.close(VarInt::from_u32(CloseCode::Leaving as u32), b"");
        Some(ack.known_inc)
    }
}

fn known(greeting: Option<&Greeting>) -> Greeting {
    greeting.cloned().expect("the identity is set before the endpoint is used")
}

/// One port number for UDP and TCP. The standard library sets SO_REUSEADDR for TCP, so that a node
/// that starts again does not wait for its predecessor's connections to time out.
fn bind_both(at: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tried = 1;
    loop {
        let udp = UdpSocket::bind(at)?;
        match TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error)
                if at.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && tried < PORTS_TRIED_MAX =>
            {
                tried += 1;
            }
            Err(error) => return Err(error),
        }
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
