//! Lifelines: one TCP connection to each peer, on the number of its QUIC port, that carries nothing.
//! When a process ends, however it ends, the system closes its connections and its port at once; so
//! the end of a lifeline and a refusal to open another are proof of death within milliseconds, where
//! silence would take seconds to mean anything.
//!
//! Nothing else is proof: a time-out, an unreachable network and a failed handshake may all be had
//! from a process that lives. A refusal counts when it comes twice, so that a port that is closed for
//! a moment convicts nobody; and only of a process whose lifeline has stood, so that a port which was
//! never open to TCP convicts nobody either. Whoever is told ([`Sign`]) decides what follows.
//!
//! When the cluster's secrets change, a lifeline is replaced by another before it is let go: nobody sees an
//! end of it.

use super::accept::GREETING_TIME;
use super::endpoint::{Bound, Greeting, distrusted};
use super::identity::{self, Proof, PublicKey, SERVER_NAME, Trust};
use super::link::Peers;
use super::strangers::At;
use crate::config::CLUSTER;
use proto::id::{ClusterSecret, NodeRef};
use proto::wire::{FRAME_HEAD_LEN, FrameHead, Hello, Lane, codec};
use rustls::{CommonState, pki_types::ServerName};
use socket2::{SockRef, TcpKeepalive};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;

pub(super) const ALPN: &[u8] = b"ringway-lifeline/1";
/// Refusals this far apart are two, not one moment seen twice.
const REFUSALS_APART: Duration = Duration::from_millis(10);
/// After a lifeline's end: at once, then often enough to have proof of a death within 15 ms.
const FIRST_PAUSES_MS: [u64; 4] = [0, 11, 20, 40];
/// After that there is nothing to win by haste.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A lifeline that ends sooner does not start the pauses anew: one that is closed again and again
/// must not be dialled without a pause.
const STOOD_LONG: Duration = Duration::from_secs(1);
/// Connections that have not yet proved the secret. Each is gone after [`GREETING_TIME`]; the others
/// wait in the system's queue.
const UNPROVED_MAX: usize = 64;
/// Out of descriptors, most likely: what is open may close in a moment.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// A host that is gone sends no end. Noticed after 5 + 3 x 2 s, about as late as by QUIC.
const PROBE_AFTER: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBES: u32 = 3;
/// More than a cluster's worth; if nobody takes them, lifelines wait.
const SIGNS_MAX: usize = 1_024;

/// What a lifeline tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The process answers at its address.
    Alive(NodeRef),
    /// The lifeline has ended. Within a moment it stands again, or the process is proved dead.
    Ended(NodeRef),
    /// Proof that the process is gone. It is said once, and the last that is said.
    Dead(NodeRef),
}

/// The lifelines that this node holds.
#[derive(Debug)]
pub(crate) struct Lifelines {
    bound: Arc<Bound>,
    signs: mpsc::Sender<Sign>,
    held: Mutex<HashMap<NodeRef, Held>>,
}

/// Let go when dropped.
#[derive(Debug)]
struct Held {
    addr: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Lifelines {
    pub(crate) fn new(bound: Arc<Bound>) -> (Self, mpsc::Receiver<Sign>) {
        let (signs, told) = mpsc::channel(SIGNS_MAX);
        (Self { bound, signs, held: Mutex::default() }, told)
    }

    /// Holds lifelines to exactly these from now on. One that has been told dead is not dialled again
    /// while it stays among them; what was told of one before it was left out may still arrive.
    pub(crate) fn watch(&self, nodes: impl IntoIterator<Item = (NodeRef, SocketAddr)>) {
        let wanted: HashMap<_, _> = nodes.into_iter().collect();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|node, held| wanted.get(node) == Some(&held.addr));
        for (node, addr) in wanted {
            held.entry(node).or_insert_with(|| {
                let task = tokio::spawn(hold(self.bound.clone(), node, addr, self.signs.clone()));
                Held { addr, _task: AbortOnDropHandle::new(task) }
            });
        }
    }
}

