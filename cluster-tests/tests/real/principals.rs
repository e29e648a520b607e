//! Sessions are their caller's: whoever shows a token of the same issuer and subject, at any node, with any token;
//! to everybody else they do not exist. The same where a proxy in front says who calls.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::real::clients::{Drive, Tool};
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http::{self, Answer, Stream};
use cluster_tests::real::issuer::{AUDIENCE, ISSUER, Issuer, asked_by, asked_by_file};
use cluster_tests::real::mcp::{POST_HEADERS, PROTOCOL, call, initialize};
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream::{self, Upstream};
use cluster_tests::real::wait::wait_for;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::modern::bare::Bare;
use super::prepare::sdks;

/// A death is known in 50 ms, and a request waits 10 s at most. The rest is for a busy machine.
const IN_TIME: Duration = Duration::from_secs(20);

/// Somebody with a token.
struct Caller<'a> {
    issuer: &'a Issuer,
    name: &'a str,
}

impl Caller<'_> {
    /// With a token that was never shown before, as after every refresh.
    async fn send(&self, method: &str, url: &str, session: Option<&str>, body: String) -> Answer {
        let bearer = format!("Bearer {}", self.issuer.token(self.name));
        http::request(method, url, &headers(Some(&bearer), session), body).await.unwrap()
    }

    async fn post(&self, url: &str, session: Option<&str>, message: &Value) -> Answer {
        self.send("POST", url, session, message.to_string()).await
    }

    async fn open(&self, url: &str) -> String {
        let answer = self.post(url, None, &initialize(1)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let session = answer.header("mcp-session-id").unwrap().to_owned();
        let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(self.post(url, Some(&session), &done).await.status, 202);
        session
    }

    async fn count(&self, url: &str, session: &str) -> u64 {
        let answer = self.post(url, Some(session), &call(7, "count", json!({}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let reply = answer.reply().unwrap();
        let text = reply["result"]["content"][0]["text"].as_str();
        text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("count gave {reply}"))
    }

    async fn listen(&self, url: &str, session: &str) -> Stream {
        let bearer = format!("Bearer {}", self.issuer.token(self.name));
        http::open_stream("GET", url, &headers(Some(&bearer), Some(session)), "").await.unwrap()
    }
}

fn headers<'a>(bearer: Option<&'a str>, session: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let bearer = bearer.map(|bearer| ("authorization", bearer));
    let session = session.map(|session| [("mcp-session-id", session), ("mcp-protocol-version", PROTOCOL)]);
    POST_HEADERS.into_iter().chain(bearer).chain(session.into_iter().flatten()).collect()
}

/// Three nodes in front of a server that counts.
struct Parts {
    cluster: Cluster,
    _upstreams: Vec<Upstream>,
}

async fn guarded(auth: &str) -> Parts {
    let upstreams = Upstream::several(1, Upstream::fixture).await.unwrap();
    let route = Route::upstreams(&upstream::urls(&upstreams));
    let cluster = Plan::nodes(3).config(format!("{auth}{route}")).start().await.unwrap();
    Parts { cluster, _upstreams: upstreams }
}

/// All that a client sees of an answer, but for the clock.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| *name != "date");
    let mut headers: Vec<_> = headers
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    (answer.status, headers, answer.text())
}

#[tokio::test]
async fn a_session_is_its_callers_at_every_node_and_to_others_it_does_not_exist() {
    let issuer = Issuer::new().unwrap();
    let Parts { cluster, _upstreams } = guarded(&asked_by_file(&issuer.file)).await;
    let [alice, bob] = ["alice", "bob"].map(|name| Caller { issuer: &issuer, name });
    let session = alice.open(&cluster.url("a")).await;
    let altered =
        format!("{}{}", &session[..session.len() - 1], if session.ends_with('A') { 'B' } else { 'A' });
    let deleted = alice.open(&cluster.url("b")).await;
    assert_eq!(alice.send("DELETE", &cluster.url("c"), Some(&deleted), String::new()).await.status, 200);
    for (counted, url) in (1..).zip(cluster.urls()) {
        assert_eq!(alice.count(&url, &session).await, counted, "every request with another token");
        for (method, body) in [
            ("POST", call(7, "count", json!({})).to_string()),
            ("GET", String::new()),
            ("DELETE", String::new()),
        ] {
            let foreign = seen(&bob.send(method, &url, Some(&session), body.clone()).await);
            assert_eq!(foreign.0, 404, "{foreign:?}");
            for unknown in [&altered, &deleted] {
                let unknown = seen(&bob.send(method, &url, Some(unknown), body.clone()).await);
                assert_eq!(foreign, unknown, "{method}: whose it is shows");
            }
        }
    }
    // Nothing of what bob tried was carried out.
    assert_eq!(alice.count(&cluster.url("b"), &session).await, 4);
    let foreign = [("why", "foreign")];
    // Of the two others one was deleted by alice: it is foreign to bob all the same.
    let told = cluster.metric_of_all("ringway_session_not_found_total", &foreign).await.unwrap();
    assert_eq!(told, 18.0);
    let mut stream = alice.listen(&cluster.url("c"), &session).await;
    assert_eq!(stream.status, 200);
    let params = json!({"uri": "test://watched-resource"});
    let watch = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": params});
    assert_eq!(alice.post(&cluster.url("a"), Some(&session), &watch).await.status, 200);
    assert_eq!(alice.count(&cluster.url("b"), &session).await, 5);
    assert!(stream.message(IN_TIME).await.unwrap().is_some());
}

