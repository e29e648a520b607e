//! What follows from a change of membership, and from what nodes agree on about each other: the second
//! flow, beside the journey of a request.

use crate::cluster::{Cluster, World};
use crate::events::{Event, Events, How};
use crate::gossip::Census;
use crate::peer::{Bound, Peers};
use crate::sessions::Sessions;
use crate::telemetry::{Metrics, PhaseLabels};
use proto::core::tenure::Effect;
use proto::core::view::Phase;
use proto::id::{NodeName, NodeRef};
use proto::wire::{Note, Say, Verdict, codec};
use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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
    pub(crate) metrics: Arc<Metrics>,
    /// Where each node was last known to be: one that is gone from the view may still have a say.
    addresses: Mutex<HashMap<NodeRef, SocketAddr>>,
    events: Arc<Events>,
    ends: Arc<Ends>,
    leased: AtomicBool,
}

impl Tenancy {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        sessions: Arc<Sessions>,
        peers: Arc<Peers>,
        bound: Arc<Bound>,
        metrics: Arc<Metrics>,
        events: Arc<Events>,
        ends: Arc<Ends>,
    ) -> Self {
        let (addresses, leased) = (Mutex::default(), AtomicBool::new(false));
        Self { cluster, sessions, peers, bound, metrics, addresses, events, ends, leased }
    }

    /// In the order in which they were decided.
    pub(crate) fn carry_out(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, say } => self.send(to, say),
                Effect::Over(verdict) => {
                    let sessions = self.sessions.inherit(&self.cluster.world().succession);
                    if verdict.over.tag != self.cluster.me().tag {
                        self.metrics.death_noticed(verdict.over);
                        self.metrics.over.inc();
                    }
                    self.tell_over(&verdict, sessions);
                    self.let_go(verdict.over);
                }
                Effect::Reborn { was, heir } => {
                    let lost = self.sessions.be_reborn(heir, &self.cluster.world().succession);
                    let now = self.cluster.me();
                    tracing::debug!(%was, %now, heir, lost, "reborn");
                    match self.cluster.phase() {
                        Phase::Joining | Phase::Active => {
                            self.metrics.reborn.inc();
                            self.events.tell(Event::Reborn { incarnation: now.inc.0, lost });
                        }
                        // By its own will: whoever drains it says so.
                        Phase::Draining | Phase::Dead => {}
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
        self.metrics.death_noticed(node);
        match self.cluster.world().succession.is_over(node) {
            true => self.let_go(node),
            false => self.peers.forget(|other| other == node, |_| false),
        }
        // Of one that left by its own will there is a verdict by the time that its process ends.
        let world = self.cluster.world();
        let left = world.succession.is_over(node) && self.is_leaving(node);
        let end = if left { WhichEnd::Left } else { WhichEnd::Died(How::Proven) };
        self.ends.tell(&self.events, &world, node, end);
        self.carry_out(self.cluster.proven(node));
    }

    /// Looks whether this node may serve; to be called often.
    pub(crate) fn see_lease(&self) {
        let is_leased = self.cluster.is_leased();
        // One that leaves gives its lease up by its own will.
        if self.cluster.phase() == Phase::Active
            && self.leased.swap(is_leased, Ordering::Relaxed) != is_leased
        {
            self.events.tell(if is_leased { Event::Leased } else { Event::Parked });
        }
    }

    fn is_leaving(&self, node: NodeRef) -> bool {
        let world = self.cluster.world();
        world.view.by_tag(node.tag).is_some_and(|member| match member.phase {
            Phase::Draining => member.node.inc >= node.inc,
            // The last incarnation of a process that leaves owns nothing, and says good-bye.
            Phase::Dead => member.node.inc > node.inc,
            Phase::Joining | Phase::Active => false,
        })
    }

    /// Of this node nothing is said: it says itself what has become of it.
    fn tell_over(&self, verdict: &Verdict, sessions: usize) {
        let over = verdict.over;
        let name = self.cluster.name_of(over);
        let is_hushed = self.ends.is_hushed(over);
        if over.tag != self.cluster.me().tag {
            // Mostly known by now; where the others were faster, this node had no word of its own.
            let left = self.is_leaving(over);
            let end = if left { WhichEnd::Left } else { WhichEnd::Died(How::Agreed) };
            self.ends.tell(&self.events, &self.cluster.world(), over, end);
        }
        let heirs = verdict.heirs.iter().map(|heir| self.cluster.name_of(*heir)).collect();
        if !is_hushed {
            self.events.tell(Event::Verdict { over: name.clone(), heirs });
        }
        if sessions > 0 {
            self.events.tell(Event::Takeover { from: name, sessions });
        }
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

/// The ends of nodes that have been told: each of them is found out in several ways, in any order.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Each with whether there was anything to tell.
    known: Mutex<VecDeque<(NodeRef, bool)>>,
}

impl Ends {
    /// As many as there are verdicts at most.
    const KNOWN_MAX: usize = proto::core::succession::VERDICTS_MAX;

    /// Tells that this process is gone, once.
    fn tell(&self, events: &Events, world: &World, node: NodeRef, end: WhichEnd) {
        let Some(member) = world.view.by_tag(node.tag) else {
            return; // nobody of whom anything was told
        };
        let name = member.name.clone();
        if self.note(node, true) {
            events.tell(match end {
                WhichEnd::Left => Event::Left { name },
                WhichEnd::Died(how) => Event::Died { name, how },
            });
        }
    }

    /// Whether that is news.
    fn note(&self, node: NodeRef, is_told: bool) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = known.iter().all(|(other, _)| *other != node);
        if is_first {
            if known.len() == Self::KNOWN_MAX {
                known.pop_front();
            }
            known.push_back((node, is_told));
        }
        is_first
    }

    /// Of that process nothing is to be told: it was gone before this node came, or is what a node that
    /// leaves is for its last moments.
    fn is_hushed(&self, node: NodeRef) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&(node, false))
    }
}