/// The port's TCP half. The socket stays open as long as this lives, whether or not anybody accepts:
/// that it is closed is proof of death.
#[derive(Debug)]
pub(super) struct LifelinePort {
    listener: std::net::TcpListener,
}

impl LifelinePort {
    pub(super) fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }
}

/// What lifelines are accepted and dialled with.
pub(super) fn tls(secrets: &[ClusterSecret]) -> io::Result<(TlsAcceptor, TlsConnector)> {
    let (server, client) = identity::tls(secrets, CLUSTER, ALPN).map_err(io::Error::other)?;
    Ok((Arc::new(server).into(), Arc::new(client).into()))
}

/// A lifeline that this node holds.
pub(crate) struct Lifeline {
    stream: TlsStream<TcpStream>,
    proof: Proof,
}

/// The key that the other end has shown.
fn shown_on(tls: &CommonState) -> PublicKey {
    PublicKey::shown(tls.peer_certificates())
}

/// Answers those who hold a lifeline to this node, until it is dropped.
///
/// # Errors
/// If the socket can't be used at all.
pub(crate) async fn accept_lifelines(bound: Arc<Bound>) -> io::Result<()> {
    let listener = TcpListener::from_std(bound.lifeline.listener.try_clone()?)?;
    let unproved = Arc::new(Semaphore::new(UNPROVED_MAX));
    let mut answered = JoinSet::new();
    loop {
        let permit = unproved.clone().acquire_owned().await.map_err(io::Error::other)?;
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, from)) => {
                    answered.spawn(answer(bound.clone(), tcp, from, permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a lifeline");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
            Some(_) = answered.join_next() => {}
        }
    }
}

/// Greets and stays, until the other end goes, has proved itself by a secret that is removed, or this node
/// becomes another.
async fn answer(bound: Arc<Bound>, tcp: TcpStream, from: SocketAddr, unproved: OwnedSemaphorePermit) {
    prepare(&tcp);
    let (greeting, mut changes) = bound.greeting_until_changed();
    let greeted = async {
        let mut stream = bound.credentials().acceptor.accept(tcp).await.inspect_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                bound.strangers.note(At::Lifeline, from); // TLS's own word, not the network's
            }
        })?;
        let node = greet(&mut stream, &greeting).await?;
        io::Result::Ok((stream, node))
    };
    let (mut stream, node) = match tokio::time::timeout(GREETING_TIME, greeted).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "no lifeline"),
        Err(_) => return tracing::debug!(%from, "no lifeline: silent"),
    };
    drop(unproved);
    tracing::debug!(%from, %node, "a lifeline");
    let (peer, credentials) = (shown_on(stream.get_ref().1), bound.credentials_until_changed());
    tokio::select! {
        () = end_of(&mut stream) => {}
        () = distrusted(credentials, &peer) => tracing::info!(%from, %node, "a lifeline of a removed secret"),
        _ = changes.changed() => {}
    }
}

/// Holds the lifeline to one process for as long as that is not proved dead.
async fn hold(bound: Arc<Bound>, node: NodeRef, addr: SocketAddr, signs: mpsc::Sender<Sign>) {
    let mut case = Case::of(node);
    loop {
        tokio::time::sleep(case.pause()).await;
        let found = reach(&bound, addr).await;
        match case.judge(found, Instant::now()) {
            Verdict::Stands(lifeline) => {
                let since = Instant::now();
                if signs.send(Sign::Alive(node)).await.is_err() {
                    return; // nobody listens any more
                }
                stand(&bound, node, addr, lifeline).await;
                let _ = signs.send(Sign::Ended(node)).await;
                tracing::debug!(%node, %addr, "a lifeline has ended");
                case.ended(since.elapsed());
            }
            Verdict::Gone => {
                let _ = signs.send(Sign::Dead(node)).await;
                return;
            }
            Verdict::Unproved => {}
        }
    }
}

