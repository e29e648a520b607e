//! A load on a whole cluster: every node is an entry, and the sessions are those of all nodes. As many connections for
//! each pair of entry and owner, which is what random ones come to. Called by `scaling` and `steady`.

use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::load::{self, Expect, Load, Outcome, Pace};

/// A load for each entry.
pub(super) struct Mixed(Vec<Load>);

/// A node by where clients reach it, and sessions that it owns.
pub(super) type Owner = (SocketAddr, Vec<String>);

impl Mixed {
    /// Over `connections`, a multiple of the number of pairs; `None` of the pairs where `of` says no.
    pub(super) fn new(owners: &[Owner], connections: usize, of: fn(SocketAddr, SocketAddr) -> bool) -> Mixed {
        let pairs = |entry: SocketAddr| owners.iter().filter(move |(owner, _)| of(entry, *owner));
        let count: usize = owners.iter().map(|(entry, _)| pairs(*entry).count()).sum();
        let each = connections / count.max(1);
        let load = |at: SocketAddr| Load {
            at,
            requests: pairs(at)
                .flat_map(|(_, sessions)| sessions.iter().cycle().take(each))
                .map(|session| load::call(at, session))
                .collect(),
            expect: Expect::CalledAnywhere,
        };
        Mixed(owners.iter().map(|(entry, _)| load(*entry)).collect())
    }

    pub(super) async fn run(&self, pace: Pace) -> anyhow::Result<Outcome> {
        let mut running = JoinSet::new();
        for load in self.0.clone() {
            running.spawn(async move { load.run(pace).await });
        }
        let mut all = Outcome::default();
        while let Some(one) = running.join_next().await {
            let one = one??;
            all.answered += one.answered;
            all.took = all.took.max(one.took);
            all.latencies.extend(one.latencies);
        }
        all.latencies.sort_unstable();
        Ok(all)
    }
}

/// Every pair.
pub(super) fn any(_: SocketAddr, _: SocketAddr) -> bool {
    true
}

/// Pairs between which requests are forwarded.
pub(super) fn forwarded(entry: SocketAddr, owner: SocketAddr) -> bool {
    entry != owner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_has_as_many_connections() {
        let owner = |port| (SocketAddr::from(([127, 0, 0, 1], port)), vec![format!("s{port}")]);
        let owners = [owner(1), owner(2), owner(3)];
        let counts = |of| -> Vec<usize> {
            Mixed::new(&owners, 18, of).0.iter().map(|load| load.requests.len()).collect()
        };
        assert_eq!(counts(any), [6, 6, 6]);
        assert_eq!(counts(forwarded), [6, 6, 6]);
        let of_first = &Mixed::new(&owners, 18, any).0[0].requests;
        let whose =
            |id: &str| of_first.iter().filter(|text| String::from_utf8_lossy(text).contains(id)).count();
        assert_eq!(["s1\r", "s2\r", "s3\r"].map(whose), [2, 2, 2]);
    }
}
