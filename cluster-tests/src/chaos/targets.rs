//! What stands in front of the nodes: no affinity, just a list of nodes and whether each of them says that it is
//! ready. Asked by `load` and `streams` for every request, told by `mod` where nodes are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::dice::Dice;
use crate::real::http;

/// How often each node is asked whether it is ready, and how long it may take to say so: what balancers call fast.
const ASK_EVERY: Duration = Duration::from_millis(250);
const ASK_DEADLINE: Duration = Duration::from_millis(500);

/// A node to send a request to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    is_ready: bool,
}

impl Target {
    pub(super) fn new(name: &str, listen: SocketAddr, admin: SocketAddr) -> Target {
        Target { name: name.to_owned(), listen, admin, is_ready: true }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/mcp", self.listen)
    }
}

/// All nodes.
#[derive(Debug)]
pub(super) struct Targets {
    nodes: Mutex<(BTreeMap<String, Target>, Dice)>,
}

impl Targets {
    pub(super) fn new(seed: u64) -> Targets {
        Targets { nodes: Mutex::new((BTreeMap::new(), Dice::new(seed))) }
    }

    /// A node is there, perhaps at another address than before.
    pub(super) fn set(&self, target: Target) {
        self.lock().0.insert(target.name.clone(), target);
    }

    /// A node has refused a connection. It is asked again soon.
    pub(super) fn refused(&self, name: &str) {
        self.mark(name, false);
    }

    /// Any node that is ready, or any at all where none is. Those in `without` are left out.
    pub(super) fn pick(&self, without: &[String]) -> Option<Target> {
        let (nodes, dice) = &mut *self.lock();
        let open: Vec<&Target> = nodes.values().filter(|node| !without.contains(&node.name)).collect();
        let ready: Vec<&Target> = open.iter().filter(|node| node.is_ready).copied().collect();
        let among = if ready.is_empty() { open } else { ready };
        among.get(dice.below(among.len())).map(|node| (*node).clone())
    }

    /// Asks every node again and again, until it is dropped.
    pub(super) async fn keep_asking(&self) {
        let mut ticks = tokio::time::interval(ASK_EVERY);
        loop {
            ticks.tick().await;
            let nodes: Vec<Target> = self.lock().0.values().cloned().collect();
            let mut asked = JoinSet::new();
            for node in nodes {
                asked.spawn(async move {
                    let url = format!("http://{}/readyz", node.admin);
                    let answer = tokio::time::timeout(ASK_DEADLINE, http::get(&url)).await;
                    (node.name, matches!(answer, Ok(Ok(answer)) if answer.status == 200))
                });
            }
            while let Some(answer) = asked.join_next().await {
                if let Ok((name, is_ready)) = answer {
                    self.mark(&name, is_ready);
                }
            }
        }
    }

    fn mark(&self, name: &str, is_ready: bool) {
        if let Some(node) = self.lock().0.get_mut(name) {
            node.is_ready = is_ready;
        }
    }

    fn lock(&self) -> MutexGuard<'_, (BTreeMap<String, Target>, Dice)> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use super::*;

    fn picked(targets: &Targets, without: &[String]) -> std::collections::BTreeSet<String> {
        (0..50).filter_map(|_| targets.pick(without)).map(|target| target.name).collect()
    }

    #[test]
    fn ready_nodes_are_picked_and_others_only_where_none_is() {
        let targets = Targets::new(1);
        assert!(targets.pick(&[]).is_none());
        let address = "127.0.0.1:1".parse().unwrap();
        for name in ["a", "b", "c"] {
            targets.set(Target::new(name, address, address));
        }
        targets.refused("b");
        assert_eq!(picked(&targets, &[]), ["a", "c"].map(str::to_owned).into());
        assert_eq!(picked(&targets, &["a".to_owned(), "c".to_owned()]), ["b".to_owned()].into());
        targets.set(Target::new("b", address, address));
        assert_eq!(picked(&targets, &[]).len(), 3);
    }
}
