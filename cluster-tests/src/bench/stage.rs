//! Everything that is compared, running at once: a backend, a cluster of two nodes, and the peers that a case asks for.
//! Called by the cases, `hold` and `observe`.

use std::path::PathBuf;

use super::children::Child;
use super::cores::Apart;
use super::load::CONNECTIONS;
use super::peers::{Certificates, Peer, Product};
use super::report::Report;
use super::{Bench, owned, progress};
use crate::real::cluster::{Cluster, Plan};
use crate::real::places;

/// Above every body that is sent; Ringway's default is 4 MiB.
const BODY_LEN_MAX: usize = 16 << 20;

/// What peers stand on.
pub(super) struct Ground {
    pub(super) backend: Child,
    pub(super) cluster: Cluster,
    /// Sessions that the node `a` owns, one for each connection of a load.
    pub(super) own: Vec<String>,
    /// Sessions that `b` owns.
    pub(super) others: Vec<String>,
    pub(super) certificates: Certificates,
    /// For config files and logs.
    pub(super) dir: PathBuf,
}

/// What is measured is on a core of its own while this lives.
pub(super) struct Stage {
    /// In the order in which they were asked for, without those that are not installed.
    pub(super) peers: Vec<Peer>,
    pub(super) ground: Ground,
    _apart: Apart,
}

impl Stage {
    pub(super) async fn set(bench: &Bench, products: &[Product]) -> anyhow::Result<Stage> {
        progress("starting a backend, two nodes and what they are compared with");
        let apart = bench.cores.keep_apart()?;
        let backend = Child::backend().await?;
        let route = owned::route(&backend.url).number("max_body_bytes", BODY_LEN_MAX);
        let plan = Plan::nodes(2).config(owned::config(&route));
        let under = bench.cores.measured();
        let plan = ["a", "b"].iter().fold(plan, |plan, name| match under.is_empty() {
            true => plan,
            false => plan.under(name, under.clone()),
        });
        let cluster = plan.start().await?;
        let mut sessions = owned::sessions(&cluster, &["a", "b"], CONNECTIONS).await?;
        let (others, own) = (sessions.pop().unwrap_or_default(), sessions.pop().unwrap_or_default());
        let dir = places::scratch("peers")?;
        let certificates = Certificates::make(&dir)?;
        let ground = Ground { backend, cluster, own, others, certificates, dir };
        let mut peers = Vec::new();
        for product in products {
            peers.extend(Peer::start(*product, bench, &ground).await?);
        }
        Ok(Stage { peers, ground, _apart: apart })
    }

    /// `None` where it was left out, or not asked for.
    pub(super) fn peer(&self, product: Product) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.product == product)
    }
}

/// What every report on a stage has to say.
pub(super) fn note(bench: &Bench, report: &mut Report) {
    report.note(if bench.cores.are_apart() {
        "one core: every process of a peer is started on one core, load and backend on another, and load and backend \
         are the same for all; what is direct has them alone"
    } else {
        "there is only one core: what is said to be measured on one core shares it with the load"
    });
}
