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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Bound, Greeting, accept_lifelines};
    use proto::core::view::{Member, Phase};
    use proto::id::{ClusterSecret, Incarnation, NodeName, NodeRef, SealKeys, Tag};
    use std::net::TcpListener;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// A node with this name at any port, and what the others know of it.
    fn node(name: &str) -> (Arc<Bound>, Member) {
        let name: NodeName = name.parse().expect("a plain name");
        let secrets = [ClusterSecret::from_entropy([1; 32])];
        let (bound, _inbox) = Bound::bind(loopback(), &secrets, &name).expect("a free port");
        let node = NodeRef { tag: Tag::of("ringway", &name), inc: Incarnation(1) };
        let peer = bound.local_addr().expect("a bound socket");
        bound.greet_as(Greeting { name: name.clone(), node, advertise: peer });
        let (phase, any) = (Phase::Active, loopback());
        let version = String::new();
        (Arc::new(bound), Member { name, node, phase, listen: any, peer, admin: any, version })
    }

    async fn look_for(seeds: &[SocketAddr], others: Vec<Member>) -> Seeds {
        let (bound, me) = node("me");
        let keys = SealKeys::new(&[ClusterSecret::from_entropy([1; 32])], "ringway");
        let cluster = Cluster::new(&me, keys);
        cluster.observe(others.into_iter().chain([me]).map(|member| (member, 0)).collect());
        let names: Vec<_> = seeds.iter().map(SocketAddr::to_string).collect();
        look(&cluster, &Peers::new(bound), &names, &mut BTreeSet::new()).await
    }

    #[tokio::test]
    async fn a_seed_that_refuses_is_known_and_one_that_is_silent_is_not() {
        let silent = TcpListener::bind(loopback()).expect("a free port");
        let closed = TcpListener::bind(loopback()).and_then(|port| port.local_addr()).expect("a free port");
        let silent_at = silent.local_addr().expect("a bound socket");
        assert_eq!(look_for(&[silent_at, closed], Vec::new()).await, Seeds { all: 2, known: 1 });
    }

    #[tokio::test]
    async fn a_member_is_known_at_its_address_and_at_one_where_it_answers() {
        let (bound, mut other) = node("other");
        let answers_at = other.peer;
        let _accepting = tokio::spawn(accept_lifelines(bound));
        assert_eq!(look_for(&[answers_at], Vec::new()).await.known, 0, "somebody is there, and unknown");
        assert_eq!(look_for(&[answers_at], vec![other.clone()]).await.known, 1);
        other.peer.set_port(1);
        assert_eq!(look_for(&[answers_at], vec![other]).await.known, 1);
    }

    #[tokio::test]
    async fn a_name_that_stands_for_no_address_is_a_seed_that_is_not_known() {
        let (bound, me) = node("me");
        let keys = SealKeys::new(&[ClusterSecret::from_entropy([1; 32])], "ringway");
        let names = ["seed.invalid:7400".to_owned()];
        let seeds = look(&Cluster::new(&me, keys), &Peers::new(bound), &names, &mut BTreeSet::new()).await;
        assert_eq!(seeds, Seeds { all: 1, known: 0 });
    }
}
