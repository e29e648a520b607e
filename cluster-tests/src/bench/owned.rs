//! Sessions by their owner: opened through every node until each of some nodes owns as many as are wanted.
//! Called by the cases that call sessions of certain nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use super::load::{self, Client};
use crate::real::cluster::Cluster;
use crate::real::route::Route;

/// Connections that open at the same time: as fast as it goes without a queue.
const AT_ONCE: usize = 16;

/// A node gets its share of new sessions, which is never below a third of the mean (`proto::core::ring`'s own test).
const SHARE_MIN: usize = 3;

/// A route for many sessions: no limit that these would meet, and an idle time that outlasts the benchmark.
pub(super) fn route(upstream: &str) -> Route {
    Route::upstreams(&[upstream.to_owned()]).number("max_sessions", 1_000_000).text("idle_timeout", "2h")
}

/// A node's config of this route, with no limit of how fast sessions are opened (1,000 a second by default).
pub(super) fn config(route: &Route) -> String {
    format!("new_sessions_per_second = 1000000\n{route}")
}

/// `count` sessions of each of the `owners`, in their order.
pub(super) async fn sessions(
    cluster: &Cluster,
    owners: &[&str],
    count: usize,
) -> anyhow::Result<Vec<Vec<String>>> {
    let nodes = cluster.names().len();
    let opening = Arc::new(Opening {
        owners: owners.iter().map(|&owner| owner.to_owned()).collect(),
        count,
        opened_max: count * nodes * SHARE_MIN + 400,
        opened: Mutex::default(),
    });
    let (entries, mut running) = (cluster.listens(), JoinSet::new());
    for turn in 0..AT_ONCE {
        let (opening, at) = (opening.clone(), entries[turn % entries.len()]);
        running.spawn(async move {
            let (mut client, request) = (Client::connect(at).await?, load::initialize(at));
            while opening.is_wanted()? {
                let answer = client.exchange(&request).await?;
                let owner = answer.header("ringway-node").context("no owner named")?;
                let id = answer.header("mcp-session-id").context("no session id")?;
                opening.take(owner, id);
            }
            anyhow::Ok(())
        });
    }
    while let Some(one) = running.join_next().await {
        one??;
    }
    let mut opened = opening.opened();
    let of = |owner: &&str| {
        let mut ids = opened.of.remove(*owner).unwrap_or_default();
        ids.truncate(count);
        ids
    };
    Ok(owners.iter().map(of).collect())
}

/// What is opened, and how much of it is wanted.
struct Opening {
    owners: Vec<String>,
    count: usize,
    opened_max: usize,
    opened: Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    all: usize,
    of: BTreeMap<String, Vec<String>>,
}

impl Opening {
    fn is_wanted(&self) -> anyhow::Result<bool> {
        let opened = self.opened();
        let has_enough = |owner: &String| opened.of.get(owner).map_or(0, Vec::len) >= self.count;
        let is_wanted = !self.owners.iter().all(has_enough);
        ensure!(
            !is_wanted || opened.all < self.opened_max,
            "{} sessions, and too few of {:?}",
            opened.all,
            self.owners
        );
        Ok(is_wanted)
    }

    fn take(&self, owner: &str, id: &str) {
        let mut opened = self.opened();
        opened.all += 1;
        opened.of.entry(owner.to_owned()).or_default().push(id.to_owned());
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_opened_until_every_owner_has_enough() {
        let opening = Opening {
            owners: ["a", "b"].map(str::to_owned).to_vec(),
            count: 1,
            opened_max: 3,
            opened: Mutex::default(),
        };
        opening.take("a", "1");
        opening.take("c", "2");
        assert!(opening.is_wanted().expect("two of three"));
        opening.take("b", "3");
        assert!(!opening.is_wanted().expect("enough"), "both have one");
        let greedy = Opening { count: 2, ..opening };
        assert!(greedy.is_wanted().is_err(), "three are all that there may be");
    }
}
