//! Clients that send or read slower than anybody who means it: they wait for themselves only.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cluster_tests::real::cluster::Plan;
use cluster_tests::real::http;
use cluster_tests::real::mcp::{Session, call};
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream::Upstream;
use cluster_tests::real::wait::{wait_for, wait_until};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::lost_and_found::{announce, announced};

const SOON: Duration = Duration::from_secs(30);
/// A request beside ten thousand slow ones, on a busy machine.
const SERVED: Duration = Duration::from_secs(5);
/// How long a client may take nothing, where that is tried. A test on a busy machine stands still for less.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn ten_thousand_slow_lorises_keep_nobody_out() {
    const LORISES: usize = 10_000;
    let files = raise_open_files();
    assert!(files > LORISES as u64 + 500, "this test needs {LORISES} files, and the system gives {files}");
    let upstream = Upstream::fixture().await.unwrap();
    let cluster = Plan::nodes(1)
        .config(Route::upstreams(std::slice::from_ref(&upstream.url)).to_string())
        .flags(&["--log", "warn"])
        .start()
        .await
        .unwrap();
    let (url, to) = (cluster.url("a"), cluster.listen("a"));
    let session = Session::open(&url).await.unwrap();
    let mut standing = session.listen(&url).await.unwrap();

    let began = Instant::now();
    let mut lorises = Vec::with_capacity(LORISES);
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    for number in 0..LORISES {
        lorises.push(loris(to).await);
        if number % 250 == 0 {
            calls += 1;
            slowest = slowest.max(served(&url, &session, calls).await);
        }
    }
    let arrived = began.elapsed();
    // Each sends a byte now and then, and comes again when it is sent away.
    let (mut bytes, mut again) = (0, 0);
    while began.elapsed() < arrived + Duration::from_secs(12) {
        for chunk in lorises.chunks_mut(500) {
            for loris in chunk {
                match loris.try_write(b"x") {
                    Ok(_) => bytes += 1,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => {
                        *loris = self::loris(to).await;
                        again += 1;
                    }
                }
            }
            calls += 1;
            slowest = slowest.max(served(&url, &session, calls).await);
        }
    }
    announce(&url, &session, 5).await;
    assert_eq!(announced(&mut standing, 1).await, [5], "the stream stands through all of it");
    println!(
        "{LORISES} slow clients there after {arrived:?}, {bytes} bytes and {again} connections more; \
         {calls} calls and as many new connections beside them, the slowest {slowest:?}"
    );
    assert!(again > 0, "none was ever sent away");
    assert!(slowest < SERVED, "{slowest:?}");
}

/// A connection that has sent less than a head.
async fn loris(to: SocketAddr) -> TcpStream {
    // One that was reset while it waited to be accepted tries again, as these do.
    for _ in 0..10 {
        let Ok(mut stream) = TcpStream::connect(to).await else { continue };
        if stream.write_all(b"POST /mcp HTTP/1.1\r\nhost: x\r\nx-slow: ").await.is_ok() {
            return stream;
        }
    }
    panic!("the node accepts nobody any more");
}

/// A call on a connection of its own.
async fn served(url: &str, session: &Session, expected: u64) -> Duration {
    let began = Instant::now();
    assert_eq!(session.count(url, expected).await.unwrap(), expected);
    began.elapsed()
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off_and_its_answer_forgotten() {
    const LEN: usize = 64 << 20;
    let upstream = Upstream::fixture().await.unwrap();
    let route = Route::upstreams(std::slice::from_ref(&upstream.url));
    let cluster = Plan::nodes(1).config(send_timeout(&route)).start().await.unwrap();
    let url = cluster.url("a");
    let session = Session::open(&url).await.unwrap();
    let mut idle = session.listen(&url).await.unwrap();

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut reader = socket.connect(cluster.listen("a")).await.unwrap();
    let body = call(7, "long", json!({"len": LEN})).to_string();
    let ask = format!(
        "POST /mcp HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         mcp-session-id: {}\r\ncontent-length: {}\r\n\r\n{body}",
        session.id,
        body.len()
    );
    // Nothing can be left untaken before this, so the node's patience began later.
    let began = Instant::now();
    reader.write_all(ask.as_bytes()).await.unwrap();
    reader.read_u8().await.unwrap(); // the answer has begun
    let open = async || cluster.metric("a", "ringway_streams", &[]).await;
    wait_until("both answers are under way", SOON, async || open().await.is_ok_and(|open| open >= 2.0)).await;
    wait_for("the node gives up on it", SOON, async || {
        let left = open().await?;
        anyhow::ensure!(left < 2.0, "{left} answers are under way");
        Ok(())
    })
    .await;
    println!("given up on after {:?}", began.elapsed());
    assert!(began.elapsed() >= SEND_TIMEOUT, "{:?}: too soon", began.elapsed());
    let mut rest = Vec::new();
    let ended = timeout(SOON, reader.read_to_end(&mut rest)).await.unwrap();
    assert!(ended.is_err() && rest.len() < LEN, "{} bytes: it was sent all", rest.len());
    // Longer than that, nothing was said on the other stream, and nothing of it is unsent.
    announce(&url, &session, 3).await;
    assert_eq!(announced(&mut idle, 1).await, [3]);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_of_it() {
    const LEN: usize = 3 << 20; // 192 pieces, one every 50 ms: 9.6 s
    let upstream = Upstream::fixture().await.unwrap();
    let route = Route::upstreams(std::slice::from_ref(&upstream.url));
    let cluster = Plan::nodes(1).config(send_timeout(&route)).start().await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut reader = socket.connect(cluster.listen("a")).await.unwrap();
    let body = call(7, "long", json!({"len": LEN})).to_string();
    let ask = format!(
        "POST /mcp HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-session-id: {}\r\ncontent-length: {}\r\n\r\n{body}",
        session.id,
        body.len()
    );
    reader.write_all(ask.as_bytes()).await.unwrap();
    let (began, mut read, mut piece) = (Instant::now(), 0, vec![0; 16 * 1024]);
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        match timeout(SOON, reader.read(&mut piece)).await.unwrap().unwrap() {
            0 => break,
            len => read += len,
        }
    }
    println!("{read} bytes in {:?}", began.elapsed());
    assert!(read > LEN, "{read} bytes");
    assert!(began.elapsed() > SEND_TIMEOUT, "as slow as it was meant to be");
}

/// The config of a node that has this route, and cuts off whoever takes nothing for so long.
fn send_timeout(route: &Route) -> String {
    format!("send_timeout = \"{}s\"\n{route}", SEND_TIMEOUT.as_secs())
}

/// All that the system gives; what that is.
#[allow(unsafe_code)] // getrlimit and setrlimit
fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both take a pointer to this one struct, which outlives them.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    limit.rlim_cur
}

#[tokio::test]
async fn a_head_that_does_not_come_is_answered_408() {
    let upstream = Upstream::fixture().await.unwrap();
    let route = Route::upstreams(std::slice::from_ref(&upstream.url));
    let cluster = Plan::nodes(1).config(format!("header_timeout = \"1s\"\n{route}")).start().await.unwrap();
    let said = http::raw(cluster.listen("a"), b"POST /mcp HTTP/1.1\r\nhost: x\r\n", SOON).await.unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("header_timeout"), "{said}");
    // Who says nothing at all has not asked for an answer.
    let silent = http::raw(cluster.listen("a"), b"", SOON).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&silent), "");
}
