//! A node's life: build, bind, run, drain. The only place that constructs and connects the parts.

use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::config::{CLUSTER, Config};
use crate::effects;
use crate::front::{self, Front, Listener};
use crate::gossip::{self, Gossip, Wire};
use crate::journey::Journey;
use crate::peer::{Acceptor, Bound, ControlInbox, Greeting, Lifelines, Peers, Sign, accept_lifelines};
use crate::sessions::Sessions;
use crate::telemetry::Metrics;
use anyhow::Context;
use proto::core::view::{Member, Phase};
use proto::id::{Incarnation, NodeRef, SealKeys, Tag};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a node waits for its seeds before it serves alone: the first node of a cluster has
/// nobody to wait for, and a session opened alone stays good when the others turn up.
const JOIN_TIME: Duration = Duration::from_secs(5);
/// How long a seed may take to say which incarnations it has seen.
const ASK_TIME: Duration = Duration::from_secs(1);
/// What a drain waits for requests in progress.
const DRAIN_TIME: Duration = Duration::from_secs(30);
/// Three rounds of gossip: the news is with the others.
const NEWS_TIME: Duration = Duration::from_millis(600);
/// Gossip carries each node's load this often; forwarded answers carry it too.
const LOAD_EVERY: Duration = Duration::from_millis(500);
/// Idle sessions are looked for this often: small beside any sensible time-out.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Messages of gossip between the endpoint and chitchat.
const GOSSIP_INBOX: usize = 1_024;

/// A node that has bound its addresses and built its parts, and serves.
pub(crate) struct Node {
    me: Member,
    cluster: Arc<Cluster>,
    peers: Arc<Peers>,
    gossip: Arc<Gossip>,
    requests: TaskTracker,
    leaving: CancellationToken,
    stop: CancellationToken,
    mouths: Vec<JoinHandle<()>>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// Every address that the node was told to bind, bound.
struct Sockets {
    clients: Listener,
    operators: Listener,
    bound: Arc<Bound>,
    control: ControlInbox,
    advertise: SocketAddr,
}

impl Sockets {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let clients =
            front::bind(config.listen).await.with_context(|| format!("listen {}", config.listen))?;
        let operators = front::bind(config.admin).await.with_context(|| format!("admin {}", config.admin))?;
        let bound = Bound::bind(config.peer, &config.secrets, &config.name);
        let (bound, control) = bound.with_context(|| format!("peer {} (UDP and TCP)", config.peer))?;
        let peer = bound.local_addr()?;
        let mut advertise = config.advertise.unwrap_or(peer);
        if advertise.port() == 0 {
            advertise.set_port(peer.port());
        }
        Ok(Self { clients, operators, bound: Arc::new(bound), control, advertise })
    }
}