#[tokio::test]
async fn whoever_shows_no_good_token_is_told_where_to_get_one() {
    let issuer = Issuer::new().unwrap();
    let stranger = Issuer::new().unwrap();
    let Parts { cluster, _upstreams } = guarded(&asked_by_file(&issuer.file)).await;
    let url = cluster.url("b");
    let metadata = "https://gw.example/.well-known/oauth-protected-resource/mcp";
    let wrong = [
        None,
        Some("Basic YTpi".to_owned()),
        Some("Bearer x".to_owned()),
        Some(format!("Bearer {}", stranger.token("alice"))),
        Some(format!("Bearer {}", issuer.sign(&json!({"sub": "alice", "exp": 1_000_000})))),
        Some(format!("Bearer {}", issuer.sign(&json!({"sub": "alice", "nbf": 9_000_000_000_u64})))),
        Some(format!("Bearer {}", issuer.sign(&json!({"sub": "alice", "aud": "https://other.example"})))),
        Some(format!("Bearer {}", issuer.sign(&json!({"sub": "alice", "iss": "https://other.example"})))),
        Some(format!("Bearer {}", issuer.sign(&json!({})))),
        Some(format!("Bearer {}", issuer.sign(&json!({"sub": "alice", "pad": "x".repeat(20_000)})))),
    ];
    for bearer in wrong {
        for (method, session) in [("POST", None), ("POST", Some("rw1.x")), ("GET", None), ("DELETE", None)] {
            let body = if method == "POST" { initialize(7).to_string() } else { String::new() };
            let headers = headers(bearer.as_deref(), session);
            let answer = http::request(method, &url, &headers, body).await.unwrap();
            assert_eq!(answer.status, 401, "{method} {bearer:?}: {}", answer.text());
            let challenge = answer.header("www-authenticate").unwrap();
            for part in ["Bearer ", "error=\"invalid_token\"", "error_description=\"", metadata] {
                assert!(challenge.contains(part), "{challenge}");
            }
            let error = answer.json().unwrap();
            assert_eq!((&error["id"], &error["error"]["code"]), (&Value::Null, &json!(-32600)), "{error}");
        }
    }
    // A body that is still coming is no reason for a reset.
    let large = initialize(7).to_string() + &" ".repeat(3 * 1024 * 1024);
    assert_eq!(http::request("POST", &url, &POST_HEADERS, large).await.unwrap().status, 401);
    for name in cluster.names() {
        let at = cluster.node(&name).url("/.well-known/oauth-protected-resource/mcp");
        let page = [("origin", "http://localhost:6274")];
        let answer = http::request("GET", &at, &page, "").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:6274"));
        let document = answer.json().unwrap();
        assert_eq!(document["resource"], AUDIENCE);
        assert_eq!(document["authorization_servers"], json!([ISSUER]));
        assert_eq!(document["bearer_methods_supported"], json!(["header"]));
        let foreign = http::request("GET", &at, &[("origin", "https://evil.example")], "").await.unwrap();
        assert_eq!(foreign.status, 403);
    }
    let other = cluster.node("a").url("/.well-known/oauth-protected-resource/other");
    assert_eq!(http::get(&other).await.unwrap().status, 404);
}

