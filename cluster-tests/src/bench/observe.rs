//! What it costs a node to be looked at: the same load with nobody watching, and with Prometheus scraping each
//! second, a stream of events open, and a dashboard that asks for its figures every two seconds, at each node.
//!
//! The two are measured in turns on the same processes, each round its own pair, so that what else the machine does
//! falls on both. Watching costs the same each second whatever is served, so its share is largest where little is:
//! at 2,000 requests a second. What a build does not have yet (it answers 404) is left out and said to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::load::Pace;
use super::peers::Product;
use super::report::{Figure, Goal, Report, Spread};
use super::rounds::{self, Burden};
use super::stage::Stage;
use super::{Bench, Size, progress};
use crate::real::cluster::Cluster;
use crate::real::http;

/// Three scrapes, one look of the dashboard at least.
const TIME: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(300);
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What a dashboard draws.
const LOOKED_AT: [&str; 3] = ["/v1/members", "/v1/ring", "/v1/sessions?scope=cluster&limit=100"];

const ALONE: &str = "nobody watching";
const WATCHED: &str = "watched";

/// Three hundredths more CPU per request than this is too much.
const GOAL: f64 = 1.03;

/// Measures that many pairs of each case and prints them.
pub async fn run(rounds: usize) -> anyhow::Result<()> {
    let bench = Bench::new(Size::FULL).await?;
    let stage = Stage::set(&bench, &[Product::Ringway, Product::RingwayHop]).await?;
    let mut report = Report::default();
    let seen = Arc::<Seen>::default();
    for peer in &stage.peers {
        for burden in [Burden::Paced, Burden::Saturated] {
            let mut pairs = Vec::new();
            for round in 0..rounds {
                let mut pair = [0.0; 2];
                // Who is first takes turns too.
                for turn in [round % 2, (round + 1) % 2] {
                    let watchers = (turn == 1).then(|| watch(&stage.ground.cluster, &seen));
                    let warm_up = Pace::Closed { time: WARM_UP };
                    let one = rounds::measure(peer, &peer.calls(), warm_up, burden.pace(TIME)).await?;
                    pair[turn] = one.cpu_us;
                    drop(watchers);
                }
                let [alone, watched] = pair;
                progress(&format!(
                    "{}, {}: {alone:.1} us of CPU per request alone, {watched:.1} watched",
                    peer.product.name(),
                    burden.setting()
                ));
                pairs.push(pair);
            }
            let setting = format!("{}, {}", peer.product.name(), burden.setting());
            let figure = Figure::new("observe", setting.as_str(), "CPU per request", "us");
            for (who, at) in [(ALONE, 0), (WATCHED, 1)] {
                report.row(figure.clone(), who, Spread::of(pairs.iter().map(|pair| pair[at])));
            }
            let ratio = report.ratio(&figure, WATCHED, ALONE);
            let what = format!("CPU per request, {setting}, watched / alone");
            report.goal(what, Goal::AtMost(GOAL), "x", ratio.as_ref());
        }
    }
    let Seen { scrapes, bytes, looks, events, absent } = &*seen;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    report.note(format!(
        "watchers, at each node: {} scrapes of {} KiB each, {} looks at the dashboard's figures, {} streams of events; \
         {} of their requests were answered with 404 (not in this build)",
        of(scrapes),
        of(bytes) / of(scrapes).max(1) / 1024,
        of(looks),
        of(events),
        of(absent)
    ));
    print!("{}", report.to_markdown());
    Ok(())
}

/// What the watchers saw, all together.
#[derive(Debug, Default)]
struct Seen {
    scrapes: AtomicU64,
    bytes: AtomicU64,
    looks: AtomicU64,
    events: AtomicU64,
    absent: AtomicU64,
}

/// Watches every node until what is given back is dropped.
fn watch(cluster: &Cluster, seen: &Arc<Seen>) -> JoinSet<()> {
    let mut watchers = JoinSet::new();
    for name in cluster.names() {
        let url = |path: &str| cluster.node(&name).admin_url(path);
        watchers.spawn(scrape(url("/metrics"), seen.clone()));
        watchers.spawn(look(LOOKED_AT.map(url), seen.clone()));
        watchers.spawn(listen(url("/v1/events"), seen.clone()));
    }
    watchers
}

async fn scrape(url: String, seen: Arc<Seen>) {
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    loop {
        if let Ok(answer) = http::request("GET", &url, &[("accept", accept)], "").await {
            seen.scrapes.fetch_add(1, Ordering::Relaxed);
            seen.bytes.fetch_add(answer.body.len() as u64, Ordering::Relaxed);
        }
        tokio::time::sleep(SCRAPE_EVERY).await;
    }
}

async fn look(urls: [String; LOOKED_AT.len()], seen: Arc<Seen>) {
    loop {
        for url in &urls {
            match http::get(url).await {
                Ok(answer) if answer.status == 404 => seen.absent.fetch_add(1, Ordering::Relaxed),
                Ok(_) => seen.looks.fetch_add(1, Ordering::Relaxed),
                Err(_) => 0,
            };
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn listen(url: String, seen: Arc<Seen>) {
    let Ok(mut stream) = http::open_stream("GET", &url, &[("accept", "text/event-stream")], "").await else {
        return;
    };
    match stream.status {
        200 => seen.events.fetch_add(1, Ordering::Relaxed),
        _ => seen.absent.fetch_add(1, Ordering::Relaxed),
    };
    // Events are read as they come; whoever holds this drops it.
    while stream.status == 200
        && stream.event(Duration::from_secs(3_600)).await.is_ok_and(|event| event.is_some())
    {}
}
