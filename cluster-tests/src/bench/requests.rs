//! What a request costs: through the bare proxy, through the node that owns its session, and forwarded from
//! another node to the owner. The same requests and backend for all, in turns.
//!
//! CPU per request depends on what else the machine does: on idle cores a wake-up costs more than the work that it
//! is for, and on busy ones next to nothing. What is compared with a goal is therefore measured with everything
//! that is counted on one core and everything else (load and backend) on another: there two busy loops changed a
//! figure by a fifth at most, without it by more than half. It leaves out what threads of one node cost each
//! other; the same measures on all cores are in the table beside it, with the latencies.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::children::Child;
use super::load::{self, CONNECTIONS, Client, Expect, Load, Pace};
use super::process::Cores;
use super::report::{Report, Spread};
use super::{Size, process, progress};
use crate::real::cluster::{Cluster, Plan};

/// Far below what two cores carry, so that queues are short and latencies mean something.
const RATE: u32 = 2_000;

/// Sessions opened until enough have each node as their owner: half of them have, so 16 of each take some 40.
const OPENED_MAX: usize = 400;

/// Which cores everything runs on, and how much load there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    name: &'static str,
    is_apart: bool,
    is_paced: bool,
}

const SETTINGS: [Setting; 4] = [
    Setting { name: "one core, saturated", is_apart: true, is_paced: false },
    Setting { name: "one core, 2,000/s", is_apart: true, is_paced: true },
    Setting { name: "all cores, saturated", is_apart: false, is_paced: false },
    Setting { name: "all cores, 2,000/s", is_apart: false, is_paced: true },
];

impl Setting {
    fn pace(self, time: Duration) -> Pace {
        if self.is_paced { Pace::Open { per_second: RATE, time } } else { Pace::Closed { time } }
    }
}

/// Something that requests are sent through.
struct Case {
    name: &'static str,
    load: Load,
    /// Whose CPU is counted: everybody between the load and the backend.
    pids: Vec<libc::pid_t>,
    /// At most so many times the bare proxy's CPU per request.
    goal: Option<f64>,
    /// Round by round, in each setting.
    measured: [Vec<Measured>; SETTINGS.len()],
}

struct Measured {
    cpu_us: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Case {
    async fn measure(&self, warm_up: Pace, pace: Pace) -> anyhow::Result<Measured> {
        self.load.run(warm_up).await.with_context(|| self.name)?;
        let before = process::cpu_time_of_all(&self.pids)?;
        let outcome = self.load.run(pace).await.with_context(|| self.name)?;
        let used = process::cpu_time_of_all(&self.pids)? - before;
        ensure!(outcome.answered > 0, "{}: no answers", self.name);
        Ok(Measured {
            cpu_us: used.as_secs_f64() * 1e6 / outcome.answered as f64,
            per_second: outcome.per_second(),
            p50_us: outcome.percentile(50).as_secs_f64() * 1e6,
            p99_us: outcome.percentile(99).as_secs_f64() * 1e6,
        })
    }
}

/// All processes: the backend, the bare proxy, and two nodes.
struct Stage {
    backend: Child,
    cluster: Cluster,
    cases: Vec<Case>,
    _bare: Child,
}

impl Stage {
    async fn set() -> anyhow::Result<Stage> {
        let backend = Child::backend().await?;
        let bare = Child::bare_proxy(&backend.url).await?;
        let cluster = Plan::nodes(2).upstreams(std::slice::from_ref(&backend.url)).start().await?;
        let cases = cases(&bare, &cluster).await?;
        Ok(Stage { backend, cluster, cases, _bare: bare })
    }

    /// Puts what is measured on a core of its own, or lets everything run everywhere.
    fn separate(&self, all: &Cores, is_apart: bool) -> anyhow::Result<()> {
        let apart = all.first_two().filter(|_| is_apart);
        let [others, measured] = apart.unwrap_or([*all; 2]);
        others.hold(std::process::id().cast_signed())?;
        others.hold(self.backend.process.pid())?;
        self.cases.iter().flat_map(|case| &case.pids).try_for_each(|pid| measured.hold(*pid))
    }
}

pub(super) async fn measure(size: Size, report: &mut Report) -> anyhow::Result<()> {
    progress("starting a backend, a bare proxy and two nodes (built first if need be)");
    let (cores, mut stage) = (Cores::all()?, Stage::set().await?);
    if cores.first_two().is_none() {
        report
            .note("there is only one core: what is said to be measured on one core shares it with the load");
    }
    for round in 1..=size.rounds {
        for (at, setting) in SETTINGS.iter().enumerate() {
            stage.separate(&cores, setting.is_apart)?;
            for case in &mut stage.cases {
                let measured = case.measure(setting.pace(size.warm_up), setting.pace(size.measure)).await?;
                let Measured { cpu_us, per_second, .. } = measured;
                progress(&format!(
                    "round {round} of {}, {}, {}: {cpu_us:.1} us of CPU per request at {per_second:.0}/s",
                    size.rounds, setting.name, case.name
                ));
                case.measured[at].push(measured);
            }
        }
    }
    stage.separate(&cores, false)?;
    write(&stage.cases, report);
    note_idle(&stage.cluster, size, report).await
}

/// Puts one load on one case for a while, so that a profiler can look at the processes; says on stdout which.
pub async fn hold(case: &str, is_paced: bool, time: Duration) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let case = stage.cases.iter().find(|one| one.name.ends_with(case)).context("no such case")?;
    println!("{} pids {:?}", case.name, case.pids);
    let pace = if is_paced { Pace::Open { per_second: RATE, time } } else { Pace::Closed { time } };
    let before = process::cpu_time_of_all(&case.pids)?;
    let outcome = case.load.run(pace).await?;
    let used = process::cpu_time_of_all(&case.pids)? - before;
    let each_us = used.as_secs_f64() * 1e6 / outcome.answered as f64;
    println!("{} requests, {:.0}/s, {each_us:.1} us of CPU each", outcome.answered, outcome.per_second());
    Ok(())
}

