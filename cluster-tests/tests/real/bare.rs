//! The control experiment, without Ringway: the drivers find nothing wrong with a bare server, nor with a
//! balancer in front of one, and everything with a balancer in front of two. What the cluster's tests show
//! is therefore the cluster's doing.

use cluster_tests::real::balancer::Balancer;
use cluster_tests::real::clients::{Drive, Tool};
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::mcp::Session;
use cluster_tests::real::upstream::Upstream;

use super::prepare::sdks;

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
async fn counters_driven_until_told_to_stop_never_skip() {
    let test = "counters_driven_until_told_to_stop_never_skip";
    let server = Upstream::fixture().await.unwrap();
    for sdk in sdks(test).await {
        let running = Drive::new(vec![server.url.clone()], Tool::Count).start(sdk).await.unwrap();
        // Only that the run ends when told is of interest here; how many calls it made until then is not.
        let report = running.finish().await.unwrap();
        assert_eq!((report.error_count, report.wrong), (0, 0), "{report:#?}");
    }
}
