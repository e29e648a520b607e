//! What a run of `chaos` is asked for: the command line. Read by `bin/chaos.rs`, used by everything here.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};

use super::schedule::FaultKind;

/// Takes nodes from a real cluster under load, and says what its clients noticed.
///
/// Starts `ringway node` processes in front of real MCP servers, opens sessions and calls them through random
/// nodes while faults happen one at a time. At the end: a verdict on stdout and a picture. Exit code 1 where a
/// session was lost, an answer was wrong or a session had two owners, 0 otherwise, 2 for wrong usage.
#[derive(Debug, Clone, Parser)]
#[command(name = "chaos")]
pub struct Options {
    /// Nodes of the cluster
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=20))]
    pub nodes: u8,
    /// MCP sessions, opened through random nodes
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub sessions: u32,
    /// Sessions that also hold an open GET stream [default: a tenth]
    #[arg(long, value_name = "SESSIONS")]
    pub streams: Option<u32>,
    /// Calls per second, over all sessions
    // Each has a connection of its own, whose port rests for 60 s: 2,000 calls/s to 5 nodes keep 24,000 of the
    // 28,000 ports to each of them.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub rate: u32,
    /// What may happen; each kind once before any comes again
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = FaultKind::value_variants())]
    pub faults: Vec<FaultKind>,
    /// For how long faults begin; the last one is undone and every session asked again after that
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = time)]
    pub length: Duration,
    /// How long a freeze, a cut, loss and busy cores last
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub hold: Duration,
    /// How long a killed node stays away before it is started again under its name
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = time)]
    pub down: Duration,
    /// Between a recovery and the next fault
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time)]
    pub pause: Duration,
    /// Nodes that a kill takes at once
    #[arg(long, value_name = "NODES", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=19))]
    pub kill_together: u8,
    /// How long a client waits for an answer
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = time)]
    pub deadline: Duration,
    /// The MCP servers: replicas that live on, reached over HTTP, or one per node that dies with it
    #[arg(long, value_enum, default_value_t = Upstreams::Http)]
    pub upstream: Upstreams,
    /// Draws the faults; printed, so that a run can be repeated [default: from the clock]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Run on loopback even where every node could have a network namespace of its own
    #[arg(long)]
    pub loopback: bool,
    /// Where the picture goes [default: target/chaos/timeline.svg]
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Where the numbers go, for scripts
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What the cluster stands in front of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Upstreams {
    Http,
    Local,
}

impl Options {
    /// Wrong combinations, which the parser can't see.
    pub fn check(&self) -> Result<(), String> {
        if self.kill_together >= self.nodes {
            return Err(format!(
                "--kill-together {} leaves none of {} nodes",
                self.kill_together, self.nodes
            ));
        }
        if self.streams.is_some_and(|streams| streams > self.sessions) {
            return Err("--streams: more streams than --sessions".to_owned());
        }
        Ok(())
    }

    /// How many sessions hold a stream.
    pub(super) fn streams(&self) -> u32 {
        self.streams.unwrap_or_else(|| self.sessions.div_ceil(10))
    }
}

/// Reads `60s`, `2m`, `500ms` or `1h`.
fn time(text: &str) -> anyhow::Result<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().context("a number with a unit, such as 60s")?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => bail!("the unit is one of ms, s, m and h"),
    };
    number.checked_mul(ms).map(Duration::from_millis).context("too long")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(time("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(time("2m").unwrap(), Duration::from_secs(120));
        for wrong in ["", "s", "60", "1d", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn faults_are_a_list_and_all_of_them_by_default() {
        let line = "chaos --nodes 3 --faults kill,one-way --for 20s";
        let options = Options::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(options.faults, [FaultKind::Kill, FaultKind::OneWay]);
        assert_eq!((options.check(), options.streams()), (Ok(()), 20));
        let all = Options::try_parse_from(["chaos"]).unwrap().faults;
        assert_eq!(all, FaultKind::value_variants());
        assert!(Options::try_parse_from(["chaos", "--faults", "flood"]).is_err());
    }

    #[test]
    fn somebody_must_be_left() {
        let line = "chaos --nodes 3 --kill-together 3";
        assert!(Options::try_parse_from(line.split(' ')).unwrap().check().is_err());
    }
}
