//! What this node knows of the cluster: the pure core of `proto` behind a handle.
//!
//! The world (view, ring) is one immutable value that is replaced when membership changes, so a
//! route decision is a plain call that waits for nobody.

use crate::clock;
use proto::core::{
    custody::Holding,
    placement,
    ring::Ring,
    route::{self, Ask, Hop, OnLoss, Route, Situation},
    succession::Succession,
    tenure::{Effect, Rules, Tenure},
    view::{Member, Phase, View},
};
use proto::id::{Incarnation, NodeName, NodeRef, Nonce, SealKeys, Tag};
use proto::wire::Note;
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
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
    tag: Tag,
    /// It changes when this node is reborn.
    inc: AtomicU64,
    /// Replaced when the cluster's secrets change.
    seal: RwLock<Arc<SealKeys>>,
    dice: SystemRandom,
    /// Which nodes may own sessions, by what this node has been told.
    tenure: Mutex<Tenure>,
    /// Until when this node may serve, if nothing more is heard; by [`clock::now`].
    serves_until: AtomicU64,
    phase: watch::Sender<Phase>,
    world: watch::Sender<Arc<World>>,
    /// Everybody whom this node was told to look for is known: what is absent is known to be.
    met: AtomicBool,
    /// Sessions that this node owns.
    sessions: AtomicU32,
    /// Requests are numbered from a random number on, so that no two nodes' numbers meet.
    uids: AtomicU64,
}

/// One view of the cluster and what follows from it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) view: View,
    pub(crate) ring: Ring,
    /// Who owns what was owned by nodes that are over.
    pub(crate) succession: Succession,
    /// Sessions per member, in the view's order: from gossip, and fresher from forwarded answers.
    sessions: Vec<AtomicU32>,
    /// Of each node on the ring, its index in the view.
    on_ring: Vec<usize>,
    since: Instant,
}

