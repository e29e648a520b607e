//! What many tests start with.

use cluster_tests::real::clients::Sdk;
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::install::{or_left_out, python};
use cluster_tests::real::marked;
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream::{self, Upstream};

/// A cluster and what it stands in front of. The upstreams end with it.
pub(crate) struct Parts {
    pub(crate) cluster: Cluster,
    pub(crate) upstreams: Vec<Upstream>,
}

/// `nodes` nodes in front of `replicas` of our own server with the counter.
pub(crate) async fn counting_cluster(nodes: usize, replicas: usize) -> Parts {
    let upstreams = Upstream::several(replicas, Upstream::fixture).await.unwrap();
    let cluster = Cluster::start(nodes, &upstream::urls(&upstreams)).await.unwrap();
    Parts { cluster, upstreams }
}

/// Nodes that start a child for each session.
pub(crate) struct Children {
    pub(crate) cluster: Cluster,
    /// What is in the environment of every child: see `marked`.
    pub(crate) mark: String,
}

/// `nodes` nodes, and for each session a process of our own server with the counter.
pub(crate) async fn counting_children(nodes: usize) -> Children {
    counting_children_with(nodes, |route| route).await
}

/// The same with further keys of the route.
pub(crate) async fn counting_children_with(nodes: usize, more: impl Fn(Route) -> Route) -> Children {
    let (command, mark) = (upstream::fixture_stdio().await.unwrap(), marked::new("child"));
    let route = more(Route::command(&command).env(&[(marked::VARIABLE, &mark)]));
    Children { cluster: Plan::nodes(nodes).routes(&[route]).start().await.unwrap(), mark }
}

/// The SDKs that can be had here; those that can't are said to be left out of `test`.
pub(crate) async fn sdks(test: &str) -> Vec<Sdk> {
    let python = or_left_out(test, python("python").await).map(|_| Sdk::PythonV1);
    let npm = cluster_tests::real::install::npm("typescript").await;
    let typescript = or_left_out(test, npm).map(|_| Sdk::TypeScriptV1);
    python.into_iter().chain(typescript).collect()
}