#[tokio::test]
async fn a_session_stays_its_callers_when_its_owner_is_killed() {
    let issuer = Issuer::new().unwrap();
    let Parts { mut cluster, _upstreams } = guarded(&asked_by_file(&issuer.file)).await;
    let [alice, bob] = ["alice", "bob"].map(|name| Caller { issuer: &issuer, name });
    let session = alice.open(&cluster.url("a")).await;
    assert_eq!(alice.count(&cluster.url("b"), &session).await, 1);
    let owner = cluster.owner("b", &session).await.unwrap();
    cluster.kill_noticed(&owner).await.unwrap();
    for (counted, url) in (2..).zip(cluster.urls()) {
        let foreign = bob.post(&url, Some(&session), &call(7, "count", json!({}))).await;
        assert_eq!(foreign.status, 404, "{}", foreign.text());
        assert_eq!(alice.count(&url, &session).await, counted);
        let foreign = bob.send("DELETE", &url, Some(&session), String::new()).await;
        assert_eq!(foreign.status, 404, "{}", foreign.text());
    }
}

#[tokio::test]
async fn a_childs_session_that_begins_anew_elsewhere_stays_its_callers() {
    let issuer = Issuer::new().unwrap();
    let route = Route::command(&upstream::fixture_stdio().await.unwrap());
    let config = format!("{}{route}", asked_by_file(&issuer.file));
    let mut cluster = Plan::nodes(3).config(config).start().await.unwrap();
    let [alice, bob] = ["alice", "bob"].map(|name| Caller { issuer: &issuer, name });
    let session = alice.open(&cluster.url("a")).await;
    assert_eq!(alice.count(&cluster.url("b"), &session).await, 1);
    let owner = cluster.owner("b", &session).await.unwrap();
    cluster.kill_noticed(&owner).await.unwrap();
    let url = cluster.urls().remove(0);
    // The first request that comes is not its caller's, and begins nothing.
    assert_eq!(bob.post(&url, Some(&session), &call(7, "count", json!({}))).await.status, 404);
    assert_eq!(alice.count(&url, &session).await, 1, "a new child");
}

