//! The port that nodes reach each other at: the QUIC endpoint, how its connections are set, and what
//! shares its number. The secrets that all of it goes by may be replaced while it is in use.

use super::datagrams::{Control, ControlInbox, Traffic};
use super::frames::{Reader, Writer};
use super::identity::{self, Keys, Proof, PublicKey, SERVER_NAME};
use super::lifeline::{self, LifelinePort};
use super::strangers::Strangers;
use crate::config::CLUSTER;
use prometheus_client::metrics::counter::Counter;
use proto::id::{ClusterSecret, NodeName, NodeRef};
use proto::wire::{CloseCode, Hello, HelloAck, Lane, StreamCode};
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime, TransportConfig,
    VarInt,
    congestion::CubicConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(super) const ALPN: &[u8] = b"ringway/1";
/// A free UDP port is rarely taken for TCP, and never 16 times in a row by chance.
const PORTS_TRIED_MAX: usize = 16;
/// A peer that is gone is noticed here when nothing else notices it. Four keep-alives fit, so that
/// three may be lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Between nodes of one site; quinn's 333 ms would make the first lost packet of a connection cost
/// a second.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// The payload of the longest datagram that is tried, where Ethernet's frames are longer than usual. On a path that takes
/// less, the search for what it takes (RFC 8899) ends below.
const DATAGRAM_LEN_MAX: u16 = SENT_AT_ONCE_MAX / DATAGRAMS_AT_ONCE;
/// What one call to the system takes over IPv4. quinn loses what is refused for its length without a word.
const SENT_AT_ONCE_MAX: u16 = 65_507;
/// As many as quinn would send at once anyway.
pub(super) const DATAGRAMS_AT_ONCE: u16 = 10;
/// What the system may hold of datagrams that have arrived, and of those that are to leave. Its own 208 KiB are too few for
/// long bodies: what it drops is sent again, and a path that loses the longest datagrams is taken for one that has not
/// room for them (RFC 8899, 4.3). Linux gives at most `net.core.rmem_max` and `wmem_max`.
const SOCKET_BUFFER_LEN: usize = 4 << 20;
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
/// How long a connection may stay whose other end has proved itself by a secret that was removed since. The
/// reason to remove one is mostly that somebody else has it. What is in progress on it then is asked for
/// again by its entry node, over a connection that is trusted.
const DISTRUSTED_TIME: Duration = Duration::from_secs(30);
/// Connections that wait to be accepted: taken at once, so that these are a moment's worth.
const INCOMING_MAX: usize = 1_024;

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
    pub(super) strangers: Arc<Strangers>,
    credentials: watch::Sender<Arc<Credentials>>,
    greeting: watch::Sender<Option<Greeting>>,
}

/// What this node shows and accepts, by one list of secrets.
pub(super) struct Credentials {
    pub(super) keys: Keys,
    pub(super) client: quinn::ClientConfig,
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Credentials {
    /// And how QUIC's connections are accepted by them.
    fn new(secrets: &[ClusterSecret]) -> io::Result<(Self, quinn::ServerConfig)> {
        let (server, client) = identity::tls(secrets, CLUSTER, ALPN).map_err(io::Error::other)?;
        let transport = Arc::new(transport());
        let server = QuicServerConfig::try_from(server).map_err(io::Error::other)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(transport.clone()).migration(false).max_incoming(INCOMING_MAX);
        let client = QuicClientConfig::try_from(client).map_err(io::Error::other)?;
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport);
        let (acceptor, connector) = lifeline::tls(secrets)?;
        Ok((Self { keys: Keys::new(secrets, CLUSTER), client, acceptor, connector }, server))
    }
}