/// Returns when the lifeline has ended, and there is none in its place.
async fn stand(bound: &Bound, node: NodeRef, addr: SocketAddr, mut lifeline: Lifeline) {
    loop {
        let Lifeline { stream, proof } = &mut lifeline;
        lifeline = tokio::select! {
            () = end_of(stream) => return,
            () = distrusted(bound.credentials_until_changed(), &proof.peer) => return,
            next = renewed(bound, node, addr, proof) => next,
        };
        tracing::debug!(%node, %addr, "a lifeline by the secrets of now");
    }
}

/// The lifeline that takes the place of one that the secrets have changed under.
async fn renewed(bound: &Bound, node: NodeRef, addr: SocketAddr, proof: &Proof) -> Lifeline {
    let mut credentials = bound.credentials_until_changed();
    loop {
        if credentials.wait_for(|now| now.keys.judge(proof) != Trust::Current).await.is_err() {
            return std::future::pending().await; // the endpoint itself is gone
        }
        if let Found::Greeted(who, lifeline) = reach(bound, addr).await
            && who == node
        {
            return lifeline;
        }
        // The other end may not accept it yet. What stands is as good as it was.
        tokio::time::sleep(PAUSE_MAX).await;
    }
}

impl Peers {
    /// Who takes connections at an address. That they are refused says that nobody is there now; it is
    /// no proof against anybody.
    pub(crate) async fn who_is_at(&self, addr: SocketAddr) -> Found<()> {
        match reach(&self.bound, addr).await {
            Found::Greeted(node, _) => Found::Greeted(node, ()),
            Found::Refused => Found::Refused,
            Found::Nothing => Found::Nothing,
        }
    }
}

/// What one attempt has found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<L> {
    Refused,
    Greeted(NodeRef, L),
    /// Anything that a process which lives may be the reason of, too.
    Nothing,
}

#[derive(Debug, PartialEq)]
enum Verdict<L> {
    Stands(L),
    Gone,
    Unproved,
}

/// What there is against one process.
#[derive(Debug)]
struct Case {
    node: NodeRef,
    /// It has been reached: what refuses now did not before.
    has_stood: bool,
    /// When the first of an unbroken row of refusals came.
    refused: Option<Instant>,
    /// Attempts since it was last known to be well.
    attempts: u32,
}

impl Case {
    fn of(node: NodeRef) -> Self {
        Self { node, has_stood: false, refused: None, attempts: 0 }
    }

    fn judge<L>(&mut self, found: Found<L>, at: Instant) -> Verdict<L> {
        self.attempts = self.attempts.saturating_add(1);
        match found {
            Found::Refused => {
                let first = *self.refused.get_or_insert(at);
                let is_proof = self.has_stood && at - first >= REFUSALS_APART;
                return if is_proof { Verdict::Gone } else { Verdict::Unproved };
            }
            Found::Greeted(who, lifeline) if who == self.node => {
                (self.refused, self.has_stood) = (None, true);
                return Verdict::Stands(lifeline);
            }
            Found::Greeted(who, _) if who.tag == self.node.tag && who.inc > self.node.inc => {
                return Verdict::Gone;
            }
            // Another node, or an earlier life of this one: the address leads astray, and proves nothing.
            Found::Greeted(..) | Found::Nothing => {}
        }
        self.refused = None;
        Verdict::Unproved
    }

    /// The lifeline has ended after it had stood for so long.
    fn ended(&mut self, stood: Duration) {
        if stood >= STOOD_LONG {
            self.attempts = 0;
        }
    }

    /// How long to wait before the next attempt.
    fn pause(&self) -> Duration {
        let attempts = self.attempts as usize;
        match FIRST_PAUSES_MS.get(attempts) {
            Some(ms) => Duration::from_millis(*ms),
            None => PAUSE_MAX.min(PAUSE_MIN * (1 << (attempts - FIRST_PAUSES_MS.len()).min(4))),
        }
    }
}

