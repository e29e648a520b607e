//! What a request costs: through the bare proxy, through the node that owns its session, and forwarded from
//! another node to the owner. The same requests and backend for all, in turns.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::children::Child;
use super::load::{self, CONNECTIONS, Client, Expect, Load, Pace};
use super::report::{Report, Spread};
use super::{Size, process, progress};
use crate::real::cluster::{Cluster, Plan};

/// Far below what two cores carry, so that queues are short and latencies mean something.
const RATE: u32 = 2_000;

/// Sessions opened until enough have each node as their owner: half of them have, so 16 of each take some 40.
const OPENED_MAX: usize = 400;

/// Something that requests are sent through.
struct Case {
    name: &'static str,
    load: Load,
    /// Whose CPU is counted: everybody between the load and the backend.
    pids: Vec<libc::pid_t>,
    /// At most so many times the bare proxy's CPU per request.
    goal: Option<f64>,
    full: Vec<Measured>,
    paced: Vec<Measured>,
}

struct Measured {
    cpu_us: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Case {
    async fn measure(&self, size: Size, pace: Pace) -> anyhow::Result<Measured> {
        let warm_up = match pace {
            Pace::Open { per_second, .. } => Pace::Open { per_second, time: size.warm_up },
            Pace::Closed { .. } | Pace::Counted { .. } => Pace::Closed { time: size.warm_up },
        };
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

pub(super) async fn measure(size: Size, report: &mut Report) -> anyhow::Result<()> {
    progress("starting a backend, a bare proxy and two nodes (built first if need be)");
    let backend = Child::backend().await?;
    let bare = Child::bare_proxy(&backend.url).await?;
    let cluster = Plan::nodes(2).upstreams(std::slice::from_ref(&backend.url)).start().await?;
    let mut cases = cases(&bare, &cluster).await?;
    for round in 1..=size.rounds {
        for case in &mut cases {
            let full = case.measure(size, Pace::Closed { time: size.measure }).await?;
            let paced = case.measure(size, Pace::Open { per_second: RATE, time: size.measure }).await?;
            progress(&format!(
                "round {round} of {}, {}: {:.1} us of CPU at {:.0}/s, {:.1} us at {:.0}/s",
                size.rounds, case.name, full.cpu_us, full.per_second, paced.cpu_us, paced.per_second
            ));
            case.full.push(full);
            case.paced.push(paced);
        }
    }
    write(&cases, report);
    note_idle(&cluster, size, report).await
}

/// Puts one load on one case for a while, so that a profiler can look at the processes; says on stdout which.
pub async fn hold(case: &str, is_paced: bool, time: Duration) -> anyhow::Result<()> {
    let backend = Child::backend().await?;
    let bare = Child::bare_proxy(&backend.url).await?;
    let cluster = Plan::nodes(2).upstreams(std::slice::from_ref(&backend.url)).start().await?;
    let cases = cases(&bare, &cluster).await?;
    let case = cases.iter().find(|one| one.name.ends_with(case)).context("no such case")?;
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
        full: Vec::new(),
        paced: Vec::new(),
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
    let spread = |measured: &[Measured], of: fn(&Measured) -> f64| Spread::of(measured.iter().map(of));
    type Column = (&'static str, &'static str, fn(&Case) -> &[Measured], fn(&Measured) -> f64);
    let columns: [Column; 5] = [
        ("CPU per request, saturated", "us", |case| &case.full, |one| one.cpu_us),
        ("CPU per request, 2,000/s", "us", |case| &case.paced, |one| one.cpu_us),
        ("p50, 2,000/s", "us", |case| &case.paced, |one| one.p50_us),
        ("p99, 2,000/s", "us", |case| &case.paced, |one| one.p99_us),
        ("requests per second, saturated", "1/s", |case| &case.full, |one| one.per_second),
    ];
    for (what, unit, rounds, of) in columns {
        for case in cases {
            let bare = rounds(&cases[0]).iter().map(of);
            let ratio = Spread::of(rounds(case).iter().map(of).zip(bare).map(|(one, bare)| one / bare));
            let name = format!("{what}: {}", case.name);
            if let Some(goal) = case.goal.filter(|_| what.starts_with("CPU")) {
                report.goal(format!("{name} / (a)"), "x", goal, &ratio);
            }
            report.compared(name, unit, spread(rounds(case), of), ratio);
        }
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
