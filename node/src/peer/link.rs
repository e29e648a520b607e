//! The connections to each peer: made when first needed, grown when full, dropped when dead.

use super::endpoint::{
    Bound, CALLS_MAX, CONTROL_MAX, DialError, Dialled, STREAMS_MAX, close, dial, distrusted, usable,
};
use super::identity::{Keys, Proof, Trust};
use bytes::Bytes;
use proto::id::NodeRef;
use proto::wire::{CloseCode, Lane};
use quinn::{Connection, VarInt};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Connections per lane and peer: 64 x 256 calls and 64 x 1,024 streams are far beyond what one
/// node serves; past them a request is told so rather than left waiting.
const CONNECTIONS_MAX: usize = 64;

/// For each stream that was open at the same time as others quinn keeps 400 bytes or so, as long as the connection lasts. One
/// that has carried more than this many is not kept once it carries none: another takes 2 ms to make.
pub(super) const PEAK_KEPT: usize = 256;

/// Proof of a death takes some 30 ms; a lifeline that was cut by something else must not keep requests
/// back for longer than this.
const SUSPECT_FOR: Duration = Duration::from_millis(300);

/// Every peer that this node has talked to.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(super) bound: Arc<Bound>,
    links: Mutex<HashMap<SocketAddr, Arc<Link>>>,
    /// Nodes whose lifeline has just ended. What is not sent to them now has certainly not run.
    suspects: Mutex<HashMap<NodeRef, Instant>>,
}

/// One peer address.
#[derive(Debug)]
pub(super) struct Link {
    addr: SocketAddr,
    control: LaneLink,
    calls: LaneLink,
    streams: LaneLink,
    pub(super) gossip: mpsc::Sender<Bytes>,
    /// Its node is gone; whoever still holds the link dials no more.
    forgotten: AtomicBool,
}

#[derive(Debug)]
struct LaneLink {
    open: Mutex<Vec<Arc<Greeted>>>,
    /// Not used any more, because of other secrets or because they are not needed: what is in progress on them goes
    /// on, nothing begins.
    retired: Mutex<Vec<Retired>>,
    /// Held while dialling, so that a burst of requests makes one connection and not one each; with
    /// the last failure, which is the answer to all who waited for that dial.
    dialling: tokio::sync::Mutex<Option<(Instant, DialError)>>,
    in_flight_max: usize,
}

/// A connection whose other end has said who it is.
#[derive(Debug)]
struct Greeted {
    connection: Connection,
    node: NodeRef,
    proof: Proof,
    in_flight: AtomicUsize,
    /// The most that there was at once.
    peak: AtomicUsize,
}

#[derive(Debug)]
struct Retired {
    greeted: Arc<Greeted>,
    /// Nothing was in progress on it when it was last looked at.
    was_quiet: bool,
}

/// The right to open one stream.
#[derive(Debug)]
pub(super) struct Slot {
    greeted: Arc<Greeted>,
}

impl Slot {
    pub(super) fn connection(&self) -> &Connection {
        &self.greeted.connection
    }