/// The bare proxy, the owner itself, and a node that is not the owner: each connection with a session of its own.
async fn cases(bare: &Child, cluster: &Cluster) -> anyhow::Result<Vec<Case>> {
    let (entry, [mine, other]) = (cluster.listen("a"), sessions(cluster).await?);
    let pid = |name| cluster.node(name).process.pid();
    let case = |name, at, sessions: &[String], hops, pids, goal| Case {
        name,
        load: Load {
            at,
            requests: sessions.iter().map(|id| load::call(at, id)).collect(),
            expect: Expect::Called { hops },
        },
        pids,
        goal,
        measured: Default::default(),
    };
    let both = vec![pid("a"), pid("b")];
    Ok(vec![
        case("(a) bare proxy", bare.address()?, &mine, None, vec![bare.process.pid()], None),
        case("(b) owner", entry, &mine, Some("0"), vec![pid("a")], Some(2.0)),
        case("(c) forwarded", entry, &other, Some("1"), both, Some(4.0)),
    ])
}

/// As many sessions of each node as there are connections.
async fn sessions(cluster: &Cluster) -> anyhow::Result<[Vec<String>; 2]> {
    let mut owned = [Vec::new(), Vec::new()];
    let entries: [SocketAddr; 2] = [cluster.listen("a"), cluster.listen("b")];
    for turn in 0..OPENED_MAX {
        if owned.iter().all(|ids| ids.len() >= CONNECTIONS) {
            break;
        }
        let entry = entries[turn % 2];
        let mut client = Client::connect(entry).await?;
        let answer = client.exchange(&load::initialize(entry)).await?;
        let owner = answer.header("ringway-node").context("no owner named")?;
        let id = answer.header("mcp-session-id").context("no session id")?;
        owned[usize::from(owner == "b")].push(id.to_owned());
    }
    for ids in &mut owned {
        ensure!(ids.len() >= CONNECTIONS, "after {OPENED_MAX} sessions a node has only {}", ids.len());
        ids.truncate(CONNECTIONS);
    }
    Ok(owned)
}

fn write(cases: &[Case], report: &mut Report) {
    for (at, setting) in SETTINGS.iter().enumerate() {
        row(cases, at, "CPU per request", "us", |one| one.cpu_us, report);
        if setting.is_apart {
            continue;
        }
        if setting.is_paced {
            row(cases, at, "p50", "us", |one| one.p50_us, report);
            row(cases, at, "p99", "us", |one| one.p99_us, report);
        } else {
            row(cases, at, "requests", "1/s", |one| one.per_second, report);
        }
    }
}

/// A row for each case; the first case is the one that the others are compared with.
fn row(
    cases: &[Case],
    at: usize,
    what: &str,
    unit: &'static str,
    of: fn(&Measured) -> f64,
    report: &mut Report,
) {
    let setting = SETTINGS[at];
    for case in cases {
        let rounds = || case.measured[at].iter().map(of);
        let ratio = Spread::of(rounds().zip(&cases[0].measured[at]).map(|(one, bare)| one / of(bare)));
        let name = format!("{what}, {}: {}", setting.name, case.name);
        if let Some(goal) = case.goal.filter(|_| setting.is_apart) {
            report.goal(format!("{name} / (a)"), "x", goal, &ratio);
        }
        report.compared(name, unit, Spread::of(rounds()), ratio);
    }
}

/// What the nodes use without any request: it is part of what a request seems to cost at a low rate.
async fn note_idle(cluster: &Cluster, size: Size, report: &mut Report) -> anyhow::Result<()> {
    let pids: Vec<_> = ["a", "b"].map(|name| cluster.node(name).process.pid()).to_vec();
    // What the last load left behind (connections that close) is not rest.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = process::cpu_time_of_all(&pids)?;
    tokio::time::sleep(size.measure).await;
    let used = process::cpu_time_of_all(&pids)? - before;
    let each_ms = used.as_secs_f64() * 1e3 / size.measure.as_secs_f64() / pids.len() as f64;
    let share_us = each_ms * 1e3 / f64::from(RATE);
    report.note(format!(
        "a node at rest in a cluster of two uses {each_ms:.2} ms of CPU each second: {share_us:.2} us of each request \
         at {RATE}/s"
    ));
    Ok(())
}
