//! Control datagrams: short sealed messages on QUIC's own UDP socket. QUIC would hold them back under
//! congestion and lose them with their connection; a sign of life may suffer neither.
//!
//! The first byte tells the two apart (RFC 9443): every QUIC packet of a peer has 0x40 set, no control
//! datagram has. `version and key id (1) | nonce (12) | sealed payload`, with AES-256-GCM under a key
//! of the cluster secret. What does not open is dropped without a byte in answer. What the payload
//! means is the caller's, and so is telling an old one from a new one: it may be lost, come twice, or
//! be played back by somebody who heard it.
//!
//! Nonces are random. Ten nodes that send 2,000 a second between them come to 2^36 in a year, of which
//! two share a nonce with a probability of 2^-25; rotating the secret starts anew.

use super::endpoint::DATAGRAMS_AT_ONCE;
use super::link::Peers;
use super::strangers::{At, Strangers};
use crate::config::CLUSTER;
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use proto::id::ClusterSecret;
use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use ring::{
    aead,
    rand::{SecureRandom, SystemRandom},
};
use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::sync::mpsc;

/// With head and tag this stays below the 1,200 bytes that every path of QUIC's carries unbroken.
pub(crate) const CONTROL_LEN_MAX: usize = 1_100;
/// Some seconds of a hundred peers' beats; beyond that older news is worth nothing.
const INBOX_LEN: usize = 1_024;

/// The bit that is set in the first byte of QUIC packets and clear in that of control datagrams.
const QUIC_BIT: u8 = 0x40;
/// In the upper half of the first byte, so that its 0x40 stays clear.
const VERSION: u8 = 1;
const NONCE_LEN: usize = aead::NONCE_LEN;
const HEAD_LEN: usize = 1 + NONCE_LEN;

/// What peers have sent, with the address that it came from.
pub(crate) type ControlInbox = mpsc::Receiver<(SocketAddr, Bytes)>;

/// The payload is longer than a control datagram carries; nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControlTooLong {
    pub(crate) len: usize,
}

impl fmt::Display for ControlTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a control message of {} bytes, at most {CONTROL_LEN_MAX} are sent", self.len)
    }
}

impl std::error::Error for ControlTooLong {}

impl Peers {
    /// Sends a datagram, if that can be done without waiting. It needs no connection and no runtime.
    ///
    /// # Errors
    /// If the payload is too long. Whether a datagram arrives nobody knows.
    pub(crate) fn send_control(&self, to: SocketAddr, payload: &[u8]) -> Result<(), ControlTooLong> {
        self.bound.control.send(to, payload)
    }
}

/// The sending side of the socket.
#[derive(Debug)]
pub(super) struct Control {
    /// A handle of its own on the shared socket: when quinn has filled the socket's buffer, the
    /// runtime takes it for full until it is told otherwise.
    socket: UdpSocket,
    is_ipv6: bool,
    keys: Arc<SharedKeys>,
    pub(super) traffic: Traffic,
}

/// Bytes that have passed the socket, control datagrams among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
}

impl Control {
    /// One socket for control datagrams and for QUIC.
    pub(super) fn share(
        socket: UdpSocket,
        secrets: &[ClusterSecret],
        strangers: Arc<Strangers>,
    ) -> io::Result<(Self, Arc<dyn AsyncUdpSocket>, ControlInbox)> {
        socket.set_nonblocking(true)?;
        let keys = Arc::new(SharedKeys(RwLock::new(ControlKeys::new(secrets))));
        let is_ipv6 = socket.local_addr()?.is_ipv6();
        let own = socket.try_clone()?;
        let (inbox, received) = mpsc::channel(INBOX_LEN);
        let quic = TokioRuntime.wrap_udp_socket(socket)?;
        let traffic = Traffic::default();
        let quic =
            Arc::new(QuicSocket { quic, keys: keys.clone(), inbox, strangers, traffic: traffic.clone() });
        Ok((Self { socket: own, is_ipv6, keys, traffic }, quic, received))
    }

