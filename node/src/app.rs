//! A node's life: build, bind, run, and at last [`drain`](crate::drain). The only place that constructs and connects the parts.

use crate::admin::{Admin, Guard, Token};
use crate::auth::Auth;
use crate::cluster::Cluster;
use crate::config::{CLUSTER, Config, Limits};
use crate::drain::{Drain, Mouth};
use crate::effects::{self, Ends, Tenancy};
use crate::events::{Events, Passed};
use crate::front::{self, Front, Listener};
use crate::gossip::{self, Gossip, Wire};
use crate::journey::Journey;
use crate::leaving::Leaving;
use crate::meeting::meet_seeds;
use crate::open_files;
use crate::peer::{Acceptor, Bound, ControlInbox, Greeting, Lifelines, Peers, Sign, accept_lifelines};
use crate::rotation::Rotation;
use crate::sessions::Sessions;
use crate::telemetry::{self, Metrics, Requests};
use crate::tls::{Renewal, Tls};
use anyhow::Context;
use proto::core::view::{Member, Phase};
use proto::id::{Incarnation, NodeRef, SealKeys, Tag};
use proto::wire::{News, Note, codec};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a node waits for its seeds before it serves alone: the first node of a cluster has
/// nobody to wait for, and a session opened alone stays good when the others turn up.
const JOIN_TIME: Duration = Duration::from_secs(5);
/// How long a seed may take to say which incarnations it has seen.
const ASK_TIME: Duration = Duration::from_secs(1);
/// What a drain may take, unless it is said otherwise.
const DRAIN_TIME: Duration = Duration::from_secs(30);
/// Beats are sent every 100 ms; a tick is the resolution of all that is timed between nodes.
const TICK: Duration = Duration::from_millis(20);
/// New nodes are watched at once; this is for those that are over.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Gossip carries each node's load this often; forwarded answers carry it too.
const LOAD_EVERY: Duration = Duration::from_millis(500);
/// Idle sessions are looked for this often: small beside any sensible time-out.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// The queue to each peer holds 32 messages, and gossip needs some five a second of it.
const NEWS_EVERY: Duration = Duration::from_millis(20);
/// Operators, scripts and dashboards that are open at once.
const ADMIN_CONNECTIONS_MAX: usize = 256;
/// Messages of gossip between the endpoint and chitchat.
const GOSSIP_INBOX: usize = 1_024;

/// A node that has bound its addresses and built its parts, and serves.
pub(crate) struct Node {
    me: Member,
    /// Over the admin endpoint, with the time that it may take.
    asked_to_drain: mpsc::Receiver<Duration>,
    drain: Drain,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// Every address that the node was told to bind, bound.
struct Sockets {
    clients: Listener,
    operators: Listener,
    /// Of the clients' certificate.
    renewal: Option<Renewal>,
    bound: Arc<Bound>,
    control: ControlInbox,
    advertise: SocketAddr,
}

impl Sockets {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let (tls, renewal) = config.tls.clone().map(Tls::open).transpose().context("tls")?.unzip();
        let clients = front::bind(config.listen, config.limits, tls).await;
        let clients = clients.with_context(|| format!("listen {}", config.listen))?;
        let limits = Limits { connections_max: ADMIN_CONNECTIONS_MAX, ..config.limits };
        let limits = Limits { connections_per_client_max: None, ..limits };
        let operators = front::bind(config.admin, limits, None).await;
        let operators = operators.with_context(|| format!("admin {}", config.admin))?;
        let bound = Bound::bind(config.peer, &config.secrets, &config.name);
        let (bound, control) = bound.with_context(|| format!("peer {} (UDP and TCP)", config.peer))?;
        let peer = bound.local_addr()?;
        let mut advertise = config.advertise.unwrap_or(peer);
        if advertise.port() == 0 {
            advertise.set_port(peer.port());
        }
        Ok(Self { clients, operators, renewal, bound: Arc::new(bound), control, advertise })
    }
}

