//! Seeds: where a node asks for the cluster, and goes on asking while one is missing, so that parts
//! that started apart find each other.

use super::Census;
use chitchat::ChitchatHandle;
use proto::core::view::Phase;
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::watch;

/// While no other node is known: a few round trips.
const ALONE_EVERY: Duration = Duration::from_millis(200);
/// While some are, but not all seeds. A host name is resolved again each time.
const MISSING_EVERY: Duration = Duration::from_secs(2);

pub(super) async fn keep_in_touch(
    handle: Arc<ChitchatHandle>,
    seeds: Vec<String>,
    me: SocketAddr,
    census: watch::Receiver<Census>,
) {
    loop {
        let known: BTreeSet<SocketAddr> = {
            let census = census.borrow();
            let living = census.iter().filter(|(member, _)| member.phase != Phase::Dead);
            living.map(|(member, _)| member.peer).collect()
        };
        for seed in resolve(&seeds).await {
            if seed != me && !known.contains(&seed) {
                let _ = handle.gossip(seed); // fails only when gossip has ended
            }
        }
        let alone = known.iter().all(|addr| *addr == me);
        tokio::time::sleep(if alone { ALONE_EVERY } else { MISSING_EVERY }).await;
    }
}

/// The addresses that the seeds have now.
pub(crate) async fn resolve(seeds: &[String]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for seed in seeds {
        match tokio::net::lookup_host(seed.as_str()).await {
            Ok(found) => addresses.extend(found),
            Err(error) => tracing::debug!(seed, %error, "seed not resolved"),
        }
    }
    addresses
}
