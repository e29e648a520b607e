//! All that a node sends to those who have not its secret, recorded as it stands on the wire: whoever knows its
//! address, its public key and the protocol, whoever has a secret that was removed, and whoever has heard
//! others prove theirs and says it again.

use super::*;
use crate::config::CLUSTER;
use crate::peer::scene::relay::{self, Recorded};
use crate::peer::scene::{Node, SOON, loopback, node, secrets, wait_until};
use crate::peer::{Bound, Lifelines, Peers, Sign};
use crate::peer::{endpoint, identity, identity::SERVER_NAME, lifeline};
use bytes::Bytes;
use proto::wire::{Lane, codec};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::ServerName;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout},
};

/// Longer than any time after which a node gives up on a stranger, or sends something once more.
const QUIET: Duration = Duration::from_millis(2_500);
/// It would be found in whatever tells of it in clear.
const NAME: &str = "a-name-that-is-nowhere-else";

/// A node whose cluster has removed the secret 1, and never had the secret 9.
fn rotated() -> Node {
    let node = node(NAME, &[1, 2]);
    for list in [[2, 1].as_slice(), &[2]] {
        node.bound.take_secrets(&secrets(list)).expect("good secrets");
    }
    node
}

/// What strangers show who know the node's public key: nothing, the key of another secret, that of a removed one.
fn strangers(alpn: &[u8]) -> [(&'static str, rustls::ClientConfig); 4] {
    let with = |seeds: &[u8]| identity::tls(&secrets(seeds), CLUSTER, alpn).expect("good secrets").1;
    [
        ("no key", identity::keyless(&secrets(&[2]), CLUSTER, alpn)),
        ("another secret's key", with(&[9, 2])),
        ("a removed secret's key", with(&[1, 2])),
        ("no idea of the node's key", with(&[9])),
    ]
}

/// Without a trace of what a node knows, in clear.
fn assert_tells_nothing(sent: &[u8]) {
    for word in [NAME, "gossip", "session", "rw1."] {
        assert!(!sent.windows(word.len()).any(|part| part == word.as_bytes()), "{word} in clear");
    }
}

#[tokio::test]
async fn a_stranger_over_quic_gets_a_handshake_and_not_one_frame_of_anything_else() {
    let mut node = rotated();
    for (what, tls) in strangers(endpoint::ALPN) {
        let before = node.bound.strangers.seen(At::Connection);
        let (tap, recorded) = relay::udp(node.addr).await;
        let client = QuicClientConfig::try_from(tls).expect("TLS 1.3");
        let stranger = quinn::Endpoint::client(loopback()).expect("a free port");
        let client = quinn::ClientConfig::new(Arc::new(client));
        let connecting = stranger.connect_with(client, tap, SERVER_NAME).expect("a good address");
        // Its own end has all that it needs for a connection, a moment before the node says no.
        if let Ok(connection) = timeout(SOON, connecting).await.expect("an end of it") {
            let asking = async {
                let (mut send, mut recv) = connection.open_bi().await.ok()?;
                send.write_all(&codec::frame(&node.greeting()).expect("short")).await.ok()?;
                send.finish().ok()?;
                recv.read_to_end(1 << 20).await.ok()
            };
            let everything = async { tokio::join!(asking, connection.accept_uni(), connection.accept_bi()) };
            let (answer, uni, bi) = timeout(SOON, everything).await.expect("an end of it");
            assert!(answer.is_none() && uni.is_err() && bi.is_err(), "{what}: {answer:?}");
            let got = connection.stats().frame_rx;
            let of_streams =
                got.stream + got.max_data + got.max_stream_data + got.stop_sending + got.reset_stream;
            assert_eq!(
                (of_streams, got.datagram, got.new_token, got.handshake_done),
                (0, 0, 0, 0),
                "{what}: {got:?}"
            );
            assert!(got.crypto > 0 && got.connection_close > 0, "{what}: {got:?}");
        } else {
            assert_eq!(what, "no idea of the node's key");
        }
        wait_until(&format!("{what} is seen"), || node.bound.strangers.seen(At::Connection) > before).await;
        assert_tells_nothing(&recorded.back());
        node.assert_untouched();
    }
}

#[tokio::test]
async fn a_stranger_over_tcp_gets_a_handshake_and_not_one_byte_after_it() {
    let mut node = rotated();
    for (what, tls) in strangers(lifeline::ALPN) {
        let before = node.bound.strangers.seen(At::Lifeline);
        let mut tcp = TcpStream::connect(node.addr).await.expect("an open port");
        let name = ServerName::try_from(SERVER_NAME).expect("a plain name");
        let mut tls = rustls::ClientConnection::new(Arc::new(tls), name).expect("a good config");
        let hello = codec::frame(&node.greeting()).expect("short");
        let mut got = Vec::new();
        // By hand, so that whatever the node says after the handshake is seen, and before it as well.
        let (mut has_spoken, mut tickets) = (false, 0);
        let talking = async {
            loop {
                if !tls.is_handshaking() && !has_spoken {
                    io::Write::write_all(&mut tls.writer(), &hello).expect("room");
                    has_spoken = true;
                }
                while tls.wants_write() {
                    let mut out = Vec::new();
                    tls.write_tls(&mut out).expect("memory");
                    if tcp.write_all(&out).await.is_err() {
                        break;
                    }
                }
                let mut bytes = [0; 4_096];
                let Ok(len @ 1..) = tcp.read(&mut bytes).await else { return };
                got.extend_from_slice(&bytes[..len]);
                let mut unread = &bytes[..len];
                while !unread.is_empty() {
                    tls.read_tls(&mut unread).expect("memory");
                    match tls.process_new_packets() {
                        Ok(state) => {
                            assert_eq!(state.plaintext_bytes_to_read(), 0, "{what} is told something")
                        }
                        Err(_) => return,
                    }
                    tickets = tls.tls13_tickets_received();
                }
            }
        };
        timeout(SOON, talking).await.expect("an end of it");
        drop(tcp);
        assert_eq!((has_spoken, tickets), (what != "no idea of the node's key", 0), "{what}");
        if has_spoken {
            wait_until(&format!("{what} is seen"), || node.bound.strangers.seen(At::Lifeline) > before).await;
        }
        assert_tells_nothing(&got);
        node.assert_untouched();
    }
}

#[tokio::test]
async fn a_node_that_is_led_to_a_stranger_tells_it_nothing() {
    let node = rotated();
    for seeds in [[9, 2], [1, 2]] {
        let name = "stranger".parse().expect("a plain name");
        let (stranger, _inbox) = Bound::bind(loopback(), &secrets(&seeds), &name).expect("a free port");
        let (tap, recorded) = relay::udp(stranger.local_addr().expect("a bound socket")).await;
        let peers = Peers::new(node.bound.clone());
        let accepting = async { stranger.endpoint.accept().await.expect("an open endpoint").await };
        let (dialled, accepted) = tokio::join!(peers.slot(tap, Lane::Control), timeout(SOON, accepting));
        assert!(dialled.is_err(), "{seeds:?} are a peer's");
        assert!(accepted.expect("in time").is_err(), "{seeds:?} have been shown the node's key");
        assert_tells_nothing(&recorded.there().concat());
    }
}

#[tokio::test]
async fn garbage_and_half_a_greeting_are_answered_with_an_alert_at_most() {
    let mut node = rotated();
    let mut whole = Vec::new();
    let (_, tls) = strangers(lifeline::ALPN).into_iter().next().expect("four of them");
    let name = ServerName::try_from(SERVER_NAME).expect("a plain name");
    let mut tls = rustls::ClientConnection::new(Arc::new(tls), name).expect("a good config");
    tls.write_tls(&mut whole).expect("memory");
    let half = whole[..whole.len() / 2].to_vec();
    let noise: Vec<u8> = (0..4_096u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (what, bytes) in
        [("half a greeting", half), ("noise", noise), ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec())]
    {
        let mut tcp = TcpStream::connect(node.addr).await.expect("an open port");
        let _ = tcp.write_all(&bytes).await;
        let mut got = Vec::new();
        let _ = timeout(SOON, tcp.read_to_end(&mut got)).await.expect("it is closed");
        // An alert: 21, the version, two bytes of length, two bytes.
        assert!(got.is_empty() || (got[0] == 21 && got.len() == 7), "{what}: {got:02x?}");
        node.assert_untouched();
    }
}

/// A node's conversation with another over all that there is, through recorders, and with a message that is heard.
async fn overhear(node: &mut Node) -> (Recorded, Recorded) {
    let other = crate::peer::scene::node("other", &[2]);
    let (quic, by_quic) = relay::udp(node.addr).await;
    let peers = Peers::new(other.bound.clone());
    for lane in [Lane::Control, Lane::Calls, Lane::Streams] {
        drop(peers.slot(quic, lane).await.expect("a peer"));
    }
    peers.gossip(quic, Bytes::from_static(b"a message"));
    let heard = timeout(SOON, node.gossip.recv()).await.expect("it arrives").expect("an open channel");
    assert_eq!(heard.1, b"a message"[..]);
    let (tcp, by_tcp) = relay::tcp(node.addr).await;
    let (lifelines, mut signs) = Lifelines::new(other.bound.clone());
    lifelines.watch([(node.bound.greeting().node, tcp)]);
    let alive = timeout(SOON, signs.recv()).await.expect("a sign");
    assert_eq!(alive, Some(Sign::Alive(node.bound.greeting().node)));
    // Packets of a connection that the node still knows, from another address, are not even looked at.
    let replaying = UdpSocket::bind(loopback()).await.expect("a free port");
    for datagram in by_quic.there() {
        replaying.send_to(&datagram, node.addr).await.expect("loopback");
    }
    assert_eq!(drain(&replaying).await, Vec::<Vec<u8>>::new());
    peers.close();
    wait_until("it is over", || node.bound.endpoint.open_connections() == 0).await;
    (by_quic, by_tcp)
}

#[tokio::test]
async fn a_conversation_that_is_played_back_gets_the_beginning_of_a_handshake_and_changes_nothing() {
    let mut node = rotated();
    let (by_quic, by_tcp) = overhear(&mut node).await;

    let replaying = UdpSocket::bind(loopback()).await.expect("a free port");
    let said = by_quic.there();
    assert!(said.len() > 10, "{} datagrams", said.len());
    let longest = said.iter().map(Vec::len).max().expect("some");
    for _ in 0..2 {
        for datagram in &said {
            replaying.send_to(datagram, node.addr).await.expect("loopback");
        }
    }
    let got = drain(&replaying).await;
    assert!(!got.is_empty(), "a first packet is answered");
    let handshakes = got.iter().filter(|datagram| datagram[0] & 0x80 != 0).count();
    assert!(handshakes > 0, "{got:02x?}");
    for short in got.iter().filter(|datagram| datagram[0] & 0x80 == 0) {
        // Of a connection that the node knows no more: a stateless reset, always shorter than what it answers to
        // (RFC 9000, 10.3.3), so that it can't be the answer to anything that was asked.
        assert!(short.len() < longest, "{} bytes", short.len());
    }
    assert_tells_nothing(&got.concat());

    let refused = node.bound.strangers.seen(At::Lifeline);
    let mut tcp = TcpStream::connect(node.addr).await.expect("an open port");
    tcp.write_all(&by_tcp.there().concat()).await.expect("it is taken");
    let mut got = Vec::new();
    let _ = timeout(SOON, tcp.read_to_end(&mut got)).await.expect("it is closed");
    wait_until("the replay is refused", || node.bound.strangers.seen(At::Lifeline) > refused).await;
    // The genuine one goes on with the node's greeting, in a record of its own.
    let genuine = by_tcp.back();
    assert!(records(&got).len() <= records(&genuine).len(), "{} for {}", got.len(), genuine.len());
    let alert = records(&got).pop().expect("an alert at the end");
    assert!(alert.1 < 32, "an alert of {} bytes", alert.1);
    assert_tells_nothing(&got);
    node.assert_untouched();
}

/// Each record's type and length (RFC 8446, 5.1).
fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let len = usize::from(*high) << 8 | usize::from(*low);
        records.push((*kind, len));
        bytes = rest.get(len..).unwrap_or_default();
    }
    records
}

