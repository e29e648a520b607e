//! Which faults happen to which nodes: drawn from a seed, so that a run can be repeated. Pure. Called by `mod`.

use std::fmt;

use clap::ValueEnum;

use crate::dice::Dice;

/// What can happen to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum FaultKind {
    /// SIGKILL; started again under the same name after a while
    Kill,
    /// SIGSTOP, later SIGCONT
    Freeze,
    /// No packet passes between the node and the other nodes; clients reach all of them
    Partition,
    /// The node's packets to the other nodes are dropped, theirs arrive
    OneWay,
    /// Every node loses 20 % of its packets to the other nodes
    Loss,
    /// Asked to leave at its admin endpoint; started again once it has
    Drain,
    /// SIGTERM; started again once it has ended
    Restart,
    /// As many busy loops as there are cores
    Busy,
}

impl FaultKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            FaultKind::Kill => "kill",
            FaultKind::Freeze => "freeze",
            FaultKind::Partition => "partition",
            FaultKind::OneWay => "one-way",
            FaultKind::Loss => "loss",
            FaultKind::Drain => "drain",
            FaultKind::Restart => "restart",
            FaultKind::Busy => "busy",
        }
    }

    /// Whether it happens to some nodes, so that their sessions have to be served by others.
    pub(super) fn takes_nodes(self) -> bool {
        match self {
            FaultKind::Kill
            | FaultKind::Freeze
            | FaultKind::Partition
            | FaultKind::OneWay
            | FaultKind::Drain
            | FaultKind::Restart => true,
            FaultKind::Loss | FaultKind::Busy => false,
        }
    }

    /// Whether it comes without warning, so that what runs on its nodes is gone or stuck.
    pub(super) fn is_abrupt(self) -> bool {
        match self {
            FaultKind::Kill | FaultKind::Freeze | FaultKind::Partition | FaultKind::OneWay => true,
            FaultKind::Loss | FaultKind::Drain | FaultKind::Restart | FaultKind::Busy => false,
        }
    }

    /// Whether it needs links between the nodes that can be cut.
    pub(super) fn needs_links(self) -> bool {
        matches!(self, FaultKind::Partition | FaultKind::OneWay | FaultKind::Loss)
    }
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// To these; empty where it happens to all.
    pub(super) nodes: Vec<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = if self.nodes.is_empty() { "all".to_owned() } else { self.nodes.join("+") };
        write!(f, "{} {nodes}", self.kind.name())
    }
}

/// Faults without end.
#[derive(Debug)]
pub(super) struct Schedule {
    dice: Dice,
    kinds: Vec<FaultKind>,
    /// What is left of the kinds before all of them come again.
    deck: Vec<FaultKind>,
    nodes: Vec<String>,
    kill_together: usize,
}

impl Schedule {
    pub(super) fn new(seed: u64, kinds: &[FaultKind], nodes: &[String], kill_together: usize) -> Schedule {
        let (kinds, nodes) = (kinds.to_vec(), nodes.to_vec());
        Schedule { dice: Dice::new(seed), kinds, deck: Vec::new(), nodes, kill_together }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.deck.is_empty() {
            self.deck = self.kinds.clone();
        }
        if self.deck.is_empty() {
            return None;
        }
        let kind = self.deck.swap_remove(self.dice.below(self.deck.len()));
        let count = if kind == FaultKind::Kill { self.kill_together } else { kind.takes_nodes().into() };
        let mut others = self.nodes.clone();
        let mut nodes: Vec<String> =
            (0..count.min(others.len())).map(|_| others.swap_remove(self.dice.below(others.len()))).collect();
        nodes.sort_unstable();
        Some(Fault { kind, nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64) -> Vec<String> {
        let nodes = ["a", "b", "c"].map(str::to_owned);
        let kinds = [FaultKind::Kill, FaultKind::Loss, FaultKind::Freeze];
        Schedule::new(seed, &kinds, &nodes, 2).take(9).map(|fault| fault.to_string()).collect()
    }

    #[test]
    fn a_seed_draws_the_same_faults_again_and_another_one_others() {
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn every_kind_comes_once_before_any_comes_again() {
        for seed in 0..50 {
            for round in drawn(seed).chunks(3) {
                for kind in ["kill", "loss all", "freeze"] {
                    assert_eq!(round.iter().filter(|fault| fault.starts_with(kind)).count(), 1, "{round:?}");
                }
                let kill = round.iter().find(|fault| fault.starts_with("kill"));
                assert!(kill.is_some_and(|kill| kill.contains('+')), "two at once: {round:?}");
            }
        }
    }

    #[test]
    fn without_kinds_nothing_happens() {
        assert_eq!(Schedule::new(1, &[], &["a".to_owned()], 1).next(), None);
    }
}