    fn send(&self, to: SocketAddr, payload: &[u8]) -> Result<(), ControlTooLong> {
        let datagram = self.keys.now().seal(payload)?;
        let to = match to.ip() {
            IpAddr::V4(ip) if self.is_ipv6 => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            IpAddr::V4(_) | IpAddr::V6(_) => to,
        };
        // A full buffer or an unreachable network drops it, as any hop further on might.
        if let Ok(len) = self.socket.send_to(&datagram, to) {
            self.traffic.sent.inc_by(len as u64);
        }
        Ok(())
    }

    pub(super) fn take_secrets(&self, secrets: &[ClusterSecret]) {
        self.keys.replace(ControlKeys::new(secrets));
    }

    pub(super) fn opened(&self) -> Vec<u64> {
        self.keys.now().opened.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

/// The socket as quinn sees it: without the control datagrams.
#[derive(Debug)]
struct QuicSocket {
    quic: Arc<dyn AsyncUdpSocket>,
    keys: Arc<SharedKeys>,
    inbox: mpsc::Sender<(SocketAddr, Bytes)>,
    strangers: Arc<Strangers>,
    traffic: Traffic,
}

impl QuicSocket {
    fn receive(&self, from: SocketAddr, datagram: &mut [u8]) {
        // As peers write it, whichever family the socket is of.
        let from = match from.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::new(ip.into(), from.port()),
            IpAddr::V6(_) => from,
        };
        let opened = self.keys.now().open(datagram);
        match opened {
            // A full inbox drops it, as a network would.
            Some(payload) => drop(self.inbox.try_send((from, payload))),
            None => {
                tracing::debug!(%from, "a datagram that is neither QUIC nor a peer's");
                self.strangers.note(At::Datagram, from);
            }
        }
    }
}

impl AsyncUdpSocket for QuicSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.quic.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.quic.try_send(transmit)?;
        self.traffic.sent.inc_by(transmit.contents.len() as u64);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let filled = ready!(self.quic.poll_recv(cx, bufs, meta))?;
        for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(filled) {
            self.traffic.received.inc_by(meta.len as u64);
            let from = meta.addr;
            take_out(buffer, meta, |datagram| self.receive(from, datagram));
        }
        // Buffers that are empty now count too: quinn bounds its time by what it has received.
        Poll::Ready(Ok(filled))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.quic.max_transmit_segments().min(DATAGRAMS_AT_ONCE.into())
    }

    fn max_receive_segments(&self) -> usize {
        self.quic.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.quic.may_fragment()
    }
}

/// Takes the control datagrams out of a buffer, which the system may have filled with several
/// datagrams of one sender (GRO): each `stride` long, the last one perhaps shorter. What stays moves
/// together and keeps that form, since whatever is not last is of full length.
fn take_out(buffer: &mut [u8], meta: &mut RecvMeta, mut take: impl FnMut(&mut [u8])) {
    let stride = meta.stride.max(1);
    // Nearly always all of it is QUIC's, and that costs a look at each packet's first byte.
    if buffer[..meta.len].chunks(stride).all(is_quic) {
        return;
    }
    let (mut at, mut kept) = (0, 0);
    while at < meta.len {
        let end = meta.len.min(at + stride);
        if is_quic(&buffer[at..end]) {
            buffer.copy_within(at..end, kept);
            kept += end - at;
        } else {
            take(&mut buffer[at..end]);
        }
        at = end;
    }
    meta.len = kept;
}

fn is_quic(datagram: &[u8]) -> bool {
    datagram.first().is_none_or(|first| first & QUIC_BIT != 0)
}

/// The keys of now. Readers never wait for each other, and a change takes no longer than an assignment.
#[derive(Debug)]
struct SharedKeys(RwLock<ControlKeys>);

