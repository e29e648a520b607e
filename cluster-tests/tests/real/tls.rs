//! Clients that speak TLS: SDKs, HTTP/2, upgrades, streams; certificates that change under them.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::real::binaries::run_ringway;
use cluster_tests::real::clients::{Drive, Tool};
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http;
use cluster_tests::real::mcp::{POST_HEADERS, call, initialize, said};
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream::{self, Upstream};
use cluster_tests::real::wait::wait_until;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::https::{Authority, Client, der};
use super::prepare::sdks;
use super::upgrades::reverser;

const SOON: Duration = Duration::from_secs(20);

/// Nodes that speak TLS to their clients, in front of our own server.
struct Encrypted {
    authority: Authority,
    cluster: Cluster,
    upstream: Upstream,
}

async fn encrypted(nodes: usize) -> Encrypted {
    let (authority, upstream) = (Authority::new(), Upstream::fixture().await.unwrap());
    let config = format!(
        "{}{}",
        authority.renew(),
        Route::upstreams(&upstream::urls(std::slice::from_ref(&upstream)))
    );
    let cluster = Plan::nodes(nodes).config(config).start().await.unwrap();
    Encrypted { authority, cluster, upstream }
}

#[tokio::test]
async fn sdk_clients_use_sessions_over_tls_at_any_node() {
    let Encrypted { authority, cluster, upstream: _upstream } = encrypted(2).await;
    let urls: Vec<_> = cluster.urls().iter().map(|url| url.replace("http://", "https://")).collect();
    for sdk in sdks("sdk_clients_use_sessions_over_tls_at_any_node").await {
        let drive = Drive::new(urls.clone(), Tool::Count);
        let report = drive.run_trusting(sdk, &authority.file()).await.unwrap();
        report.assert_flawless(&drive);
        assert!(report.forwarded_share() > 0.1, "{report:#?}");
        println!("{}: {} calls over TLS, hops {:?}", report.client, report.calls, report.hops);
    }
}

#[tokio::test]
async fn the_version_of_http_is_agreed_on_in_the_handshake() {
    let Encrypted { authority, cluster, upstream: _upstream } = encrypted(1).await;
    let to = cluster.listen("a");
    // Offered in a TLS of these versions, and agreed on.
    type Case<'a> = (&'a [&'a str], &'a [&'static rustls::SupportedProtocolVersion], Option<&'a [u8]>);
    let cases: [Case; 5] = [
        (&["h2", "http/1.1"], rustls::ALL_VERSIONS, Some(b"h2")),
        (&["http/1.1"], rustls::ALL_VERSIONS, Some(b"http/1.1")),
        (&[], rustls::ALL_VERSIONS, None),
        (&["h2"], &[&rustls::version::TLS12], Some(b"h2")),
        (&[], &[&rustls::version::TLS13], None),
    ];
    for (offered, versions, agreed) in cases {
        let client = authority.client_of(offered, versions);
        let stream = client.connect(to).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
        let session = Secure::open(&client, to).await;
        for number in 1..=3 {
            assert_eq!(session.count(&client, number).await, number, "{offered:?}");
        }
    }
    let strange = authority.client(&["smtp"]).connect(to).await;
    assert!(strange.is_err(), "it is told that there is no such protocol here");
}

#[tokio::test]
async fn curl_is_served_over_http_2_and_refuses_who_is_not_trusted() {
    let Encrypted { authority, cluster, upstream: _upstream } = encrypted(1).await;
    let url = format!("https://{}/mcp", cluster.listen("a"));
    let curl = async |more: &[&str]| {
        let mut command = tokio::process::Command::new("curl");
        command.args(["-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]);
        command.args(more).args(["-H", "accept: application/json, text/event-stream", "--json"]);
        command.arg(initialize(1).to_string()).arg(&url).kill_on_drop(true).output().await
    };
    let ca = authority.file().display().to_string();
    let Ok(output) = curl(&["--cacert", &ca]).await else {
        return println!("LEFT OUT curl_is_served_over_http_2: curl is not here");
    };
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("200 "), "{said} {error}");
    println!("curl: {said}");
    assert_eq!(curl(&[]).await.unwrap().status.code(), Some(60), "the authority is nobody's");
}

#[tokio::test]
async fn whoever_speaks_plain_http_is_told_that_the_port_speaks_tls() {
    let Encrypted { cluster, upstream: _upstream, .. } = encrypted(1).await;
    let answer = http::get(&cluster.url("a")).await.unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("speaks TLS"), "{}", answer.text());
    assert_eq!(cluster.admin("a", "/livez").await.unwrap().status, 200, "operators speak plain HTTP");
}

#[tokio::test]
async fn an_upgrade_passes_over_tls() {
    let (authority, server) = (Authority::new(), reverser().await);
    let route = format!("[[route]]\npath = \"/ws\"\naffinity = \"none\"\nupstream = \"http://{server}\"\n");
    let cluster = Plan::nodes(1).config(authority.renew() + &route).start().await.unwrap();
    let mut stream = authority.client(&["http/1.1"]).connect(cluster.listen("a")).await.unwrap();
    let ask = "POST /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: reverse/1\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut greeted = Vec::new();
    while !greeted.ends_with(b"welcome ") {
        assert_ne!(timeout(SOON, stream.read_buf(&mut greeted)).await.unwrap().unwrap(), 0);
    }
    assert!(greeted.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&greeted));
    stream.write_all(b"drawer reviled").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    timeout(SOON, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "deliver reward");
}

