//! The control experiment, without Ringway: the drivers find nothing wrong with a bare server, nor with a
//! balancer in front of one, and everything with a balancer in front of two. What the cluster's tests show
//! is therefore the cluster's doing.

use std::time::{Duration, Instant};

use cluster_tests::real::balancer::Balancer;
use cluster_tests::real::clients::{Drive, Tool};
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::mcp::{Session, call};
use cluster_tests::real::upstream::Upstream;
use serde_json::json;

use super::prepare::sdks;

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_balancer_over_one_server_is_invisible_to_clients() {
    let test = "a_balancer_over_one_server_is_invisible_to_clients";
    let Some(server) = or_left_out(test, Upstream::everything().await) else { return };
    let balancer = Balancer::start(vec![server.address().unwrap()]).await.unwrap();
    for sdk in sdks(test).await {
        let drive = Drive::new(vec![balancer.url("/mcp")], Tool::Everything);
        drive.run(sdk).await.unwrap().assert_flawless(&drive);
    }
}

#[tokio::test]
async fn a_balancer_over_two_plain_servers_breaks_every_session() {
    let test = "a_balancer_over_two_plain_servers_breaks_every_session";
    let servers = Upstream::several(2, Upstream::fixture).await.unwrap();
    let addresses = servers.iter().map(|server| server.address().unwrap()).collect();
    let balancer = Balancer::start(addresses).await.unwrap();
    for sdk in sdks(test).await {
        let drive = Drive::new(vec![balancer.url("/mcp")], Tool::Count);
        let report = drive.run(sdk).await.unwrap();
        assert!(report.error_count >= drive.sessions, "{report:#?}");
    }
}

#[tokio::test]
async fn every_session_of_the_counting_server_counts_for_itself() {
    let server = Upstream::fixture().await.unwrap();
    let (one, other) = (Session::open(&server.url).await.unwrap(), Session::open(&server.url).await.unwrap());
    for expected in 1..=3 {
        assert_eq!(one.count(&server.url, expected).await.unwrap(), expected);
    }
    assert_eq!(other.count(&server.url, 1).await.unwrap(), 1);
    assert_eq!(one.delete(&server.url).await.unwrap().status / 100, 2);
    assert!(one.count(&server.url, 4).await.is_err());
}

#[tokio::test]
async fn the_answer_to_a_slow_call_begins_before_the_call_is_done() {
    let server = Upstream::fixture().await.unwrap();
    let session = Session::open(&server.url).await.unwrap();
    let began = Instant::now();
    let mut answer = session.post_stream(&server.url, &call(1, "slow", json!({"ms": 2000}))).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    let reply = answer.message(SOON).await.unwrap().unwrap();
    assert_eq!(reply["result"]["content"][0]["text"], "slept 2000 ms", "{reply}");
}

#[tokio::test]
async fn what_the_counting_server_says_by_itself_comes_on_the_stream_for_that() {
    let server = Upstream::fixture().await.unwrap();
    let session = Session::open(&server.url).await.unwrap();
    let mut stream = session.listen(&server.url).await.unwrap();
    let params = json!({"uri": "test://watched-resource"});
    let watch = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": params});
    assert!(session.post(&server.url, &watch).await.unwrap().reply().unwrap().get("result").is_some());
    assert_eq!(session.count(&server.url, 2).await.unwrap(), 1);
    let message = stream.message(SOON).await.unwrap().unwrap();
    assert_eq!(message["method"], "notifications/resources/updated", "{message}");
}

#[tokio::test]
async fn counters_driven_until_told_to_stop_never_skip() {
    let test = "counters_driven_until_told_to_stop_never_skip";
    let server = Upstream::fixture().await.unwrap();
    for sdk in sdks(test).await {
        let running = Drive::new(vec![server.url.clone()], Tool::Count).start(sdk).await.unwrap();
        // That the run ends when told is of interest here, not how many calls it made until then.
        let report = running.finish().await.unwrap();
        assert_eq!((report.error_count, report.wrong), (0, 0), "{report:#?}");
        assert!(report.calls >= report.sessions, "a session without a call: {report:#?}");
    }
}