#[tokio::test]
async fn a_first_packet_with_a_false_address_makes_a_node_send_three_times_as_much_and_part_of_a_datagram() {
    let mut node = rotated();
    let (by_quic, _) = overhear(&mut node).await;
    let silent = UdpSocket::bind(loopback()).await.expect("a free port");
    let first = by_quic.there().swap_remove(0);
    silent.send_to(&first, node.addr).await.expect("loopback");
    let sent: usize = drain(&silent).await.iter().map(Vec::len).sum();
    // quinn looks before it begins a datagram, so that the last one may go beyond by a part of itself.
    assert!(sent > 0 && sent < 4 * first.len(), "{sent} for {}", first.len());
}

#[tokio::test]
async fn strangers_who_begin_and_never_go_on_are_bounded_and_keep_no_peer_out() {
    let mut node = rotated();
    let firsts = first_packets(2 * UNPROVED_PER_ADDRESS_MAX).await;
    let silent = UdpSocket::bind(loopback()).await.expect("a free port");
    let open = node.bound.endpoint.open_connections();
    for first in &firsts {
        silent.send_to(first, node.addr).await.expect("loopback");
    }
    wait_until("the first ones are let in", || node.bound.strangers.unproved().all >= UNPROVED_UNTIL_RETRY)
        .await;
    // All have come, since the last ones are told to show their address.
    let mut retries = 0;
    while retries == 0 {
        let mut buffer = [0; 2_048];
        let (len, _) =
            timeout(SOON, silent.recv_from(&mut buffer)).await.expect("an answer").expect("a socket");
        retries += usize::from(len > 0 && buffer[0] & 0xf0 == 0xf0); // long header, type 3
    }
    assert!(node.bound.endpoint.open_connections() - open <= UNPROVED_PER_ADDRESS_MAX);
    // Theirs is another address in life; here it is the same, and has to wait until strangers are gone.
    let other = crate::peer::scene::node("other", &[2]);
    let peers = Peers::new(other.bound.clone());
    let began = Instant::now();
    while peers.slot(node.addr, Lane::Calls).await.is_err() {
        assert!(began.elapsed() < SOON, "a peer is kept out");
    }
    wait_until("they are forgotten", || node.bound.strangers.unproved().all == 0).await;
    assert!(node.bound.strangers.unproved().by_address.is_empty());
    node.assert_untouched();
}

