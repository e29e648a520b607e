//! `vopr`: worlds that may fail, by seed (the name is TigerBeetle's).
//!
//! `cargo vopr 42` tells one world as a story; `cargo vopr --seeds 0..10000` runs many;
//! `cargo vopr --mutations [SEEDS [RULE]]` leaves each rule out and shows which invariant misses it.

use cluster_tests::sim::{self, Counts, Telling};
use proto::core::tenure::{Rule, Rules};
use std::process::ExitCode;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: vopr SEED [--without RULE]
       vopr --seeds FROM..TO
       vopr --mutations [SEEDS [RULE]]
       vopr --large [NODES]";
/// Worlds that a rule may be left out of before it counts as not missed.
const MUTANTS_MAX: u64 = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--mutations"] => mutations(MUTANTS_MAX, &Rule::ALL),
        ["--mutations", seeds, rule] => {
            let rule = Rule::ALL.into_iter().find(|it| format!("{it:?}") == *rule);
            let (Ok(seeds), Some(rule)) = (seeds.parse(), rule) else { return misused() };
            mutations(seeds, &[rule])
        }
        ["--mutations", seeds] => {
            seeds.parse().map_or_else(|_| misused(), |seeds| mutations(seeds, &Rule::ALL))
        }
        ["--seeds", seeds] => {
            let range = seeds.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
            let Some((Ok(from), Ok(to))) = range else { return misused() };
            many(from, to)
        }
        ["--large"] => large(1_000),
        ["--large", nodes] => nodes.parse().map_or_else(|_| misused(), large),
        [seed] => seed.parse().map_or_else(|_| misused(), |seed| replay(seed, Rules::ALL)),
        [seed, "--without", rule] => {
            let rule = Rule::ALL.into_iter().find(|it| format!("{it:?}") == *rule);
            let (Ok(seed), Some(rule)) = (seed.parse(), rule) else { return misused() };
            replay(seed, Rules::without(rule))
        }
        _ => misused(),
    }
}

fn misused() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn replay(seed: u64, rules: Rules) -> ExitCode {
    let report = sim::run(seed, rules, Telling::Printed);
    match report.violation {
        None => {
            println!("world {seed}: all is as it must be");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("world {seed}: {} is violated: {}", violation.invariant, violation.text);
            ExitCode::FAILURE
        }
    }
}

fn many(from: u64, to: u64) -> ExitCode {
    let began = Instant::now();
    let tally = sim::many(from..to, |counts| {
        if counts.worlds.is_multiple_of(1_000) {
            eprintln!("{:>8} worlds, {:.0} a minute", counts.worlds, a_minute(counts, began));
        }
    });
    let counts = &tally.counts;
    println!("{} worlds in {:.0} s", counts.worlds, began.elapsed().as_secs_f64());
    println!("{:.0} worlds a minute", a_minute(counts, began));
    for (name, count) in Counts::FAULTS.iter().zip(counts.faults) {
        println!("{count:>12} x {name}");
    }
    for (count, name) in [
        (counts.verdicts, "incarnations ended by a verdict"),
        (counts.reborn, "processes that went on as another incarnation"),
        (counts.inherited, "sessions inherited"),
        (counts.revivals, "sessions revived"),
        (counts.given, "sessions given away"),
        (counts.sessions, "sessions opened"),
        (counts.requests, "requests"),
        (counts.messages, "datagrams"),
        (counts.events, "events"),
    ] {
        println!("{count:>12} {name}");
    }
    for (seed, violation) in tally.failed.iter().take(20) {
        println!("seed {seed}: {} is violated: {}", violation.invariant, violation.text);
    }
    match tally.failed.first() {
        None => ExitCode::SUCCESS,
        Some((seed, _)) => {
            println!("{} worlds failed; the smallest seed is {seed}", tally.failed.len());
            ExitCode::FAILURE
        }
    }
}

fn a_minute(counts: &Counts, began: Instant) -> f64 {
    counts.worlds as f64 * 60.0 / began.elapsed().as_secs_f64()
}

/// How much later than it happens all may know of a join or a death.
const KNOWN_MS_MAX: u64 = 5_000;

fn large(most: usize) -> ExitCode {
    println!(
        "Tenure alone: membership is given to the nodes as late as gossip would, gossip itself is not simulated."
    );
    println!(
        "| nodes | all know a join | all know a death | datagrams a node and s | most in the s of a death |"
    );
    println!("|---|---|---|---|---|");
    let mut in_time = true;
    for nodes in [10, 100, most] {
        let it = sim::large(nodes, 1);
        let ms = |time: Option<u64>| time.map_or("never".to_owned(), |ms| format!("{ms} ms"));
        in_time &= [it.join_ms, it.death_ms].iter().all(|time| time.is_some_and(|ms| ms <= KNOWN_MS_MAX));
        let (join, death) = (ms(it.join_ms), ms(it.death_ms));
        println!("| {} | {join} | {death} | {:.0} | {} |", it.nodes, it.sent_per_node_and_s, it.burst);
    }
    if in_time { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn mutations(worlds: u64, rules: &[Rule]) -> ExitCode {
    let mut all_caught = true;
    println!("| rule left out | invariant | at seed | what is seen |\n|---|---|---|---|");
    for rule in rules.iter().copied() {
        let found = sim::mutate(rule, 0..worlds);
        match found.caught {
            Some((seed, violation)) => {
                println!("| {rule:?} | {} | {seed} | {} |", violation.invariant, violation.text);
            }
            None => {
                all_caught = false;
                println!("| {rule:?} | - | - | nothing in {} worlds |", found.worlds);
            }
        }
    }
    if all_caught { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