#[derive(Clone, Copy, Debug)]
enum WhichEnd {
    Left,
    Died(How),
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
    (events, ends): (&Events, &Ends),
) -> anyhow::Result<()> {
    refuse_twins(&census, cluster.name(), cluster.me())?;
    let before = cluster.world();
    cluster.observe(census);
    cluster.see_members();
    let now = cluster.world();
    tell_changes(&before, &now, cluster.me(), events, ends);
    forget_the_dead(&now, peers);
    count_members(&now, metrics);
    metrics.keep_peers(now.view.members());
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

fn tell_changes(before: &World, now: &World, me: NodeRef, events: &Events, ends: &Ends) {
    for member in now.view.members() {
        let was = before.view.get(member.node).map(|before| before.phase);
        let (name, peer, incarnation) = (member.name.clone(), member.peer, member.node.inc.0);
        if was == Some(member.phase) {
            continue;
        }
        let earlier = before.view.by_tag(member.node.tag).filter(|_| was.is_none());
        if member.phase == Phase::Draining && earlier.is_some_and(|earlier| earlier.phase == Phase::Draining)
        {
            // The last incarnation of a process that leaves: what it was before is what leaves.
            ends.note(member.node, false);
            continue;
        }
        if was.is_none() && member.phase != Phase::Dead {
            events.tell(Event::Joined { name: name.clone(), peer, incarnation });
        }
        match member.phase {
            Phase::Joining => {}
            Phase::Active => events.tell(Event::Active { name }),
            Phase::Draining => events.tell(Event::Draining { name }),
            Phase::Dead if member.node.tag == me.tag => {}
            Phase::Dead => match was {
                // It was gone before this node came.
                None => drop(ends.note(member.node, false)),
                Some(Phase::Draining) => ends.tell(events, now, member.node, WhichEnd::Left),
                Some(Phase::Joining | Phase::Active | Phase::Dead) => {
                    ends.tell(events, now, member.node, WhichEnd::Died(How::Silent));
                }
            },
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