impl World {
    fn new(view: View, succession: Succession, since: Instant) -> Self {
        let sessions = view.members().iter().map(|_| AtomicU32::new(0)).collect();
        let ring = Ring::new(&view);
        let on_ring = ring.nodes().iter().filter_map(|node| view.index_of(*node)).collect();
        Self { view, ring, succession, sessions, on_ring, since }
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
    pub(crate) fn new(me: &Member, seal: SealKeys) -> Self {
        let world = World::new(View::new(vec![me.clone()]), Succession::default(), Instant::now());
        Self {
            name: me.name.clone(),
            tag: me.node.tag,
            inc: AtomicU64::new(me.node.inc.0),
            seal: RwLock::new(Arc::new(seal)),
            dice: SystemRandom::new(),
            tenure: Mutex::new(Tenure::new(me.node, clock::now(), Rules::ALL)),
            serves_until: AtomicU64::new(0),
            phase: watch::Sender::new(me.phase),
            world: watch::Sender::new(Arc::new(world)),
            met: AtomicBool::new(false),
            sessions: AtomicU32::new(0),
            uids: AtomicU64::new(0),
        }
        .numbered()
    }

    fn numbered(self) -> Self {
        self.uids.store(self.roll(), Ordering::Relaxed);
        self
    }

    /// A number for one request of a client's.
    pub(crate) fn next_uid(&self) -> u64 {
        self.uids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn name(&self) -> &NodeName {
        &self.name
    }

    pub(crate) fn me(&self) -> NodeRef {
        NodeRef { tag: self.tag, inc: Incarnation(self.inc.load(Ordering::Acquire)) }
    }

    /// Whether this node may serve sessions now.
    pub(crate) fn is_leased(&self) -> bool {
        clock::now() < self.serves_until.load(Ordering::Acquire)
    }

    /// The keys of now: a lock that readers share and a count, some ten ns where to open an id takes 300.
    pub(crate) fn seal(&self) -> Arc<SealKeys> {
        self.seal.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on ids are sealed and opened by these.
    pub(crate) fn take_seal(&self, seal: SealKeys) {
        *self.seal.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(seal);
    }

    /// Now, and until when this node may serve; 0 where it never might. By [`clock::now`].
    pub(crate) fn lease(&self) -> (u64, u64) {
        (clock::now(), self.serves_until.load(Ordering::Acquire))
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

    /// Joining has come to its end, unless the node leaves already.
    pub(crate) fn enter_active(&self) {
        self.phase.send_if_modified(|phase| {
            let joins = *phase == Phase::Joining;
            if joins {
                *phase = Phase::Active;
            }
            joins
        });
    }

    pub(crate) fn sessions(&self) -> &AtomicU32 {
        &self.sessions
    }

    pub(crate) fn world(&self) -> Arc<World> {
        self.world.borrow().clone()
    }

    /// A node's name, or its tag where the name is forgotten.
    pub(crate) fn name_of(&self, node: NodeRef) -> String {
        let world = self.world();
        world
            .view
            .by_tag(node.tag)
            .map_or_else(|| format!("{:08x}", node.tag.0), |member| member.name.to_string())
    }

    /// Resolves when the world changes after this call.
    pub(crate) fn worlds(&self) -> watch::Receiver<Arc<World>> {
        self.world.subscribe()
    }

    /// Whether whoever is not in the view is not there: it has stood still, all seeds are met, and who
    /// this node has become since is in it.
    pub(crate) fn settled(&self) -> bool {
        let stands =
            |world: &World| world.since.elapsed() >= SETTLED_AFTER && world.view.get(self.me()).is_some();
        self.met.load(Ordering::Relaxed) && self.phase() != Phase::Joining && stands(&self.world.borrow())
    }

    /// Whether all seeds are met now.
    pub(crate) fn note_seeds(&self, met: bool) {
        self.met.store(met, Ordering::Relaxed);
    }

    /// What gossip knows now, as members with their session counts.
    pub(crate) fn observe(&self, members: Vec<(Member, u32)>) {
        let (members, loads): (Vec<_>, Vec<_>) = members
            .into_iter()
            .map(|(member, sessions)| {
                let node = member.node;
                (member, (node, sessions))
            })
            .unzip();
        let view = View::new(members);
        // In one step, since what is agreed on about owners changes the same value.
        self.world.send_if_modified(|world| {
            let changed = view.members() != world.view.members();
            if changed {
                let same = view.fingerprint() == world.view.fingerprint();
                let since = if same { world.since } else { Instant::now() };
                *world = Arc::new(World::new(view, world.succession.clone(), since));
            }
            for (node, sessions) in loads {
                world.note_load(node, sessions);
            }
            changed
        });
    }

    // --- who may own sessions ---

    /// Tells what gossip knows to who decides about owners; to be called when either has changed, and
    /// from time to time, since a view that stands still settles.
    pub(crate) fn see_members(&self) {
        let (world, settled) = (self.world(), self.settled());
        // A node that has met nobody yet may be the only one that believes so.
        let others = world.view.members().iter().map(|member| (member.node, member.phase));
        if self.phase() != Phase::Joining {
            self.tenure().see(others, settled, clock::now());
        }
    }

    pub(crate) fn hear(&self, note: &Note) -> Vec<Effect> {
        self.decide(|tenure, now| tenure.hear(note, now))
    }

    pub(crate) fn tick(&self) -> Vec<Effect> {
        self.decide(|tenure, now| {
            if self.phase() != Phase::Joining {
                tenure.tick(now);
            }
        })
    }

    /// That process is gone for certain.
    pub(crate) fn proven(&self, node: NodeRef) -> Vec<Effect> {
        self.decide(|tenure, now| {
            tenure.proven(node, now);
            tenure.tick(now);
        })
    }

    /// A request waits for what that node owns.
    pub(crate) fn want(&self, node: NodeRef) {
        self.tenure().want(node, clock::now());
    }

    /// Whether that node has missed beats: it may be gone, and what it is sent with it.
    pub(crate) fn is_quiet(&self, node: NodeRef) -> bool {
        self.tenure().is_quiet(node, clock::now())
    }

    /// Whether that process is gone for certain.
    pub(crate) fn is_gone(&self, node: NodeRef) -> bool {
        self.tenure().is_gone(node)
    }

    /// The nodes whose end would matter.
    pub(crate) fn watched(&self) -> Vec<NodeRef> {
        self.tenure().watched().collect()
    }

    /// Who takes over from this node, and whether all who would have to know that do.
    pub(crate) fn heirs(&self) -> (Vec<NodeRef>, bool) {
        let tenure = self.tenure();
        (tenure.heirs(), tenure.is_settled())
    }

    /// This node drains: its heirs stay as they are.
    pub(crate) fn retire(&self) {
        self.tenure().retire();
    }

    /// This node serves nothing any more.
    pub(crate) fn resign(&self) -> Vec<Effect> {
        self.decide(|tenure, now| tenure.resign(now))
    }

    fn decide(&self, told: impl FnOnce(&mut Tenure, u64)) -> Vec<Effect> {
        let mut tenure = self.tenure();
        told(&mut tenure, clock::now());
        let effects = tenure.effects();
        self.serves_until.store(tenure.serves_until(), Ordering::Release);
        if effects.iter().any(|effect| matches!(effect, Effect::Over(_))) {
            self.inc.store(tenure.me().inc.0, Ordering::Release);
            let succession = tenure.succession().clone();
            self.world.send_modify(|world| {
                let mut next = World::new(world.view.clone(), succession, world.since);
                next.sessions = world.sessions.iter().map(|it| it.load(Ordering::Relaxed).into()).collect();
                *world = Arc::new(next);
            });
        }
        effects
    }

    fn tenure(&self) -> MutexGuard<'_, Tenure> {
        self.tenure.lock().unwrap_or_else(PoisonError::into_inner)
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
        let world = self.world.borrow();
        let situation = Situation {
            me: self.me(),
            my_phase: self.phase(),
            view: &world.view,
            ring: &world.ring,
            succession: &world.succession,
            leased: self.is_leased(),
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
        let me = self.me();
        let world = self.world.borrow();
        let nodes = world.ring.nodes();
        let sessions = |at: usize| {
            let mine = nodes[at] == me;
            if mine { self.sessions.load(Ordering::Relaxed) } else { world.sessions_of(world.on_ring[at]) }
        };
        // Gossip learns of this node's own drain a moment after the node itself does.
        let usable = |at: usize| {
            !tried.contains(&nodes[at])
                && (nodes[at] != me || (self.phase() == Phase::Active && self.is_leased()))
                && !world.succession.is_over(nodes[at])
        };
        placement::choose(me, &world.ring, sessions, usable, [self.roll(), self.roll()])
    }

    /// A nonce that the ring gives to this node.
    pub(crate) fn draw(&self) -> Nonce {
        let world = self.world();
        // The system's random source is asked for many at once: each call costs some 300 ns.
        let mut drawn = [0; 12 * NONCES_AT_ONCE];
        let mut used = NONCES_AT_ONCE;
        placement::draw(&world.ring, self.me(), || {
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