    /// Who is at the other end.
    pub(super) fn node(&self) -> NodeRef {
        self.greeted.node
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.greeted.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peers {
    pub(crate) fn new(bound: Arc<Bound>) -> Arc<Self> {
        Arc::new(Self { bound, links: Mutex::default(), suspects: Mutex::default() })
    }

    /// Room for one stream to the node at `addr`.
    pub(super) async fn slot(self: &Arc<Self>, addr: SocketAddr, lane: Lane) -> Result<Slot, DialError> {
        self.link(addr).slot(&self.bound, lane).await
    }

    pub(super) fn link(self: &Arc<Self>, addr: SocketAddr) -> Arc<Link> {
        let mut links = self.links();
        let link = links.entry(addr).or_insert_with(|| {
            let (gossip, queue) = mpsc::channel(super::gossip::QUEUE_LEN_MAX);
            let link = Arc::new(Link {
                addr,
                control: LaneLink::new(usable(CONTROL_MAX)),
                calls: LaneLink::new(usable(CALLS_MAX)),
                streams: LaneLink::new(usable(STREAMS_MAX)),
                gossip,
                forgotten: AtomicBool::new(false),
            });
            // The task ends when the link is forgotten and its queue closes.
            tokio::spawn(super::gossip::send_queued(self.bound.clone(), Arc::downgrade(&link), queue));
            link
        });
        link.clone()
    }

    /// Closes the connections to nodes that are gone: what is in progress on them fails now, not when
    /// they time out. A link that has none left is forgotten if its address died with its node.
    pub(crate) fn forget(&self, is_gone: impl Fn(NodeRef) -> bool, died_at: impl Fn(SocketAddr) -> bool) {
        self.links().retain(|addr, link| {
            let kept = link.close_gone(&is_gone) || !died_at(*addr);
            link.forgotten.store(!kept, Ordering::Relaxed);
            kept
        });
    }

    /// The node's lifeline has ended: nothing is sent to it for a moment.
    pub(crate) fn suspect(&self, node: NodeRef) {
        self.suspects().insert(node, Instant::now());
    }

    pub(crate) fn trust(&self, node: NodeRef) {
        self.suspects().remove(&node);
    }

    pub(super) fn is_suspect(&self, node: NodeRef) -> bool {
        let mut suspects = self.suspects();
        // Few nodes, and mostly none.
        suspects.retain(|_, since| since.elapsed() < SUSPECT_FOR);
        suspects.contains_key(&node)
    }

    fn suspects(&self) -> MutexGuard<'_, HashMap<NodeRef, Instant>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.bound.endpoint.close(VarInt::from_u32(CloseCode::Leaving as u32), b"leaving");
    }

    /// Waits until what was said before [`close`](Self::close) has been delivered.
    pub(crate) async fn closed(&self) {
        self.bound.endpoint.wait_idle().await;
    }

    /// Every peer that there is a connection to, or was.
    pub(super) fn all_links(&self) -> Vec<Arc<Link>> {
        self.links().values().cloned().collect()
    }

    fn links(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    pub(super) async fn slot(&self, bound: &Bound, lane: Lane) -> Result<Slot, DialError> {
        let lane_link = self.lane(lane);
        if let Some(slot) = lane_link.free() {
            return Ok(slot);
        }
        let asked = Instant::now();
        let mut failure = lane_link.dialling.lock().await;
        if let Some(slot) = lane_link.free() {
            return Ok(slot);
        }
        if self.forgotten.load(Ordering::Relaxed) {
            return Err(DialError::Forgotten);
        }
        if let Some((_, error)) = failure.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        let dialled = self.dial(bound, lane).await;
        let greeted = dialled.inspect_err(|error| *failure = Some((Instant::now(), error.clone())))?;
        lane_link.add(greeted)
    }

    async fn dial(&self, bound: &Bound, lane: Lane) -> Result<Greeted, DialError> {
        let Dialled { connection, ack, proof } = dial(bound, &bound.greeting(), self.addr, lane).await?;
        tracing::debug!(peer = %ack.name, addr = %self.addr, ?lane, "connected");
        let (open, peer, credentials) =
            (connection.clone(), proof.peer.clone(), bound.credentials_until_changed());
        tokio::spawn(async move {
            tokio::select! {
                _ = open.closed() => {}
                () = distrusted(credentials, &peer) => {
                    tracing::info!("a connection is closed that was proved by a removed secret");
                    close(&open, CloseCode::OldSecret, "a removed secret");
                }
            }
        });
        let (in_flight, peak) = Default::default();
        Ok(Greeted { connection, node: ack.node, proof, in_flight, peak })
    }

    fn lane(&self, lane: Lane) -> &LaneLink {
        match lane {
            Lane::Control => &self.control,
            Lane::Calls => &self.calls,
            Lane::Streams => &self.streams,
        }
    }

    /// Puts a connection by the secrets of now in the place of those by earlier ones, takes those out of use that
    /// are not needed, and closes either when nothing is in progress on them.
    pub(super) async fn look_after(&self, bound: &Bound, lane: Lane) {
        let lane_link = self.lane(lane);
        if lane_link.has_outdated(&bound.credentials().keys) {
            match self.dial(bound, lane).await {
                Ok(next) => lane_link.replace(next, &bound.credentials().keys),
                // Where it is the other end that does not accept it yet, what there is goes on serving.
                Err(error) => {
                    tracing::debug!(addr = %self.addr, %error, "no connection by the secrets of now")
                }
            }
        }
        lane_link.close_quiet();
        lane_link.retire_unneeded();
    }

    /// Whether any connection is left.
    fn close_gone(&self, is_gone: impl Fn(NodeRef) -> bool) -> bool {
        let stays = |greeted: &Greeted| {
            let gone = is_gone(greeted.node);
            if gone {
                close(&greeted.connection, CloseCode::NotThePeer, "not a member any more");
            }
            !gone
        };
        let mut any = false;
        for lane in [&self.control, &self.calls, &self.streams] {
            let mut open = lane.open();
            open.retain(|greeted| stays(greeted));
            any |= !open.is_empty();
            lane.retired().retain(|retired| stays(&retired.greeted));
        }
        any
    }
}

impl LaneLink {
    fn new(in_flight_max: usize) -> Self {
        Self {
            open: Mutex::default(),
            retired: Mutex::default(),
            dialling: tokio::sync::Mutex::new(None),
            in_flight_max,
        }
    }

    fn has_outdated(&self, keys: &Keys) -> bool {
        self.open().iter().any(|greeted| greeted.is_outdated(keys))
    }

    /// In one step, so that nobody finds the lane without a connection.
    fn replace(&self, next: Greeted, keys: &Keys) {
        let mut open = self.open();
        let (outdated, mut current): (Vec<_>, Vec<_>) =
            open.drain(..).partition(|greeted| greeted.is_outdated(keys));
        current.push(Arc::new(next));
        *open = current;
        drop(open);
        let mut retired = self.retired();
        retired.extend(outdated.into_iter().map(|greeted| Retired { greeted, was_quiet: false }));
        // The secrets have changed again before the last ones were done with.
        while retired.len() > CONNECTIONS_MAX {
            retired.remove(0).close();
        }
    }

    /// Of those on which nothing is in progress one is kept, if it has not carried too many.
    fn retire_unneeded(&self) {
        let (mut open, mut has_spare) = (self.open(), false);
        let unneeded = open.extract_if(.., |greeted| {
            let is_quiet = greeted.in_flight.load(Ordering::Relaxed) == 0;
            let is_spare = is_quiet && !has_spare && greeted.peak.load(Ordering::Relaxed) <= PEAK_KEPT;
            has_spare |= is_spare;
            is_quiet && !is_spare
        });
        let unneeded: Vec<_> = unneeded.map(|greeted| Retired { greeted, was_quiet: false }).collect();
        drop(open);
        self.retired().extend(unneeded);
    }

    /// Closes the retired ones on which nothing is in progress, at the second look that finds it so: the first
    /// may come before the other end knows that its last answer has arrived.
    fn close_quiet(&self) {
        self.retired().retain_mut(|retired| {
            let is_quiet = retired.greeted.in_flight.load(Ordering::Relaxed) == 0;
            let is_done = is_quiet && retired.was_quiet;
            if is_done {
                retired.close();
            }
            retired.was_quiet = is_quiet;
            !is_done && retired.greeted.connection.close_reason().is_none()
        });
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Retired>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self) -> Option<Slot> {
        let mut open = self.open();
        open.retain(|greeted| greeted.connection.close_reason().is_none());
        let greeted =
            open.iter().find(|greeted| greeted.in_flight.load(Ordering::Relaxed) < self.in_flight_max)?;
        Some(greeted.slot())
    }

    fn add(&self, greeted: Greeted) -> Result<Slot, DialError> {
        let mut open = self.open();
        if open.len() >= CONNECTIONS_MAX {
            return Err(DialError::Full);
        }
        let greeted = Arc::new(greeted);
        open.push(greeted.clone());
        Ok(greeted.slot())
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Greeted>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Greeted {
    /// Under the lock of those that are open, so that none is retired meanwhile.
    fn slot(self: &Arc<Self>) -> Slot {
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        if in_flight > self.peak.load(Ordering::Relaxed) {
            self.peak.store(in_flight, Ordering::Relaxed);
        }
        Slot { greeted: self.clone() }
    }

    fn is_outdated(&self, keys: &Keys) -> bool {
        self.connection.close_reason().is_none() && keys.judge(&self.proof) != Trust::Current
    }
}

impl Retired {
    fn close(&self) {
        close(&self.greeted.connection, CloseCode::Unneeded, "nothing is in progress on it");
    }
}
