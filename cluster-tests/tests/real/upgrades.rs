//! Connections that leave HTTP for another protocol, a WebSocket above all, on routes that are not MCP.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http;
use cluster_tests::real::wait::wait_until;
use futures_util::SinkExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::{client, server};
use tokio_tungstenite::tungstenite::http::{Response, StatusCode};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

/// Everything here takes milliseconds; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(15);
/// What each of two nodes is asked for: served where it lands, or by the other node.
const HOPS: [&str; 2] = ["0", "1"];

#[tokio::test]
async fn a_websocket_is_served_where_it_landed_and_through_a_hop() {
    let (server, _ended) = websocket_server().await;
    let cluster = cluster(server).await;
    for hops in HOPS {
        let (mut socket, _) = connected(&cluster, hops).await;
        for text in ["hello", "", "good bye"] {
            socket.send(Message::text(text)).await.unwrap();
            assert_eq!(heard(&mut socket).await.unwrap(), Message::text(text));
        }
        // 32 times what may be in flight over a hop.
        let large = Message::binary(vec![7; 8 << 20]);
        socket.send(large.clone()).await.unwrap();
        assert!(heard(&mut socket).await.unwrap() == large, "8 MiB came back as something else");
    }
}

#[tokio::test]
async fn either_side_closes_a_websocket_and_the_other_hears_why() {
    let (server, mut ended) = websocket_server().await;
    let cluster = cluster(server).await;
    let frame = |code: u16| CloseFrame { code: code.into(), reason: "enough".into() };
    for hops in HOPS {
        let (mut socket, entry) = connected(&cluster, hops).await;
        socket.close(Some(frame(4_001))).await.unwrap();
        // The server echoes it (RFC 6455, 5.5.1).
        assert_eq!(heard(&mut socket).await.unwrap(), Message::Close(Some(frame(4_001))));
        assert_eq!(how_it_ended(&mut ended).await, Ended::Closed(Some(frame(4_001))));
        drop(socket);

        let (mut socket, _) = connected(&cluster, hops).await;
        socket.send(Message::text("close")).await.unwrap();
        assert_eq!(heard(&mut socket).await.unwrap(), Message::Close(Some(frame(4_002))));
        assert!(socket.next().await.is_none(), "closed, and then");
        assert_eq!(how_it_ended(&mut ended).await, Ended::Closed(Some(frame(4_002))));
        drop(socket);
        nothing_is_left(&cluster, &entry).await;
    }
}

#[tokio::test]
async fn who_dies_is_noticed_at_the_other_end() {
    let (server, mut ended) = websocket_server().await;
    let cluster = cluster(server).await;
    for hops in HOPS {
        let (mut socket, entry) = connected(&cluster, hops).await;
        socket.send(Message::text("die")).await.unwrap();
        let error = heard(&mut socket).await.unwrap_err();
        assert!(matches!(error, Error::Protocol(_) | Error::Io(_)), "not a clean end: {error}");
        assert_eq!(how_it_ended(&mut ended).await, Ended::Died);
        drop(socket);

        let (socket, _) = connected(&cluster, hops).await;
        drop(socket);
        assert_eq!(how_it_ended(&mut ended).await, Ended::Lost);
        nothing_is_left(&cluster, &entry).await;
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let (server, _ended) = websocket_server().await;
    let cluster = cluster(server).await;
    for hops in HOPS {
        let (entry, key) = entry_and_key(&cluster, hops).await;
        let wish = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("x-job", &key),
        ];
        let url = cluster.node(&entry).url("/ws/refused");
        let answer = http::request("GET", &url, &wish, "").await.unwrap();
        assert_eq!((answer.status, answer.text()), (400, "not here".to_owned()));
        assert_eq!(answer.header("ringway-hops"), Some(hops));
        assert_eq!(answer.header("upgrade"), None);
    }
}

