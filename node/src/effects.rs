//! What follows from a change of membership: the second flow, beside the journey of a request.

use crate::cluster::{Cluster, World};
use crate::gossip::Census;
use crate::peer::Peers;
use crate::telemetry::{Metrics, PhaseLabels};
use proto::core::view::Phase;
use proto::id::{NodeName, NodeRef};

/// Hands what gossip knows to the cluster, and does what that asks for.
///
/// # Errors
/// When this node must not go on beside one of the others.
pub(crate) fn of_census(
    census: Census,
    cluster: &Cluster,
    peers: &Peers,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    refuse_twins(&census, cluster.name(), cluster.me())?;
    let before = cluster.world();
    cluster.observe(census);
    let now = cluster.world();
    log_changes(&before, &now);
    forget_the_dead(&now, peers);
    count_members(&now, metrics);
    Ok(())
}

/// Names and their tags are unique among the living, and the latest of a name's starts is the one
/// that counts.
fn refuse_twins(census: &Census, name: &NodeName, me: NodeRef) -> anyhow::Result<()> {
    for (member, _) in census {
        if member.name == *name && member.node.inc > me.inc {
            anyhow::ensure!(
                member.phase == Phase::Dead,
                "another node named {name} has started at {}: names must be unique",
                member.peer
            );
            anyhow::bail!(
                "an earlier start of {name} is remembered with a later time: the clock was set back, \
                 or no seed answered when this start began; start again once a seed is there"
            );
        }
        anyhow::ensure!(
            member.name == *name || member.node.tag != me.tag || member.phase == Phase::Dead,
            "the names {name} and {} have the same tag: rename one of the two nodes",
            member.name
        );
    }
    Ok(())
}

fn log_changes(before: &World, now: &World) {
    for member in now.view.members() {
        let was = before.view.get(member.node).map(|before| before.phase);
        if was != Some(member.phase) {
            tracing::info!(name = %member.name, peer = %member.peer, phase = %member.phase, "member");
        }
    }
}

/// Closes connections to nodes that are gone.
fn forget_the_dead(now: &World, peers: &Peers) {
    let is_gone = |node: NodeRef| match now.view.by_tag(node.tag) {
        Some(member) => member.node.inc > node.inc || (member.node == node && member.phase == Phase::Dead),
        None => false, // a newcomer, or a seed that gossip has not told of yet
    };
    let died_at = |addr| {
        let mut there = now.view.members().iter().filter(|member| member.peer == addr).peekable();
        there.peek().is_some() && there.all(|member| member.phase == Phase::Dead)
    };
    peers.forget(is_gone, died_at);
}

fn count_members(now: &World, metrics: &Metrics) {
    for phase in Phase::ALL {
        let count = now.view.members().iter().filter(|member| member.phase == phase).count();
        let labels = PhaseLabels { phase: phase.word() };
        metrics.members.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
