//! `bench`: how fast Ringway is, as a Markdown table on stdout; progress goes to stderr.
//!
//! `cargo run --release -p cluster-tests --bin bench [-- --quick | -- soak]`. It exits 0 whether goals are met or missed:
//! a benchmark is not a test. `backend` and `bare-proxy` are processes that the benchmark starts itself.

use std::process::ExitCode;
use std::time::Duration;

use cluster_tests::bench::{self, Size};
use tokio::runtime::{Builder, Runtime};

/// The allocator of `ringway`, so that the bare proxy differs from it in nothing but what it does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: bench [--quick]
       bench soak [--streams COUNT]    sessions that nobody ends, and idle streams (2,000 unless told otherwise)
       bench hold proxy|owner|forwarded saturated|paced SECONDS    one load, for a profiler to look at
       bench backend
       bench bare-proxy --upstream URL";

/// Enough to tell a stream's cost from noise; 10,000 fit into the 20,000 files that a process may open.
const STREAMS: usize = 2_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => several_threads().and_then(|runtime| runtime.block_on(bench::run(Size::FULL))),
        ["--quick"] => several_threads().and_then(|runtime| runtime.block_on(bench::run(Size::QUICK))),
        ["soak"] => several_threads().and_then(|runtime| runtime.block_on(bench::soak::run(STREAMS))),
        ["soak", "--streams", count] => {
            let Ok(count) = count.parse() else { return misused() };
            several_threads().and_then(|runtime| runtime.block_on(bench::soak::run(count)))
        }
        // One thread serves tens of thousands of these answers a second and leaves more of the machine to the rest.
        ["backend"] => one_thread().and_then(|runtime| runtime.block_on(bench::backend::run())),
        ["bare-proxy", "--upstream", url] => {
            several_threads().and_then(|runtime| runtime.block_on(bench::bare_proxy::run(url)))
        }
        ["hold", case @ ("proxy" | "owner" | "forwarded"), pace @ ("saturated" | "paced"), seconds] => {
            let Ok(seconds) = seconds.parse() else { return misused() };
            let time = Duration::from_secs(seconds);
            several_threads()
                .and_then(|runtime| runtime.block_on(bench::requests::hold(case, *pace == "paced", time)))
        }
        _ => return misused(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn misused() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// The runtime that `ringway node` has.
fn several_threads() -> anyhow::Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

fn one_thread() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
