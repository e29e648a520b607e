//! Many worlds: on all cores, and with a rule left out.

use super::{Counts, Report, Telling, Violation, run};
use proto::core::tenure::{Rule, Rules};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What came of many worlds.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub counts: Counts,
    /// The seeds whose worlds were not as they must be, in order.
    pub failed: Vec<(u64, Violation)>,
}

/// Runs the worlds of these seeds, and tells of the sum so far from time to time.
pub fn many(seeds: Range<u64>, progress: impl Fn(&Counts) + Sync) -> Tally {
    work_through(seeds, false, |seed| run(seed, Rules::ALL, Telling::Silent), progress)
}

fn work_through(
    seeds: Range<u64>,
    until_one_fails: bool,
    run: impl Fn(u64) -> Report + Sync,
    progress: impl Fn(&Counts) + Sync,
) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let tally = Mutex::new(Tally::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let Report { violation, counts, .. } = run(seed);
            let mut tally = tally.lock().expect("nobody panics with it");
            tally.counts += &counts;
            progress(&tally.counts);
            if let Some(violation) = violation {
                tally.failed.push((seed, violation));
                if until_one_fails {
                    next.store(seeds.end, Ordering::Relaxed);
                }
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut tally = tally.into_inner().expect("nobody panicked with it");
    tally.failed.sort_by_key(|(seed, _)| *seed);
    tally
}

/// What shows that a rule is missed.
#[derive(Clone, Debug)]
pub struct Catch {
    pub rule: Rule,
    pub caught: Option<(u64, Violation)>,
    pub worlds: u64,
}

/// Leaves this rule out until a world shows it, or all have been tried.
pub fn mutate(rule: Rule, seeds: Range<u64>) -> Catch {
    let with_and_without = |seed| {
        let mut report = run(seed, Rules::without(rule), Telling::Silent);
        // What also happens with all rules shows nothing of this one.
        if report.violation.is_some() && run(seed, Rules::ALL, Telling::Silent).violation.is_some() {
            report.violation = None;
        }
        report
    };
    let tally = work_through(seeds, true, with_and_without, |_| {});
    Catch { rule, caught: tally.failed.into_iter().next(), worlds: tally.counts.worlds }
}
