//! Who is there, and each node's share of the ring.

use crate::journey::Journey;
use proto::core::ring::POINTS_PER_NODE;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

pub(super) fn members(journey: &Journey) -> Value {
    let cluster = &journey.cluster;
    let world = cluster.world();
    let members = world.view.members().iter().enumerate().map(|(at, member)| {
        let is_self = member.node == cluster.me();
        let own = || cluster.sessions().load(Ordering::Relaxed);
        json!({
            "name": member.name,
            "incarnation": member.node.inc,
            "phase": member.phase,
            "listen": member.listen,
            "peer": member.peer,
            "admin": member.admin,
            "sessions": if is_self { own() } else { world.sessions_of(at) },
            "version": member.version,
            "self": is_self,
        })
    });
    json!({ "view": world.view.fingerprint().to_string(), "members": members.collect::<Vec<_>>() })
}

/// Each node's share; with `arcs=1` also where it lies, as fractions of the circle, for whoever draws it.
/// 128 points per node of about 70 bytes each: 9 KB per node.
pub(super) fn ring(journey: &Journey, query: &str) -> Value {
    let world = journey.cluster.world();
    let nodes = world.ring.shares().into_iter().filter_map(|(node, share)| {
        let member = world.view.get(node)?;
        Some(json!({ "name": member.name, "phase": member.phase, "share": share }))
    });
    let mut ring = json!({
        "view": world.view.fingerprint().to_string(),
        "points_per_node": POINTS_PER_NODE,
        "nodes": nodes.collect::<Vec<_>>(),
    });
    let with_arcs =
        form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "arcs" && value == "1");
    if with_arcs {
        let arcs = world.ring.arcs().into_iter().filter_map(|arc| {
            let member = world.view.get(arc.owner)?;
            Some(json!({ "from": arc.from, "to": arc.to, "owner": member.name }))
        });
        ring["arcs"] = arcs.collect();
    }
    ring
}
