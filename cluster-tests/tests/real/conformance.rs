//! The official conformance suites through a cluster behind a balancer that knows no sessions: whatever one
//! server passes by itself over HTTP has to pass there too, be the cluster's upstreams over HTTP or over stdio.

use cluster_tests::real::balancer::Balancer;
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::conformance::{self, Suite, Totals};
use cluster_tests::real::install::{Npm, or_left_out};
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream::{self, Upstream};

use super::prepare::{Parts, counting_children, counting_cluster};

/// What no bridge from stdio can give: over stdio a server has no word for "close this stream now and let the client
/// come back", and so the suite, which waits for the stream to end before the answer, gets the answer instead.
const ONLY_OVER_HTTP: [&str; 1] = ["server-sse-polling/server-sse-disconnect-resume"];

#[tokio::test]
async fn the_suites_lose_nothing_on_the_way_through_a_cluster() {
    let test = "the_suites_lose_nothing_on_the_way_through_a_cluster";
    let Some(tooling) = or_left_out(test, conformance::tooling().await) else { return };
    let Parts { cluster, upstreams } = counting_cluster(3, 3).await;
    for suite in [Suite::V0_1_16All, Suite::V0_2Requirements20251125] {
        compare(suite, &cluster, &upstreams[0], &[], &tooling).await;
    }
    let forwards = cluster.metric_of_all("ringway_forwards_total", &[]).await.unwrap();
    assert!(forwards > 50.0, "the suites were hardly forwarded: {forwards}");
    // Without sessions any replica takes any request, and one replica's changes are not announced by the others.
    let Parts { cluster, upstreams } = counting_cluster(3, 1).await;
    compare(Suite::V0_2Requirements20260728, &cluster, &upstreams[0], &[], &tooling).await;
}

#[tokio::test]
async fn the_suites_of_sessions_lose_nothing_on_the_way_to_a_child() {
    let test = "the_suites_of_sessions_lose_nothing_on_the_way_to_a_child";
    let Some(tooling) = or_left_out(test, conformance::tooling().await) else { return };
    let (cluster, direct) = (counting_children(3).await.cluster, Upstream::fixture().await.unwrap());
    for suite in [Suite::V0_1_16All, Suite::V0_2Requirements20251125] {
        compare(suite, &cluster, &direct, &ONLY_OVER_HTTP, &tooling).await;
    }
}

#[tokio::test]
async fn the_suite_without_sessions_loses_nothing_on_the_way_to_a_callers_child() {
    let test = "the_suite_without_sessions_loses_nothing_on_the_way_to_a_callers_child";
    let Some(tooling) = or_left_out(test, conformance::tooling().await) else { return };
    let route = Route::command(&upstream::fixture_stdio().await.unwrap()).of_one_principal();
    let cluster = Plan::nodes(3).routes(&[route]).start().await.unwrap();
    let direct = Upstream::fixture().await.unwrap();
    compare(Suite::V0_2Requirements20260728, &cluster, &direct, &[], &tooling).await;
}

/// Runs a suite against a server and against a cluster; but for the checks in `but`, nothing may be lost or fail.
async fn compare(suite: Suite, cluster: &Cluster, direct: &Upstream, but: &[&str], tooling: &Npm) {
    let balancer = Balancer::start(cluster.listens()).await.unwrap();
    let direct = conformance::run(suite, &direct.url, tooling).await.unwrap();
    let through = conformance::run(suite, &balancer.url("/mcp"), tooling).await.unwrap();
    let count = |totals: &Totals| format!("{} passed, {} failed", totals.passed, totals.failed);
    println!("{suite:?}: direct {}; through the cluster {}", count(&direct), count(&through));
    assert_eq!(through.lost_from(&direct), but, "{suite:?}: {:#?}", through.failures());
    // A check that depends on the moment (which of three answers was a stream) may pass here and not there.
    assert!(through.passed + u32::try_from(but.len()).unwrap() >= direct.passed, "{suite:?}");
    assert_eq!((through.failed, through.exit), (direct.failed, direct.exit), "{:#?}", through.failures());
    assert!(through.passes_all_of("dns-rebinding-protection"), "{:#?}", through.failures());
}