/// One attempt to get a lifeline to whoever is at `addr`.
async fn reach(bound: &Bound, addr: SocketAddr) -> Found<Lifeline> {
    let reaching = async {
        let tcp = match TcpStream::connect(addr).await {
            Ok(tcp) => tcp,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(Found::Refused),
            Err(error) => return Err(error),
        };
        prepare(&tcp);
        let name = ServerName::try_from(SERVER_NAME).expect("a plain name");
        let credentials = bound.credentials();
        let mut stream = credentials.connector.connect(name, tcp).await?;
        let node = greet(&mut stream, &bound.greeting()).await?;
        let proof = Proof { own: credentials.keys.own().clone(), peer: shown_on(stream.get_ref().1) };
        Ok(Found::Greeted(node, Lifeline { stream, proof }))
    };
    match tokio::time::timeout(GREETING_TIME, reaching).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(%addr, %error, "no lifeline");
            Found::Nothing
        }
        Err(_) => Found::Nothing,
    }
}

/// Both ends say who they are; here the other end's word.
async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), own: &Greeting) -> io::Result<NodeRef> {
    let Greeting { name, node, advertise } = own.clone();
    let own = codec::frame(&Hello { lane: Lane::Control, name, node, advertise });
    stream.write_all(&own.map_err(io::Error::other)?).await?;
    stream.flush().await?;
    let mut head = [0; FRAME_HEAD_LEN];
    stream.read_exact(&mut head).await?;
    let head = FrameHead::read(head).map_err(io::Error::other)?;
    let mut payload = vec![0; head.len];
    stream.read_exact(&mut payload).await?;
    Ok(codec::payload::<Hello>(head.kind, &payload).map_err(io::Error::other)?.node)
}

/// Returns when the other end has closed, or is known to be out of reach. Nothing is ever sent on a
/// lifeline; a later version's words are passed over.
async fn end_of(stream: &mut (impl AsyncRead + Unpin)) {
    let mut unasked = [0; 64];
    while stream.read(&mut unasked).await.is_ok_and(|len| len > 0) {}
}