impl SharedKeys {
    fn now(&self) -> RwLockReadGuard<'_, ControlKeys> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, keys: ControlKeys) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}

/// The keys that seal and open datagrams: the first seals, all open.
struct ControlKeys {
    keys: Vec<(u8, aead::LessSafeKey)>,
    /// How many each has opened: none of the first, which is not counted.
    opened: Vec<AtomicU64>,
    dice: SystemRandom,
}

impl fmt::Debug for ControlKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControlKeys({})", self.keys.len())
    }
}

impl ControlKeys {
    fn new(secrets: &[ClusterSecret]) -> Self {
        let derive = |secret: &ClusterSecret| {
            let bytes = secret.derive("control", CLUSTER);
            // Four bits name the key, so that most of what is garbage is dropped without being tried.
            let kid = secret.derive("control-kid", CLUSTER)[0] & 0x0f;
            let key = aead::UnboundKey::new(&aead::AES_256_GCM, &bytes).expect("AES-256 takes 32 bytes");
            (VERSION << 4 | kid, aead::LessSafeKey::new(key))
        };
        let opened = secrets.iter().map(|_| AtomicU64::new(0)).collect();
        Self { keys: secrets.iter().map(derive).collect(), opened, dice: SystemRandom::new() }
    }

    fn seal(&self, payload: &[u8]) -> Result<Vec<u8>, ControlTooLong> {
        if payload.len() > CONTROL_LEN_MAX {
            return Err(ControlTooLong { len: payload.len() });
        }
        let (ver_kid, key) = &self.keys[0];
        let mut nonce = [0; NONCE_LEN];
        self.dice.fill(&mut nonce).expect("the system's random source works after start-up");
        let mut datagram = Vec::with_capacity(HEAD_LEN + payload.len() + key.algorithm().tag_len());
        datagram.push(*ver_kid);
        datagram.extend_from_slice(&nonce);
        datagram.extend_from_slice(payload);
        let tag = key
            .seal_in_place_separate_tag(iv(nonce), aead::Aad::from([*ver_kid]), &mut datagram[HEAD_LEN..])
            .expect("a datagram is far below AES-GCM's limit of 64 GiB");
        datagram.extend_from_slice(tag.as_ref());
        Ok(datagram)
    }

    /// The payload. The datagram's bytes are spoilt.
    fn open(&self, datagram: &mut [u8]) -> Option<Bytes> {
        let (head, sealed) = datagram.split_at_mut_checked(HEAD_LEN)?;
        let ver_kid = head[0];
        let nonce = *head.last_chunk::<NONCE_LEN>()?;
        let mut candidates = self.keys.iter().enumerate().filter(|(_, (kid, _))| *kid == ver_kid).peekable();
        while let Some((at, (_, key))) = candidates.next() {
            let aad = aead::Aad::from([ver_kid]);
            let opened = match candidates.peek() {
                None => key.open_in_place(iv(nonce), aad, sealed).map(|plain| Bytes::copy_from_slice(plain)),
                // Opening in place spoils the bytes when the key is wrong, so all but the last
                // candidate work on a copy. Two secrets share four bits once in 16 rotations.
                Some(_) => {
                    let mut copy = sealed.to_vec();
                    key.open_in_place(iv(nonce), aad, &mut copy).map(|plain| Bytes::copy_from_slice(plain))
                }
            };
            if let Ok(payload) = opened {
                if at > 0 {
                    self.opened[at].fetch_add(1, Ordering::Relaxed);
                }
                return Some(payload);
            }
        }
        None
    }
}