impl Node {
    /// Binds every address, builds every part and starts it. Nothing is accepted before all is bound.
    pub(crate) async fn start(config: Config) -> anyhow::Result<Self> {
        raise_open_files();
        let sockets = Sockets::bind(&config).await?;
        let me = identify(&config, &sockets).await;
        let metrics = Arc::new(Metrics::new());
        let own_peer = me.peer.to_string();
        let seeds: Vec<_> = config.seeds.iter().filter(|seed| **seed != own_peer).cloned().collect();
        let seal = SealKeys::new(&config.secrets, CLUSTER);
        let cluster = Arc::new(Cluster::new(&me, seal, seeds.is_empty()));
        let sessions = Arc::new(Sessions::new(cluster.clone(), &config.routes));
        let peers = Peers::new(sockets.bound.clone());
        let journey =
            Arc::new(Journey::new(cluster.clone(), sessions.clone(), peers.clone(), metrics.clone()));

        let (inbox, messages) = mpsc::channel(GOSSIP_INBOX);
        let sender = peers.clone();
        let wire = Wire { send: Box::new(move |to, message| sender.gossip(to, message)), inbox: messages };
        let gossip = Gossip::start(&me, format!("{CLUSTER}/1"), seeds.clone(), wire).await?;
        let gossip = Arc::new(gossip);

        let (stop, leaving, requests) =
            (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let (lifelines, signs) = Lifelines::new(sockets.bound.clone());
        let acceptor = Arc::new(Acceptor {
            bound: sockets.bound.clone(),
            journey: journey.clone(),
            routes: config.routes.clone(),
            gossip: inbox,
            requests: requests.clone(),
            leaving: leaving.clone(),
        });
        let front = Arc::new(Front {
            journey: journey.clone(),
            routes: config.routes,
            allowed_origins: config.allowed_origins,
            metrics: metrics.clone(),
            leaving: leaving.clone(),
        });
        let admin = Arc::new(Admin { journey, metrics: metrics.clone() });

        let clients = sockets.clients.run(
            move |request| {
                let front = front.clone();
                async move { front.answer(request).await }
            },
            stop.clone(),
            DRAIN_TIME,
        );
        let operators = sockets.operators.run(
            move |request| {
                let admin = admin.clone();
                async move { admin.answer(request).await }
            },
            stop.clone(),
            NEWS_TIME,
        );
        let mouths = vec![tokio::spawn(clients), tokio::spawn(operators)];

        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            acceptor.run().await;
            anyhow::bail!("the peer endpoint is closed")
        });
        tasks.spawn(async move { Ok(accept_lifelines(sockets.bound).await?) });
        tasks.spawn(hold_lifelines(lifelines, cluster.clone()));
        tasks.spawn(note_signs(signs, sockets.control));
        tasks.spawn(follow_gossip(gossip.clone(), cluster.clone(), peers.clone(), metrics));
        tasks.spawn(tell_gossip(gossip.clone(), cluster.clone()));
        tasks.spawn(join(cluster.clone(), seeds));
        tasks.spawn(keep_house(sessions));
        Ok(Self { me, cluster, peers, gossip, requests, leaving, stop, mouths, tasks })
    }

    /// The one line on stdout.
    pub(crate) fn ready_line(&self) -> String {
        let Member { name, listen, peer, admin, .. } = &self.me;
        format!("ringway ready name={name} listen={listen} peer={peer} admin={admin}")
    }

    /// Serves until `stop`, then drains.
    ///
    /// # Errors
    /// When a part fails that the node can't do without.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let failed = tokio::select! {
            () = stop => None,
            ended = self.tasks.join_next() => ended,
        };
        match failed {
            Some(Ok(Err(error))) => return Err(error),
            Some(Err(panicked)) => return Err(panicked.into()),
            Some(Ok(Ok(()))) | None => {}
        }
        self.drain().await;
        Ok(())
    }

    /// Serves what is in progress and what it owns, takes nothing new, leaves.
    async fn drain(self) {
        tracing::info!(name = %self.me.name, "draining");
        self.cluster.enter(Phase::Draining);
        self.gossip.announce_phase(Phase::Draining).await;
        tokio::time::sleep(NEWS_TIME).await;
        self.leaving.cancel();
        self.stop.cancel();
        self.requests.close();
        let finishing = async {
            for mouth in self.mouths {
                let _ = mouth.await;
            }
            self.requests.wait().await;
        };
        let _ = tokio::time::timeout(DRAIN_TIME, finishing).await;
        self.cluster.enter(Phase::Dead); // what is told regularly from now on
        self.gossip.announce_phase(Phase::Dead).await;
        tokio::time::sleep(NEWS_TIME).await;
        self.peers.close();
        let _ = tokio::time::timeout(NEWS_TIME, self.peers.closed()).await;
        tracing::info!(name = %self.me.name, "left");
    }
}

