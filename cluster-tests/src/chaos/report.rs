//! What a run came to: lines while it goes on, at its end a verdict on stdout, the picture, and numbers for scripts.
//! Called by `mod`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::ledger::{Impact, Ledger, Wrong};
use super::load::Load;
use super::options::Options;
use super::quantiles::Quantiles;
use super::scene::Scene;
use super::schedule::FaultKind;
use super::streams::StreamTally;
use super::svg;
use crate::real::places;

/// Findings and losses that are told one by one; the rest is in the numbers.
const TOLD: usize = 10;

/// A line of progress.
pub(super) fn progress(what: &str) {
    println!("chaos: {what}");
}

/// A line every so often, until it is dropped.
pub(super) async fn keep_telling(scene: Arc<Scene>, load: Arc<Load>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = scene.now();
        let (ok, failed, latency) = scene.timeline().recent(now, every);
        let in_use = load.in_use();
        let set_aside = scene.ledger().losses().count();
        let latency = latency.map_or_else(String::new, |latency| {
            format!(", p50 {} p99 {}", shown(latency.p50), shown(latency.p99))
        });
        progress(&format!(
            "{:5.1} s  {ok} ok, {failed} failed{latency}; {in_use} sessions in use, {set_aside} set aside",
            now.as_secs_f64()
        ));
    }
}

/// Everything that there is to tell.
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    pub(super) seed: u64,
    pub(super) network: &'a str,
    pub(super) left_out: Vec<String>,
    pub(super) streams: &'a StreamTally,
    /// Streams on which nothing came when all was well again.
    pub(super) silent: u32,
    pub(super) scene: &'a Scene,
}

