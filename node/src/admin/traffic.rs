//! What each node has to do, and what they send each other: the counters of every node's /metrics.

use crate::everywhere;
use crate::journey::Journey;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn traffic(journey: &Arc<Journey>) -> Value {
    let (nodes, unreachable) = everywhere::traffic(journey).await;
    let nodes = nodes.into_iter().map(|(name, counted)| {
        let forwards = counted.forwards.iter().map(|to| {
            json!({
                "to": to.to,
                "answered": to.answered,
                "refused": to.refused,
                "not_here": to.not_here,
                "unsent": to.unsent,
            })
        });
        json!({
            "name": name,
            "phase": counted.phase,
            "leased": counted.is_leased,
            "sessions": { "live": counted.live, "idle": counted.idle },
            "streams": counted.streams,
            "children": counted.children,
            "requests": counted.requests,
            "forwards": forwards.collect::<Vec<_>>(),
        })
    });
    json!({
        "view": journey.cluster.world().view.fingerprint().to_string(),
        "nodes": nodes.collect::<Vec<_>>(),
        "unreachable": unreachable,
    })
}
