//! `chaos`: takes nodes from a real cluster under load, and says what its clients noticed.
//!
//! `cargo run --release -p cluster-tests --bin chaos -- --nodes 5 --sessions 200 --for 60s`. It exits 1 where a
//! session was lost, an answer was wrong or a session had two owners.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use cluster_tests::chaos::{self, options::Options};

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(why) = options.check() {
        Options::command().error(ErrorKind::ValueValidation, why).exit();
    }
    match chaos::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
