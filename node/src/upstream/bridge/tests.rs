mod callers;
mod world;

use super::*;
use hyper::{
    StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::{Value, json};
use std::future::{pending, ready};
use world::{Client, Reading, initialize, pipe, text};

const NEWEST: &str = "2025-11-25";
const UNREACHABLE: Refusal =
    Refusal::Undelivered { reason: Reason::UpstreamUnreachable, may_have_run: false };

fn response(id: impl Into<Value>) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "result": {}})
}

/// Polls a future once, so that it stands where it waits.
macro_rules! begin {
    ($future:expr) => {
        assert!(futures_poll(&mut $future).await.is_none(), "it waits")
    };
}

async fn futures_poll<T>(future: &mut std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn an_initialize_opens_a_session_that_ends_with_a_delete() {
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    let id = client.headers[SESSION_ID].to_str().expect("text");
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let mut own = client.listens().await;
    own.is_primed().await;
    let mut call = client.calls(json!(1)).await;
    call.is_primed().await;
    assert_eq!(client.deletes().await.status(), StatusCode::OK);
    assert!(server.reads().await.contains("tools/call"));
    server.has_ended().await;
    own.ends().await;
    assert_eq!(call.data().await["error"]["data"]["reason"], "upstream_broke");
    call.ends().await;
    assert_eq!(client.deletes().await.status(), StatusCode::NOT_FOUND);
    client.bridges.end(id); // once more
}

#[tokio::test]
async fn the_first_answer_is_passed_on_as_it_came() {
    let client = Client::new();
    let (pipe, mut server) = pipe(8);
    let answer = r#"{"result":{"protocolVersion":"2025-06-18","x":1.0,"big":12345678901234567890123},"id":0,"jsonrpc":"2.0"}"#;
    let serving = async {
        server.reads().await;
        server.says(r#"{"jsonrpc":"2.0","method":"notifications/message"}"#).await;
        server.says(answer).await;
    };
    let (opened, ()) = tokio::join!(client.opens(pipe), serving);
    let opened = opened.expect("an answer");
    assert_eq!(opened.headers()[CONTENT_TYPE], "application/json");
    let client = client.with(SESSION_ID, opened.headers()[SESSION_ID].to_str().expect("text"));
    assert_eq!(text(opened).await, answer);
    assert_eq!(client.listens().await.data().await["method"], "notifications/message");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_server_that_does_not_start() {
    let client = Client::new();
    let refused = client.sends(Method::POST, initialize().into(), ready(Err(UNREACHABLE))).await;
    assert_eq!(refused.expect_err("it can't be started"), UNREACHABLE);

    let never = client.sends(Method::POST, initialize().into(), pending()).await;
    assert_eq!(never.expect_err("it takes too long to start"), UNREACHABLE);

    let (silent, mut server) = pipe(8);
    assert_eq!(client.opens(silent).await.expect_err("it says nothing"), UNREACHABLE);
    server.reads().await;
    server.has_ended().await;

    let (ends, mut server) = pipe(8);
    let serving = async move { drop(server.reads().await) };
    assert_eq!(tokio::join!(client.opens(ends), serving).0.expect_err("it ends"), UNREACHABLE);

    let (refuses, mut server) = pipe(8);
    let serving = async {
        server.reads().await;
        server.says(r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"no"}}"#).await;
        server.has_ended().await;
    };
    let answer = tokio::join!(client.opens(refuses), serving).0.expect("an answer");
    assert!(!answer.headers().contains_key(SESSION_ID));
    assert!(text(answer).await.contains("-32602"));

    let (left, mut server) = pipe(8);
    {
        let mut opening = std::pin::pin!(client.opens(left));
        begin!(opening);
    }
    server.reads().await;
    server.has_ended().await;
    assert!(client.bridges.sessions.lock().is_empty());
}

#[tokio::test]
async fn a_call_is_answered_as_its_client_accepts_it() {
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    for (accept, form) in [
        ("application/json, text/event-stream", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("application/*;q=0.5", "application/json"),
        ("text/*", "text/event-stream"),
    ] {
        let client = client.with(ACCEPT, accept);
        let call = client.posts(r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#);
        let serving = async {
            assert_eq!(server.reads().await, r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#);
            server.answers(json!("a")).await;
        };
        let answer = tokio::join!(call, serving).0.expect("an answer");
        assert_eq!(answer.headers()[CONTENT_TYPE], form, "{accept}");
        if form == "application/json" {
            assert_eq!(text(answer).await, response("a").to_string());
            continue;
        }
        assert_eq!(answer.headers()["cache-control"], "no-cache, no-transform");
        assert_eq!(answer.headers()["x-accel-buffering"], "no");
        let mut events = Reading::of(answer);
        events.is_primed().await;
        assert_eq!(events.data().await, response("a"));
        events.ends().await;
    }
    for (header, value, status) in [
        (ACCEPT, "text/html", StatusCode::NOT_ACCEPTABLE),
        (CONTENT_TYPE, "text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (PROTOCOL_VERSION, "2026-07-28", StatusCode::BAD_REQUEST),
        (SESSION_ID, "0123", StatusCode::NOT_FOUND),
    ] {
        let answer = client.with(header, value).posts(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), status, "{value}");
        assert!(text(answer).await.contains("\"error\""));
    }
    assert_eq!(client.with(ACCEPT, "application/json").gets().await.status(), StatusCode::NOT_ACCEPTABLE);
    let mut nobody = client.clone();
    nobody.headers.remove(SESSION_ID);
    assert_eq!(nobody.gets().await.status(), StatusCode::BAD_REQUEST);
    let put = client.sends(Method::PUT, Bytes::new(), pending()).await.expect("an answer");
    assert_eq!(
        (put.status(), &put.headers()["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"GET, POST, DELETE".parse().expect("a value"))
    );
    for body in ["{", "[]", "7"] {
        assert_eq!(client.posts(body).await.expect("an answer").status(), StatusCode::BAD_REQUEST, "{body}");
    }
    let again = client.posts(initialize()).await.expect("an answer");
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_revision_that_the_server_negotiated_is_supported_whatever_it_is() {
    let (client, _server) = Client::initialized("2025-01-01", 8).await;
    assert_eq!(client.gets().await.status(), StatusCode::OK);
    let answer = client.with(PROTOCOL_VERSION, "2025-01-02").gets().await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn calls_at_once_get_each_their_own_messages() {
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    let (mut one, mut two) = (client.calls(json!(1)).await, client.calls(json!("1")).await);
    for _ in 0..2 {
        server.reads().await;
    }
    let progress = |token: Value| json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}});
    server.says(progress(json!("1")).to_string()).await;
    server.answers(json!(1)).await;
    server.answers(json!("1")).await;
    assert_eq!(one.is_primed().await, client.id("2-0"));
    assert_eq!(two.is_primed().await, client.id("3-0"));
    assert_eq!(one.event().await, (client.id("2-1"), response(1)));
    assert_eq!(two.event().await, (client.id("3-1"), progress(json!("1"))));
    assert_eq!(two.event().await, (client.id("3-2"), response("1")));
    one.ends().await;
    two.ends().await;
    let twice =
        (client.calls(json!(2)).await, client.posts(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#).await);
    let refused = twice.1.expect("an answer");
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(text(refused).await.contains("\"id\":2,"));
}

#[tokio::test]
async fn what_the_server_asks_is_answered_by_a_post() {
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    let mut call = client.calls(json!(1)).await;
    call.is_primed().await;
    server.reads().await;
    let asked = json!({"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {}});
    server.says(asked.to_string()).await;
    assert_eq!(call.data().await, asked);
    for (answer, reaches) in [(response("1"), false), (response(1), true), (response(1), false)] {
        let accepted = client.posts(answer.to_string()).await.expect("an answer");
        assert_eq!((accepted.status(), text(accepted).await), (StatusCode::ACCEPTED, String::new()));
        if reaches {
            assert_eq!(server.reads().await, answer.to_string());
        }
    }
    let told = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    assert_eq!(client.posts(told.to_string()).await.expect("an answer").status(), StatusCode::ACCEPTED);
    assert_eq!(server.reads().await, told.to_string(), "nothing else came between");
}

#[tokio::test]
async fn a_message_to_the_server_is_one_line_and_otherwise_the_clients() {
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    let told = "{\r\n  \"method\": \"a\\nb\",\n  \"params\": [1.0, 12345678901234567890123],\n  \"jsonrpc\": \"2.0\"\n}\n";
    client.posts(told).await.expect("an answer");
    let read = server.reads().await;
    assert_eq!(read, told.replace(['\r', '\n'], " "));
    assert!(read.contains("a\\nb"));
}

#[tokio::test]
async fn a_batch_is_answered_on_one_stream_or_as_one() {
    let (client, mut server) = Client::initialized("2025-03-26", 8).await;
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"a"},
        {"jsonrpc":"2.0","method":"b"}, {"jsonrpc":"2.0","id":2,"method":"c"}]"#;
    for accept in ["application/json, text/event-stream", "application/json"] {
        let client = client.with(ACCEPT, accept);
        let serving = async {
            for method in ["a", "b", "c"] {
                assert!(server.reads().await.contains(&format!("\"method\":\"{method}\"")));
            }
            server.says(format!("[{},{}]", response(2), response(1))).await;
        };
        let answer = tokio::join!(client.posts(batch), serving).0.expect("an answer");
        if accept == "application/json" {
            let all: Value = serde_json::from_str(&text(answer).await).expect("JSON");
            assert_eq!(all, json!([response(2), response(1)]));
        } else {
            let mut events = Reading::of(answer);
            assert_eq!(events.data().await, response(2), "no priming in this revision");
            assert_eq!(events.data().await, response(1));
            events.ends().await;
        }
    }
    let told = r#"[{"jsonrpc":"2.0","method":"b"},{"jsonrpc":"2.0","id":9,"result":{}}]"#;
    assert_eq!(client.posts(told).await.expect("an answer").status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_call_whose_client_has_gone_goes_on_and_can_be_resumed() {
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    let mut own = client.listens().await;
    assert_eq!(own.is_primed().await, client.id("0-0"));
    let mut call = client.calls(json!(1)).await;
    let primed = call.is_primed().await;
    drop(call);
    assert!(server.reads().await.contains("tools/call"));
    server.answers(json!(1)).await;
    let mut resumed = client.resumes(&primed).await;
    let (last, answer) = resumed.event().await;
    assert_eq!(answer, response(1));
    resumed.ends().await;
    assert_eq!(client.with(LAST_EVENT_ID, &last).gets().await.status(), StatusCode::METHOD_NOT_ALLOWED);
    server.says(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#).await;
    assert_eq!(own.event().await.0, client.id("0-1"), "who listens was not disturbed");
    let mut newest = client.resumes(&client.id("0-0")).await;
    own.ends().await;
    assert_eq!(newest.event().await.0, client.id("0-1"));
    assert!(server.reads.try_recv().is_err(), "the server heard of none of this");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_ends_and_its_server_is_told() {
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    let mut call = client.calls(json!(1)).await;
    call.is_primed().await;
    server.reads().await;
    let cancelled =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(client.posts(cancelled.to_string()).await.expect("an answer").status(), StatusCode::ACCEPTED);
    assert_eq!(server.reads().await, cancelled.to_string());
    assert_eq!(call.data().await["error"]["code"], -32800);
    call.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_call_is_not_silent() {
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    let mut call = client.calls(json!(1)).await;
    call.is_primed().await;
    for _ in 0..3 {
        assert_eq!(call.data().await, ": ");
    }
    server.reads().await;
    server.answers(json!(1)).await;
    assert_eq!(call.data().await, response(1));
    call.ends().await;
}

#[tokio::test]
async fn the_end_of_a_server_breaks_what_waits_for_it() {
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    let mut own = client.listens().await;
    own.is_primed().await;
    let mut call = client.calls(json!(1)).await;
    call.is_primed().await;
    let left = client.calls(json!(3)).await;
    drop(left);
    let mut resumed = client.resumes(&client.id("3-0")).await;
    let as_json = client.with(ACCEPT, "application/json");
    let waiting = as_json.posts(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#);
    let serving = async move {
        for _ in 0..3 {
            server.reads().await;
        }
    };
    let broke = tokio::join!(waiting, serving).0.expect_err("no answer");
    assert_eq!(broke, Refusal::perhaps_run(Reason::UpstreamBroke));
    own.ends().await;
    let error = call.data().await;
    assert_eq!((&error["id"], &error["error"]["data"]["mayHaveRun"]), (&json!(1), &json!(true)));
    call.ends().await;
    let error = resumed.data().await;
    assert_eq!((&error["id"], &error["error"]["data"]["reason"]), (&json!(3), &json!("upstream_broke")));
    resumed.ends().await;
    assert_eq!(client.gets().await.status(), StatusCode::NOT_FOUND);
    let after = client.posts(r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#).await.expect("an answer");
    assert_eq!(after.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_holds_up_its_own_session_only() {
    let (client, mut server) = Client::initialized(NEWEST, 1).await;
    let told = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    client.posts(told).await.expect("there is room for one");
    let refused = client.posts(told).await.expect_err("no room");
    assert_eq!(refused, Refusal::not_run(Reason::Overloaded));
    let call = client.posts(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let mut call = std::pin::pin!(call);
    begin!(call);
    let (pipe, _other) = pipe(1);
    let other = Client { bridges: client.bridges.clone(), ..Client::new() };
    assert_eq!(other.opens(pipe).await.expect_err("silent, but not held up"), UNREACHABLE);
    server.reads().await;
    let mut answer = Reading::of(call.await.expect("an answer"));
    answer.is_primed().await;
    assert!(server.reads().await.contains("ping"));
}

#[tokio::test]
async fn a_call_that_waits_for_room_ends_with_its_session_and_has_not_run() {
    let (client, server) = Client::initialized(NEWEST, 1).await;
    client.posts(r#"{"jsonrpc":"2.0","method":"a"}"#).await.expect("there is room for one");
    let mut call = std::pin::pin!(client.posts(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
    begin!(call);
    client.bridges.end(client.headers[SESSION_ID].to_str().expect("text"));
    assert_eq!(call.await.expect("an answer").status(), StatusCode::NOT_FOUND);
    server.writes.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_read_no_faster_than_its_clients_read() {
    let (client, mut server) = Client::initialized(NEWEST, 1).await;
    let mut slow = client.calls(json!(1)).await;
    server.reads().await;
    let mut quick = client.calls(json!(2)).await;
    server.reads().await;
    assert_eq!((slow.is_primed().await, quick.is_primed().await), (client.id("2-0"), client.id("3-0")));
    let long = json!({"jsonrpc": "2.0", "method": "notifications/progress",
        "params": {"progressToken": 1, "progress": 1, "message": "x".repeat(1024 * 1024)}});
    let mut said = 0;
    while tokio::time::timeout(Duration::from_secs(1), server.says(long.to_string())).await.is_ok() {
        said += 1;
    }
    assert_eq!(said, 3, "two are unread, and one waits in the pipe");
    // The others wait for the slow one, but not for ever.
    let begun = tokio::time::Instant::now();
    server.answers(json!(2)).await;
    assert_eq!(quick.data().await, ": ", "meanwhile it is not silent");
    assert_eq!(quick.data().await, response(2));
    assert!(begun.elapsed() >= Duration::from_secs(20), "{:?}", begun.elapsed());
    slow.ends().await;
    server.answers(json!(1)).await;
    let mut resumed = client.resumes(&client.id("2-0")).await;
    for at in 1..=3 {
        assert_eq!(resumed.event().await.0, client.id(&format!("2-{at}")));
    }
    assert_eq!(resumed.data().await, response(1));
}

#[tokio::test]
async fn a_long_answer_passes_without_a_copy() {
    use http_body_util::BodyExt;
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    let mut body =
        client.posts(r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#).await.expect("an answer").into_body();
    server.reads().await;
    let long =
        Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "x".repeat(8 * 1024 * 1024)));
    server.says(long.clone()).await;
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        frames.push(frame.expect("whole").into_data().expect("data"));
    }
    assert_eq!(frames.len(), 4, "the priming event, and one in three parts");
    assert_eq!((frames[2].as_ptr(), frames[2].len()), (long.as_ptr(), long.len()));
}

#[tokio::test(start_paused = true)]
async fn what_the_server_says_is_not_for_a_call_that_it_has_not_got() {
    let (client, server) = Client::initialized("2025-06-18", 1).await;
    // There is room for this one, and the server does not read it.
    client.posts(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await.expect("an answer");
    let waiting = client.calls(json!(1));
    tokio::pin!(waiting);
    begin!(waiting);
    server.says(r#"{"jsonrpc":"2.0","id":9,"method":"sampling/createMessage"}"#).await;
    assert_eq!(client.listens().await.data().await["id"], 9);
}

#[tokio::test]
async fn what_is_not_json_rpc_is_passed_over() {
    let (client, mut server) = Client::initialized(NEWEST, 8).await;
    let mut call = client.calls(json!(1)).await;
    call.is_primed().await;
    server.reads().await;
    for noise in ["Server listening", "", "{}", "[]", r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#] {
        server.says(noise).await;
    }
    server.says("{\"jsonrpc\":\"2.0\",\n\"id\":1,\"result\":{}}").await;
    assert_eq!(call.data().await, response(1));
    call.ends().await;
}
