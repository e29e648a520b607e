//! The case `bodies`: requests with a body of some size, answered with one of the same size, where they land and over a
//! hop, saturated. Called by `bench`.

use super::peers::{Peer, Product};
use super::report::{Figure, Report, Spread};
use super::rounds::{self, Burden, Measured};
use super::stage::{self, Stage};
use super::{Bench, progress};

pub(super) const CASE: &str = "bodies";

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

pub(super) const SIZES: [(&str, usize); 3] = [("1 KiB", KIB), ("64 KiB", 64 * KIB), ("4 MiB", 4 * MIB)];

const PRODUCTS: [Product; 9] = [
    Product::Direct,
    Product::BareHyper,
    Product::Nginx,
    Product::Haproxy,
    Product::Ringway,
    Product::NginxHop,
    Product::HaproxyHop,
    Product::HaproxyHopH2,
    Product::RingwayHop,
];

/// Ringway beside those that do the same.
const COMPARED: [(Product, Product); 5] = [
    (Product::Ringway, Product::Nginx),
    (Product::Ringway, Product::Haproxy),
    (Product::RingwayHop, Product::NginxHop),
    (Product::RingwayHop, Product::HaproxyHop),
    (Product::RingwayHop, Product::HaproxyHopH2),
];

pub(super) async fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let stage = Stage::set(bench, &PRODUCTS).await?;
    for (name, len) in SIZES {
        let mut measured = vec![Vec::new(); stage.peers.len()];
        for round in 1..=bench.size.few_rounds {
            for at in (0..stage.peers.len()).map(|turn| (turn + round) % stage.peers.len()) {
                measured[at].push(measure_one(bench, &stage.peers[at], (name, len), round).await?);
            }
        }
        for (peer, rounds) in stage.peers.iter().zip(&measured) {
            write((name, len), peer, rounds, report);
        }
        for (peer, against) in COMPARED {
            report.ratio(&cpu(name), peer.name(), against.name());
        }
    }
    stage::note(bench, report);
    report.note(
        "bodies: MiB are those of requests and of answers together; the request's body is as long as the answer's",
    );
    for (name, _) in &SIZES[1..] {
        report.chart(format!("CPU per MiB, bodies of {name}, saturated"), cpu(name));
    }
    Ok(())
}

async fn measure_one(
    bench: &Bench,
    peer: &Peer,
    (name, len): (&str, usize),
    round: usize,
) -> anyhow::Result<Measured> {
    let [warm_up, pace] = [bench.size.warm_up, bench.size.measure].map(|time| Burden::Saturated.pace(time));
    let one = rounds::measure(peer, &peer.calls_of(len), warm_up, pace).await?;
    progress(&format!(
        "{CASE}, {name}, round {round} of {}, {}: {:.0} MiB/s",
        bench.size.few_rounds,
        peer.product.name(),
        one.per_second * mib(len)
    ));
    Ok(one)
}

fn cpu(size: &str) -> Figure {
    Figure::new(CASE, size, "CPU per MiB", "us")
}

fn write((name, len): (&str, usize), peer: &Peer, rounds: &[Measured], report: &mut Report) {
    let spread = |of: &dyn Fn(&Measured) -> f64| Spread::of(rounds.iter().map(of));
    let product = peer.product.name();
    let payload = spread(&|one| one.per_second * mib(len));
    report.row(Figure::new(CASE, name, "payload", "MiB/s"), product, payload);
    if peer.product != Product::Direct {
        report.row(cpu(name), product, spread(&|one| one.cpu_us / mib(len)));
        let each = Figure::new(CASE, name, "CPU per request", "us");
        report.row(each, product, spread(&|one| one.cpu_us));
    }
}

/// What a request and its answer carry.
fn mib(len: usize) -> f64 {
    2.0 * len as f64 / MIB as f64
}
