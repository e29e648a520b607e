//! Real SDK clients against a cluster, with every HTTP request of a session sent to another node.

use cluster_tests::real::balancer::Balancer;
use cluster_tests::real::clients::{Drive, Report, Tool};
use cluster_tests::real::cluster::Cluster;
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::upstream::{self, Upstream};

use super::prepare::{Parts, counting_cluster, sdks};

/// A session's requests go to three nodes in turn and one of those owns it: two thirds are forwarded. The margin
/// is for sessions whose number of requests is no multiple of three, and for how their streams fall.
const FORWARDED: std::ops::Range<f64> = 0.55..0.78;

#[tokio::test]
async fn the_sdks_notice_nothing_while_every_request_goes_to_another_node() {
    let test = "the_sdks_notice_nothing_while_every_request_goes_to_another_node";
    let Some(upstreams) = or_left_out(test, Upstream::several(3, Upstream::everything).await) else { return };
    let cluster = Cluster::start(3, &upstream::urls(&upstreams)).await.unwrap();
    for sdk in sdks(test).await {
        let mut drive = Drive::new(cluster.urls(), Tool::Everything);
        drive.sessions = 6;
        let forwarded_before = cluster.metric_of_all("ringway_forwards_total", &[]).await.unwrap();
        let report = drive.run(sdk).await.unwrap();
        report.assert_flawless(&drive);
        assert_spread(&report);
        let forwarded =
            cluster.metric_of_all("ringway_forwards_total", &[]).await.unwrap() - forwarded_before;
        let share = forwarded / report.answers() as f64;
        assert!(
            FORWARDED.contains(&share),
            "{share} of the requests were forwarded by the metric: {report:#?}"
        );
    }
}

#[tokio::test]
async fn no_counter_skips_while_every_request_goes_to_another_node() {
    let test = "no_counter_skips_while_every_request_goes_to_another_node";
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 3).await;
    for sdk in sdks(test).await {
        let mut drive = Drive::new(cluster.urls(), Tool::Count);
        (drive.sessions, drive.calls) = (9, 40);
        let report = drive.run(sdk).await.unwrap();
        report.assert_flawless(&drive);
        assert_spread(&report);
    }
}

#[tokio::test]
async fn a_balancer_that_knows_no_sessions_is_enough() {
    let test = "a_balancer_that_knows_no_sessions_is_enough";
    let Some(upstreams) = or_left_out(test, Upstream::several(3, Upstream::everything).await) else { return };
    let cluster = Cluster::start(3, &upstream::urls(&upstreams)).await.unwrap();
    let balancer = Balancer::start(cluster.listens()).await.unwrap();
    for sdk in sdks(test).await {
        let mut drive = Drive::new(vec![balancer.url("/mcp")], Tool::Everything);
        (drive.sessions, drive.calls) = (50, 20);
        let forwarded_before = cluster.metric_of_all("ringway_forwards_total", &[]).await.unwrap();
        let report = drive.run(sdk).await.unwrap();
        let forwarded =
            cluster.metric_of_all("ringway_forwards_total", &[]).await.unwrap() - forwarded_before;
        let share = forwarded / report.answers() as f64;
        println!(
            "{}: {} sessions, {} calls, {} errors, {} wrong; {forwarded} of {} requests forwarded ({share:.3})",
            report.client,
            report.sessions,
            report.calls,
            report.error_count,
            report.wrong,
            report.answers()
        );
        report.assert_flawless(&drive);
        assert!(FORWARDED.contains(&share), "{report:#?}");
    }
}

/// In a calm cluster one hop always suffices, no node owns everything, and every answer says whose it is.
fn assert_spread(report: &Report) {
    assert!(report.hops.keys().all(|hops| hops == "0" || hops == "1"), "{report:#?}");
    assert!(report.nodes.len() >= 2, "one node owns every session: {report:#?}");
    assert_eq!(
        report.nodes.values().sum::<usize>(),
        report.answers(),
        "an answer names no owner: {report:#?}"
    );
    let share = report.forwarded_share();
    assert!(FORWARDED.contains(&share), "{share} of the answers came over a hop: {report:#?}");
}
