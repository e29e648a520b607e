//! What this node knows of the cluster: the pure core of `proto` behind a handle.
//!
//! The world (view, ring) is one immutable value that is replaced when membership changes, so a
//! route decision is a plain call that waits for nobody.

use proto::core::{
    placement,
    ring::Ring,
    route::{self, Ask, Holding, Hop, OnLoss, Route, Situation},
    view::{Member, Phase, View},
};
use proto::id::{NodeName, NodeRef, Nonce, SealKeys};
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// How long a view must have stood still before its word on the dead is acted on: the slowest of
/// gossip's verdicts at 200 ms takes 4.5 to 6 s, and nodes reach theirs within about a second.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// A cluster of three needs three draws on average, and 16 suffice in 998 of 1,000 cases.
const NONCES_AT_ONCE: usize = 16;

#[derive(Debug)]
pub(crate) struct Cluster {
    name: NodeName,
    me: NodeRef,
    seal: SealKeys,
    dice: SystemRandom,
    phase: watch::Sender<Phase>,
    world: watch::Sender<Arc<World>>,
    /// Another node has been seen, or there is none to be seen: what is absent is known to be.
    met: AtomicBool,
    /// Sessions that this node owns.
    sessions: AtomicU32,
}

/// One view of the cluster and what follows from it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) view: View,
    pub(crate) ring: Ring,
    /// Sessions per member, in the view's order: from gossip, and fresher from forwarded answers.
    sessions: Vec<AtomicU32>,
    /// Of each node on the ring, its index in the view.
    on_ring: Vec<usize>,
    since: Instant,
}

impl World {
    fn new(view: View, since: Instant) -> Self {
        let sessions = view.members().iter().map(|_| AtomicU32::new(0)).collect();
        let ring = Ring::new(&view);
        let on_ring = ring.nodes().iter().filter_map(|node| view.index_of(*node)).collect();
        Self { view, ring, sessions, on_ring, since }
    }

    /// What somebody said of a node's load.
    fn note_load(&self, node: NodeRef, sessions: u32) {
        if let Some(at) = self.view.index_of(node) {
            self.sessions[at].store(sessions, Ordering::Relaxed);
        }
    }

    pub(crate) fn sessions_of(&self, at: usize) -> u32 {
        self.sessions[at].load(Ordering::Relaxed)
    }
}

impl Cluster {
    /// `alone` says that no seed is configured.
    pub(crate) fn new(me: &Member, seal: SealKeys, alone: bool) -> Self {
        let world = World::new(View::new(vec![me.clone()]), Instant::now());
        Self {
            name: me.name.clone(),
            me: me.node,
            seal,
            dice: SystemRandom::new(),
            phase: watch::Sender::new(me.phase),
            world: watch::Sender::new(Arc::new(world)),
            met: AtomicBool::new(alone),
            sessions: AtomicU32::new(0),
        }
    }

    pub(crate) fn name(&self) -> &NodeName {
        &self.name
    }

    pub(crate) fn me(&self) -> NodeRef {
        self.me
    }

    pub(crate) fn seal(&self) -> &SealKeys {
        &self.seal
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// For whoever tells the others.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(crate) fn sessions(&self) -> &AtomicU32 {
        &self.sessions
    }

    pub(crate) fn world(&self) -> Arc<World> {
        self.world.borrow().clone()
    }

    /// Resolves when the world changes after this call.
    pub(crate) fn worlds(&self) -> watch::Receiver<Arc<World>> {
        self.world.subscribe()
    }

    pub(crate) fn settled(&self) -> bool {
        self.met.load(Ordering::Relaxed)
            && self.phase() != Phase::Joining
            && self.world.borrow().since.elapsed() >= SETTLED_AFTER
    }

    /// What gossip knows now, as members with their session counts.
    pub(crate) fn observe(&self, members: Vec<(Member, u32)>) {
        if members.iter().any(|(member, _)| member.node != self.me && member.phase != Phase::Dead) {
            self.met.store(true, Ordering::Relaxed);
        }
        let (members, loads): (Vec<_>, Vec<_>) = members
            .into_iter()
            .map(|(member, sessions)| {
                let node = member.node;
                (member, (node, sessions))
            })
            .unzip();
        let (view, mut world) = (View::new(members), self.world());
        let changed = view.members() != world.view.members();
        if changed {
            let same = view.fingerprint() == world.view.fingerprint();
            world = Arc::new(World::new(view, if same { world.since } else { Instant::now() }));
        }
        for (node, sessions) in loads {
            world.note_load(node, sessions);
        }
        if changed {
            self.world.send_replace(world);
        }
    }

    /// What a forwarded answer said of its node's load.
    pub(crate) fn observe_load(&self, node: NodeRef, sessions: u32) {
        self.world.borrow().note_load(node, sessions);
    }

    /// Who answers.
    pub(crate) fn route(
        &self,
        ask: Ask<'_>,
        hop: Hop,
        tried: &[NodeRef],
        hint: Option<NodeRef>,
        holding: Holding,
        on_loss: OnLoss,
    ) -> Route {
        let settled = self.settled();
        let world = self.world.borrow();
        let situation = Situation {
            me: self.me,
            my_phase: self.phase(),
            view: &world.view,
            ring: &world.ring,
            settled,
            now_s: seconds_since_epoch(),
            hop,
            tried,
            hint,
            holding,
            on_loss,
        };
        route::route(ask, &situation)
    }

    /// Where a new session shall be born.
    pub(crate) fn place(&self, tried: &[NodeRef]) -> Option<NodeRef> {
        let world = self.world.borrow();
        let nodes = world.ring.nodes();
        let sessions = |at: usize| {
            let mine = nodes[at] == self.me;
            if mine { self.sessions.load(Ordering::Relaxed) } else { world.sessions_of(world.on_ring[at]) }
        };
        // Gossip learns of this node's own drain a moment after the node itself does.
        let usable = |at: usize| {
            !tried.contains(&nodes[at]) && (nodes[at] != self.me || self.phase() == Phase::Active)
        };
        placement::choose(self.me, &world.ring, sessions, usable, [self.roll(), self.roll()])
    }

    /// A nonce that the ring gives to this node.
    pub(crate) fn draw(&self) -> Nonce {
        let world = self.world();
        // The system's random source is asked for many at once: each call costs some 300 ns.
        let mut drawn = [0; 12 * NONCES_AT_ONCE];
        let mut used = NONCES_AT_ONCE;
        placement::draw(&world.ring, self.me, || {
            if used == NONCES_AT_ONCE {
                drawn = self.entropy();
                used = 0;
            }
            used += 1;
            Nonce(*drawn[(used - 1) * 12..].first_chunk().expect("twelve bytes for each"))
        })
    }

    fn roll(&self) -> u64 {
        u64::from_le_bytes(self.entropy())
    }

    fn entropy<const LEN: usize>(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        self.dice.fill(&mut bytes).expect("the system's random source works after start-up");
        bytes
    }
}

/// By the wall clock: for ids, and for how old one is.
pub(crate) fn seconds_since_epoch() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