#[test]
fn one_address_leaves_room_for_others_and_all_together_are_bounded() {
    let strangers = Arc::<Strangers>::default();
    let of = |last: u8| IpAddr::from([10, 0, 0, last]);
    let mut places = Vec::new();
    for _ in 0..UNPROVED_PER_ADDRESS_MAX {
        places.push(strangers.place(of(1), true).expect("room"));
    }
    assert_eq!(strangers.place(of(1), true).err(), Some(Refused::Full));
    assert_eq!(strangers.place(of(2), false).err(), Some(Refused::ShowAddress));
    for address in 2..=4 {
        for _ in 0..UNPROVED_PER_ADDRESS_MAX {
            places.push(strangers.place(of(address), true).expect("room"));
        }
    }
    assert_eq!(places.len(), UNPROVED_MAX);
    assert_eq!(strangers.place(of(5), true).err(), Some(Refused::Full));
    places.clear();
    assert!(strangers.place(of(1), false).is_ok());
    assert!(strangers.unproved().by_address.is_empty());
}

#[tokio::test]
async fn nothing_is_resumed_not_even_under_a_secret_that_is_still_good() {
    // A stranger of the worst kind: it was a peer a moment ago, and keeps whatever it can be given.
    let node = node(NAME, &[1, 2]);
    let (_, mut tls) = identity::tls(&secrets(&[1]), CLUSTER, endpoint::ALPN).expect("good secrets");
    let tickets = Arc::<Tickets>::default();
    tls.resumption = rustls::client::Resumption::store(tickets.clone());
    tls.enable_early_data = true;
    let client = QuicClientConfig::try_from(tls).expect("TLS 1.3");
    let client = quinn::ClientConfig::new(Arc::new(client));
    let once_a_peer = quinn::Endpoint::client(loopback()).expect("a free port");
    let greet = async |connection: &quinn::Connection| {
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        send.write_all(&codec::frame(&node.greeting()).expect("short")).await.ok()?;
        send.finish().ok()?;
        recv.read_to_end(1 << 20).await.ok().filter(|answer| !answer.is_empty())
    };
    for _ in 0..2 {
        let connecting =
            once_a_peer.connect_with(client.clone(), node.addr, SERVER_NAME).expect("a good address");
        let Err(connecting) = connecting.into_0rtt() else {
            panic!("something was kept to begin early with")
        };
        let connection = timeout(SOON, connecting).await.expect("in time").expect("a peer");
        assert!(timeout(SOON, greet(&connection)).await.expect("in time").is_some(), "it is a peer");
    }
    assert!(tickets.asked.load(Ordering::Relaxed) > 0, "it would have used one");
    assert_eq!(tickets.given.load(Ordering::Relaxed), 0, "a ticket");
    for list in [[2, 1].as_slice(), &[2]] {
        node.bound.take_secrets(&secrets(list)).expect("good secrets");
    }
    let connecting = once_a_peer.connect_with(client, node.addr, SERVER_NAME).expect("a good address");
    assert!(timeout(SOON, connecting).await.expect("in time").is_err(), "the node shows another key");
}

