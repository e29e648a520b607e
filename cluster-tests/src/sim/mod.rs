//! A cluster as a value: the production state machines of [`proto::core`], virtual clients, a
//! network and a clock, all driven by one seed. First anything may fail, then everything heals and
//! the cluster must be whole again.
//!
//! What can happen is in [`faults`], what lies between nodes in [`network`], what should be true in
//! [`checker`]. The binary `vopr` runs it.

mod checker;
mod clients;
mod event;
mod faults;
mod gossip;
mod large;
mod network;
mod owner;
mod process;
mod rng;
mod rpc;
mod runs;
mod story;
mod world;

pub use checker::Violation;
pub use large::{Large, large};
pub use runs::{Catch, Tally, many, mutate};
pub use story::Telling;

use proto::core::tenure::Rules;
use std::ops::AddAssign;

/// What has happened in one world, or in many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub worlds: u64,
    pub faults: [u64; 12],
    /// Incarnations that ended, and sessions that were taken over, revived or given away.
    pub verdicts: u64,
    pub reborn: u64,
    pub inherited: u64,
    pub revivals: u64,
    pub given: u64,
    pub sessions: u64,
    pub requests: u64,
    pub messages: u64,
    pub events: u64,
}

impl Counts {
    /// What the numbers of `faults` count.
    pub const FAULTS: [&'static str; 12] = faults::Fault::KINDS;
}

impl AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, more: &Counts) {
        self.worlds += more.worlds;
        self.faults.iter_mut().zip(more.faults).for_each(|(sum, more)| *sum += more);
        self.verdicts += more.verdicts;
        self.reborn += more.reborn;
        self.inherited += more.inherited;
        self.revivals += more.revivals;
        self.given += more.given;
        self.sessions += more.sessions;
        self.requests += more.requests;
        self.messages += more.messages;
        self.events += more.events;
    }
}

/// How a world ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub violation: Option<Violation>,
    pub counts: Counts,
    /// Of everything that happened, if that was told.
    pub hash: u64,
}

/// Runs the world of this seed to its end, or to the first violation.
pub fn run(seed: u64, rules: Rules, telling: Telling) -> Report {
    world::World::new(seed, rules, telling).run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::core::tenure::Rule;

    /// As many as a test has time for; `cargo vopr --seeds 0..10000` runs more.
    const SEEDS: u64 = 100;

    /// A world for each rule that goes wrong without it; `cargo vopr --mutations` finds them.
    const MISSED: [(Rule, u64); 15] = [
        (Rule::Lease, 2),
        (Rule::AgreeingFences, 159),
        (Rule::SilenceOutlastsLease, 25),
        (Rule::OwnEvidence, 2),
        (Rule::ObserverGrace, 549),
        (Rule::LeaseFromSending, 58),
        (Rule::TakeUpAccepted, 297),
        (Rule::KeepPromises, 297),
        (Rule::JointChange, 2),
        (Rule::LatestSet, 2),
        (Rule::RecordsNeverRegress, 2),
        (Rule::GivenIsGiven, 0),
        (Rule::CopiedBeforeAnswered, 1),
        (Rule::EndedStaysEnded, 3),
        (Rule::NeverTwice, 6),
    ];

    #[test]
    fn nothing_that_must_not_happen_happens_in_any_of_many_worlds() {
        let tally = many(0..SEEDS, |_| {});
        assert_eq!(tally.failed, [], "replay with `cargo vopr SEED`");
        assert_eq!(tally.counts.worlds, SEEDS);
        assert!(tally.counts.inherited > SEEDS && tally.counts.given > SEEDS / 2, "{:?}", tally.counts);
    }

    #[test]
    fn one_seed_is_one_world() {
        for seed in [1, 2, 3] {
            let [one, again] = [(); 2].map(|()| run(seed, Rules::ALL, Telling::Hashed));
            assert_eq!(one, again);
        }
        let [one, other] = [1, 2].map(|seed| run(seed, Rules::ALL, Telling::Hashed).hash);
        assert_ne!(one, other);
    }

    #[test]
    fn every_rule_is_missed_where_it_is_left_out() {
        assert_eq!(MISSED.map(|(rule, _)| rule), Rule::ALL);
        for (rule, seed) in MISSED {
            assert!(mutate(rule, seed..seed + 1).caught.is_some(), "{rule:?} is not missed in world {seed}");
        }
    }
}