impl Report<'_> {
    /// Prints the verdict, and writes the picture and the numbers.
    pub(super) fn publish(&self) -> anyhow::Result<()> {
        let ledger = self.scene.ledger();
        println!("\n{}", self.table(&ledger));
        let default = || places::target().join("chaos").join("timeline.svg");
        let picture = self.options.svg.clone().unwrap_or_else(default);
        let timeline = self.scene.timeline();
        write(&picture, &svg::draw(&timeline, &self.title(), &verdict(&ledger)))?;
        println!("picture: {}", picture.display());
        if let Some(file) = &self.options.json {
            write(file, &format!("{:#}\n", self.json(&ledger)))?;
            println!("numbers: {}", file.display());
        }
        println!("verdict: {}", verdict(&ledger));
        Ok(())
    }

    fn title(&self) -> String {
        let Options { nodes, sessions, rate, .. } = self.options;
        format!("Ringway: {nodes} nodes, {sessions} sessions, {rate} calls/s, seed {}", self.seed)
    }

    fn table(&self, ledger: &Ledger) -> String {
        let mut text = format!("{} ({})\n", self.title(), self.network);
        for what in &self.left_out {
            line(&mut text, &format!("left out: {what}"));
        }
        for mishap in ledger.impacts().iter().filter_map(|impact| impact.mishap.as_ref()) {
            line(&mut text, &format!("not as it should: {mishap}"));
        }
        let tally = ledger.tally();
        let (opened, lost) = (ledger.sessions(), ledger.losses().count());
        row(&mut text, "sessions", &format!("{opened} opened, {lost} lost"));
        for (no, why) in ledger.losses().take(TOLD) {
            line(&mut text, &format!("    session {no}: {why}"));
        }
        more(&mut text, lost);
        let failed = tally.failed();
        row(&mut text, "calls", &format!("{}: {} ok, {failed} failed", tally.ok + failed, tally.ok));
        kinds(
            &mut text,
            "failed at a node that a fault had taken, or were running there",
            &tally.unavoidable,
        );
        kinds(&mut text, "failed otherwise", &tally.avoidable);
        self.wrong(&mut text, ledger);
        self.faults(&mut text, ledger);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let StreamTally { open, ended, broke, reconnected, refused, events } = self.streams;
        row(
            &mut text,
            "streams",
            &format!(
                "{} opened, {} ended and {} broke, {} opened again, {} attempts refused; {} events; {} silent at the end",
                count(open),
                count(ended),
                count(broke),
                count(reconnected),
                count(refused),
                count(events),
                self.silent
            ),
        );
        text
    }

    fn wrong(&self, text: &mut String, ledger: &Ledger) {
        let findings = ledger.findings();
        let of = |wrong: Wrong| findings.iter().filter(|finding| finding.wrong == wrong).count();
        let told: Vec<String> = Wrong::ALL.map(|wrong| format!("{} {}", of(wrong), wrong.name())).into();
        row(text, "wrong answers", &format!("{}: {}", findings.len(), told.join(", ")));
        for finding in findings.iter().take(TOLD) {
            let at = if finding.at == Duration::MAX {
                "never explained".to_owned()
            } else {
                format!("{:.1} s", finding.at.as_secs_f64())
            };
            line(
                text,
                &format!("    {at}: session {}: {}: {}", finding.session, finding.wrong.name(), finding.what),
            );
        }
        more(text, findings.len());
    }

    fn faults(&self, text: &mut String, ledger: &Ledger) {
        const HEAD: [&str; 9] =
            ["fault", "times", "sessions", "again", "by others", "p50", "p99", "max", "all after"];
        row(
            text,
            "served again",
            "the sessions of the nodes that a fault took, from the fault on; all sessions, from its end on",
        );
        let mut rows: Vec<[String; 9]> = vec![HEAD.map(str::to_owned)];
        for (kind, impacts) in by_kind(ledger) {
            let waits = Waits::of(&impacts);
            let times = waits.takeovers.map(|Quantiles { p50, p99, max, .. }| [p50, p99, max].map(shown));
            let [p50, p99, max] = times.unwrap_or_else(|| [(); 3].map(|()| "-".to_owned()));
            let [count, sessions, again, others] = [
                impacts.len(),
                waits.sessions,
                waits.takeovers.map_or(0, |taken| taken.count),
                waits.by_other,
            ]
            .map(|count| count.to_string());
            let healing = waits.healing.map_or_else(|| "never".to_owned(), shown);
            rows.push([kind.name().to_owned(), count, sessions, again, others, p50, p99, max, healing]);
        }
        for [kind, counts @ ..] in rows {
            let cells: String = counts.iter().map(|cell| format!("{cell:>10}")).collect();
            line(text, format!("    {kind:<10}{cells}").trim_end());
        }
        let needless: usize = ledger.impacts().iter().map(|impact| impact.needless.len()).sum();
        row(text, "needless", &format!("{needless} takeovers while cores were busy or packets lost"));
    }

    fn json(&self, ledger: &Ledger) -> Value {
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let times = |quantiles: Option<Quantiles>| {
            quantiles.map(
                |q| json!({"count": q.count, "p50_ms": ms(q.p50), "p99_ms": ms(q.p99), "max_ms": ms(q.max)}),
            )
        };
        let faults = by_kind(ledger).into_iter().map(|(kind, impacts)| {
            let Waits { sessions, takeovers, by_other, healing, needless } = Waits::of(&impacts);
            let value = json!({
                "times": impacts.len(), "sessions": sessions, "takeovers": times(takeovers), "by_other_nodes": by_other,
                "served_after_healing_ms": healing.map(ms), "needless_takeovers": needless,
            });
            (kind.name().to_owned(), value)
        });
        let schedule = ledger.impacts().iter().map(|impact| {
            json!({
                "fault": impact.fault.kind.name(), "nodes": impact.fault.nodes, "at_ms": ms(impact.at),
                "healed_ms": impact.healed.map(ms), "ended_ms": impact.ended.map(ms),
                "mishap": impact.mishap,
            })
        });
        let findings = ledger.findings().into_iter().map(|finding| {
            let at = (finding.at != Duration::MAX).then(|| ms(finding.at));
            json!({"wrong": finding.wrong.name(), "session": finding.session, "at_ms": at, "what": finding.what})
        });
        let tally = ledger.tally();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let StreamTally { open, ended, broke, reconnected, refused, events } = self.streams;
        json!({
            "seed": self.seed,
            "nodes": self.options.nodes,
            "network": self.network,
            "left_out": self.left_out,
            "clean": ledger.is_clean(),
            "sessions": {"opened": ledger.sessions(), "lost": ledger.losses().count()},
            "calls": {
                "ok": tally.ok, "failed": tally.failed(),
                "failed_unavoidably": tally.unavoidable, "failed_otherwise": tally.avoidable,
            },
            "wrong": findings.collect::<Vec<_>>(),
            "faults": faults.collect::<serde_json::Map<_, _>>(),
            "schedule": schedule.collect::<Vec<_>>(),
            "streams": {
                "opened": count(open), "ended": count(ended), "broke": count(broke),
                "reconnected": count(reconnected), "refused": count(refused), "events": count(events),
                "silent": self.silent,
            },
        })
    }
}