#[tokio::test]
async fn an_upgrade_that_nobody_can_grant_is_a_503() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cluster = cluster(nobody).await;
    for hops in HOPS {
        let (entry, key) = entry_and_key(&cluster, hops).await;
        let error = upgrade(&cluster, &entry, "/ws", &key).await.unwrap_err();
        let Error::Http(answer) = error else { panic!("{error}") };
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn any_protocol_passes_and_each_direction_ends_by_itself() {
    let cluster = cluster(reverser().await).await;
    for hops in HOPS {
        let (entry, key) = entry_and_key(&cluster, hops).await;
        let mut stream = TcpStream::connect(cluster.listen(&entry)).await.unwrap();
        let ask = format!(
            "POST /ws HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: reverse/1\r\nx-job: {key}\r\n\r\n"
        );
        // What is said before the answer is there waits for it.
        stream.write_all(format!("{ask}drawer ").as_bytes()).await.unwrap();
        let mut said = vec![0; "HTTP/1.1 101".len()];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(said, b"HTTP/1.1 101");
        stream.write_all(b"reviled").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        timeout(SOON, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
        let (head, said) = rest.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("upgrade: reverse/1") && head.contains("connection: upgrade"), "{head}");
        assert_eq!(said, "welcome deliver reward");
    }
}

#[tokio::test]
async fn nobody_is_upgraded_who_did_not_ask_or_may_not() {
    let server = reverser().await;
    let config = format!(
        "[[route]]\npath = \"/ws\"\naffinity = {{ header = \"x-job\" }}\nupstream = [\"http://{server}\"]\n\
         [[route]]\npath = \"/mcp\"\nupstream = [\"http://{server}/mcp\"]\n"
    );
    let cluster = Plan::nodes(1).config(config).start().await.unwrap();
    let (plain, mcp) = (cluster.node("a").url("/ws"), cluster.node("a").url("/mcp"));
    let wish = [("connection", "upgrade"), ("upgrade", "reverse/1")];
    let h2c = [("connection", "upgrade"), ("upgrade", "h2c")];
    // This server agrees to whatever it is asked; an answer nobody wanted is a broken upstream.
    for (url, headers) in [(&plain, [].as_slice()), (&plain, &h2c), (&mcp, &wish)] {
        let answer = http::request("GET", url, headers, "").await.unwrap();
        assert!(matches!(answer.status, 400 | 503), "{url} {headers:?}: {}", answer.status);
    }
    assert_eq!(http::request("GET", &plain, &wish, "").await.unwrap().status, 101);
}

#[tokio::test]
async fn a_node_that_leaves_ends_its_upgraded_connections_and_no_others() {
    let (server, mut ended) = websocket_server().await;
    let mut cluster = cluster(server).await;
    let mut open = Vec::new();
    for (entry, owner) in [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")] {
        let key = key_of(&cluster, owner).await;
        open.push(upgrade(&cluster, entry, "/ws", &key).await.unwrap().0);
    }
    let mut stays = open.pop().unwrap();
    let status = cluster.drain("a", Duration::from_secs(10)).await.unwrap();
    assert_eq!(status.code(), Some(0));
    for mut socket in open {
        let error = heard(&mut socket).await.unwrap_err();
        assert!(matches!(error, Error::Protocol(_) | Error::Io(_)), "not a clean end: {error}");
        assert_eq!(how_it_ended(&mut ended).await, Ended::Lost);
    }
    stays.send(Message::text("still here")).await.unwrap();
    assert_eq!(heard(&mut stays).await.unwrap(), Message::text("still here"));
}

/// Two nodes, and one route whose key is a header.
async fn cluster(upstream: SocketAddr) -> Cluster {
    let config = format!(
        "[[route]]\npath = \"/ws\"\naffinity = {{ header = \"x-job\" }}\nupstream = [\"http://{upstream}\"]\n"
    );
    Plan::nodes(2).config(config).start().await.unwrap()
}

/// A node, and a key that takes so many hops from there.
async fn entry_and_key(cluster: &Cluster, hops: &str) -> (String, String) {
    let owner = if hops == "0" { "a" } else { "b" };
    ("a".to_owned(), key_of(cluster, owner).await)
}

async fn key_of(cluster: &Cluster, owner: &str) -> String {
    for key in 0..100 {
        let found = cluster.admin_json("a", &format!("/v1/ring/lookup?key=key-{key}")).await.unwrap();
        if found["owner"] == owner {
            return format!("key-{key}");
        }
    }
    panic!("{owner} owns none of a hundred keys");
}

type Socket = WebSocketStream<TcpStream>;

/// A WebSocket that takes so many hops, and where it landed.
async fn connected(cluster: &Cluster, hops: &str) -> (Socket, String) {
    let (entry, key) = entry_and_key(cluster, hops).await;
    let (socket, answer) = upgrade(cluster, &entry, "/ws", &key).await.unwrap();
    assert_eq!(answer.headers()["ringway-hops"], hops);
    (socket, entry)
}

async fn upgrade(
    cluster: &Cluster,
    entry: &str,
    path: &str,
    key: &str,
) -> Result<(Socket, client::Response), Error> {
    let listen = cluster.listen(entry);
    let mut request = format!("ws://{listen}{path}").into_client_request().unwrap();
    request.headers_mut().insert("x-job", key.parse().unwrap());
    let stream = TcpStream::connect(listen).await.unwrap();
    timeout(SOON, client_async(request, stream)).await.expect("an answer")
}

/// The next message.
async fn heard(socket: &mut Socket) -> Result<Message, Error> {
    timeout(SOON, socket.next()).await.expect("a word").expect("not the end")
}

/// Neither node has a stream open.
async fn nothing_is_left(cluster: &Cluster, entry: &str) {
    wait_until("the upgraded connections are done with", SOON, async || {
        // The request for the metrics goes to another listener, and does not count.
        cluster.metric(entry, "ringway_streams", &[]).await.unwrap() == 0.0
    })
    .await;
}

/// How a connection ended, as its server saw it.
#[derive(Debug, PartialEq)]
enum Ended {
    Closed(Option<CloseFrame>),
    /// Without a word.
    Lost,
    /// By the server's own death.
    Died,
}

async fn how_it_ended(ended: &mut mpsc::UnboundedReceiver<Ended>) -> Ended {
    timeout(SOON, ended.recv()).await.expect("the server noticed").expect("the server runs")
}

/// A server that says what it hears, and by each end of a connection how that was. `close` makes it close,
/// `die` drop the connection; it grants nothing at `/ws/refused`. It ends with the test's runtime.
async fn websocket_server() -> (SocketAddr, mpsc::UnboundedReceiver<Ended>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, ended) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                if let Ok(socket) = accept_hdr_async(stream, grant).await {
                    let _ = tell.send(echo(socket).await);
                }
            });
        }
    });
    (address, ended)
}

