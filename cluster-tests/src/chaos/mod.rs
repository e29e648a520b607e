//! `chaos`: a real cluster under load that loses nodes, and what its clients notice. Called by the program `chaos`.
//!
//! `options` is what was asked for and `schedule` draws the faults. `field` runs the cluster and lets faults happen
//! to it, over `links` that can be cut, in an `own_network`. `load` and `streams` are the clients, which reach the
//! nodes through `targets` and read `answers`. What they see goes into the `ledger`, which judges, and into the
//! `timeline`, which `svg` draws; `report` tells. `schedule`, `answers`, `ledger`, `timeline`, `quantiles` and `svg`
//! are pure.

mod answers;
mod field;
mod ledger;
mod links;
mod load;
pub mod options;
mod own_network;
mod quantiles;
mod report;
mod scene;
pub mod schedule;
mod streams;
mod svg;
mod targets;
mod timeline;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::real::binaries;
use field::Field;
use ledger::{Ledger, Wait};
use links::Links;
use load::Load;
use options::Options;
use report::{Report, progress};
use scene::Scene;
use schedule::{Fault, FaultKind, Schedule};
use streams::StreamTally;
use targets::Targets;

/// How long the sessions may take to be served again after a fault before the next one comes all the same.
const RECOVERY: Duration = Duration::from_secs(15);

/// Between two lines of progress.
const TICKER: Duration = Duration::from_secs(5);

/// Between two looks whether everything is well again.
const LOOK: Duration = Duration::from_millis(50);

/// Runs it all. Whether clients could rely on the cluster; fails where the run itself did.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let runtime = Runtime::new()?;
    // Built before there is no way to a registry any more.
    runtime.block_on(async {
        if !own_network::is_here() {
            progress("building ringway and fixture-mcp, where they are not yet");
        }
        binaries::ringway().await?;
        binaries::fixture_mcp().await
    })?;
    let loopback = if own_network::is_here() {
        None
    } else if options.loopback {
        Some("asked for with --loopback".to_owned())
    } else {
        match own_network::way() {
            // A new image of this program begins from the start.
            Ok(way) => return Err(own_network::enter(way)),
            Err(why) => Some(why),
        }
    };
    runtime.block_on(async {
        tokio::select! {
            verdict = run_here(options, loopback) => verdict,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; no verdict"),
        }
    })
}

async fn run_here(options: &Options, loopback: Option<String>) -> anyhow::Result<bool> {
    let seed = options.seed.unwrap_or_else(clock_seed);
    let names: Vec<String> = ('a'..='z').take(options.nodes.into()).map(String::from).collect();
    let (links, left_out) = match loopback {
        None => (Some(Links::lay(&names).await.context("wiring network namespaces")?), Vec::new()),
        Some(why) => (None, vec![format!("network namespaces ({why}): all nodes run on loopback")]),
    };
    let (kinds, left_out) = possible(&options.faults, links.as_ref(), left_out);
    for what in &left_out {
        progress(&format!("LEFT OUT: {what}"));
    }
    anyhow::ensure!(!kinds.is_empty(), "none of the faults can happen here");
    let mut dice = Dice::new(seed);
    let targets = Targets::new(dice.roll());
    let scene = Arc::new(Scene::new(targets, Ledger::new(options.upstream), options.deadline));
    let network = if links.is_some() { "a network namespace each" } else { "loopback" };
    progress(&format!("seed {seed}; {} nodes, {network}", options.nodes));
    let field = Field::build(scene.clone(), &names, links, options.upstream).await?;

    let mut tasks = JoinSet::new();
    let asking = scene.clone();
    tasks.spawn(async move { asking.targets.keep_asking().await });
    let load = Arc::new(Load::new(scene.clone()));
    progress(&format!("opening {} sessions", options.sessions));
    let clients = load.open_all(options.sessions).await.context("opening sessions")?;
    let streams = Arc::new(StreamTally::default());
    for client in clients.iter().take(options.streams() as usize) {
        tasks.spawn(streams::keep_open(scene.clone(), client.clone(), streams.clone()));
    }
    let calls = tasks.spawn(load.clone().keep_calling(options.rate, Dice::new(dice.roll())));
    tasks.spawn(report::keep_telling(scene.clone(), load.clone(), TICKER));

    let schedule = Schedule::new(dice.roll(), &kinds, &names, options.kill_together.into());
    let mut director = Director { options, scene: scene.clone(), load: load.clone(), field };
    director.play(schedule).await;

    progress("asking every session again");
    calls.abort();
    let silent = load.ask_all().await?;
    tasks.abort_all();
    let report = Report { options, seed, network, left_out, streams: &streams, silent, scene: &scene };
    report.publish()?;
    let is_clean = scene.ledger().is_clean();
    Ok(is_clean)
}