/// One word, and what it is about.
fn verdict(ledger: &Ledger) -> String {
    if ledger.is_clean() {
        return "PASSED: no session was lost, and every answer was right".to_owned();
    }
    let findings = ledger.findings();
    let owners = findings.iter().filter(|finding| finding.wrong == Wrong::TwoOwners).count();
    let told: Vec<String> = [
        (ledger.losses().count(), "sessions lost"),
        (findings.len() - owners, "wrong answers"),
        (owners, "sessions with two owners"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    format!("FAILED: {}", told.join(", "))
}

/// What all faults of a kind did.
struct Waits {
    /// Those of the nodes that were taken.
    sessions: usize,
    /// Until each was served again.
    takeovers: Option<Quantiles>,
    by_other: usize,
    /// Until the last session was served, at worst; `None` where one never was.
    healing: Option<Duration>,
    needless: usize,
}

impl Waits {
    fn of(impacts: &[&Impact]) -> Waits {
        let sessions = || impacts.iter().flat_map(|impact| impact.takeovers.values());
        let served = || sessions().flatten();
        let healing: Option<Vec<Duration>> =
            impacts.iter().flat_map(|impact| impact.after_healing.values().copied()).collect();
        Waits {
            sessions: sessions().count(),
            takeovers: Quantiles::of(served().map(|served| served.after)),
            by_other: served().filter(|served| served.by_other).count(),
            healing: healing.map(|times| times.into_iter().max().unwrap_or_default()),
            needless: impacts.iter().map(|impact| impact.needless.len()).sum(),
        }
    }
}

fn by_kind(ledger: &Ledger) -> BTreeMap<FaultKind, Vec<&Impact>> {
    let mut kinds: BTreeMap<FaultKind, Vec<&Impact>> = BTreeMap::new();
    for impact in ledger.impacts().iter().filter(|impact| impact.mishap.is_none()) {
        kinds.entry(impact.fault.kind).or_default().push(impact);
    }
    kinds
}

fn kinds(text: &mut String, what: &str, kinds: &BTreeMap<String, u64>) {
    if !kinds.is_empty() {
        line(text, &format!("    {} {what}", kinds.values().sum::<u64>()));
    }
    for (kind, count) in kinds {
        line(text, &format!("    {count:>8}  {kind}"));
    }
}

fn row(text: &mut String, name: &str, what: &str) {
    line(text, &format!("{name:<14}{what}"));
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "  {line}").expect("writing to a string does not fail");
}

fn more(text: &mut String, all: usize) {
    if all > TOLD {
        line(text, &format!("    and {} more", all - TOLD));
    }
}

/// Three figures are enough.
fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s >= 10.0 => format!("{s:.1} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.01 => format!("{:.0} ms", s * 1e3),
        s => format!("{:.1} ms", s * 1e3),
    }
}

fn write(file: &PathBuf, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Asked, Call, Outcome, Ownership};
    use super::super::options::Upstreams;
    use super::super::schedule::Fault;
    use super::*;

    /// Two sessions of node `a`, of which `b` has served one 300 ms after `a` was killed.
    fn killed() -> Ledger {
        let mut ledger = Ledger::new(Upstreams::Http);
        let ms = Duration::from_millis;
        for _ in 0..2 {
            let (session, owner, epoch) = (ledger.opened(), "a".to_owned(), Some(1));
            ledger.owned(&Ownership { session, owner, epoch, sent: ms(0), done: ms(1), has_served: false });
        }
        ledger.begun(Fault { kind: FaultKind::Kill, nodes: vec!["a".to_owned()] }, ms(1_000));
        ledger.called(&Call {
            session: 0,
            asked: Asked::Read,
            entry: "c".to_owned(),
            sent: ms(1_100),
            done: ms(1_300),
            outcome: Outcome::Read,
            owner: Some("b".to_owned()),
            epoch: Some(2),
        });
        ledger
    }

    #[test]
    fn a_takeover_that_has_not_come_is_not_hidden_by_those_that_have() {
        let mut ledger = killed();
        ledger.healed(Duration::from_secs(5));
        let waits = Waits::of(&by_kind(&ledger)[&FaultKind::Kill]);
        assert_eq!((waits.sessions, waits.by_other), (2, 1));
        assert_eq!(
            waits.takeovers.map(|taken| (taken.count, taken.max)),
            Some((1, Duration::from_millis(300)))
        );
        assert_eq!(waits.healing, None, "nobody has been served since");
    }

    #[test]
    fn what_did_not_happen_as_it_should_has_no_times() {
        let mut ledger = killed();
        ledger.mishap("kill a: it does not run".to_owned());
        assert!(by_kind(&ledger).is_empty());
    }

    #[test]
    fn the_verdict_names_what_went_wrong() {
        let mut ledger = killed();
        assert!(verdict(&ledger).starts_with("PASSED"));
        ledger.lost(1, "-31001 owner_lost, has not run".to_owned());
        assert_eq!(verdict(&ledger), "FAILED: 1 sessions lost");
    }

    #[test]
    fn times_have_three_figures_at_most() {
        let told = [0.000_25, 0.0031, 0.25, 1.234, 12.34].map(|s| shown(Duration::from_secs_f64(s)));
        assert_eq!(told, ["0.2 ms", "3.1 ms", "250 ms", "1.23 s", "12.3 s"]);
    }
}
