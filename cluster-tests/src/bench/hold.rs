//! `bench hold`: one load on one peer for a while, so that a profiler can look at the processes.

use std::time::Duration;

use anyhow::Context as _;

use super::peers::Product;
use super::rounds::Burden;
use super::stage::Stage;
use super::{Bench, Size, process};

/// Says on stdout which processes they are, and in the end what a request took; calls have bodies of a size of their
/// own, or of `body_len`.
pub async fn run(
    product: Product,
    is_paced: bool,
    body_len: Option<usize>,
    time: Duration,
) -> anyhow::Result<()> {
    let bench = Bench::new(Size::QUICK).await?;
    let stage = Stage::set(&bench, &[product]).await?;
    let peer = stage.peer(product).context("it is not installed here")?;
    println!("{} pids {:?}", product.name(), peer.pids);
    let burden = if is_paced { Burden::Paced } else { Burden::Saturated };
    let load = body_len.map_or_else(|| peer.calls(), |len| peer.calls_of(len));
    let before = process::cpu_time_of_all(&peer.pids)?;
    let outcome = load.run(burden.pace(time)).await?;
    let used = process::cpu_time_of_all(&peer.pids)? - before;
    let each_us = used.as_secs_f64() * 1e6 / outcome.answered as f64;
    println!("{} requests, {:.0}/s, {each_us:.1} us of CPU each", outcome.answered, outcome.per_second());
    Ok(())
}