#[tokio::test]
async fn an_issuer_takes_new_keys_and_goes_away_and_its_callers_stay() {
    let mut issuer = Issuer::new().unwrap();
    let url = issuer.serve().await.unwrap();
    let Parts { cluster, _upstreams } = guarded(&asked_by(&url)).await;
    let at = cluster.url("c");
    let session = Caller { issuer: &issuer, name: "alice" }.open(&at).await;
    let old = issuer.token("alice");
    issuer.add_key().unwrap();
    for (counted, at) in (1..).zip(cluster.urls()) {
        assert_eq!(Caller { issuer: &issuer, name: "alice" }.count(&at, &session).await, counted);
    }
    issuer.go_away();
    assert_eq!(Caller { issuer: &issuer, name: "alice" }.count(&at, &session).await, 4);
    // The old key is withdrawn; that is known when the next unknown one is asked for.
    issuer.come_back().unwrap();
    issuer.withdraw_old_keys().unwrap();
    issuer.add_key().unwrap();
    assert_eq!(Caller { issuer: &issuer, name: "alice" }.count(&at, &session).await, 5);
    let bearer = format!("Bearer {old}");
    let shown = headers(Some(&bearer), Some(&session));
    let answer = http::request("POST", &at, &shown, initialize(1).to_string()).await.unwrap();
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_when_it_changes() {
    let mut issuer = Issuer::new().unwrap();
    let Parts { cluster, _upstreams } = guarded(&asked_by_file(&issuer.file)).await;
    let session = Caller { issuer: &issuer, name: "alice" }.open(&cluster.url("a")).await;
    issuer.add_key().unwrap();
    issuer.withdraw_old_keys().unwrap();
    for url in cluster.urls() {
        wait_for("the new key is known", IN_TIME, async || {
            let alice = Caller { issuer: &issuer, name: "alice" };
            let answer = alice.post(&url, Some(&session), &call(7, "count", json!({}))).await;
            anyhow::ensure!(answer.status == 200, "{}", answer.status);
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_keeps_no_client_from_an_answer() {
    let issuer = Issuer::new().unwrap();
    let url = issuer.serve().await.unwrap();
    issuer.go_away();
    let Parts { cluster, _upstreams } = guarded(&asked_by(&url)).await;
    let alice = Caller { issuer: &issuer, name: "alice" };
    let answer = alice.post(&cluster.url("a"), None, &initialize(7)).await;
    let error = answer.json().unwrap();
    assert_eq!((answer.status, &error["id"], &error["error"]["code"]), (200, &json!(7), &json!(-31001)));
    assert_eq!(error["error"]["data"], json!({"reason": "keys_unknown", "mayHaveRun": false}));
    let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(alice.post(&cluster.url("a"), None, &done).await.status, 503);
    let nobody = http::request("POST", &cluster.url("a"), &POST_HEADERS, initialize(7).to_string()).await;
    assert_eq!(nobody.unwrap().status, 401, "it takes no keys to see that there is no token");
    issuer.come_back().unwrap();
    wait_for("the issuer's keys are known", IN_TIME, async || {
        let answer = alice.post(&cluster.url("a"), None, &initialize(7)).await;
        anyhow::ensure!(answer.header("mcp-session-id").is_some(), "{}", answer.text());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_old_clients_messages_are_taken_from_itself_only() {
    let issuer = Issuer::new().unwrap();
    let Parts { cluster, _upstreams } = guarded(&asked_by_file(&issuer.file)).await;
    let [alice, bob] = ["alice", "bob"].map(|name| Caller { issuer: &issuer, name });
    let bearer = format!("Bearer {}", issuer.token("alice"));
    let asking = [("accept", "text/event-stream"), ("authorization", bearer.as_str())];
    let stream = cluster.node("a").url("/mcp/sse");
    let unnamed = http::request("GET", &stream, &asking[..1], "").await.unwrap();
    assert_eq!(unnamed.status, 401);
    let mut stream = http::open_stream("GET", &stream, &asking, "").await.unwrap();
    let endpoint = stream.event(IN_TIME).await.unwrap().unwrap().data;
    let mut hello = initialize(1);
    hello["params"]["protocolVersion"] = json!("2024-11-05");
    let taken = alice.post(&cluster.node("b").url(&endpoint), None, &hello).await;
    assert_eq!(taken.status, 202, "{}", taken.text());
    assert_eq!(stream.message(IN_TIME).await.unwrap().unwrap()["id"], 1);
    for name in cluster.names() {
        let url = cluster.node(&name).url(&endpoint);
        let foreign = bob.post(&url, None, &call(9, "count", json!({}))).await;
        let unknown = bob.post(&url.replace("=rw1.", "=rw1.A"), None, &call(9, "count", json!({}))).await;
        assert_eq!(seen(&foreign), seen(&unknown));
        assert_eq!(foreign.status, 404, "{}", foreign.text());
    }
    let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(alice.post(&cluster.node("c").url(&endpoint), None, &done).await.status, 202);
    let counted = alice.post(&cluster.node("c").url(&endpoint), None, &call(2, "count", json!({}))).await;
    assert_eq!(counted.status, 202);
    let reply = stream.message(IN_TIME).await.unwrap().unwrap();
    assert_eq!(
        (&reply["id"], reply["result"]["content"][0]["text"].as_str()),
        (&json!(2), Some("1")),
        "{reply}"
    );
}

#[tokio::test]
async fn what_has_no_session_is_asked_who_calls_too() {
    let issuer = Issuer::new().unwrap();
    let Parts { cluster, _upstreams } = guarded(&asked_by_file(&issuer.file)).await;
    let able = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": able,
    });
    let request = |method: &str, mut params: Value| {
        params["_meta"] = meta.clone();
        json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
    };
    let ask = async |at: &str, method: &str, name: Option<&str>, params: Value, bearer: Option<&str>| {
        let mut headers = headers(bearer, None);
        headers.extend([("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)]);
        headers.extend(name.map(|name| ("mcp-name", name)));
        http::request("POST", &cluster.url(at), &headers, request(method, params)).await.unwrap()
    };
    for method in ["server/discover", "tools/list"] {
        let bearer = format!("Bearer {}", issuer.token("alice"));
        assert_eq!(ask("a", method, None, json!({}), None).await.status, 401, "{method}");
        assert_eq!(ask("a", method, None, json!({}), Some(&bearer)).await.status, 200, "{method}");
    }
    let [alice, bob] = ["alice", "bob"].map(|name| format!("Bearer {}", issuer.token(name)));
    let arguments = json!({"name": "slow_compute", "arguments": {"seconds": 0, "label": "x"}});
    let made = ask("a", "tools/call", Some("slow_compute"), arguments, Some(&alice)).await.reply().unwrap();
    let Some(task) = made["result"]["taskId"].as_str() else { panic!("it makes no task: {made}") };
    for at in ["a", "b", "c"] {
        let id = json!({"taskId": task});
        let mine = ask(at, "tasks/get", Some(task), id.clone(), Some(&alice)).await.reply().unwrap();
        assert_eq!(mine["result"]["taskId"], task, "{mine}");
        let foreign = ask(at, "tasks/get", Some(task), id, Some(&bob)).await.reply().unwrap();
        assert!(foreign["error"].is_object(), "{foreign}");
    }
}

#[tokio::test]
async fn a_proxy_says_who_calls_and_nobody_else_can() {
    let auth = "auth = { header = \"X-Forwarded-User\" }\ntrusted_proxies = [\"127.0.0.2\"]\n";
    let upstream = Bare::bind().await;
    let counting = Upstream::fixture().await.unwrap();
    let shown = Route::upstreams(&[upstream.url("/mcp")]).at("/shown");
    let plain = format!("{}affinity = \"none\"\n", Route::upstreams(&[upstream.url("")]).at("/plain"));
    let config = format!("{auth}{}{shown}{plain}", Route::upstreams(std::slice::from_ref(&counting.url)));
    let cluster = Plan::nodes(3).config(config).start().await.unwrap();
    let (a, b) = (cluster.listen("a"), cluster.listen("b"));
    let hello = initialize(1).to_string();
    let opened = via("127.0.0.2", a, "POST /mcp", &[("x-forwarded-user", "alice")], &hello).await;
    assert!(opened.starts_with("HTTP/1.1 200"), "{opened}");
    let session = opened.lines().find_map(|line| line.strip_prefix("mcp-session-id: ")).unwrap().to_owned();
    let count = call(2, "count", json!({})).to_string();
    let of = |name: &'static str| {
        let session = session.clone();
        vec![("x-forwarded-user".to_owned(), name.to_owned()), ("mcp-session-id".to_owned(), session)]
    };
    for (from, headers, status) in [
        ("127.0.0.2", of("alice"), "200"),
        ("127.0.0.2", of("bob"), "404"),
        ("127.0.0.2", of(""), "401"),
        ("127.0.0.2", of("alice")[1..].to_vec(), "401"),
        ("127.0.0.2", [of("alice"), of("alice")[..1].to_vec()].concat(), "401"),
        ("127.0.0.1", of("alice"), "401"),
        ("127.0.0.3", of("alice"), "401"),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for node in [a, b] {
            let answer = via(from, node, "POST /mcp", &headers, &count).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{from} {headers:?}: {answer}");
            if status == "401" {
                assert!(answer.contains("www-authenticate: Trusted-Proxy"), "{answer}");
            }
        }
    }
    // Upstreams hear of a caller from a proxy or not at all, on every route.
    for (from, path, expected) in [
        ("127.0.0.2", "/shown", Some("alice")),
        ("127.0.0.2", "/plain", Some("alice")),
        ("127.0.0.1", "/plain", None),
    ] {
        let asking = tokio::spawn(async move {
            let line = format!("POST {path}");
            via(from, a, &line, &[("x-forwarded-user", "alice")], &initialize(1).to_string()).await
        });
        let mut asked = upstream.accept().await;
        assert_eq!(asked.header("x-forwarded-user").as_deref(), expected, "{from} {path}: {}", asked.head);
        asked.answer("application/json", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
        assert!(asking.await.unwrap().starts_with("HTTP/1.1 200"));
    }
}

/// A request from this of the machine's addresses; all that is answered, as text.
async fn via(from: &str, to: SocketAddr, line: &str, headers: &[(&str, &str)], body: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    let mut connection = socket.connect(to).await.unwrap();
    let headers: String =
        POST_HEADERS.iter().chain(headers).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let len = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len}\r\n{headers}\r\n{body}"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(IN_TIME, connection.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn sdk_clients_keep_their_sessions_when_their_tokens_are_renewed() {
    let test = "sdk_clients_keep_their_sessions_when_their_tokens_are_renewed";
    let issuer = Issuer::new().unwrap();
    let Parts { cluster, _upstreams } = guarded(&asked_by_file(&issuer.file)).await;
    let file = issuer.file.with_file_name("token");
    let renew = |token: String| {
        let new = file.with_extension("new");
        std::fs::write(&new, token).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    for sdk in sdks(test).await {
        renew(issuer.token("alice"));
        let mut drive = Drive::new(cluster.urls(), Tool::Count);
        (drive.token_file, drive.pace) = (Some(file.clone()), Duration::from_millis(20));
        let answered =
            async || cluster.metric_of_all("ringway_requests_total", &[("outcome", "answered")]).await;
        let running = drive.start(sdk).await.unwrap();
        for _ in 0..5 {
            let before = answered().await.unwrap();
            wait_for("requests are answered", IN_TIME, async || {
                let now = answered().await?;
                anyhow::ensure!(now > before + 50.0, "{now}");
                Ok(())
            })
            .await;
            renew(issuer.token("alice"));
        }
        running.finish().await.unwrap().assert_no_errors();
        // Without a good one it says so, and does not hang.
        renew("x".to_owned());
        let report = drive.run(sdk).await.unwrap();
        assert!(report.error_count >= drive.sessions && report.calls == 0, "{report:#?}");
        assert!(report.statuses.contains_key("POST 401"), "{report:#?}");
    }
}
