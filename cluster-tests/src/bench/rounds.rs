//! Peers measured in turns: what a request costs, how long it takes, how many there are. Called by the cases and `hold`.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::load::{Load, Pace};
use super::peers::{Peer, Product};
use super::report::{Figure, Report, Spread};
use super::{Bench, process, progress};

/// Far below what a core carries, so that queues are short and latencies mean something.
pub(super) const RATE: u32 = 2_000;

/// How much load there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Burden {
    Saturated,
    Paced,
}

impl Burden {
    pub(super) const ALL: [Burden; 2] = [Burden::Saturated, Burden::Paced];

    /// As reports call it.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Burden::Saturated => "saturated",
            Burden::Paced => "2,000/s",
        }
    }

    pub(super) fn pace(self, time: Duration) -> Pace {
        match self {
            Burden::Saturated => Pace::Closed { time },
            Burden::Paced => Pace::Open { per_second: RATE, time },
        }
    }
}

/// One peer, one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Of all its processes, per request.
    pub(super) cpu_us: f64,
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Measured {
    /// The share of the one core that the peer's processes used.
    fn busy_percent(&self) -> f64 {
        self.cpu_us * self.per_second / 1e4
    }
}

pub(super) async fn measure(peer: &Peer, load: &Load, warm_up: Pace, pace: Pace) -> anyhow::Result<Measured> {
    load.run(warm_up).await.with_context(|| peer.product.name())?;
    let before = process::cpu_time_of_all(&peer.pids)?;
    let outcome = load.run(pace).await.with_context(|| peer.product.name())?;
    let used = process::cpu_time_of_all(&peer.pids)? - before;
    ensure!(outcome.answered > 0, "{}: no answers", peer.product.name());
    Ok(Measured {
        cpu_us: used.as_secs_f64() * 1e6 / outcome.answered as f64,
        per_second: outcome.per_second(),
        p50_us: outcome.percentile(50).as_secs_f64() * 1e6,
        p99_us: outcome.percentile(99).as_secs_f64() * 1e6,
    })
}

/// CPU per request, of small calls.
pub(super) fn cpu(case: &'static str, burden: Burden) -> Figure {
    Figure::new(case, burden.setting(), "CPU per request", "us")
}

/// The median latency.
pub(super) fn p50(case: &'static str) -> Figure {
    Figure::new(case, Burden::Paced.setting(), "p50", "us")
}

/// Small calls through all peers, in turns, under both burdens; writes a row for each figure and peer.
pub(super) async fn calls(
    case: &'static str,
    bench: &Bench,
    peers: &[&Peer],
    report: &mut Report,
) -> anyhow::Result<()> {
    let size = bench.size;
    let mut measured = [const { Vec::new() }; Burden::ALL.len()];
    for round in 1..=size.rounds {
        for (burden, all) in Burden::ALL.into_iter().zip(&mut measured) {
            all.resize_with(peers.len(), Vec::new);
            // Who is first takes turns too.
            for at in (0..peers.len()).map(|turn| (turn + round) % peers.len()) {
                let (peer, [warm_up, pace]) =
                    (peers[at], [size.warm_up, size.measure].map(|time| burden.pace(time)));
                let one = measure(peer, &peer.calls(), warm_up, pace).await?;
                let (name, setting, Measured { cpu_us, per_second, .. }) =
                    (peer.product.name(), burden.setting(), one);
                progress(&format!(
                    "{case}, round {round} of {}, {setting}, {name}: {cpu_us:.1} us of CPU per request at {per_second:.0}/s",
                    size.rounds
                ));
                all[at].push(one);
            }
        }
    }
    for (burden, all) in Burden::ALL.into_iter().zip(&measured) {
        for (peer, rounds) in peers.iter().zip(all) {
            write(case, burden, peer, rounds, report);
        }
    }
    Ok(())
}

fn write(case: &'static str, burden: Burden, peer: &Peer, rounds: &[Measured], report: &mut Report) {
    let name = peer.product.name();
    let spread = |of: fn(&Measured) -> f64| Spread::of(rounds.iter().map(of));
    let figure = |what: &str, unit| Figure::new(case, burden.setting(), what, unit);
    // Nobody is between the load and the backend where the way is direct.
    if peer.product != Product::Direct {
        report.row(cpu(case, burden), name, spread(|one| one.cpu_us));
    }
    match burden {
        Burden::Saturated => {
            report.row(figure("requests", "1/s"), name, spread(|one| one.per_second));
            if peer.product != Product::Direct {
                report.row(figure("of its core", "%"), name, spread(Measured::busy_percent));
            }
        }
        Burden::Paced => {
            report.row(p50(case), name, spread(|one| one.p50_us));
            report.row(figure("p99", "us"), name, spread(|one| one.p99_us));
        }
    }
}
