//! The benchmark of speed and size. Called by the program `bench`.
//!
//! `micro` measures pure functions in this process. `requests` measures what a request costs a bare proxy, the
//! owning node, and two nodes when it is forwarded; `memory` what a session at rest holds. `backend` and
//! `bare_proxy` are processes of their own, with `accept` below both; `children` starts them. `load` sends the
//! requests, `process` asks the kernel, `report` prints. `soak` is a benchmark of its own: what sessions with a child
//! leave behind, and with `idle_streams` what a stream costs on which nothing is said.
//!
//! Time on a shared machine is mostly other people's noise. CPU time per request is less so, and it decides how
//! many nodes a load needs: that is what the goals are about, as ratios between cases that were measured in turns.

mod accept;
pub mod backend;
pub mod bare_proxy;
mod children;
mod idle_streams;
mod load;
mod memory;
mod micro;
mod process;
mod report;
pub mod requests;
pub mod soak;

use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Interleaved rounds over everything that is compared.
    rounds: usize,
    /// Batches of each pure function.
    batches: usize,
    /// One measurement of one case at one kind of load.
    measure: Duration,
    warm_up: Duration,
    /// Sessions opened between two looks at the memory.
    sessions: u64,
}

impl Size {
    /// 5 rounds x 3 cases x 4 settings x (1.5 + 0.3) s = 108 s, and some 20 s for the rest.
    pub const FULL: Size = Size {
        rounds: 5,
        batches: 11,
        measure: Duration::from_millis(1_500),
        warm_up: Duration::from_millis(300),
        sessions: 20_000,
    };
    /// 3 x 3 x 4 x (0.6 + 0.2) s = 29 s, and some 8 s for the rest.
    pub const QUICK: Size = Size {
        rounds: 3,
        batches: 5,
        measure: Duration::from_millis(600),
        warm_up: Duration::from_millis(200),
        sessions: 5_000,
    };
}

/// Measures everything and prints it.
pub async fn run(size: Size) -> anyhow::Result<()> {
    let started = Instant::now();
    if cfg!(debug_assertions) {
        progress("a debug build: its numbers say nothing; use --release");
    }
    let mut report = report::Report::default();
    progress("pure functions");
    micro::measure(size, &mut report)?;
    requests::measure(size, &mut report).await?;
    memory::measure(size, &mut report).await?;
    print!("{}", report.to_markdown());
    progress(&format!("done in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

fn progress(what: &str) {
    eprintln!("bench: {what}");
}
