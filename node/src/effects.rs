//! What follows from a change of membership, and from what nodes agree on about each other: the second
//! flow, beside the journey of a request.

use crate::cluster::{Cluster, World};
use crate::gossip::Census;
use crate::peer::{Bound, Peers};
use crate::sessions::Sessions;
use crate::telemetry::{Metrics, PhaseLabels};
use proto::core::tenure::Effect;
use proto::core::view::Phase;
use proto::id::{NodeName, NodeRef};
use proto::wire::{Note, Say, codec};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A node that leaves closes its connections itself, by the end of its last steps: 600 ms each.
const LEAVING_TIME: Duration = Duration::from_secs(2);

/// Carries out what the agreement between nodes asks for.
#[derive(Debug)]
pub(crate) struct Tenancy {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) bound: Arc<Bound>,
    /// Where each node was last known to be: one that is gone from the view may still have a say.
    addresses: Mutex<HashMap<NodeRef, SocketAddr>>,
}

impl Tenancy {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        sessions: Arc<Sessions>,
        peers: Arc<Peers>,
        bound: Arc<Bound>,
    ) -> Self {
        Self { cluster, sessions, peers, bound, addresses: Mutex::default() }
    }

    /// In the order in which they were decided.
    pub(crate) fn carry_out(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, say } => self.send(to, say),
                Effect::Over(verdict) => {
                    let succession = &self.cluster.world().succession;
                    let inherited = self.sessions.inherit(succession);
                    let over = verdict.over;
                    tracing::info!(node = %over, heirs = verdict.heirs.len(), inherited, "over");
                    self.let_go(over);
                }
                Effect::Reborn { was, heir } => {
                    let lost = self.sessions.be_reborn(heir, &self.cluster.world().succession);
                    let now = self.cluster.me();
                    match self.cluster.phase() {
                        Phase::Joining | Phase::Active => {
                            tracing::warn!(%was, %now, heir, lost, "the others took this node for gone: reborn");
                        }
                        Phase::Draining | Phase::Dead => tracing::info!(lost, "resigned"),
                    }
                    let mut greeting = self.bound.greeting();
                    greeting.node = now;
                    self.bound.greet_as(greeting);
                }
            }
        }
        let (heirs, _) = self.cluster.heirs();
        self.sessions.entrust(heirs);
    }

    /// Nothing more is to be had from an incarnation that is over: what is in progress there fails now.
    fn let_go(&self, over: NodeRef) {
        let phase = self.cluster.world().view.get(over).map(|member| member.phase);
        if phase != Some(Phase::Draining) {
            return self.peers.forget(|node| node == over, |_| false);
        }
        // It leaves by its own will, and answers what was on its way to it: that it is to go elsewhere.
        let peers = self.peers.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LEAVING_TIME).await;
            peers.forget(|node| node == over, |_| false);
        });
    }

    /// That process is gone for certain: what is in progress there fails now.
    pub(crate) fn proven(&self, node: NodeRef) {
        tracing::info!(%node, "proven dead");
        match self.cluster.world().succession.is_over(node) {
            true => self.let_go(node),
            false => self.peers.forget(|other| other == node, |_| false),
        }
        self.carry_out(self.cluster.proven(node));
    }

    /// The nodes whose end would matter, and where they are.
    pub(crate) fn watched(&self) -> Vec<(NodeRef, SocketAddr)> {
        let (watched, world) = (self.cluster.watched(), self.cluster.world());
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.extend(world.view.members().iter().map(|member| (member.node, member.peer)));
        addresses.retain(|node, _| watched.contains(node));
        addresses.iter().map(|(node, at)| (*node, *at)).collect()
    }

    fn send(&self, to: NodeRef, say: Say) {
        let world = self.cluster.world();
        let known = || self.addresses.lock().unwrap_or_else(PoisonError::into_inner).get(&to).copied();
        // A node that is over answers as who it has become.
        let member = world.view.get(to).or_else(|| world.view.by_tag(to.tag));
        let Some(at) = member.map(|member| member.peer).or_else(known) else { return };
        let note = Note { from: self.cluster.me(), to, say };
        let sent = codec::frame(&note).map(|frame| self.peers.send_control(at, &frame));
        if !matches!(sent, Ok(Ok(()))) {
            tracing::warn!(?note, "a note that no datagram holds");
        }
    }
}

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
    cluster.see_members();
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
        // Of a node that leaves, the last incarnation serves nothing, and answers for the one before.
        Some(member) if member.phase == Phase::Draining => false,
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
