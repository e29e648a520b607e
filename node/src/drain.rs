//! A node's end: it takes nothing new, gives its sessions to their next owners, serves what is in
//! progress, and leaves. All of it fits into the time that it is given.
//!
//! Three things go on side by side: sessions are given away as soon as nothing calls them; streams of
//! clients end one by one; and clients that still come are served until they stop coming. When all of
//! that is done, or has to be, the node's own end is agreed on.

use crate::effects::Tenancy;
use crate::events::{Event, Events};
use crate::gossip::Gossip;
use crate::leaving::{Leaving, Schedule};
use crate::sessions::Left;
use crate::telemetry::Metrics;
use proto::core::view::Phase;
use proto::id::NodeRef;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const TELL_EVERY: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Calls of sessions that are never idle wait for so long, and are served again for as long: requests
/// are answered in less, mostly, and entry nodes wait 10 s.
const PARKED: Duration = Duration::from_secs(3);

/// What a drain has to do with.
pub(crate) struct Drain {
    pub(crate) tenancy: Arc<Tenancy>,
    pub(crate) gossip: Arc<Gossip>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<Events>,
    pub(crate) leaving: Arc<Leaving>,
    pub(crate) clients: Mouth,
    pub(crate) operators: Mouth,
    /// What goes on for clients whose requests have been answered.
    pub(crate) lasting: TaskTracker,
    /// What is in progress for other nodes.
    pub(crate) requests: TaskTracker,
    /// Cancelled, it ends the streams among these that would never end.
    pub(crate) carrying: CancellationToken,
}

/// Where connections are taken.
#[derive(Debug)]
pub(crate) struct Mouth {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Mouth {
    pub(crate) fn open<F: Future<Output = ()> + Send + 'static>(
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(run(stop.clone())), stop }
    }

    /// Takes no more connections, and resolves when the last one is done with.
    async fn close(&mut self) {
        self.stop.cancel();
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

impl Drain {
    /// Takes at most `time`, and less when `hurry` resolves.
    pub(crate) async fn run(mut self, time: Duration, hurry: impl Future<Output = ()>) {
        let began = Instant::now();
        let schedule = Schedule::new(began, time);
        let sessions = self.tenancy.cluster.sessions().load(Ordering::Relaxed);
        self.events.tell(Event::DrainBegan { deadline: time, sessions });
        let tenancy = self.tenancy.clone();
        let Tenancy { cluster, peers, .. } = &*tenancy;
        let open = u32::try_from(self.metrics.streams.get()).unwrap_or(0);
        self.leaving.begin(&schedule, open);
        cluster.enter(Phase::Draining);
        let is_alone = self.is_alone();
        if !is_alone {
            self.gossip.announce_phase(Phase::Draining).await;
        }

        let left = watch::Sender::new(None);
        let (told, events) = (left.subscribe(), self.events.clone());
        tokio::select! {
            () = give_away(&tenancy, &schedule, &left, is_alone) => {}
            () = self.finish(&schedule, told, is_alone) => {}
            () = tell_progress(&events, left.subscribe()) => {}
            () = tokio::time::sleep_until(schedule.cut) => {}
            () = hurry => {}
        }
        self.leaving.cut_off();
        let _ = tokio::time::timeout(schedule.step, self.clients.close()).await;

        let me = cluster.me();
        tenancy.carry_out(cluster.resign());
        let mut worlds = cluster.worlds();
        let over = worlds.wait_for(|world| world.succession.is_over(me));
        let _ = tokio::time::timeout(schedule.step, over).await;
        if !is_alone {
            // What was sent to it before that was known is told to go elsewhere, while there is somebody to say it.
            tokio::time::sleep(schedule.step / 2).await;
        }
        let lost = left.borrow().map_or(0, |left| left.all);
        self.events.tell(Event::DrainEnded { took: began.elapsed(), lost });
        cluster.enter(Phase::Dead); // what is told regularly from now on
        self.gossip.announce_phase(Phase::Dead).await;
        if !is_alone {
            tokio::time::sleep(schedule.step).await;
        }
        self.operators.stop.cancel();
        self.gossip.end();
        peers.close();
        // Children that take longer are ended without this node.
        let last = async { tokio::join!(peers.closed(), tenancy.sessions.end_bridged()) };
        let _ = tokio::time::timeout(schedule.step, last).await;
    }

    /// Resolves when nothing is left to be done for anybody.
    async fn finish(&mut self, schedule: &Schedule, mut left: watch::Receiver<Option<Left>>, is_alone: bool) {
        if !is_alone {
            // Nobody is sent elsewhere where there is no other node.
            self.leaving.quiet(schedule).await;
        }
        self.clients.close().await;
        self.lasting.close();
        self.lasting.wait().await;
        let is_done = |left: &Option<Left>| left.is_some_and(|left| left.all == 0);
        let _ = left.wait_for(is_done).await;
        self.carrying.cancel();
        self.requests.close();
        self.requests.wait().await;
        // A session that was opened last of all has to be given away, too.
        left.mark_unchanged();
        let _ = left.changed().await;
        let _ = left.wait_for(is_done).await;
    }

    fn is_alone(&self) -> bool {
        let cluster = &self.tenancy.cluster;
        let world = cluster.world();
        let mut members = world.view.members().iter();
        !members.any(|member| member.node != cluster.me() && member.phase != Phase::Dead)
    }
}

/// Gives each session away as soon as nothing calls it, for as long as it is polled.
async fn give_away(
    tenancy: &Tenancy,
    schedule: &Schedule,
    told: &watch::Sender<Option<Left>>,
    is_alone: bool,
) {
    let Tenancy { cluster, sessions, .. } = tenancy;
    if !is_alone {
        tokio::time::sleep_until(schedule.told).await;
    }
    cluster.retire();
    loop {
        // Nobody must be given a session before all who would have to know agree on who that is.
        let ((heirs, settled), world, now) = (cluster.heirs(), cluster.world(), Instant::now());
        let is = |node: NodeRef, phase| world.view.get(node).is_some_and(|member| member.phase == phase);
        // An heir that leaves too may not be one in the end. Whoever is has copies, and takes over by them.
        let fit = heirs.iter().any(|heir| is(*heir, Phase::Active))
            && !heirs.iter().any(|heir| is(*heir, Phase::Draining));
        let left = if settled && fit {
            sessions.entrust(heirs);
            sessions.park(parks(schedule, now));
            sessions.give_idle(&world.succession)
        } else {
            sessions.park(false);
            sessions.left()
        };
        // Where sessions are not given away, only calls are waited for.
        let nobody = !fit || (!settled && now >= schedule.parks);
        told.send_replace(Some(if nobody { Left { all: left.busy, ..left } } else { left }));
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Tells how far the drain is, for as long as it is polled: once a second at most.
async fn tell_progress(events: &Events, mut left: watch::Receiver<Option<Left>>) {
    let mut told = None;
    loop {
        let now = *left.borrow_and_update();
        if now != told
            && let Some(Left { busy, all }) = now
        {
            events.tell(Event::DrainProgress { sessions: all, busy });
            told = now;
        }
        tokio::time::sleep(TELL_EVERY).await;
        if left.changed().await.is_err() {
            return std::future::pending().await; // the drain goes on without
        }
    }
}

/// Whether calls wait at that moment.
fn parks(schedule: &Schedule, now: Instant) -> bool {
    let Some(since) = now.checked_duration_since(schedule.parks) else { return false };
    (since.as_millis() / PARKED.as_millis()).is_multiple_of(2)
}
