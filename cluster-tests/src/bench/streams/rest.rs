//! What streams hold on which nothing is said, and what they leave behind. Called by `streams`.

use std::time::Duration;

use anyhow::ensure;

use super::CASE;
use super::client::Stream;
use crate::bench::peers::Peer;
use crate::bench::report::{Figure, Report, Spread};
use crate::bench::{memory, process, progress};

/// This part of the streams is opened and closed before anything is measured: code, buffers and connections between
/// nodes are there then. It is small, since memory that it leaves behind is not counted.
const WARM_UP: usize = 20;

/// Nobody gives memory back at once, since the next stream may want it. Ringway takes up to 3 s.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(5);

/// What streams were found to cost a peer.
pub(super) struct Rest {
    /// Per stream, of all processes together.
    pub(super) all_kib: f64,
    /// Per stream, of each process.
    each_kib: Vec<f64>,
    /// Of all processes, when all streams have closed, above what it was before.
    pub(super) left_mib: f64,
    streams: usize,
}

impl Rest {
    /// Per stream, of the process that holds most.
    pub(super) fn most_of_a_node(&self) -> Spread {
        Spread::of([self.each_kib.iter().copied().fold(f64::NEG_INFINITY, f64::max)])
    }

    /// Of what the streams took.
    pub(super) fn kept_percent(&self) -> Spread {
        Spread::of([self.left_mib * 1024.0 / (self.all_kib * self.streams as f64) * 100.0])
    }
}

/// Opens a stream of each session, looks, closes them, and looks again.
pub(super) async fn measure(peer: &Peer, sessions: &[String]) -> anyhow::Result<Rest> {
    drop(open(peer, &sessions[..sessions.len() / WARM_UP]).await?);
    let before = resident(peer).await?;
    let open = open(peer, sessions).await?;
    let during = resident(peer).await?;
    for pid in &peer.pids {
        let files = process::open_files(*pid)?;
        // A product that answers for many streams over one connection to the backend would not be one of these.
        ensure!(files >= open.len(), "{pid} has {files} open files and {} streams", open.len());
    }
    drop(open);
    tokio::time::sleep(GIVEN_BACK_WITHIN).await;
    let after = resident(peer).await?;
    let grown_kib = |now: &[u64]| -> Vec<f64> {
        now.iter().zip(&before).map(|(now, before)| (*now as f64 - *before as f64) / 1024.0).collect()
    };
    let each_kib: Vec<f64> = grown_kib(&during).iter().map(|kib| kib / sessions.len() as f64).collect();
    Ok(Rest {
        all_kib: each_kib.iter().sum(),
        each_kib,
        left_mib: grown_kib(&after).iter().sum::<f64>() / 1024.0,
        streams: sessions.len(),
    })
}

/// Memory per stream.
pub(super) fn memory(setting: &str) -> Figure {
    Figure::new(CASE, setting, "memory per idle stream, all processes", "KiB")
}

pub(super) fn write(setting: &str, peer: &Peer, rest: &Rest, report: &mut Report) {
    let name = peer.product.name();
    report.row(memory(setting), name, Spread::of([rest.all_kib]));
    if let [entry, owner] = rest.each_kib[..] {
        let (near, far) = if peer.is_outer_first() { (entry, owner) } else { (owner, entry) };
        for (what, kib) in [("of that, at the client's side", near), ("at the backend's side", far)] {
            report.row(Figure::new(CASE, setting, what, "KiB"), name, Spread::of([kib]));
        }
    }
    let figure = |what: &str, unit| Figure::new(CASE, setting, what, unit);
    report.row(figure("left when all have closed", "MiB"), name, Spread::of([rest.left_mib]));
    report.row(figure("of what they took", "%"), name, rest.kept_percent());
}

async fn open(peer: &Peer, sessions: &[String]) -> anyhow::Result<Vec<Stream>> {
    let mut open = Vec::with_capacity(sessions.len());
    for session in sessions {
        open.push(Stream::open(peer.at(), session, None).await?.0);
        if open.len() % 1_000 == 0 {
            progress(&format!("{CASE}, {}: {} streams open", peer.product.name(), open.len()));
        }
    }
    Ok(open)
}

/// Of each process.
async fn resident(peer: &Peer) -> anyhow::Result<Vec<u64>> {
    let mut resident = Vec::new();
    for pid in &peer.pids {
        resident.push(memory::still(*pid).await?);
    }
    Ok(resident)
}