fn iv(nonce: [u8; NONCE_LEN]) -> aead::Nonce {
    aead::Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Bound, identity::SERVER_NAME};
    use std::time::Duration;
    use tokio::time::timeout;

    fn secrets(seeds: &[u8]) -> Vec<ClusterSecret> {
        seeds.iter().map(|seed| ClusterSecret::from_entropy([*seed; 32])).collect()
    }

    fn keys(seeds: &[u8]) -> ControlKeys {
        ControlKeys::new(&secrets(seeds))
    }

    fn bind(name: &str) -> (Arc<Peers>, SocketAddr, ControlInbox) {
        let at = SocketAddr::from(([127, 0, 0, 1], 0));
        let name = name.parse().expect("a plain name");
        let (bound, inbox) = Bound::bind(at, &secrets(&[1]), &name).expect("a free port");
        let addr = bound.local_addr().expect("a bound socket");
        (Peers::new(Arc::new(bound)), addr, inbox)
    }

    #[test]
    fn what_one_node_seals_another_opens() {
        for len in [0, 1, 100, CONTROL_LEN_MAX] {
            let payload = vec![7; len];
            let mut datagram = keys(&[1]).seal(&payload).expect("short enough");
            assert!(!is_quic(&datagram));
            assert!(datagram.len() < 1_200, "{}", datagram.len());
            assert_eq!(keys(&[1]).open(&mut datagram), Some(Bytes::from(payload)));
        }
        let len = CONTROL_LEN_MAX + 1;
        assert_eq!(keys(&[1]).seal(&vec![0; len]), Err(ControlTooLong { len }));
    }

    #[test]
    fn every_altered_bit_and_every_truncation_is_refused() {
        let keys = keys(&[1]);
        let datagram = keys.seal(b"I live").expect("short enough");
        for bit in 0..datagram.len() * 8 {
            let mut altered = datagram.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys.open(&mut altered), None, "bit {bit}");
        }
        for len in 0..datagram.len() {
            assert_eq!(keys.open(&mut datagram[..len].to_vec()), None, "cut to {len}");
        }
    }

    #[test]
    fn a_rotated_secret_still_opens_and_a_foreign_one_never() {
        for new in 0..=255u8 {
            let old = keys(&[1]).seal(b"I live").expect("short enough");
            let opened = keys(&[new, 1]).open(&mut old.clone());
            assert!(opened.is_some(), "rotating to {new}, whether or not the key ids collide");
            if new != 1 {
                assert_eq!(keys(&[new]).open(&mut old.clone()), None);
            }
        }
    }

    /// Every mixture of up to six segments, the last one of full length or shorter.
    #[test]
    fn control_datagrams_are_taken_out_of_a_buffer_of_several() {
        const STRIDE: usize = 5;
        for (count, last_len) in (1..=6).flat_map(|count| [(count, 1), (count, 3), (count, STRIDE)]) {
            for control in 0..1 << count {
                let is_control = |at: usize| control >> at & 1 == 1;
                let segment = |at: usize| {
                    let first = if is_control(at) { 0x10 } else { 0xc0 };
                    let mut bytes = vec![first + u8::try_from(at).expect("at most five"); STRIDE];
                    bytes.truncate(if at + 1 == count { last_len } else { STRIDE });
                    bytes
                };
                let mut buffer = (0..count).flat_map(segment).collect::<Vec<_>>();
                let mut meta = RecvMeta { len: buffer.len(), stride: STRIDE, ..RecvMeta::default() };
                buffer.extend_from_slice(b"of an earlier, longer read");
                let mut taken = Vec::new();
                take_out(&mut buffer, &mut meta, |datagram| taken.push(datagram.to_vec()));
                let wanted = |kind| (0..count).filter(move |at| is_control(*at) == kind).map(segment);
                assert_eq!(taken, wanted(true).collect::<Vec<_>>(), "{control:b} of {count}");
                assert_eq!(
                    buffer[..meta.len].chunks(STRIDE).collect::<Vec<_>>(),
                    wanted(false).collect::<Vec<_>>()
                );
                assert_eq!(meta.stride, STRIDE);
            }
        }
    }

    #[test]
    fn an_empty_datagram_is_left_alone() {
        let mut meta = RecvMeta { len: 0, stride: 0, ..RecvMeta::default() };
        take_out(&mut [0; 8], &mut meta, |_| panic!("nothing is there"));
        assert_eq!(meta.len, 0);
    }

    /// Sends each number until it has come back, since UDP may lose some of them.
    async fn ask_and_answer(asking: &Peers, to: SocketAddr, answers: &mut ControlInbox, numbers: u32) {
        for number in 0..numbers {
            let number = number.to_be_bytes();
            let answered = async {
                while let Some((from, payload)) = answers.recv().await {
                    assert_eq!(from, to);
                    if payload == number[..] {
                        return;
                    }
                }
            };
            let mut answered = std::pin::pin!(answered);
            loop {
                asking.send_control(to, &number).expect("four bytes");
                if timeout(Duration::from_millis(50), &mut answered).await.is_ok() {
                    break;
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn quic_and_control_datagrams_share_a_socket_and_garbage_harms_neither() {
        const LEN: usize = 4 * 1024 * 1024;
        let ((a, a_addr, mut a_inbox), (b, b_addr, mut b_inbox)) = (bind("a"), bind("b"));
        let echo = b.clone();
        tokio::spawn(async move {
            let connection = echo.bound.endpoint.accept().await.expect("an open endpoint").await;
            let connection = connection.expect("a peer");
            let (mut send, mut recv) = connection.accept_bi().await.expect("a stream");
            while let Some(chunk) = recv.read_chunk(usize::MAX, true).await.expect("a whole stream") {
                send.write_chunk(chunk.bytes).await.expect("a reader");
            }
            send.finish().expect("an open stream");
            connection.closed().await
        });
        let answers = tokio::spawn(async move {
            while let Some((from, payload)) = b_inbox.recv().await {
                assert_eq!((from, payload.len()), (a_addr, 4), "nobody else of the cluster has spoken");
                b.send_control(from, &payload).expect("as short as it came");
            }
        });
        let garbage = tokio::spawn(async move {
            let stranger = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            stranger.set_nonblocking(true).expect("a socket");
            let sealed = keys(&[9]).seal(b"I live").expect("short enough");
            loop {
                for garbage in [&[][..], &[0], &[0x10; 40], &[0x9f; 1_400], &sealed] {
                    for to in [a_addr, b_addr] {
                        let _ = stranger.send_to(garbage, to);
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });

        let client = a.bound.credentials().client.clone();
        let connecting = a.bound.endpoint.connect_with(client, b_addr, SERVER_NAME).expect("a good address");
        let connection = connecting.await.expect("a peer");
        let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
        let bytes: Vec<u8> = (0..LEN).map(|at| (at / 7 % 251) as u8).collect();
        let writing = async {
            send.write_all(&bytes).await.expect("a reader");
            send.finish().expect("an open stream");
        };
        let asking = ask_and_answer(&a, b_addr, &mut a_inbox, 500);
        let ((), back, ()) = tokio::join!(writing, recv.read_to_end(LEN), asking);
        assert!(back.expect("the whole echo") == bytes, "the stream came back altered");
        assert!(connection.close_reason().is_none());
        for task in [answers, garbage] {
            assert!(!task.is_finished(), "it has not ended by a failed assertion");
            task.abort();
        }
    }

    #[tokio::test]
    async fn a_socket_of_both_families_speaks_to_either() {
        let name = "a".parse().expect("a plain name");
        let any = SocketAddr::new(IpAddr::from([0u16; 8]), 0);
        let Ok((bound, mut inbox)) = Bound::bind(any, &secrets(&[1]), &name) else { return }; // no IPv6 here
        let port = bound.local_addr().expect("a bound socket").port();
        let (peers, (b, b_addr, mut b_inbox)) = (Peers::new(Arc::new(bound)), bind("b"));
        let a_addr = SocketAddr::from(([127, 0, 0, 1], port));
        peers.send_control(b_addr, b"to b").expect("short");
        assert_eq!(b_inbox.recv().await, Some((a_addr, Bytes::from("to b"))));
        b.send_control(a_addr, b"to a").expect("short");
        assert_eq!(inbox.recv().await, Some((b_addr, Bytes::from("to a"))));
    }
}