impl Node {
    /// Binds every address, builds every part and starts it. Nothing is accepted before all is bound.
    pub(crate) async fn start(config: Config) -> anyhow::Result<Self> {
        open_files::raise();
        let mut sockets = Sockets::bind(&config).await?;
        let me = identify(&config, &sockets).await;
        let (outbox, waiting) = telemetry::Outbox::new(telemetry::WAITING_MAX);
        let traces = config.otlp.as_ref().map(|_| (outbox.clone(), config.otlp_sample));
        let metrics = Arc::new(Metrics::of_node(&me.name, sockets.bound.traffic(), traces));
        sockets.clients.accepted = metrics.connections("clients");
        sockets.operators.accepted = metrics.connections("operators");
        let (events, news) = Events::new(config.name.clone(), metrics.clone());
        let (events, ends) = (Arc::new(events), Arc::new(Ends::default()));
        let mut tasks = JoinSet::new();
        let guard = guard(&config, sockets.operators.addr, &events, &mut tasks)?;
        let auth = Arc::new(Auth::new(&config.routes, config.trusted_proxies)?);
        let own_peer = me.peer.to_string();
        let seeds: Vec<_> = config.seeds.iter().filter(|seed| **seed != own_peer).cloned().collect();
        let seal = SealKeys::new(&config.secrets, CLUSTER);
        let cluster = Arc::new(Cluster::new(&me, seal));
        let peers = Peers::new(sockets.bound.clone());
        let (routes, new_sessions) = (&config.routes, &config.new_sessions);
        let sessions = Sessions::new(cluster.clone(), peers.clone(), metrics.clone(), routes, new_sessions);
        let sessions = Arc::new(sessions);
        let journey =
            Journey::new(cluster.clone(), sessions.clone(), peers.clone(), metrics.clone(), events.clone());
        let journey = Arc::new(journey);

        let (inbox, messages) = mpsc::channel(GOSSIP_INBOX);
        let sender = peers.clone();
        let wire = Wire { send: Box::new(move |to, message| sender.gossip(to, message)), inbox: messages };
        let gossip = Gossip::start(&me, format!("{CLUSTER}/1"), seeds.clone(), wire).await?;
        let gossip = Arc::new(gossip);

        let (leaving, carrying) = (Arc::new(Leaving::default()), CancellationToken::new());
        let tenancy = Arc::new(Tenancy::new(
            cluster.clone(),
            sessions.clone(),
            peers.clone(),
            sockets.bound.clone(),
            metrics.clone(),
            events.clone(),
            ends.clone(),
        ));
        let (lifelines, signs) = Lifelines::new(sockets.bound.clone());
        let acceptor = Acceptor::new(
            sockets.bound.clone(),
            journey.clone(),
            config.routes.clone(),
            inbox,
            carrying.clone(),
        );
        let requests = acceptor.requests.clone();
        let acceptor = Arc::new(acceptor);
        let lasting = TaskTracker::new();
        let front = Arc::new(Front {
            journey: journey.clone(),
            requests: Requests::of(&metrics, &config.routes),
            routes: config.routes,
            auth: auth.clone(),
            allowed_origins: config.allowed_origins,
            metrics: metrics.clone(),
            leaving: leaving.clone(),
            lasting: lasting.clone(),
            replies: Arc::default(),
        });
        let (ask_to_drain, asked_to_drain) = mpsc::channel(1);
        let admin = Arc::new(Admin::new(journey, ask_to_drain, guard));

        let clients = Mouth::open(|stop| {
            let answer = move |from, arrival, request| {
                let front = front.clone();
                async move { front.answer(from, arrival, request).await }
            };
            sockets.clients.run(answer, stop)
        });
        let operators = Mouth::open(|stop| {
            let answer = move |_, _, request| {
                let admin = admin.clone();
                async move { admin.answer(request).await }
            };
            sockets.operators.run(answer, stop)
        });

        tasks.spawn(async move {
            acceptor.run().await;
            anyhow::bail!("the peer endpoint is closed")
        });
        let rotation = Rotation {
            file: config.secret_file,
            known: config.secrets,
            cluster: cluster.clone(),
            bound: sockets.bound.clone(),
            metrics: metrics.clone(),
        };
        tasks.spawn(async move {
            rotation.run().await;
            anyhow::bail!("nobody looks after the cluster's secrets")
        });
        tasks.spawn({
            let peers = peers.clone();
            async move {
                peers.keep_up().await;
                anyhow::bail!("the peer endpoint is closed")
            }
        });
        tasks.spawn(async move { Ok(accept_lifelines(sockets.bound).await?) });
        tasks.spawn(hold_lifelines(lifelines, tenancy.clone()));
        tasks.spawn(keep_tenure(tenancy.clone(), signs, sockets.control));
        tasks.spawn(sessions.clone().send_copies(peers.clone()));
        let told = (events.clone(), ends);
        tasks.spawn(follow_gossip(gossip.clone(), cluster.clone(), peers.clone(), metrics.clone(), told));
        tasks.spawn(pass_on(news, cluster.clone(), peers.clone()));
        tasks.spawn(tell_gossip(gossip.clone(), cluster.clone()));
        tasks.spawn(meet_seeds(cluster.clone(), peers, seeds.clone()));
        tasks.spawn(join(cluster, seeds));
        tasks.spawn(auth.keep());
        tasks.spawn(keep_house(sessions));
        if let Some(renewal) = sockets.renewal {
            tasks.spawn(renewal.run());
        }
        if let Some(collector) = config.otlp {
            let name = me.name.to_string();
            tasks.spawn(async move {
                telemetry::export(collector, name, outbox, waiting).await;
                Ok(())
            });
        }
        let drain = Drain {
            tenancy,
            gossip,
            metrics,
            events,
            leaving,
            clients,
            operators,
            lasting,
            requests,
            carrying,
        };
        Ok(Self { me, asked_to_drain, drain, tasks })
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
        tokio::pin!(stop);
        let (failed, asked) = tokio::select! {
            () = &mut stop => (None, None),
            Some(time) = self.asked_to_drain.recv() => (None, Some(time)),
            ended = self.tasks.join_next() => (ended, None),
        };
        match failed {
            Some(Ok(Err(error))) => return Err(error),
            Some(Err(panicked)) => return Err(panicked.into()),
            Some(Ok(Ok(()))) | None => {}
        }
        // Whoever sends a signal waits for no longer than that takes, whatever was asked for before.
        let hurry = async {
            match asked {
                Some(_) => stop.await,
                None => std::future::pending().await,
            }
            tokio::time::sleep(DRAIN_TIME.mul_f64(0.9)).await; // the rest is for the last steps
        };
        self.drain.run(asked.unwrap_or(DRAIN_TIME), hurry).await;
        Ok(())
    }
}

