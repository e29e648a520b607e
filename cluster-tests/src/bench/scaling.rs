//! The case `scaling`: whether a cluster of five nodes serves as many requests per CPU second as one of three. Called by
//! `bench`.
//!
//! Both clusters are there at once and are measured in turns, all nodes on the core of what is measured. At random
//! entries a larger cluster forwards more: 4 requests of 5 instead of 2 of 3. The same is therefore measured of
//! forwarded requests alone, where a difference is one of size and not of the mix.

use anyhow::ensure;

use super::children::Child;
use super::load::Pace;
use super::mixed::{self, Mixed, Owner};
use super::report::{Figure, Goal, Report, Spread};
use super::{Bench, owned, process, progress};
use crate::real::cluster::{Cluster, Plan};

pub(super) const CASE: &str = "scaling";

const SIZES: [usize; 2] = [3, 5];

/// Of 9 and of 25 pairs of entry and owner, and of 6 and 20 that forward, each must have as many.
const CONNECTIONS: usize = 225;
const FORWARDED_CONNECTIONS: usize = 240;

/// Sessions of each node.
const SESSIONS: usize = 40;

const GOAL: f64 = 1.0;

const RANDOM: &str = "random entry";
const FORWARDED: &str = "forwarded only";

/// A cluster, and the two loads on it.
struct Sized {
    name: &'static str,
    pids: Vec<libc::pid_t>,
    loads: [(&'static str, Mixed); 2],
    _cluster: Cluster,
}

pub(super) async fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    progress("starting a backend and clusters of three and five nodes");
    let apart = bench.cores.keep_apart()?;
    let backend = Child::backend().await?;
    let mut clusters = Vec::new();
    for nodes in SIZES {
        clusters.push(Sized::start(bench, &backend, nodes).await?);
    }
    let mut measured = [const { [const { Vec::new() }; SIZES.len()] }; 2];
    for round in 1..=bench.size.rounds {
        for (load, all) in measured.iter_mut().enumerate() {
            for at in (0..SIZES.len()).map(|turn| (turn + round) % SIZES.len()) {
                all[at].push(clusters[at].per_cpu_second(bench, load, round).await?);
            }
        }
    }
    drop(apart);
    for ((setting, _), all) in clusters[0].loads.iter().zip(measured) {
        let figure = Figure::new(CASE, *setting, "requests per CPU second", "1/s");
        for (cluster, rounds) in clusters.iter().zip(all) {
            report.row(figure.clone(), cluster.name, Spread::of(rounds));
        }
        let ratio = report.ratio(&figure, clusters[1].name, clusters[0].name);
        let what = format!("requests per CPU second, 5 nodes / 3 nodes, {setting}");
        if *setting == RANDOM {
            report.goal(what, Goal::AtLeast(GOAL), "x", ratio.as_ref());
        }
    }
    report.note(format!(
        "scaling: CPU of all nodes, saturated by {CONNECTIONS} connections, as many for each pair of entry and owner; at \
         random entries three nodes forward 67 % of all requests and five 80 %"
    ));
    Ok(())
}

impl Sized {
    async fn start(bench: &Bench, backend: &Child, nodes: usize) -> anyhow::Result<Sized> {
        let names: Vec<String> = ('a'..).take(nodes).map(String::from).collect();
        let under = bench.cores.measured();
        let plan = Plan::nodes(nodes).config(owned::config(&owned::route(&backend.url)));
        let plan = names
            .iter()
            .filter(|_| !under.is_empty())
            .fold(plan, |plan, name| plan.under(name, under.clone()));
        let cluster = plan.start().await?;
        let owners = owners(&cluster).await?;
        Ok(Sized {
            name: if nodes == SIZES[0] { "3 nodes" } else { "5 nodes" },
            pids: names.iter().map(|name| cluster.node(name).process.pid()).collect(),
            loads: [
                (RANDOM, Mixed::new(&owners, CONNECTIONS, mixed::any)),
                (FORWARDED, Mixed::new(&owners, FORWARDED_CONNECTIONS, mixed::forwarded)),
            ],
            _cluster: cluster,
        })
    }

    async fn per_cpu_second(&self, bench: &Bench, load: usize, round: usize) -> anyhow::Result<f64> {
        let (setting, load) = &self.loads[load];
        load.run(Pace::Closed { time: bench.size.warm_up }).await?;
        let before = process::cpu_time_of_all(&self.pids)?;
        let outcome = load.run(Pace::Closed { time: bench.size.measure }).await?;
        let used = process::cpu_time_of_all(&self.pids)? - before;
        ensure!(outcome.answered > 0, "{}: no answers", self.name);
        let per_cpu_second = outcome.answered as f64 / used.as_secs_f64();
        progress(&format!(
            "{CASE}, round {round} of {}, {}, {setting}: {per_cpu_second:.0} requests per CPU second, {:.0}/s",
            bench.size.rounds,
            self.name,
            outcome.per_second()
        ));
        Ok(per_cpu_second)
    }
}

/// Sessions of every node.
pub(super) async fn owners(cluster: &Cluster) -> anyhow::Result<Vec<Owner>> {
    let names = cluster.names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let sessions = owned::sessions(cluster, &names, SESSIONS).await?;
    Ok(cluster.listens().into_iter().zip(sessions).collect())
}
