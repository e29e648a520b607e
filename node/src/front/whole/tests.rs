//! A listener on a real socket, and a client that sends bytes. The answer says who read the request: `whole` or
//! `passing` (hyper).

use super::*;
use crate::answer::whole;
use crate::front::{Arrival, serve::bind};
use http_body_util::BodyExt;
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinHandle};

const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    addr: std::net::SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<()>,
    /// An answer was given up before it was there.
    given_up: Arc<AtomicBool>,
}

struct Notes(Arc<AtomicBool>);

impl Drop for Notes {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Says how the request came, what it was, and its body. `/never` is never answered, `/stream` in two pieces.
async fn echo(request: Request, given_up: Arc<AtomicBool>) -> Answer {
    let way = if matches!(request.body, Coming::Whole(_)) { "whole" } else { "passing" };
    if request.uri.path() == "/never" {
        let _notes = Notes(given_up);
        return std::future::pending().await;
    }
    if request.uri.path() == "/stream" {
        let (coming, joint) = crate::upgraded::body(crate::answer::Broke::Client);
        tokio::spawn(async move {
            let (mut end, other) = tokio::io::duplex(64);
            end.write_all(b"one").await.expect("it is read");
            tokio::task::yield_now().await;
            end.write_all(b"two").await.expect("it is read");
            drop(end);
            joint.join(other, whole(""), None).await;
        });
        return Answer::new(coming);
    }
    let Request { method, uri, headers, body, .. } = request;
    let said = headers.get("x-said").map_or("", |said| said.to_str().expect("text")).to_owned();
    let body = body.collect().await.expect("it comes").to_bytes();
    Answer::new(whole(format!("{way} {method} {uri} {said} {}", String::from_utf8_lossy(&body))))
}

async fn served() -> Served {
    let limits = crate::front::crowd::tests::limits(10, None);
    let listener = bind(([127, 0, 0, 1], 0).into(), limits, None).await.expect("a free port");
    let (addr, stop, given_up) = (listener.addr, CancellationToken::new(), Arc::<AtomicBool>::default());
    let note = given_up.clone();
    let answer = move |_, _: Arrival, request| echo(request, note.clone());
    let running = tokio::spawn(listener.run(answer, stop.clone()));
    Served { addr, stop, running, given_up }
}

async fn connect(served: &Served) -> TcpStream {
    TcpStream::connect(served.addr).await.expect("it listens")
}

/// The head and the body of the next answer, which has a length.
async fn read(client: &mut TcpStream) -> (String, String) {
    let reading = async {
        let mut said = Vec::new();
        loop {
            said.push(client.read_u8().await.expect("more of the answer"));
            if said.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let head = String::from_utf8(said).expect("text");
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; len.parse().expect("a number")];
        client.read_exact(&mut body).await.expect("all of it");
        (head, String::from_utf8(body).expect("text"))
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer")
}

const CALL: &str = "POST /mcp?a=1 HTTP/1.1\r\nhost: x\r\nX-Said: hello\r\nContent-Length: 4\r\n\r\nbody";

#[tokio::test]
async fn a_request_is_the_same_wherever_it_is_cut() {
    let served = served().await;
    let mut client = connect(&served).await;
    client.set_nodelay(true).expect("a socket");
    for cut in 0..CALL.len() {
        client.write_all(&CALL.as_bytes()[..cut]).await.expect("it reads");
        tokio::task::yield_now().await;
        client.write_all(&CALL.as_bytes()[cut..]).await.expect("it reads");
        let (head, body) = read(&mut client).await;
        assert_eq!(body, "whole POST /mcp?a=1 hello body", "cut at {cut}");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\ndate: "), "{head}");
    }
}

#[tokio::test]
async fn requests_that_are_sent_ahead_are_answered_in_their_order() {
    let served = served().await;
    let mut client = connect(&served).await;
    let more = "GET /second HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n";
    client.write_all(format!("{CALL}{more}{CALL}").as_bytes()).await.expect("it reads");
    assert_eq!(read(&mut client).await.1, "whole POST /mcp?a=1 hello body");
    assert_eq!(read(&mut client).await.1, "whole GET /second  ");
    assert_eq!(read(&mut client).await.1, "whole POST /mcp?a=1 hello body");
}

#[tokio::test]
async fn what_is_not_plain_is_answered_by_hyper_and_so_is_the_rest_of_its_connection() {
    let long = "x".repeat(LEN_MAX);
    for (request, answer) in [
        (
            "POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
                .to_owned(),
            "passing POST /a  body".to_owned(),
        ),
        (
            format!("POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: {LEN_MAX}\r\n\r\n{long}"),
            format!("passing POST /a  {long}"),
        ),
        (
            "PUT /a HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody".to_owned(),
            "passing PUT /a  body".to_owned(),
        ),
        (
            "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\nbody".to_owned(),
            "passing POST /a  body".to_owned(),
        ),
        ("GET /a HTTP/1.1\r\nhost: x\r\nconnection: x, y\r\n\r\n".to_owned(), "passing GET /a  ".to_owned()),
    ] {
        let served = served().await;
        let mut client = connect(&served).await;
        client.write_all(CALL.as_bytes()).await.expect("it reads");
        assert_eq!(read(&mut client).await.1, "whole POST /mcp?a=1 hello body");
        client.write_all(request.as_bytes()).await.expect("it reads");
        assert_eq!(read(&mut client).await.1, answer);
        client.write_all(CALL.as_bytes()).await.expect("it reads");
        assert_eq!(read(&mut client).await.1, "passing POST /mcp?a=1 hello body");
    }
}

#[tokio::test]
async fn a_head_that_can_not_be_is_refused_and_runs_nothing() {
    for request in [
        "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: +4\r\n\r\nbody",
        "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nbody5",
        "POST /a b HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: x\r\n folded: 1\r\n\r\n",
        "POST /a HTTP/1.1\r\nho st: x\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 18446744073709551615\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 18446744073709551616\r\n\r\n",
    ] {
        let served = served().await;
        let mut client = connect(&served).await;
        client.write_all(request.as_bytes()).await.expect("it reads");
        let (head, _) = read(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 400 ") || head.starts_with("HTTP/1.1 431 "), "{request}: {head}");
    }
}

#[tokio::test]
async fn what_was_sent_ahead_is_answered_where_nothing_more_will_come() {
    let served = served().await;
    let mut client = connect(&served).await;
    client.write_all(format!("{CALL}{CALL}").as_bytes()).await.expect("it reads");
    client.shutdown().await.expect("one direction");
    assert_eq!(read(&mut client).await.1, "whole POST /mcp?a=1 hello body");
    assert_eq!(read(&mut client).await.1, "whole POST /mcp?a=1 hello body");
}

#[tokio::test]
async fn a_body_without_a_length_comes_in_chunks() {
    let served = served().await;
    let mut client = connect(&served).await;
    client.write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("it reads");
    let mut said = Vec::new();
    let reading = async {
        while !said.ends_with(b"0\r\n\r\n") {
            said.push(client.read_u8().await.expect("more of it"));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("its end");
    let said = String::from_utf8(said).expect("text");
    let (head, body) = said.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("\r\ntransfer-encoding: chunked"), "{head}");
    let data: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert_eq!(data, "onetwo", "{body}");
    client.write_all(CALL.as_bytes()).await.expect("the connection goes on");
    assert_eq!(read(&mut client).await.1, "whole POST /mcp?a=1 hello body");
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_given_up() {
    let served = served().await;
    let mut client = connect(&served).await;
    client.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("it reads");
    drop(client);
    let given_up = async {
        while !served.given_up.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, given_up).await.expect("it is given up");
}

#[tokio::test]
async fn idle_connections_end_with_their_listener() {
    let served = served().await;
    let mut client = connect(&served).await;
    client.write_all(CALL.as_bytes()).await.expect("it reads");
    read(&mut client).await;
    served.stop.cancel();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest));
    end.await.expect("it ends").expect("it is not reset");
    assert!(rest.is_empty(), "{rest:?}");
    tokio::time::timeout(PATIENCE, served.running).await.expect("it ends").expect("without a panic");
}
