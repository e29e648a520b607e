//! What a route with a command allows, and what its commands may do wrong.

use std::time::{Duration, Instant};

use cluster_tests::real::cluster::Plan;
use cluster_tests::real::http::{self, Answer};
use cluster_tests::real::marked;
use cluster_tests::real::mcp::{POST_HEADERS, Session, initialize};
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream;
use cluster_tests::real::wait::wait_until;
use serde_json::json;

use super::prepare::{Children, counting_children_with};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_route_starts_no_more_children_than_it_allows() {
    let Children { cluster, mark } = counting_children_with(1, |route| route.number("max_sessions", 2)).await;
    let url = cluster.url("a");
    let sessions = [Session::open(&url).await.unwrap(), Session::open(&url).await.unwrap()];
    assert_refused(&open(&url, &[]).await);
    assert_eq!(marked::all(&mark).len(), 2);
    for session in &sessions {
        assert_eq!(session.count(&url, 1).await.unwrap(), 1);
    }
    // Room again.
    assert!(sessions[0].delete(&url).await.unwrap().status < 300);
    Session::open(&url).await.unwrap();
}

#[tokio::test]
async fn sessions_that_are_opened_at_once_take_no_more_places_than_there_are() {
    let fixture = upstream::fixture_stdio().await.unwrap().remove(0);
    // Slow to start, as real servers are: none has answered when the last one is asked for.
    let command = ["sh", "-c", &format!("sleep 1; exec '{fixture}'")].map(str::to_owned);
    let mark = marked::new("at-once");
    let route = Route::command(&command).number("max_sessions", 2).env(&[(marked::VARIABLE, &mark)]);
    let cluster = Plan::nodes(1).routes(&[route]).start().await.unwrap();
    let url = cluster.url("a");
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { open(&url, &[]).await })
        })
        .collect();
    let mut opened = 0;
    for answer in opening {
        let answer = answer.await.unwrap();
        match answer.header("mcp-session-id") {
            Some(_) => opened += 1,
            None => assert_refused(&answer),
        }
    }
    assert_eq!((opened, marked::all(&mark).len()), (2, 2));
}

#[tokio::test]
async fn one_client_can_not_take_all_children() {
    let limit = |route: Route| route.number("max_sessions_per_client", 2);
    let Children { cluster, .. } = counting_children_with(1, limit).await;
    let url = cluster.url("a");
    let mine = [("authorization", "Bearer mine")];
    for _ in 0..2 {
        let answer = open(&url, &mine).await;
        assert!(answer.header("mcp-session-id").is_some(), "{}: {}", answer.status, answer.text());
    }
    assert_refused(&open(&url, &mine).await);
    let yours = open(&url, &[("authorization", "Bearer yours")]).await;
    assert!(yours.header("mcp-session-id").is_some(), "{}: {}", yours.status, yours.text());
}

#[tokio::test]
async fn a_command_that_can_not_be_started_is_an_error_at_once() {
    let command = ["/no/such/program".to_owned()];
    let cluster = Plan::nodes(2).routes(&[Route::command(&command)]).start().await.unwrap();
    for url in cluster.urls() {
        let began = Instant::now();
        assert_refused(&open(&url, &[]).await);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_command_that_says_nothing_or_nonsense_or_ends_is_given_up_and_leaves_nothing() {
    let scripts =
        ["exec sleep 600", "echo hello; echo '{\"jsonrpc\":'; exec sleep 600", "exit 3", "yes | tr -d '\\n'"];
    for script in scripts {
        let mark = marked::new("mute");
        let command = ["sh", "-c", script].map(str::to_owned);
        let route = Route::command(&command).text("start_timeout", "2s").env(&[(marked::VARIABLE, &mark)]);
        let cluster = Plan::nodes(1).routes(&[route]).start().await.unwrap();
        let began = Instant::now();
        assert_refused(&open(&cluster.url("a"), &[]).await);
        assert!(began.elapsed() < Duration::from_secs(12), "{script}: {:?}", began.elapsed());
        wait_until("the child is gone", SOON, async || marked::all(&mark).is_empty()).await;
    }
}

#[tokio::test]
async fn what_a_child_says_on_stderr_is_in_the_nodes_log_and_harms_nobody() {
    let fixture = upstream::fixture_stdio().await.unwrap().remove(0);
    let script = format!("echo beware-of-the-dog >&2; head -c 3000000 /dev/zero >&2; exec '{fixture}'");
    let command = ["sh", "-c", &script].map(str::to_owned);
    let cluster = Plan::nodes(1).routes(&[Route::command(&command)]).start().await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    for number in 1..=3 {
        assert_eq!(session.count(&cluster.url("a"), number).await.unwrap(), number);
    }
    let log = cluster.node("a").process.log();
    assert!(log.contains("beware-of-the-dog"), "it is not in the log");
    assert!(log.len() < 1_000_000, "a child's 3 MB without a line break are {} bytes of log", log.len());
}

#[tokio::test]
async fn an_idle_session_is_ended_with_its_child() {
    let Children { cluster, mark } =
        counting_children_with(2, |route| route.text("idle_timeout", "2s")).await;
    let (idle, used) =
        (Session::open(&cluster.url("a")).await.unwrap(), Session::open(&cluster.url("b")).await.unwrap());
    // A client that listens is there, whether anything is said or not.
    let _listening = used.listen(&cluster.url("a")).await.unwrap();
    wait_until("the idle child is gone", SOON, async || marked::all(&mark).len() == 1).await;
    let answer = idle.post(&cluster.url("b"), &json!({"jsonrpc": "2.0", "id": 2, "method": "ping"})).await;
    assert_eq!(answer.unwrap().status, 404);
    assert_eq!(used.count(&cluster.url("b"), 1).await.unwrap(), 1);
}

async fn open(url: &str, headers: &[(&str, &str)]) -> Answer {
    let headers: Vec<_> = POST_HEADERS.iter().chain(headers).copied().collect();
    http::request("POST", url, &headers, initialize(1).to_string()).await.unwrap()
}

/// An answer that every client understands: an error of JSON-RPC to its own request, and no session.
fn assert_refused(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let reply = answer.reply().unwrap();
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!(1), &json!(-31001)), "{reply}");
    assert_eq!(answer.header("mcp-session-id"), None);
}