impl Bound {
    /// Binds the address, or any port of it, for UDP and for TCP; also what control datagrams arrive in.
    pub(crate) fn bind(
        at: SocketAddr,
        secrets: &[ClusterSecret],
        name: &NodeName,
    ) -> io::Result<(Self, ControlInbox)> {
        let (credentials, server) = Credentials::new(secrets)?;

        // Stable keys let a restarted node reset what its predecessor left open at once (RFC 9000, 10.3).
        // They stay those of the secret that the process began with.
        let own = |purpose: &str| secrets[0].derive(purpose, &format!("{CLUSTER}|{name}"));
        let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &own("reset"));
        let mut config = EndpointConfig::new(Arc::new(reset_key));
        let cid_key = u64::from_le_bytes(*own("connection-id").first_chunk().expect("32 bytes begin with 8"));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)));

        config.max_udp_payload_size(DATAGRAM_LEN_MAX).expect("above QUIC's least, 1,200");

        // A peer may clear the bit that tells QUIC from control datagrams only if it is invited to.
        config.grease_quic_bit(false);

        let (socket, listener) = bind_both(at)?;
        let strangers = Arc::<Strangers>::default();
        let (control, quic, inbox) = Control::share(socket, secrets, strangers.clone())?;
        let endpoint =
            Endpoint::new_with_abstract_socket(config, Some(server), quic, Arc::new(TokioRuntime))?;
        let lifeline = LifelinePort::new(listener)?;
        let credentials = watch::Sender::new(Arc::new(credentials));
        let greeting = watch::Sender::new(None);
        Ok((Self { endpoint, control, lifeline, strangers, credentials, greeting }, inbox))
    }

    /// From now on these: the first identifies and seals, all are accepted. What is open stays open, and is
    /// replaced by [`Peers::keep_up`](super::Peers::keep_up) and the lifelines themselves.
    ///
    /// # Errors
    /// If no keys can be made of them; then nothing has changed.
    pub(crate) fn take_secrets(&self, secrets: &[ClusterSecret]) -> io::Result<()> {
        let (credentials, server) = Credentials::new(secrets)?;
        self.control.take_secrets(secrets);
        self.endpoint.set_server_config(Some(server));
        self.credentials.send_replace(Arc::new(credentials));
        Ok(())
    }

    /// Of each secret, in their order, how many control datagrams it has opened; the first is not counted.
    pub(crate) fn opened_datagrams(&self) -> Vec<u64> {
        self.control.opened()
    }

    /// Attempts of those who have not this cluster's secret.
    pub(crate) fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    pub(super) fn credentials(&self) -> Arc<Credentials> {
        self.credentials.borrow().clone()
    }

    pub(super) fn credentials_until_changed(&self) -> watch::Receiver<Arc<Credentials>> {
        self.credentials.subscribe()
    }

    /// What has passed the socket.
    pub(crate) fn traffic(&self) -> [Counter; 2] {
        let Traffic { sent, received } = self.control.traffic.clone();
        [sent, received]
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
        let dialled = dial(self, greeting, addr, Lane::Control).await.ok()?;
        close(&dialled.connection, CloseCode::Leaving, "");
        Some(dialled.ack.known_inc)
    }
}

/// Resolves when a connection is to be closed whose other end has shown this key: some time after it is
/// accepted no more.
pub(super) async fn distrusted(mut credentials: watch::Receiver<Arc<Credentials>>, peer: &PublicKey) {
    loop {
        if credentials.wait_for(|now| !now.keys.accept(peer)).await.is_err() {
            return std::future::pending().await; // the endpoint itself is gone
        }
        // Somebody may put it back.
        let again = credentials.wait_for(|now| now.keys.accept(peer));
        if tokio::time::timeout(DISTRUSTED_TIME, again).await.is_err() {
            return;
        }
    }
}

/// Closes a connection, and tells the other end why.
pub(super) fn close(connection: &Connection, code: CloseCode, why: &str) {
    connection.close(VarInt::from_u32(code as u32), why.as_bytes());
}

/// The key that the other end of a connection has shown.
pub(super) fn shown_on(connection: &Connection) -> PublicKey {
    let shown = connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'_>>>().ok());
    PublicKey::shown(shown.as_ref().map(|shown| shown.as_slice()))
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
        let socket = socket2::SockRef::from(&udp);
        // Where the system has less to give it is as well as it can be.
        if socket.recv_buffer_size().is_ok_and(|len| len < SOCKET_BUFFER_LEN) {
            let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_LEN);
        }
        if socket.send_buffer_size().is_ok_and(|len| len < SOCKET_BUFFER_LEN) {
            let _ = socket.set_send_buffer_size(SOCKET_BUFFER_LEN);
        }
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
    let mut search = MtuDiscoveryConfig::default();
    search.upper_bound(DATAGRAM_LEN_MAX);
    // Ten datagrams (RFC 9002, 7.2), of the longest: of two alone the second would wait for the first one's
    // acknowledgement, and that for a second.
    let mut congestion = CubicConfig::default();
    congestion.initial_window(u64::from(DATAGRAM_LEN_MAX * DATAGRAMS_AT_ONCE));
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("10 s are within QUIC's range");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(search))
        .congestion_controller_factory(Arc::new(congestion))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .max_concurrent_bidi_streams(VarInt::try_from(CALLS_MAX).expect("a small number"))
        .max_concurrent_uni_streams(VarInt::try_from(CONTROL_MAX).expect("a small number"))
        .datagram_receive_buffer_size(None);
    transport
}

/// A connection that was dialled, and greeted.
pub(super) struct Dialled {
    pub(super) connection: Connection,
    pub(super) ack: HelloAck,
    pub(super) proof: Proof,
}

/// A connection of one lane to the node at `addr`.
pub(super) async fn dial(
    bound: &Bound,
    greeting: &Greeting,
    addr: SocketAddr,
    lane: Lane,
) -> Result<Dialled, DialError> {
    let credentials = bound.credentials();
    let dialled = async {
        let connection = bound
            .endpoint
            .connect_with(credentials.client.clone(), addr, SERVER_NAME)
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
        let proof = Proof { own: credentials.keys.own().clone(), peer: shown_on(&connection) };
        Ok(Dialled { connection, ack, proof })
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

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
