//! What events cost that are said on many streams, how long they are on their way, and how soon a stream's first one
//! comes. Called by `streams`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use super::CASE;
use super::client::Stream;
use crate::bench::peers::{Peer, Product};
use crate::bench::report::{Figure, Report, Spread};
use crate::bench::{Bench, process, progress};

/// 2,000 events a second, which is what `calls` are paced at.
pub(super) const STREAMS: usize = 200;
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Streams that are opened one after the other for the time to their first event.
const FIRSTS: usize = 100;

/// One peer, one round.
pub(super) struct Measured {
    cpu_ms: f64,
    p50_us: f64,
    p99_us: f64,
    first_us: f64,
}

/// Of all processes.
pub(super) fn cpu(setting: &str) -> Figure {
    Figure::new(CASE, setting, "CPU per 1,000 events", "ms")
}

/// From the request to the first event, the median.
pub(super) fn first(setting: &str) -> Figure {
    Figure::new(CASE, setting, "first event of a stream, p50", "us")
}

/// All peers in turns; writes a row for each figure and peer.
pub(super) async fn measure(
    setting: &'static str,
    bench: &Bench,
    peers: &[&Peer],
    sessions: &[String],
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut measured: Vec<Vec<Measured>> = peers.iter().map(|_| Vec::new()).collect();
    for round in 1..=bench.size.few_rounds {
        for at in (0..peers.len()).map(|turn| (turn + round) % peers.len()) {
            let (peer, name) = (peers[at], peers[at].product.name());
            let one = of_one(bench, peer, sessions).await.context(name)?;
            progress(&format!(
                "{CASE}, {setting}, round {round} of {}, {name}: {:.1} ms of CPU per 1,000 events, {:.0} us on their way, \
                 the first after {:.0} us",
                bench.size.few_rounds, one.cpu_ms, one.p50_us, one.first_us
            ));
            measured[at].push(one);
        }
    }
    for (peer, rounds) in peers.iter().zip(&measured) {
        let name = peer.product.name();
        let spread = |of: fn(&Measured) -> f64| Spread::of(rounds.iter().map(of));
        if peer.product != Product::Direct {
            report.row(cpu(setting), name, spread(|one| one.cpu_ms));
        }
        report.row(Figure::new(CASE, setting, "event on its way, p50", "us"), name, spread(|one| one.p50_us));
        report.row(Figure::new(CASE, setting, "event on its way, p99", "us"), name, spread(|one| one.p99_us));
        report.row(first(setting), name, spread(|one| one.first_us));
    }
    Ok(())
}

pub(super) async fn of_one(bench: &Bench, peer: &Peer, sessions: &[String]) -> anyhow::Result<Measured> {
    let mut firsts = Vec::with_capacity(FIRSTS);
    for session in sessions.iter().cycle().take(FIRSTS) {
        firsts.push(Stream::open(peer.at(), session, None).await?.1);
    }
    let mut running = JoinSet::new();
    let mut open = Vec::with_capacity(STREAMS);
    for session in &sessions[..STREAMS] {
        open.push(Stream::open(peer.at(), session, Some(TICK)).await?.0);
    }
    let begin = Instant::now() + bench.size.warm_up;
    let end = begin + bench.size.measure.max(TICK * 2);
    for stream in open {
        running.spawn(listen(stream, begin, end));
    }
    tokio::time::sleep_until(begin.into()).await;
    let before = process::cpu_time_of_all(&peer.pids)?;
    tokio::time::sleep_until(end.into()).await;
    let used = process::cpu_time_of_all(&peer.pids)? - before;
    let mut delays = Vec::new();
    while let Some(one) = running.join_next().await {
        delays.extend(one??);
    }
    ensure!(delays.len() >= STREAMS, "{} events of {STREAMS} streams", delays.len());
    Ok(Measured {
        cpu_ms: used.as_secs_f64() * 1e6 / delays.len() as f64,
        p50_us: percentile_us(&mut delays, 50),
        p99_us: percentile_us(&mut delays, 99),
        first_us: percentile_us(&mut firsts, 50),
    })
}

/// How long the events were on their way that came between the two.
async fn listen(mut stream: Stream, begin: Instant, end: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut delays = Vec::new();
    while let Ok(some) = tokio::time::timeout_at(end.into(), stream.delays()).await {
        let some = some?;
        if Instant::now() >= begin {
            delays.extend(some);
        }
    }
    Ok(delays)
}

fn percentile_us(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default().as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!([50, 99].map(|percent| percentile_us(&mut times, percent)), [51_000.0, 100_000.0]);
    }
}
