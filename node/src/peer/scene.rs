//! What tests of this folder begin with: a node that accepts whatever peers may bring, and somebody on the way.

pub(super) mod relay;

use super::{Acceptor, Bound, Greeting, Peers, accept_lifelines};
use crate::cluster::Cluster;
use crate::config::{CLUSTER, NewSessions};
use crate::events::Events;
use crate::journey::Journey;
use crate::sessions::Sessions;
use crate::telemetry::Metrics;
use bytes::Bytes;
use proto::core::view::{Member, Phase};
use proto::id::{ClusterSecret, Incarnation, NodeName, NodeRef, SealKeys, Tag};
use proto::wire::{Hello, Lane};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// Far beyond what anything takes, so that a busy machine fails no test.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// A node that accepts peers and lifelines.
pub(super) struct Node {
    pub(super) bound: Arc<Bound>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) addr: SocketAddr,
    pub(super) gossip: mpsc::Receiver<(SocketAddr, Bytes)>,
    _accepting: [JoinHandle<()>; 2],
}

pub(super) fn secrets(seeds: &[u8]) -> Vec<ClusterSecret> {
    seeds.iter().map(|seed| ClusterSecret::from_entropy([*seed; 32])).collect()
}

pub(super) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(super) fn node(name: &str, seeds: &[u8]) -> Node {
    let (secrets, name): (_, NodeName) = (secrets(seeds), name.parse().expect("a plain name"));
    let (bound, _inbox) = Bound::bind(loopback(), &secrets, &name).expect("a free port");
    let (bound, node) = (Arc::new(bound), NodeRef { tag: Tag::of(CLUSTER, &name), inc: Incarnation(7) });
    let addr = bound.local_addr().expect("a bound socket");
    bound.greet_as(Greeting { name: name.clone(), node, advertise: addr });
    let (any, version) = (loopback(), String::new());
    let me = Member {
        name: name.clone(),
        node,
        phase: Phase::Active,
        listen: any,
        peer: addr,
        admin: any,
        version,
    };
    let (peers, metrics) = (Peers::new(bound.clone()), Arc::new(Metrics::new()));
    let cluster = Arc::new(Cluster::new(&me, SealKeys::new(&secrets, CLUSTER)));
    let new = NewSessions::default();
    let sessions = Arc::new(Sessions::new(cluster.clone(), peers.clone(), metrics.clone(), &[], &new));
    let (events, _passed) = Events::new(name, metrics.clone());
    let journey = Arc::new(Journey::new(cluster.clone(), sessions, peers, metrics, Arc::new(events)));
    let (inbox, gossip) = mpsc::channel(64);
    let acceptor = Acceptor::new(bound.clone(), journey, Vec::new(), inbox, CancellationToken::new());
    let lifelines = accept_lifelines(bound.clone());
    let accepting = [
        tokio::spawn(async { drop(lifelines.await) }),
        tokio::spawn(async { Arc::new(acceptor).run().await }),
    ];
    Node { bound, cluster, addr, gossip, _accepting: accepting }
}

impl Node {
    pub(super) fn greeting(&self) -> Hello {
        let Greeting { name, node, advertise } = self.bound.greeting();
        Hello { lane: Lane::Control, name, node, advertise }
    }

    /// Nothing of it has changed, and nobody is believed to be there.
    pub(super) fn assert_untouched(&mut self) {
        assert!(self.gossip.try_recv().is_err(), "a stranger's gossip");
        assert_eq!(self.cluster.world().view.members().len(), 1);
    }
}

pub(super) async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
