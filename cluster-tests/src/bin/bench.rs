//! `bench`: how fast Ringway is, side by side with what else is installed; a report in Markdown on stdout and, with
//! JSON and a picture, in a folder. Progress goes to stderr.
//!
//! `cargo run --release -p cluster-tests --bin bench`. It exits 0 whether goals are met or missed: a benchmark is not a
//! test. `backend` and `bare-proxy` are processes that the benchmark starts itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand, ValueEnum};
use cluster_tests::bench::{self, CASES, Size, peers::Product};
use cluster_tests::real::{binaries, places};
use tokio::runtime::{Builder, Runtime};

/// The allocator of `ringway`, so that the bare proxy differs from it in nothing but what it does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ringway's benchmark.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true, after_help = cases())]
struct Arguments {
    /// What to measure; all where none is named
    #[arg(value_name = "CASE", value_parser = PossibleValuesParser::new(CASES.iter().map(|case| case.name)))]
    cases: Vec<String>,
    /// Fewer and shorter rounds
    #[arg(long)]
    quick: bool,
    /// One moment of everything, to see that it works; its figures say nothing
    #[arg(long, conflicts_with = "quick")]
    glance: bool,
    /// The folder for bench.json, bench.md and bench.svg [default: target/bench]
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// The node to measure [default: built from this workspace]
    #[arg(long, value_name = "FILE", global = true)]
    ringway: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sessions that nobody ends, and idle streams
    Soak {
        /// Enough to tell a stream's cost from noise; 10,000 fit into the 20,000 files that a process may open
        #[arg(long, value_name = "COUNT", default_value_t = 2_000)]
        streams: usize,
    },
    /// What it costs to be scraped and looked at
    Observe {
        /// 7 rounds x 2 cases x 2 loads x (watched and not) x 3 s = 168 s
        #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = at_least_one)]
        rounds: usize,
    },
    /// Whether memory stays what it is: three nodes at saturation for minutes
    Steady {
        #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = at_least_one)]
        minutes: usize,
        /// The folder for bench.json and bench.md [default: target/bench-steady]
        #[arg(long, value_name = "DIR")]
        save: Option<PathBuf>,
    },
    /// One load on one product, for a profiler to look at
    Hold {
        product: Product,
        load: LoadKind,
        seconds: u64,
        /// Calls with a body of so many bytes, answered with as many
        #[arg(long, value_name = "BYTES")]
        body: Option<usize>,
    },
    /// All loads in turn on nodes that end by themselves, for builds that write a profile
    #[command(hide = true)]
    Train,
    /// The MCP server behind everything that is measured
    #[command(hide = true)]
    Backend,
    /// A reverse proxy of hyper alone
    #[command(hide = true)]
    BareProxy {
        #[arg(long, value_name = "URL")]
        upstream: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LoadKind {
    /// The next request follows the answer
    Saturated,
    /// 2,000 requests a second
    Paced,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(program) = arguments.ringway {
        binaries::use_ringway(program)?;
    }
    let Some(command) = arguments.command else {
        let size = match (arguments.quick, arguments.glance) {
            (true, _) => Size::QUICK,
            (_, true) => Size::GLANCE,
            (false, false) => Size::FULL,
        };
        let dir = arguments.save.unwrap_or_else(|| places::target().join("bench"));
        return one_thread()?.block_on(bench::run(size, &arguments.cases, &dir));
    };
    match command {
        Command::Soak { streams } => several_threads()?.block_on(bench::soak::run(streams)),
        Command::Observe { rounds } => one_thread()?.block_on(bench::observe::run(rounds)),
        Command::Steady { minutes, save } => {
            let dir = save.unwrap_or_else(|| places::target().join("bench-steady"));
            one_thread()?.block_on(bench::steady::run(Duration::from_secs(60) * minutes as u32, &dir))
        }
        Command::Hold { product, load, seconds, body } => {
            let (is_paced, time) = (load == LoadKind::Paced, Duration::from_secs(seconds));
            one_thread()?.block_on(bench::hold::run(product, is_paced, body, time))
        }
        Command::Train => one_thread()?.block_on(bench::train::run()),
        Command::Backend => one_thread()?.block_on(bench::backend::run()),
        Command::BareProxy { upstream } => as_a_node()?.block_on(bench::bare_proxy::run(&upstream)),
    }
}

/// For `--help`: what the cases are.
fn cases() -> String {
    let line = |case: &bench::Case| format!("  {:<11}{}\n", case.name, case.about);
    format!("Cases:\n{}", CASES.iter().map(line).collect::<String>())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "at least 1".to_owned())
}

fn several_threads() -> anyhow::Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

/// Load and backend share a core: one thread serves tens of thousands of requests a second and wakes no other.
fn one_thread() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// The runtime that suits a proxy on the cores that it was given.
fn as_a_node() -> anyhow::Result<Runtime> {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => one_thread(),
        _ => several_threads(),
    }
}
