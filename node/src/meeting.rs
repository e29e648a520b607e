//! Whether this node knows everybody whom it was told to look for. Until it does, what nobody knows may
//! only be unknown here. Gossip looks for the seeds; this looks for what has become of them.

use crate::cluster::Cluster;
use crate::gossip;
use crate::peer::{Found, Peers};
use proto::core::seeds::Seeds;
use std::{collections::BTreeSet, net::SocketAddr, slice, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};

/// A view counts after it has stood still for 5 s: this is known before.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Connections made at once, where a name stands for many addresses.
const TRIED_AT_ONCE: usize = 64;

/// Looks for ever. Somebody who was met once is known from then on; that nobody is at an address has
/// to be found each time.
pub(crate) async fn meet_seeds(
    cluster: Arc<Cluster>,
    peers: Arc<Peers>,
    names: Vec<String>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut met = BTreeSet::new();
    loop {
        let seeds = look(&cluster, &peers, &names, &mut met).await;
        let looked_for = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        cluster.note_seeds(seeds.are_met(looked_for));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(
    cluster: &Cluster,
    peers: &Arc<Peers>,
    names: &[String],
    met: &mut BTreeSet<SocketAddr>,
) -> Seeds {
    let (mut addresses, mut unresolved) = (BTreeSet::new(), 0);
    for name in names {
        let found = gossip::resolve(slice::from_ref(name)).await;
        unresolved += usize::from(found.is_empty());
        addresses.extend(found);
    }
    met.retain(|address| addresses.contains(address));
    let members = cluster.world();
    let at_seeds = members.view.members().iter().map(|member| member.peer);
    met.extend(at_seeds.filter(|address| addresses.contains(address)));

    let unmet: Vec<_> = addresses.difference(met).copied().collect();
    let mut empty = 0;
    for some in unmet.chunks(TRIED_AT_ONCE) {
        let mut tried = JoinSet::new();
        for at in some.iter().copied() {
            let peers = peers.clone();
            tried.spawn(async move { (at, peers.who_is_at(at).await) });
        }
        while let Some(Ok((at, found))) = tried.join_next().await {
            match found {
                Found::Refused => empty += 1,
                // Under another address than the one that it tells of itself.
                Found::Greeted(node, ()) if cluster.world().view.by_tag(node.tag).is_some() => {
                    met.insert(at);
                }
                Found::Greeted(..) | Found::Nothing => {}
            }
        }
    }
    Seeds { all: addresses.len() + unresolved, known: met.len() + empty }
}
