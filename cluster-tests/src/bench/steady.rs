//! `bench steady`: whether a node's memory stays what it is under load: three nodes at saturation, requests served where
//! they land and forwarded, resident memory of each every ten seconds, and the slope of a line through that.

use std::path::Path;
use std::time::{Duration, Instant};

use super::children::Child;
use super::load::Pace;
use super::mixed::{self, Mixed};
use super::report::{self, Circumstances, Figure, Goal, RINGWAY, Report, Spread};
use super::{Bench, Size, owned, process, progress, scaling};
use crate::real::cluster::Plan;

const CASE: &str = "steady";

const NODES: usize = 3;

/// Two for each of the nine pairs of entry and owner: more keep the cores no busier.
const CONNECTIONS: usize = 18;

const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Connections, pools and buffers grow in the first minute, or in a fifth of a shorter run.
const WARM_UP_MAX: Duration = Duration::from_secs(60);

/// One MiB in ten minutes.
const GOAL_KIB_PER_MINUTE: f64 = 102.4;

/// A node's memory at a time.
#[derive(Debug, Clone, Copy)]
struct Look {
    minutes: f64,
    kib: f64,
}

/// Runs for so long, saves the report in `dir` and prints it.
pub async fn run(time: Duration, dir: &Path) -> anyhow::Result<()> {
    let warm_up = WARM_UP_MAX.min(time / 5);
    let bench = Bench::new(Size::FULL).await?;
    let began = Instant::now();
    let mut circumstances = Circumstances::now(Vec::new());
    let backend = Child::backend().await?;
    let cluster = Plan::nodes(NODES).config(owned::config(&owned::route(&backend.url))).start().await?;
    let load = Mixed::new(&scaling::owners(&cluster).await?, CONNECTIONS, mixed::any);
    drop(bench);
    progress(&format!("{CASE}: warming up for {} s", warm_up.as_secs()));
    load.run(Pace::Closed { time: warm_up }).await?;

    let names = cluster.names();
    let mut looks = vec![Vec::new(); names.len()];
    let watching = async {
        let (begin, mut tick) = (Instant::now(), tokio::time::interval(LOOK_EVERY));
        loop {
            tick.tick().await;
            let minutes = begin.elapsed().as_secs_f64() / 60.0;
            for (name, looks) in names.iter().zip(&mut looks) {
                let bytes = process::resident(cluster.node(name).process.pid())?;
                looks.push(Look { minutes, kib: bytes as f64 / 1024.0 });
            }
            let last: Vec<String> =
                looks.iter().flat_map(|looks| looks.last()).map(|look| format!("{:.0}", look.kib)).collect();
            progress(&format!("{CASE}: after {minutes:.1} minutes {} KiB", last.join(", ")));
        }
    };
    let outcome = tokio::select! {
        outcome = load.run(Pace::Closed { time: time - warm_up }) => outcome?,
        failed = watching => return failed,
    };

    let mut report = Report::default();
    let mut steepest = f64::NEG_INFINITY;
    for (name, looks) in names.iter().zip(&looks) {
        let kib_per_minute = slope(looks);
        steepest = steepest.max(kib_per_minute);
        let kib = Spread::of(looks.iter().map(|look| look.kib));
        report.row(
            Figure::new(CASE, "", format!("resident memory of {name}, each 10 s"), "KiB"),
            RINGWAY,
            kib,
        );
        let slope = Spread::of([kib_per_minute]);
        report.row(Figure::new(CASE, "", format!("slope of that of {name}"), "KiB/min"), RINGWAY, slope);
    }
    report.row(Figure::new(CASE, "", "requests", "1/s"), RINGWAY, Spread::of([outcome.per_second()]));
    report.goal(
        "resident memory at saturation, the steepest node",
        Goal::AtMost(GOAL_KIB_PER_MINUTE),
        "KiB/min",
        Some(&Spread::of([steepest])),
    );
    report.note(format!(
        "{NODES} nodes, {CONNECTIONS} connections that send the next request when the last is answered, two of three \
         requests forwarded; looked at after the first {} s; the slope is that of the least squares",
        warm_up.as_secs()
    ));
    circumstances.ended(began.elapsed());
    print!("{}", report::save(&report, &circumstances, dir)?);
    progress(&format!("saved in {}", dir.display()));
    Ok(())
}

/// Of the line with the least squares, in KiB per minute; 0 of a single look.
fn slope(looks: &[Look]) -> f64 {
    let count = looks.len().max(1) as f64;
    let mean = |of: fn(&Look) -> f64| looks.iter().map(of).sum::<f64>() / count;
    let (minutes, kib) = (mean(|look| look.minutes), mean(|look| look.kib));
    let both: f64 = looks.iter().map(|look| (look.minutes - minutes) * (look.kib - kib)).sum();
    let square: f64 = looks.iter().map(|look| (look.minutes - minutes).powi(2)).sum();
    if square > 0.0 { both / square } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line_through_the_looks() {
        let looks = |kib: &[f64]| -> Vec<Look> {
            kib.iter().enumerate().map(|(minute, &kib)| Look { minutes: minute as f64, kib }).collect()
        };
        assert_eq!(slope(&looks(&[100.0, 110.0, 120.0])), 10.0);
        assert_eq!(slope(&looks(&[100.0, 130.0, 100.0])), 0.0);
        assert_eq!(slope(&looks(&[100.0])), 0.0);
    }
}