/// What a client would keep to resume with.
#[derive(Debug, Default)]
struct Tickets {
    asked: AtomicU64,
    given: AtomicU64,
}

impl rustls::client::ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: rustls::NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: rustls::client::Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: rustls::client::Tls13ClientSessionValue) {
        self.given.fetch_add(1, Ordering::Relaxed);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// First packets of as many connections, as quinn makes them.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind(loopback()).await.expect("a free port");
    let (_, tls) = strangers(endpoint::ALPN).into_iter().next().expect("four of them");
    let client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
    let to = sink.local_addr().expect("a bound socket");
    let mut firsts = Vec::new();
    while firsts.len() < count {
        let endpoint = quinn::Endpoint::client(loopback()).expect("a free port");
        let _connecting = endpoint.connect_with(client.clone(), to, SERVER_NAME).expect("a good address");
        let mut buffer = [0; 2_048];
        loop {
            let received = timeout(SOON, sink.recv_from(&mut buffer)).await.expect("it begins");
            let (len, from) = received.expect("a socket");
            // The one before may still say that it is over.
            if Some(from) == endpoint.local_addr().ok() {
                break firsts.push(buffer[..len].to_vec());
            }
        }
    }
    firsts
}

/// Everything that comes until nothing more does.
async fn drain(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let mut buffer = [0; 2_048];
    while let Ok(received) = timeout(QUIET, socket.recv_from(&mut buffer)).await {
        let (len, _) = received.expect("a socket");
        got.push(buffer[..len].to_vec());
    }
    got
}
