//! `forge`: session ids that nobody gave out, and whether any opens.
//!
//! `cargo run --release -p cluster-tests --bin forge -- --count 10000000`

use clap::Parser;
use cluster_tests::forge::{self, Tried};
use std::process::ExitCode;

#[derive(Parser)]
struct Options {
    /// How many to try.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    count: u64,
    /// The same seed makes the same ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let Options { count, seed } = Options::parse();
    let step = (count / 10).max(1);
    // Each batch is 1,000 or a little less, so that one of them crosses each tenth.
    let Tried { count, accepted, took } = forge::run(count, seed, |tried| {
        if tried >= step && tried % step < 1_000 {
            println!("{tried} tried");
        }
    });
    for text in &accepted {
        println!("accepted: {text}");
    }
    println!("{count} forged or altered ids: {} accepted, {:.1} s", accepted.len(), took.as_secs_f64());
    if accepted.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
