//! The benchmark of speed and size. Called by the program `bench`.
//!
//! `CASES` lists what is measured, each a file of its own: `ring` its two goals in this process, `calls` and `hops`
//! what a request costs where it lands and over a hop, `bodies` large ones, `sessions` what sessions at rest hold and
//! how fast they are opened, `streams` what event streams cost, `takeover` how soon a dead node's sessions are served
//! elsewhere, `scaling` what a larger cluster serves. A case gets the `Bench` (how much to measure, cores, programs that
//! are installed) and writes rows, comparisons, goals, notes and charts into the `report`; it starts what it needs and
//! ends it again.
//!
//! `stage` starts what is compared, with `peers` for each product; `rounds` measures it in turns. `backend` and
//! `bare_proxy` are processes of their own, with `accept` below both; `children` starts them. `load` sends the requests,
//! over one entry or, `mixed`, over all, in sessions that `owned` has opened; `process`, `cores` and `wire` ask the kernel.
//! Beside the cases: `hold` puts one load on one peer, `observe` measures what it costs to be looked at, `soak` what
//! sessions and streams leave behind, `steady` whether memory stays what it is for minutes, `train` lets nodes do all of it
//! for a build by profile.
//!
//! Time on a shared machine is mostly other people's noise. CPU time per request is less so, and it decides how
//! many nodes a load needs: that is what most goals are about, as ratios between peers that were measured in turns.

mod accept;
pub mod backend;
pub mod bare_proxy;
mod bodies;
mod calls;
mod children;
mod cores;
pub mod hold;
mod hops;
mod load;
mod memory;
mod mixed;
pub mod observe;
mod owned;
pub mod peers;
mod process;
mod report;
mod ring;
mod rounds;
mod scaling;
mod sessions;
pub mod soak;
mod stage;
pub mod steady;
mod streams;
mod takeover;
pub mod train;
mod wire;

use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::real::binaries;
use cores::Cores;
use peers::Installed;
use report::{Circumstances, Report};

/// Something that is measured, chosen by its name on the command line.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    measure: for<'a> fn(&'a Bench, &'a mut Report) -> Measuring<'a>,
}

type Measuring<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    Case {
        name: ring::CASE,
        about: "the ring of 1,000 nodes; what else is pure is criterion's (cargo bench)",
        measure: |bench, report| Box::pin(async { ring::measure(bench, report) }),
    },
    Case {
        name: calls::CASE,
        about: "calls answered where they land: direct, bare hyper, nginx, HAProxy, Ringway",
        measure: |bench, report| Box::pin(calls::measure(bench, report)),
    },
    Case {
        name: hops::CASE,
        about: "calls forwarded over a hop: two nginx or two HAProxy over mutual TLS, two Ringway nodes",
        measure: |bench, report| Box::pin(hops::measure(bench, report)),
    },
    Case {
        name: bodies::CASE,
        about: "bodies of 1 KiB, 64 KiB and 4 MiB, both ways, with and without a hop",
        measure: |bench, report| Box::pin(bodies::measure(bench, report)),
    },
    Case {
        name: sessions::CASE,
        about: "memory of a session at rest, sessions opened per second",
        measure: |bench, report| Box::pin(sessions::measure(bench, report)),
    },
    Case {
        name: streams::CASE,
        about: "event streams: memory at rest and what is left of it, the first event, CPU and delay of events",
        measure: |bench, report| Box::pin(streams::measure(bench, report)),
    },
    Case {
        name: takeover::CASE,
        about: "a node with 10,000 sessions is killed while clients call: how long until all are served",
        measure: |bench, report| Box::pin(takeover::measure(bench, report)),
    },
    Case {
        name: scaling::CASE,
        about: "requests per CPU second of five nodes beside three",
        measure: |bench, report| Box::pin(scaling::measure(bench, report)),
    },
];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Interleaved rounds over everything that is compared.
    rounds: usize,
    /// The same where a round is long: bodies, and bytes on the wire.
    few_rounds: usize,
    /// One measurement of one peer at one kind of load.
    measure: Duration,
    warm_up: Duration,
    /// Requests of a run that counts bytes on the wire.
    counted: u64,
    /// Sessions opened between two looks at the memory.
    sessions: u64,
    /// Idle streams.
    streams: usize,
    /// Sessions of the node that is killed.
    taken_over: usize,
}

impl Size {
    /// `calls`: 5 rounds x 5 peers x 2 loads x (1.5 + 0.3) s = 90 s. `hops`: with 5 peers as long, and 3 x 7 x 2 s of
    /// counted requests. `bodies`: 3 x 9 x 3 sizes x 1.8 s = 146 s. `streams`: 3 x 10 x 2.5 s = 75 s, and 8 x 6 s at rest.
    /// `takeover`: 3 x 20 s. `scaling`: 5 x 2 x 2 x 1.8 s = 36 s. Some 80 s for the rest.
    pub const FULL: Size = Size {
        rounds: 5,
        few_rounds: 3,
        measure: Duration::from_millis(1_500),
        warm_up: Duration::from_millis(300),
        counted: 20_000,
        sessions: 20_000,
        streams: 2_000,
        taken_over: 10_000,
    };
    /// 3 x 5 x 2 x (0.6 + 0.2) s = 24 s, twice, 2 x 9 x 3 x 0.8 s = 43 s, and some 30 s for the rest.
    pub const QUICK: Size = Size {
        rounds: 3,
        few_rounds: 2,
        measure: Duration::from_millis(600),
        warm_up: Duration::from_millis(200),
        counted: 5_000,
        sessions: 5_000,
        streams: 500,
        taken_over: 2_500,
    };
    /// To see that everything works.
    pub const GLANCE: Size = Size {
        rounds: 1,
        few_rounds: 1,
        measure: Duration::from_millis(100),
        warm_up: Duration::from_millis(50),
        counted: 200,
        sessions: 200,
        streams: 50,
        taken_over: 100,
    };
}

/// What every case is given.
#[derive(Debug)]
pub struct Bench {
    size: Size,
    cores: Cores,
    installed: Installed,
}

impl Bench {
    /// Builds the node first where need be, on all cores.
    pub async fn new(size: Size) -> anyhow::Result<Bench> {
        if cfg!(debug_assertions) {
            progress("a debug build: its numbers say nothing; use --release");
        }
        progress("building the node, if it is not");
        binaries::ringway().await?;
        let bench = Bench { size, cores: Cores::usable()?, installed: Installed::find() };
        bench.installed.programs().iter().for_each(|program| progress(program));
        Ok(bench)
    }
}

/// Measures the cases of these names, or all where there are none, saves the report in `dir` and prints it.
pub async fn run(size: Size, names: &[String], dir: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let bench = Bench::new(size).await?;
    let mut circumstances = Circumstances::now(bench.installed.programs());
    let mut report = Report::default();
    for case in CASES.iter().filter(|case| names.is_empty() || names.iter().any(|name| name == case.name)) {
        progress(&format!("{}: {} ({:.0} s so far)", case.name, case.about, started.elapsed().as_secs_f64()));
        (case.measure)(&bench, &mut report).await.with_context(|| format!("the case `{}`", case.name))?;
    }
    circumstances.ended(started.elapsed());
    print!("{}", report::save(&report, &circumstances, dir)?);
    progress(&format!("done in {:.0} s, saved in {}", started.elapsed().as_secs_f64(), dir.display()));
    Ok(())
}

fn progress(what: &str) {
    eprintln!("bench: {what}");
}