#[expect(clippy::result_large_err, reason = "it is the crate's own")]
fn grant(
    request: &server::Request,
    answer: server::Response,
) -> Result<server::Response, server::ErrorResponse> {
    if request.uri().path() != "/ws/refused" {
        return Ok(answer);
    }
    let mut refusal = Response::new(Some("not here".to_owned()));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    refusal.headers_mut().insert("content-length", 8.into());
    Err(refusal)
}

async fn echo(mut socket: Socket) -> Ended {
    let mut closed = None;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) if text == "die" => return Ended::Died,
            Message::Text(text) if text == "close" => {
                let frame = CloseFrame { code: 4_002.into(), reason: "enough".into() };
                let _ = socket.close(Some(frame)).await;
            }
            Message::Close(frame) => closed = Some(frame),
            said @ (Message::Text(_)
            | Message::Binary(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Frame(_)) => {
                let _ = socket.send(said).await;
            }
        }
    }
    closed.map_or(Ended::Lost, Ended::Closed)
}

/// A server that agrees to leave HTTP whatever it is asked, greets, and says what it hears backwards, once it
/// has heard all of it. It ends with the test's runtime.
pub(crate) async fn reverser() -> SocketAddr {
    const GRANTED: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: reverse/1\r\n\r\nwelcome ";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await?);
                }
                stream.write_all(GRANTED).await?;
                let mut said = Vec::new();
                stream.read_to_end(&mut said).await?;
                said.reverse();
                stream.write_all(&said).await
            });
        }
    });
    address
}