/// Who may ask the admin endpoint.
fn guard(
    config: &Config,
    admin: SocketAddr,
    events: &Arc<Events>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Guard> {
    let is_loopback = admin.ip().is_loopback();
    let token = match &config.admin_token_file {
        Some(file) => {
            let (token, watching) = Token::watch(file, events.clone())?;
            tasks.spawn(watching);
            Some(token)
        }
        None if is_loopback => None,
        None => {
            tracing::warn!(%admin, "anybody who reaches the admin address may use it: set admin_token_file");
            None
        }
    };
    Ok(Guard { token, is_loopback })
}

/// Who this node is: its name, and an incarnation above every one that the seeds have seen.
async fn identify(config: &Config, sockets: &Sockets) -> Member {
    let tag = Tag::of(CLUSTER, &config.name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let greeting = |inc| Greeting {
        name: config.name.clone(),
        node: NodeRef { tag, inc },
        advertise: sockets.advertise,
    };
    let mut asking = JoinSet::new();
    for seed in gossip::resolve(&config.seeds).await.into_iter().filter(|seed| *seed != sockets.advertise) {
        let (bound, greeting) = (sockets.bound.clone(), greeting(Incarnation(now_ms)));
        asking.spawn(tokio::time::timeout(ASK_TIME, async move {
            bound.known_incarnation(seed, &greeting).await
        }));
    }
    let known = asking.join_all().await.into_iter().filter_map(|answer| answer.ok().flatten()).max();
    let greeting = greeting(Incarnation::at_start(now_ms, known.map(Incarnation)));
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
    (events, ends): (Arc<Events>, Arc<Ends>),
) -> anyhow::Result<()> {
    let mut census = gossip.census();
    loop {
        let members = census.borrow_and_update().clone();
        effects::of_census(members, &cluster, &peers, &metrics, (&events, &ends))?;
        if census.changed().await.is_err() {
            anyhow::bail!("gossip has ended");
        }
    }
}

/// Passes on what other nodes can't see. Not faster than they read it: what waits for longer is lost.
async fn pass_on(
    mut news: mpsc::Receiver<Passed>,
    cluster: Arc<Cluster>,
    peers: Arc<Peers>,
) -> anyhow::Result<()> {
    let by = cluster.name().clone();
    while let Some(Passed { at_ms, kind, facts }) = news.recv().await {
        let (me, world) = (cluster.me(), cluster.world());
        let others = world.view.members().iter();
        for member in others.filter(|member| member.node.tag != me.tag && member.phase != Phase::Dead) {
            peers.pass_on(member.peer, &News { by: by.clone(), at_ms, kind, facts: &facts });
        }
        tokio::time::sleep(NEWS_EVERY).await;
    }
    anyhow::bail!("nobody tells of events any more")
}

/// What this node enters goes to gossip, and its load.
async fn tell_gossip(gossip: Arc<Gossip>, cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let mut phases = cluster.phases();
    loop {
        let phase = *phases.borrow_and_update();
        gossip.announce_phase(phase).await;
        gossip.announce_incarnation(cluster.me().inc).await;
        gossip.announce_sessions(cluster.sessions().load(Ordering::Relaxed)).await;
        let _ = tokio::time::timeout(LOAD_EVERY, phases.changed()).await;
    }
}

/// A lifeline to every node whose end would matter.
async fn hold_lifelines(lifelines: Lifelines, tenancy: Arc<Tenancy>) -> anyhow::Result<()> {
    let mut worlds = tenancy.cluster.worlds();
    loop {
        worlds.borrow_and_update();
        lifelines.watch(tenancy.watched());
        let _ = tokio::time::timeout(WATCH_EVERY, worlds.changed()).await;
    }
}

/// This node's part in the agreement on who may own sessions.
async fn keep_tenure(
    tenancy: Arc<Tenancy>,
    mut signs: mpsc::Receiver<Sign>,
    mut control: ControlInbox,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                tenancy.cluster.see_members();
                tenancy.carry_out(tenancy.cluster.tick());
                tenancy.see_lease();
            }
            Some(sign) = signs.recv() => match sign {
                Sign::Alive(node) => {
                    tenancy.metrics.death_denied(node);
                    tenancy.peers.trust(node);
                }
                Sign::Ended(node) => {
                    tenancy.metrics.death_noticed(node);
                    tenancy.peers.suspect(node);
                }
                Sign::Dead(node) => tenancy.proven(node),
            },
            Some((from, payload)) = control.recv() => match codec::read::<Note>(&payload) {
                Ok(note) => tenancy.carry_out(tenancy.cluster.hear(&note)),
                Err(error) => tracing::debug!(%from, %error, "a note that can't be read"),
            },
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
    cluster.enter_active();
    std::future::pending().await
}

/// Ends idle sessions.
async fn keep_house(sessions: Arc<Sessions>) -> anyhow::Result<()> {
    loop {
        sessions.expire_idle();
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}