/// Lets one fault happen after the other, with time to recover in between.
struct Director<'a> {
    options: &'a Options,
    scene: Arc<Scene>,
    load: Arc<Load>,
    field: Field,
}

impl Director<'_> {
    async fn play(&mut self, schedule: Schedule) {
        let end = Instant::now() + self.options.length;
        sleep(self.options.pause).await;
        for fault in schedule {
            if Instant::now() >= end {
                break;
            }
            self.one(&fault).await;
            sleep(self.options.pause.min(end.saturating_duration_since(Instant::now()))).await;
        }
        sleep(end.saturating_duration_since(Instant::now())).await;
        if let Err(error) = self.field.settled().await {
            self.say(&format!("all faults are undone, but: {error:#}"));
        }
    }

    async fn one(&mut self, fault: &Fault) {
        self.say(&fault.to_string());
        let at = self.scene.now();
        self.scene.ledger().begun(fault.clone(), at);
        self.scene.timeline().begun(fault.to_string(), at);
        let waiting = self.scene.ledger().waiting(Wait::Takeover).len();
        self.load.chase(Wait::Takeover, &fault.nodes);
        if let Err(error) = self.field.strike(fault).await {
            self.mishap(format!("{fault}: {error:#}"));
        }
        sleep(self.length_of(fault.kind)).await;
        let left = self.scene.ledger().waiting(Wait::Takeover).len();
        if waiting > 0 {
            self.say(&format!("{fault}: {} of {waiting} sessions served by others", waiting - left));
        }
        if let Err(error) = self.field.mend(fault).await {
            self.mishap(format!("undoing {fault}: {error:#}"));
        }
        let healed = self.scene.now();
        self.scene.ledger().healed(healed);
        self.scene.timeline().healed(healed);
        self.load.chase(Wait::Service, &[]);
        self.recover(healed).await;
        self.scene.ledger().ended(self.scene.now());
    }

    /// Until every session is served and the nodes agree, but not for ever.
    async fn recover(&self, healed: Duration) {
        let end = Instant::now() + RECOVERY;
        let served = async {
            while !self.scene.ledger().waiting(Wait::Service).is_empty() {
                sleep(LOOK).await;
            }
        };
        let is_served = tokio::time::timeout_at(end, served).await.is_ok();
        let is_settled = matches!(tokio::time::timeout_at(end, self.field.settled()).await, Ok(Ok(())));
        let took = (self.scene.now() - healed).as_secs_f64();
        let left = self.scene.ledger().waiting(Wait::Service).len();
        let mut said = match (is_served, is_settled) {
            (true, true) => format!("healed: all is well after {took:.1} s"),
            (true, false) => format!("healed, but the nodes do not agree on who is there after {took:.1} s"),
            (false, _) => format!("healed, but {left} sessions are not served after {took:.1} s"),
        };
        let set_aside = self.scene.ledger().losses().count();
        if set_aside > 0 {
            said += &format!(", but for {set_aside} sessions set aside as lost");
        }
        self.say(&said);
    }

    /// How long it lasts once it is there.
    fn length_of(&self, kind: FaultKind) -> Duration {
        match kind {
            FaultKind::Kill => self.options.down,
            FaultKind::Freeze
            | FaultKind::Partition
            | FaultKind::OneWay
            | FaultKind::Loss
            | FaultKind::Busy => self.options.hold,
            // Over when the node has left.
            FaultKind::Drain | FaultKind::Restart => Duration::ZERO,
        }
    }

    fn mishap(&self, what: String) {
        let what = what.replace('\n', " ");
        self.say(&format!("not as it should: {}", what.trim()));
        self.scene.ledger().mishap(what.trim().to_owned());
    }

    fn say(&self, what: &str) {
        progress(&format!("{:5.1} s  {what}", self.scene.now().as_secs_f64()));
    }
}

/// The faults that can happen here, and a word on each of the others.
fn possible(
    kinds: &[FaultKind],
    links: Option<&Links>,
    mut left_out: Vec<String>,
) -> (Vec<FaultKind>, Vec<String>) {
    let mut can = Vec::new();
    for kind in kinds {
        if kind.needs_links() && links.is_none() {
            left_out.push(format!("{}: it needs links between the nodes that can be cut", kind.name()));
        } else if *kind == FaultKind::Loss && links.is_some_and(|links| !links.can_lose()) {
            left_out.push("loss: `tc` is missing, or the kernel has neither netem nor cls_bpf".to_owned());
        } else {
            can.push(*kind);
        }
    }
    (can, left_out)
}

fn clock_seed() -> u64 {
    // Any number does; a short one is easier to type again.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_millis() as u64 % 1_000_000)
}
