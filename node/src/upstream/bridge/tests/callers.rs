//! Requests of 2026-07-28 and a server for each of their callers.

use super::world::{Reading, START_TIMEOUT, Server, pipe, route, text};
use crate::answer::{Answer, Broke};
use crate::ask::Payload;
use crate::headers::Headers;
use crate::mcp::PROTOCOL_VERSION;
use crate::upstream::{Request, bridge::Callers, pipe::Pipe};
use bytes::Bytes;
use hyper::{
    Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue},
};
use proto::id::Principal;
use proto::wire::{Reason, Refusal};
use serde_json::{Value, json};
use std::future::ready;

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

fn call(id: Value, name: &str, meta: Value) -> Value {
    let mut meta = meta;
    meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "_meta": meta}})
}

/// A caller's servers; the first one that is needed is there.
async fn posts(callers: &Callers, server: Option<Pipe>, message: &Value) -> Result<Answer, Refusal> {
    posts_as(Principal::ANYONE, callers, server, message).await
}

async fn posts_as(
    caller: Principal,
    callers: &Callers,
    server: Option<Pipe>,
    message: &Value,
) -> Result<Answer, Refusal> {
    let mut headers = Headers::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static("2026-07-28"));
    headers.insert(METHOD, HeaderValue::from_str(message["method"].as_str().expect("text")).expect("text"));
    if let Some(name) = message["params"]["name"].as_str() {
        headers.insert(NAME, HeaderValue::from_str(name).expect("text"));
    }
    let route = route();
    let request = Request {
        route: &route,
        method: Method::POST,
        target: "/mcp",
        headers,
        body: &Payload::Whole(Bytes::from(message.to_string())),
        caller: Some(caller),
    };
    let open = ready(server.ok_or(Refusal::not_run(Reason::UpstreamUnreachable)));
    let exchanged = callers.exchange(open, request);
    tokio::time::timeout(START_TIMEOUT * 10, exchanged).await.expect("in time")
}

async fn read(server: &mut Server) -> Value {
    serde_json::from_str(&server.reads().await).expect("JSON")
}

