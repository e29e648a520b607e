//! `bench train`: some of everything that the benchmark measures, on two nodes that end by themselves afterwards: what
//! a build that writes a profile needs to write one. `deploy/build-with-profile` calls it.

use std::time::Duration;

use anyhow::ensure;

use super::load::{Load, Pace};
use super::peers::Product;
use super::rounds::Burden;
use super::stage::Stage;
use super::{Bench, Size, bodies, progress, streams};

/// Of each load. A build that counts what it does is several times slower.
const TIME: Duration = Duration::from_secs(4);
const SESSIONS: u64 = 5_000;
/// A node that leaves gives its sessions away.
const END_DEADLINE: Duration = Duration::from_secs(60);

pub async fn run() -> anyhow::Result<()> {
    let bench = Bench::new(Size::QUICK).await?;
    let mut stage = Stage::set(&bench, &[Product::Ringway, Product::RingwayHop]).await?;
    for peer in &stage.peers {
        progress(&format!("{}: calls, bodies, new sessions", peer.product.name()));
        for burden in Burden::ALL {
            peer.calls().run(burden.pace(TIME)).await?;
        }
        for (_, len) in bodies::SIZES {
            peer.calls_of(len).run(Burden::Saturated.pace(TIME / 4)).await?;
        }
        Load::opening(peer.at()).run(Pace::Counted { requests: SESSIONS }).await?;
    }
    progress("event streams");
    streams::exercise(&bench, &stage).await?;
    for name in stage.ground.cluster.names() {
        let status = stage.ground.cluster.terminate(&name, END_DEADLINE).await?;
        ensure!(status.success(), "{name}: {status}");
    }
    Ok(())
}
