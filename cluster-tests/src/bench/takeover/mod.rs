//! The case `takeover`: a node is killed (SIGKILL) that owns thousands of sessions, while clients keep calling them; how
//! long until each of them has been served by another node. Called by `bench`.
//!
//! Three nodes on all cores; the route is in front of an HTTP upstream, which lives on, so that every session survives.
//! Before the kill clients call at a bounded rate. From the kill on 64 of them go through all of the dead node's
//! sessions as fast as they are answered, and stay at each until it is served: the last one's time is that of the death
//! being noticed and agreed upon, and of that many calls. The same pass over the same sessions with everybody alive,
//! which is measured before, says how much of it is the calls.

mod clients;

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;

use super::children::Child;
use super::report::{Figure, Goal, RINGWAY, Report, Spread};
use super::{Bench, owned, process, progress};
use crate::real::cluster::{Cluster, Plan};
use clients::{Course, Served};

pub(super) const CASE: &str = "takeover";

const VICTIM: &str = "a";

const GOAL_S: f64 = 3.0;

/// How long clients call before the kill.
const BEFORE: Duration = Duration::from_millis(500);

/// CPU seconds while all sessions were called once.
struct Cpu {
    nodes: f64,
    load: f64,
    backend: f64,
}

/// One kill.
struct Round {
    /// A pass with everybody alive, and what it took.
    alive: Duration,
    alive_cpu: Cpu,
    cpu: Cpu,
    served: Served,
}

pub(super) async fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut rounds = Vec::new();
    for round in 1..=bench.size.few_rounds {
        let one = kill(bench.size.taken_over).await?;
        progress(&format!(
            "{CASE}, round {round} of {}: the first served after {:.3} s, the last after {:.3} s (alive: {:.3} s), \
             {} errors{}",
            bench.size.few_rounds,
            one.served.percentile(0),
            one.served.percentile(100),
            one.alive.as_secs_f64(),
            one.served.errors,
            one.served.example.as_deref().map(|text| format!(", such as {text}")).unwrap_or_default(),
        ));
        rounds.push(one);
    }
    write(bench.size.taken_over, &rounds, report);
    Ok(())
}

/// A cluster of its own for each: what nodes remember of a death is not what is measured.
async fn kill(count: usize) -> anyhow::Result<Round> {
    progress(&format!("{CASE}: three nodes, one of which owns {count} sessions"));
    let backend = Child::backend().await?;
    let mut cluster = Plan::nodes(3).config(owned::config(&owned::route(&backend.url))).start().await?;
    let sessions = owned::sessions(&cluster, &[VICTIM], count).await?.remove(0);
    let (victim, everyone) = (cluster.listen(VICTIM), cluster.listens());
    let others: Vec<_> = everyone.iter().copied().filter(|at| *at != victim).collect();

    let pids = pids(&cluster);
    let before = Cpu::now(&pids, &backend)?;
    let alive = Arc::new(Course::new(sessions.clone(), others, victim));
    let clients = alive.clone().start().await?;
    alive.kill_now();
    let alive = clients.finish().await?;
    let alive_cpu = Cpu::now(&pids, &backend)?.since(&before);
    ensure!(alive.errors == 0, "with everybody alive: {:?}", alive.example);

    let course = Arc::new(Course::new(sessions, everyone, victim));
    let clients = course.clone().start().await?;
    tokio::time::sleep(BEFORE).await;
    let mut node = cluster.take(VICTIM);
    let pids = self::pids(&cluster);
    let before = Cpu::now(&pids, &backend)?;
    node.process.signal(libc::SIGKILL)?;
    course.kill_now();
    let served = clients.finish().await?;
    let cpu = Cpu::now(&pids, &backend)?.since(&before);
    node.process.wait(Duration::from_secs(10)).await?;
    Ok(Round { alive: alive.last(), alive_cpu, cpu, served })
}

fn pids(cluster: &Cluster) -> Vec<libc::pid_t> {
    cluster.names().iter().map(|name| cluster.node(name).process.pid()).collect()
}

impl Cpu {
    fn now(nodes: &[libc::pid_t], backend: &Child) -> anyhow::Result<Cpu> {
        let of = |pids: &[libc::pid_t]| Ok::<_, anyhow::Error>(process::cpu_time_of_all(pids)?.as_secs_f64());
        Ok(Cpu {
            nodes: of(nodes)?,
            load: of(&[std::process::id().cast_signed()])?,
            backend: of(&[backend.process.pid()])?,
        })
    }

    fn since(self, before: &Cpu) -> Cpu {
        Cpu {
            nodes: self.nodes - before.nodes,
            load: self.load - before.load,
            backend: self.backend - before.backend,
        }
    }
}

fn write(count: usize, rounds: &[Round], report: &mut Report) {
    let spread = |of: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(of));
    let mut row = |name: &str, unit, of: &dyn Fn(&Round) -> f64| {
        let spread = spread(of);
        report.row(Figure::new(CASE, "", name, unit), RINGWAY, spread.clone());
        spread
    };
    row("from the kill to the first session's answer", "s", &|round| round.served.percentile(0));
    row("p50 of all sessions", "s", &|round| round.served.percentile(50));
    row("p99 of all sessions", "s", &|round| round.served.percentile(99));
    let last = row("from the kill to the last session's answer", "s", &|round| round.served.percentile(100));
    row("the same pass with everybody alive", "s", &|round| round.alive.as_secs_f64());
    let errors = row("errors beside calls in progress at the kill", "", &|round| round.served.errors as f64);
    row("calls in progress that were lost with the node", "", &|round| round.served.lost as f64);
    row("CPU of the two nodes left, until the last answer", "s", &|round| round.cpu.nodes);
    row("CPU of all three nodes in the pass with everybody alive", "s", &|round| round.alive_cpu.nodes);
    row("CPU of load and backend, until the last answer", "s", &|round| round.cpu.load + round.cpu.backend);
    report.goal(
        format!("takeover of {count} sessions, the last one served"),
        Goal::AtMost(GOAL_S),
        "s",
        Some(&last),
    );
    report.goal(
        "errors at a takeover, beside calls that were in progress",
        Goal::AtMost(0.0),
        "",
        Some(&errors),
    );
    report.note(format!(
        "takeover: nodes, load and backend share all {} cores, and a pass of {count} calls keeps these busy; a \
         client whose entry is the dead node goes on at the next",
        std::thread::available_parallelism().map_or(1, usize::from)
    ));
}
