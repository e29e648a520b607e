//! The clients' open GET streams, on which servers speak by themselves. A stream that ends is opened again through
//! any node, as SDK clients do. Called by `mod`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::load::Client;
use super::scene::Scene;

/// What the fixture server speaks of on the stream: each number that is given.
const WATCHED: &str = "test://watched-resource";

/// Before a stream is opened again. SDK clients wait for a second.
const AGAIN: Duration = Duration::from_millis(500);

/// A stream says nothing for as long as nobody counts.
const QUIET: Duration = Duration::from_secs(24 * 3600);

/// What became of all streams.
#[derive(Debug, Default)]
pub(super) struct StreamTally {
    pub(super) open: AtomicU64,
    /// Ended by the server's side, at an event's end.
    pub(super) ended: AtomicU64,
    /// Broke off.
    pub(super) broke: AtomicU64,
    /// Opened again.
    pub(super) reconnected: AtomicU64,
    /// Attempts that were answered with something else than a stream.
    pub(super) refused: AtomicU64,
    pub(super) events: AtomicU64,
}

/// Keeps a client's stream open until its session is set aside, or this is dropped.
pub(super) async fn keep_open(scene: Arc<Scene>, client: Arc<Client>, tally: Arc<StreamTally>) {
    let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    let mut was_open = false;
    subscribe(&scene, &client).await;
    while !client.is_set_aside() {
        let Some(target) = scene.targets.pick(&[]) else { return };
        let opened = timeout(scene.deadline, client.session.listen(&target.url())).await;
        match opened {
            Ok(Ok(mut stream)) if stream.status == 200 => {
                add(if was_open { &tally.reconnected } else { &tally.open });
                was_open = true;
                let has_broken = loop {
                    match stream.event(QUIET).await {
                        Ok(Some(event)) if event.data.is_empty() => {}
                        Ok(Some(_)) => {
                            add(&tally.events);
                            add(&client.events);
                        }
                        Ok(None) => break false,
                        Err(_) => break true,
                    }
                };
                add(if has_broken { &tally.broke } else { &tally.ended });
            }
            Ok(Ok(_)) => drop(add(&tally.refused)),
            // Nobody was there, or the connection broke before it was a stream.
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

async fn subscribe(scene: &Scene, client: &Client) {
    let Some(target) = scene.targets.pick(&[]) else { return };
    let id = client.next_id();
    let message =
        json!({"jsonrpc": "2.0", "id": id, "method": "resources/subscribe", "params": {"uri": WATCHED}});
    // Without it the stream stays silent, which the report shows.
    let _ = timeout(scene.deadline, client.session.post(&target.url(), &message)).await;
}