/// Who this node is: its name, and an incarnation above every one that the seeds have seen.
async fn identify(config: &Config, sockets: &Sockets) -> Member {
    let tag = Tag::of(CLUSTER, &config.name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let greeting = |inc| Greeting {
        name: config.name.clone(),
        node: NodeRef { tag, inc: Incarnation(inc) },
        advertise: sockets.advertise,
    };
    let mut asking = JoinSet::new();
    for seed in gossip::resolve(&config.seeds).await.into_iter().filter(|seed| *seed != sockets.advertise) {
        let (bound, greeting) = (sockets.bound.clone(), greeting(now_ms));
        asking.spawn(tokio::time::timeout(ASK_TIME, async move {
            bound.known_incarnation(seed, &greeting).await
        }));
    }
    let known = asking.join_all().await.into_iter().filter_map(|answer| answer.ok().flatten()).max();
    let greeting = greeting(now_ms.max(known.map_or(0, |known| known + 1)));
    let node = greeting.node;
    sockets.bound.greet_as(greeting);
    Member {
        name: config.name.clone(),
        node,
        phase: Phase::Joining,
        listen: sockets.clients.addr,
        peer: sockets.advertise,
        admin: sockets.operators.addr,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// What gossip finds goes to the cluster, with all that follows from it.
async fn follow_gossip(
    gossip: Arc<Gossip>,
    cluster: Arc<Cluster>,
    peers: Arc<Peers>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    let mut census = gossip.census();
    loop {
        let members = census.borrow_and_update().clone();
        effects::of_census(members, &cluster, &peers, &metrics)?;
        if census.changed().await.is_err() {
            anyhow::bail!("gossip has ended");
        }
    }
}

/// What this node enters goes to gossip, and its load.
async fn tell_gossip(gossip: Arc<Gossip>, cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let mut phases = cluster.phases();
    loop {
        let phase = *phases.borrow_and_update();
        gossip.announce_phase(phase).await;
        gossip.announce_sessions(cluster.sessions().load(Ordering::Relaxed)).await;
        let _ = tokio::time::timeout(LOAD_EVERY, phases.changed()).await;
    }
}

/// A lifeline to every other node that gossip does not take for dead.
async fn hold_lifelines(lifelines: Lifelines, cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let mut worlds = cluster.worlds();
    loop {
        let world = worlds.borrow_and_update().clone();
        let others = world.view.members().iter().filter(|member| member.node != cluster.me());
        let living = others.filter(|member| member.phase != Phase::Dead);
        lifelines.watch(living.map(|member| (member.node, member.peer)));
        worlds.changed().await?;
    }
}

/// What lifelines and control datagrams tell of others. Nothing follows from it yet.
async fn note_signs(mut signs: mpsc::Receiver<Sign>, mut control: ControlInbox) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            Some(sign) = signs.recv() => match sign {
                Sign::Alive(node) => tracing::debug!(%node, "a lifeline stands"),
                Sign::Dead(node) => tracing::debug!(%node, "a lifeline proves a death"),
            },
            Some((from, payload)) = control.recv() => {
                tracing::debug!(%from, len = payload.len(), "a control datagram");
            }
            else => anyhow::bail!("the peer endpoint is closed"),
        }
    }
}

/// A node is active once it has met somebody, or has found nobody to meet.
async fn join(cluster: Arc<Cluster>, seeds: Vec<String>) -> anyhow::Result<()> {
    let mut worlds = cluster.worlds();
    let met = async {
        let is_alive = |member: &&Member| member.phase != Phase::Dead;
        let met = worlds.wait_for(|world| world.view.members().iter().filter(is_alive).count() > 1);
        met.await.is_ok()
    };
    if !seeds.is_empty() && tokio::time::timeout(JOIN_TIME, met).await.is_err() {
        tracing::warn!(?seeds, "no seed answers: serving alone, and asking on");
    }
    cluster.enter(Phase::Active);
    std::future::pending().await
}

/// Ends idle sessions.
async fn keep_house(sessions: Arc<Sessions>) -> anyhow::Result<()> {
    loop {
        sessions.expire_idle();
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

/// Every client and every upstream connection is an open file: take all that the system gives.
#[expect(unsafe_code, reason = "getrlimit and setrlimit have no safe wrapper in the standard library")]
fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to a limit on this stack.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
