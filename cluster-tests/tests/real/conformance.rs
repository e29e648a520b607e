//! The official conformance suites through a cluster behind a balancer that knows no sessions: whatever one
//! server passes by itself has to pass there too.

use cluster_tests::real::balancer::Balancer;
use cluster_tests::real::conformance::{self, Suite};
use cluster_tests::real::install::or_left_out;

use super::prepare::{Parts, counting_cluster};

#[tokio::test]
async fn the_suites_lose_nothing_on_the_way_through_a_cluster() {
    let test = "the_suites_lose_nothing_on_the_way_through_a_cluster";
    let Some(tooling) = or_left_out(test, conformance::tooling().await) else { return };
    let Parts { cluster, upstreams } = counting_cluster(3, 3).await;
    let balancer = Balancer::start(cluster.listens()).await.unwrap();
    for suite in Suite::ALL {
        let direct = conformance::run(suite, &upstreams[0].url, &tooling).await.unwrap();
        let through = conformance::run(suite, &balancer.url("/mcp"), &tooling).await.unwrap();
        println!(
            "{suite:?}: direct {}/{}, through the cluster {}/{}",
            direct.passed, direct.failed, through.passed, through.failed
        );
        assert!(through.lost_from(&direct).is_empty(), "{:?}: {:#?}", suite, through.failures());
        assert_eq!((through.passed, through.failed), (direct.passed, direct.failed), "{suite:?}");
    }
    let forwards = cluster.metric_of_all("ringway_forwards_total", &[]).await.unwrap();
    assert!(forwards > 50.0, "the suites were hardly forwarded: {forwards}");
}