#[tokio::test(start_paused = true)]
async fn two_connections_of_a_caller_use_the_same_ids_and_each_gets_its_own_answer() {
    let (callers, (pipe, mut server)) = (Callers::default(), pipe(4));
    let (first, second) =
        (call(json!(1), "a", json!({"progressToken": "p"})), call(json!(1), "b", json!({})));
    let one = async { Reading::of(posts(&callers, Some(pipe), &first).await.expect("an answer")) };
    let other = async {
        tokio::task::yield_now().await;
        Reading::of(posts(&callers, None, &second).await.expect("an answer"))
    };
    let serving = async {
        let (a, b) = (read(&mut server).await, read(&mut server).await);
        assert_ne!(a["id"], b["id"]);
        assert_eq!(a["params"]["_meta"]["progressToken"], a["id"]);
        server.answers(b["id"].clone()).await;
        let progress = json!({"progressToken": a["id"], "progress": 1});
        server
            .says(
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}).to_string(),
            )
            .await;
        server.answers(a["id"].clone()).await;
    };
    let (mut one, mut other, ()) = tokio::join!(one, other, serving);
    assert_eq!(other.data().await, json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    other.ends().await;
    assert_eq!(one.data().await["params"]["progressToken"], "p");
    assert_eq!(one.data().await["id"], 1);
    one.ends().await;
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_has_cancelled() {
    let (callers, (pipe, mut server)) = (Callers::default(), pipe(4));
    let call = call(json!("x"), "a", json!({}));
    let posting = posts(&callers, Some(pipe), &call);
    tokio::select! {
        answered = posting => panic!("{answered:?}"),
        asked = read(&mut server) => {
            let number = asked["id"].clone();
            tokio::task::yield_now().await;
            assert!(number.is_u64());
        }
    }
    let cancelled = read(&mut server).await;
    assert_eq!(cancelled["method"], "notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_has_the_status_of_its_kind() {
    for (code, status) in [(-32022, 400), (-32601, 404), (-32602, 200), (-32603, 200), (7, 200)] {
        let (callers, (pipe, mut server)) = (Callers::default(), pipe(4));
        let call = call(json!(1), "a", json!({}));
        let serving = async {
            let asked = read(&mut server).await;
            let error =
                json!({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": code, "message": "no"}});
            server.says(error.to_string()).await;
        };
        let (answer, ()) = tokio::join!(posts(&callers, Some(pipe), &call), serving);
        let answer = answer.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{code}");
        let text = text(answer).await;
        assert!(text.contains("\"id\":1") && text.contains(&code.to_string()), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_sessions_only_is_not_asked_again() {
    let (callers, (pipe, mut server)) = (Callers::default(), pipe(4));
    let mut discover = call(json!(1), "a", json!({}));
    discover["method"] = json!("server/discover");
    let serving = async {
        let asked = read(&mut server).await;
        let error = json!({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}});
        server.says(error.to_string()).await;
        server.has_ended().await;
    };
    let (answer, ()) = tokio::join!(posts(&callers, Some(pipe), &discover), serving);
    assert_eq!(answer.expect("an answer").status(), StatusCode::NOT_FOUND);
    let again = posts(&callers, None, &discover).await.expect("without a server");
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
    assert!(text(again).await.contains("-32601"));
}

#[tokio::test(start_paused = true)]
async fn headers_that_say_something_else_are_refused() {
    let (callers, (pipe, _server)) = (Callers::default(), pipe(4));
    let mut call = call(json!(1), "a", json!({}));
    call["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2025-11-25");
    let answer = posts(&callers, Some(pipe), &call).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(text(answer).await.contains("-32020"));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_has_not_answered_when_it_ends_breaks_off_and_the_next_request_gets_another_one() {
    let (callers, (first, mut server)) = (Callers::default(), pipe(4));
    let call = call(json!(1), "a", json!({"progressToken": 1}));
    let serving = async {
        let asked = read(&mut server).await;
        let progress = json!({"progressToken": asked["id"], "progress": 1});
        server
            .says(
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}).to_string(),
            )
            .await;
        drop(server);
    };
    let (answer, ()) = tokio::join!(posts(&callers, Some(first), &call), serving);
    let mut reading = Reading::of(answer.expect("an answer"));
    reading.data().await;
    assert_eq!(reading.next().await, Some(Err(Broke::Upstream)));
    let (second, mut server) = pipe(4);
    let serving = async {
        let asked = read(&mut server).await;
        server.answers(asked["id"].clone()).await;
        server
    };
    let (answer, _server) = tokio::join!(posts(&callers, Some(second), &call), serving);
    assert_eq!(Reading::of(answer.expect("an answer")).data().await["id"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_nobody_asks_is_ended() {
    let (callers, (pipe, mut server)) = (Callers::default(), pipe(4));
    let call = call(json!(1), "a", json!({}));
    let serving = async {
        let asked = read(&mut server).await;
        server.answers(asked["id"].clone()).await;
        server
    };
    let (answer, mut server) = tokio::join!(posts(&callers, Some(pipe), &call), serving);
    Reading::of(answer.expect("an answer")).data().await;
    server.has_ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_could_not_be_started_takes_nobodys_place() {
    let callers = Callers::default();
    let call = call(json!(1), "a", json!({}));
    posts_as(Principal([1; 16]), &callers, None, &call).await.expect_err("no server");
    // The route allows one.
    let (pipe, mut server) = pipe(4);
    let serving = async {
        let asked = read(&mut server).await;
        server.answers(asked["id"].clone()).await;
    };
    let (answer, ()) = tokio::join!(posts_as(Principal([2; 16]), &callers, Some(pipe), &call), serving);
    assert_eq!(Reading::of(answer.expect("an answer")).data().await["id"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_while_its_server_ends_is_refused() {
    // Room and the end come at once, and either may be seen first.
    for _ in 0..32 {
        let (callers, (pipe, mut server)) = (Callers::default(), pipe(1));
        let call = call(json!(1), "a", json!({}));
        let ending = async {
            tokio::task::yield_now().await; // one request is sent, the other waits for room
            callers.end_all();
            read(&mut server).await;
        };
        let (first, second, ()) =
            tokio::join!(posts(&callers, Some(pipe), &call), posts(&callers, None, &call), ending);
        first.expect_err("not answered");
        second.expect_err("not answered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off_and_the_others_are_served() {
    let (callers, (pipe, mut server)) = (Callers::default(), pipe(4));
    let call = call(json!(1), "a", json!({"progressToken": 1}));
    let says = async |server: &Server, number: &Value| {
        let progress = json!({"progressToken": number, "message": "x".repeat(100_000)});
        let message = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress});
        server.says(message.to_string()).await;
    };
    let serving = async {
        let asked = read(&mut server).await["id"].clone();
        for _ in 0..20 {
            says(&server, &asked).await;
        }
        let cancelled = read(&mut server).await;
        assert_eq!(cancelled["params"]["requestId"], asked);
        server
    };
    let (answer, mut server) = tokio::join!(posts(&callers, Some(pipe), &call), serving);
    let mut reading = Reading::of(answer.expect("an answer"));
    let mut count = 0;
    while let Some(Ok(_)) = reading.next().await {
        count += 1;
    }
    assert!((5..20).contains(&count), "{count} of 100 KB each");
    let serving = async {
        let asked = read(&mut server).await["id"].clone();
        for _ in 0..20 {
            says(&server, &asked).await;
            tokio::task::yield_now().await;
        }
        server.answers(asked).await;
    };
    let reading = async {
        let mut reading = Reading::of(posts(&callers, None, &call).await.expect("an answer"));
        let mut count = 0;
        while reading.next().await.is_some() {
            count += 1;
        }
        count
    };
    assert_eq!(tokio::join!(reading, serving).0, 21, "who reads gets everything");
}