#[tokio::test]
async fn an_upstream_learns_what_its_client_spoke() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = Authority::new();
    let route = format!(
        "[[route]]\npath = \"/x\"\naffinity = \"none\"\nupstream = \"http://{}\"\n",
        listener.local_addr().unwrap()
    );
    let secure = Plan::nodes(1).config(authority.renew() + &route).start().await.unwrap();
    let plain = Plan::nodes(1).config(route).start().await.unwrap();
    let head = async || {
        let (mut stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let lie = [("x-forwarded-proto", "http")];
    let client = authority.client(&["h2"]);
    let (asked, heard) = tokio::join!(client.request("GET", secure.listen("a"), "/x", &lie, ""), head());
    assert_eq!(asked.unwrap().status, 204);
    assert!(heard.contains("x-forwarded-proto: https\r\n"), "{heard}");
    assert!(heard.contains(&format!("x-forwarded-host: {}\r\n", secure.listen("a"))), "{heard}");
    let url = plain.node("a").url("/x");
    let (_, heard) = tokio::join!(http::get(&url), head());
    assert!(heard.contains("x-forwarded-proto: http\r\n"), "{heard}");
    // TLS may end in front of it.
    let front = [("x-forwarded-proto", "https")];
    let (_, heard) = tokio::join!(http::request("GET", &url, &front, ""), head());
    assert!(heard.contains("x-forwarded-proto: https\r\n"), "{heard}");
}

#[tokio::test]
async fn a_certificate_changes_under_a_standing_stream_and_calls_that_go_on() {
    let Encrypted { authority, cluster, upstream: _upstream } = encrypted(1).await;
    let (to, client) = (cluster.listen("a"), authority.client(&["http/1.1"]));
    let session = Secure::open(&client, to).await;
    let mut stream = session.listen(&client).await;
    let before = client.shown(to).await;
    assert_eq!(before, der(&authority.dir.join("cert.pem")));

    authority.renew();
    let (after, mut calls) = (der(&authority.dir.join("cert.pem")), 0);
    assert_ne!(before, after);
    wait_until("the new certificate is shown", SOON, async || {
        calls += 1;
        assert_eq!(session.count(&client, calls).await, calls, "a call while certificates change");
        client.shown(to).await == after
    })
    .await;
    // The stream began with the old one, and has gone on.
    let announce = call(90, "announce", json!({"n": 7}));
    assert_eq!(session.post(&client, &announce).await.status, 200);
    let mut heard = String::new();
    while !heard.contains("\"announced\":7") {
        let mut piece = [0; 4_096];
        let read = timeout(SOON, stream.read(&mut piece)).await.unwrap().unwrap();
        assert!(read > 0, "the stream ended: {heard}");
        heard += &String::from_utf8_lossy(&piece[..read]);
    }
    println!("{calls} calls while the certificate changed");
}

#[tokio::test]
async fn a_pair_that_does_not_match_is_not_used_and_said_once() {
    let Encrypted { authority, cluster, upstream: _upstream } = encrypted(1).await;
    let (to, client) = (cluster.listen("a"), authority.client(&["h2"]));
    let before = client.shown(to).await;
    authority.put("cert.pem", &authority.issue().0);
    let complaint = "the new certificate can't be used";
    let complaints = || cluster.node("a").process.log().matches(complaint).count();
    wait_until("the node says what is wrong", SOON, async || complaints() > 0).await;
    assert!(cluster.node("a").process.log().contains("is not the key of the certificate"));
    assert_eq!(client.shown(to).await, before, "the old one is used on");

    std::fs::remove_file(authority.dir.join("key.pem")).unwrap();
    wait_until("the node says what is missing", SOON, async || {
        cluster.node("a").process.log().contains("can't be read")
    })
    .await;
    assert_eq!(client.shown(to).await, before, "the old one is used on");

    authority.renew();
    let after = der(&authority.dir.join("cert.pem"));
    wait_until("the good pair is used", SOON, async || client.shown(to).await == after).await;
    assert_eq!(complaints(), 1, "{}", cluster.node("a").process.log());
}

#[tokio::test]
async fn a_bad_pair_is_a_mistake_of_the_configuration_with_its_line() {
    let authority = Authority::new();
    authority.renew();
    authority.put("other.pem", &authority.issue().1);
    authority.put("nonsense.pem", "-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n");
    for (cert, key, line, part) in [
        ("cert.pem", "other.pem", 4, "is not the key of the certificate in"),
        ("cert.pem", "cert.pem", 4, "holds no private key"),
        ("nonsense.pem", "key.pem", 3, "holds no certificate"),
        ("cert.pem", "absent.pem", 4, "absent.pem: No such file"),
        ("absent.pem", "key.pem", 3, "absent.pem: No such file"),
    ] {
        let file = authority.dir.join("node.toml");
        // Beside the file.
        std::fs::write(&file, format!("name = \"a\"\n[tls]\ncert = {cert:?}\nkey = {key:?}\n")).unwrap();
        let output = run_ringway(&["check", &file.display().to_string()]).await.unwrap();
        let said = output.stderr;
        assert_eq!(output.code, Some(2), "{said}");
        assert!(said.contains(&format!("line {line}: tls")) && said.contains(part), "{cert} {key}: {said}");
    }
    let file = authority.dir.join("node.toml");
    std::fs::write(&file, "name = \"a\"\n[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n").unwrap();
    let output = run_ringway(&["check", &file.display().to_string()]).await.unwrap();
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

/// A session over TLS.
struct Secure {
    to: SocketAddr,
    id: String,
}

impl Secure {
    async fn open(client: &Client, to: SocketAddr) -> Secure {
        let body = initialize(1).to_string();
        let answer = client.request("POST", to, "/mcp", &POST_HEADERS, body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let session = Secure { to, id: answer.header("mcp-session-id").unwrap().to_owned() };
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(session.post(client, &ready).await.status, 202);
        session
    }

    async fn post(&self, client: &Client, message: &serde_json::Value) -> http::Answer {
        let headers: Vec<_> =
            POST_HEADERS.into_iter().chain([("mcp-session-id", self.id.as_str())]).collect();
        client.request("POST", self.to, "/mcp", &headers, message.to_string()).await.unwrap()
    }

    async fn count(&self, client: &Client, id: u64) -> u64 {
        let reply = self.post(client, &call(id, "count", json!({}))).await.reply().unwrap();
        said(&reply).unwrap().chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
    }

    /// The stream on which the server speaks by itself, as far as its head.
    async fn listen(&self, client: &Client) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut stream = client.connect(self.to).await.unwrap();
        let ask = format!(
            "GET /mcp HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nmcp-session-id: {}\r\n\r\n",
            self.id
        );
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        stream
    }
}