fn prepare(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&keepalive.with_retries(PROBES));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::{Incarnation, Tag};
    use tokio::{sync::mpsc::error::TryRecvError, task::JoinHandle, time::timeout};

    fn secrets(seeds: &[u8]) -> Vec<ClusterSecret> {
        seeds.iter().map(|seed| ClusterSecret::from_entropy([*seed; 32])).collect()
    }

    fn life(inc: u64) -> NodeRef {
        NodeRef { tag: Tag(7), inc: Incarnation(inc) }
    }

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn greet_as(bound: &Bound, node: NodeRef) {
        let name = "a".parse().expect("a plain name");
        bound.greet_as(Greeting { name, node, advertise: loopback() });
    }

    /// Somebody's port, not yet accepting.
    fn bind(secret: u8, node: NodeRef) -> (Arc<Bound>, SocketAddr) {
        let name = "a".parse().expect("a plain name");
        let (bound, _inbox) = Bound::bind(loopback(), &secrets(&[secret]), &name).expect("a free port");
        greet_as(&bound, node);
        let addr = bound.local_addr().expect("a bound socket");
        (Arc::new(bound), addr)
    }

    /// A process that answers lifelines, until [`kill`].
    fn start(node: NodeRef) -> (Arc<Bound>, SocketAddr, JoinHandle<io::Result<()>>) {
        let (bound, addr) = bind(1, node);
        let accepting = tokio::spawn(accept_lifelines(bound.clone()));
        (bound, addr, accepting)
    }

    /// All that the system does to the sockets of a process that is killed.
    async fn kill(bound: Arc<Bound>, accepting: JoinHandle<io::Result<()>>) {
        accepting.abort();
        assert!(accepting.await.expect_err("it does not end by itself").is_cancelled());
        drop(Arc::into_inner(bound).expect("the last one"));
    }

    fn watcher() -> (Lifelines, mpsc::Receiver<Sign>) {
        let (bound, _) = bind(1, NodeRef { tag: Tag(1), inc: Incarnation(1) });
        Lifelines::new(bound)
    }

    /// Far beyond what it takes, so that a busy machine fails no test.
    /// The next sign of what is so, and not only of what may be.
    async fn next(signs: &mut mpsc::Receiver<Sign>) -> Option<Sign> {
        loop {
            match timeout(Duration::from_secs(20), signs.recv()).await.expect("a sign") {
                Some(Sign::Ended(_)) => {}
                sign => return sign,
            }
        }
    }

    #[test]
    fn one_refusal_is_no_proof_and_two_at_once_are_none() {
        let (mut case, start) = (Case::of(life(5)), Instant::now());
        let ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(case.judge::<()>(Found::Refused, ms(0)), Verdict::Unproved);
        assert_eq!(case.judge::<()>(Found::Refused, ms(9)), Verdict::Unproved);
        // A silence in between, and they count anew.
        assert_eq!(case.judge::<()>(Found::Nothing, ms(15)), Verdict::Unproved);
        assert_eq!(case.judge::<()>(Found::Refused, ms(20)), Verdict::Unproved);
        assert_eq!(case.judge(Found::Greeted(life(5), ()), ms(40)), Verdict::Stands(()));
        assert_eq!(case.judge::<()>(Found::Refused, ms(60)), Verdict::Unproved);
        assert_eq!(case.judge::<()>(Found::Refused, ms(70)), Verdict::Gone);
    }

    #[test]
    fn only_a_later_life_of_the_same_node_is_proof() {
        let now = Instant::now();
        for (who, verdict) in [
            (life(5), Verdict::Stands(())),
            (life(6), Verdict::Gone),
            (life(4), Verdict::Unproved),
            (NodeRef { tag: Tag(8), inc: Incarnation(6) }, Verdict::Unproved),
        ] {
            assert_eq!(Case::of(life(5)).judge(Found::Greeted(who, ()), now), verdict, "{who}");
        }
        for _ in 0..100 {
            assert_eq!(Case::of(life(5)).judge::<()>(Found::Nothing, now), Verdict::Unproved);
        }
    }

    #[test]
    fn pauses_grow_until_a_lifeline_has_stood_for_a_while() {
        let mut case = Case::of(life(5));
        let pauses: Vec<_> = (0..10)
            .map(|_| {
                let pause = case.pause().as_millis();
                case.judge::<()>(Found::Nothing, Instant::now());
                pause
            })
            .collect();
        assert_eq!(pauses, [0, 11, 20, 40, 100, 200, 400, 800, 1_000, 1_000]);
        case.ended(Duration::from_millis(999));
        assert_eq!(case.pause(), PAUSE_MAX);
        case.ended(Duration::from_secs(1));
        assert_eq!(case.pause(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_process_that_ends_is_dead() {
        let (lifelines, mut signs) = watcher();
        let (bound, addr, accepting) = start(life(5));
        lifelines.watch([(life(5), addr)]);
        assert_eq!(next(&mut signs).await, Some(Sign::Alive(life(5))));
        kill(bound, accepting).await;
        assert_eq!(next(&mut signs).await, Some(Sign::Dead(life(5))));
    }

    #[tokio::test]
    async fn a_port_that_never_answered_proves_nothing() {
        let (lifelines, mut signs) = watcher();
        let (bound, addr, accepting) = start(life(5));
        kill(bound, accepting).await;
        lifelines.watch([(life(5), addr)]);
        assert!(timeout(PAUSE_MAX, signs.recv()).await.is_err(), "it may be open to QUIC alone");
    }

    #[tokio::test]
    async fn a_port_that_is_open_proves_nothing() {
        let (lifelines, mut signs) = watcher();
        let (_bound, addr) = bind(1, life(5));
        lifelines.watch([(life(5), addr)]);
        assert!(timeout(GREETING_TIME + PAUSE_MAX, signs.recv()).await.is_err(), "silence is not proof");
    }

    #[tokio::test]
    async fn a_process_that_accepts_late_is_alive() {
        let (lifelines, mut signs) = watcher();
        let (bound, addr) = bind(1, life(5));
        lifelines.watch([(life(5), addr)]);
        let _accepting = tokio::spawn(accept_lifelines(bound));
        assert_eq!(next(&mut signs).await, Some(Sign::Alive(life(5))));
    }

    #[tokio::test]
    async fn a_node_reborn_in_the_same_process_is_dead_under_its_old_incarnation() {
        let (lifelines, mut signs) = watcher();
        let (bound, addr, _accepting) = start(life(5));
        lifelines.watch([(life(5), addr)]);
        assert_eq!(next(&mut signs).await, Some(Sign::Alive(life(5))));
        greet_as(&bound, life(6));
        assert_eq!(next(&mut signs).await, Some(Sign::Dead(life(5))));
        lifelines.watch([(life(6), addr)]);
        assert_eq!(next(&mut signs).await, Some(Sign::Alive(life(6))));
    }

    #[tokio::test]
    async fn a_lifeline_that_is_not_wanted_any_more_is_closed() {
        let (lifelines, mut signs) = watcher();
        let (bound, addr, accepting) = start(life(5));
        lifelines.watch([(life(5), addr)]);
        assert_eq!(next(&mut signs).await, Some(Sign::Alive(life(5))));
        lifelines.watch([]);
        kill(bound, accepting).await;
        drop(lifelines);
        assert_eq!(next(&mut signs).await, None);
    }

    #[tokio::test]
    async fn a_stranger_at_the_address_proves_nothing() {
        let (lifelines, mut signs) = watcher();
        let (stranger, addr) = bind(2, life(6));
        let listener =
            stranger.lifeline.listener.try_clone().and_then(TcpListener::from_std).expect("a socket");
        lifelines.watch([(life(5), addr)]);
        for _ in 0..4 {
            let (tcp, _) = listener.accept().await.expect("an attempt");
            assert!(stranger.credentials().acceptor.accept(tcp).await.is_err(), "it must not be trusted");
        }
        assert_eq!(signs.try_recv(), Err(TryRecvError::Empty));
    }

    #[tokio::test]
    async fn a_stranger_who_calls_is_not_greeted_and_one_who_is_silent_is_not_kept() {
        let (_bound, addr, _accepting) = start(life(5));
        // It would trust this node, but has no more than another secret to show.
        let (stranger, _) = bind(2, life(6));
        let (_, trusting) = tls(&secrets(&[2, 1])).expect("two secrets");
        let tcp = TcpStream::connect(addr).await.expect("an open port");
        let name = ServerName::try_from(SERVER_NAME).expect("a plain name");
        let mut stream = trusting.connect(name, tcp).await.expect("the node is known to it");
        greet(&mut stream, &stranger.greeting()).await.expect_err("no greeting for a stranger");

        let mut silent = TcpStream::connect(addr).await.expect("an open port");
        let closed = timeout(Duration::from_secs(20), silent.read(&mut [0; 1])).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    }

    #[tokio::test]
    async fn strangers_who_are_many_and_silent_do_not_keep_peers_out() {
        let (lifelines, mut signs) = watcher();
        let (_bound, addr, _accepting) = start(life(5));
        let mut silent = Vec::new();
        for _ in 0..UNPROVED_MAX * 2 {
            silent.push(TcpStream::connect(addr).await.expect("an open port"));
        }
        lifelines.watch([(life(5), addr)]);
        assert_eq!(next(&mut signs).await, Some(Sign::Alive(life(5))));
    }

    #[tokio::test]
    async fn a_port_can_be_bound_again_at_once() {
        let (lifelines, mut signs) = watcher();
        let (bound, addr, accepting) = start(life(5));
        lifelines.watch([(life(5), addr)]);
        assert_eq!(next(&mut signs).await, Some(Sign::Alive(life(5))));
        kill(bound, accepting).await;
        // The UDP half is quinn's to let go of, a moment later.
        std::net::TcpListener::bind(addr).expect("free, whatever its connections still wait for");
    }
}
