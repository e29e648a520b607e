//! Who is connected, and who goes when there are too many: those that have yet to ask for anything, the oldest
//! first, since a client that means it sends its request at once; then those that are between two requests.
//! Whoever is being served stays, and if all are, whoever comes is turned away.
//!
//! So ten thousand clients that send a byte now and then keep nobody out: they push each other out.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};
use tokio::{sync::Notify, time::Instant};

use crate::config::Limits;

/// Looking for idle connections takes a walk over all, so this part of all is sent away by one.
const SENT_AWAY_AT_ONCE: usize = 64;

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Crowd {
    state: Mutex<State>,
    limits: Limits,
    since: Instant,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    all: BTreeMap<u64, Arc<Visit>>,
    /// Those that have not sent a whole request yet, by their age.
    newcomers: BTreeMap<u64, Arc<Visit>>,
    /// Counted where it is limited.
    by_client: HashMap<IpAddr, usize>,
}

/// One connection.
#[derive(Debug)]
struct Visit {
    client: IpAddr,
    /// Whether the head of a request has come.
    has_asked: AtomicBool,
    /// Whether a whole one has.
    has_arrived: AtomicBool,
    /// Requests that have come whole and are being answered.
    served: AtomicU32,
    /// When it had the last of these, in ms.
    idle_since: AtomicU64,
    sent_away: Notify,
}

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Node,
    Client,
}

/// A connection's place, as long as it is there.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    id: u64,
    visit: Arc<Visit>,
}

impl Crowd {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), limits, since: Instant::now() })
    }

    /// A place for a connection from there; others may have to leave for it.
    pub(super) fn admit(self: &Arc<Self>, from: IpAddr) -> Result<Place, Full> {
        let client = one_client(from);
        let mut state = self.state();
        if let Some(max) = self.limits.connections_per_client_max
            && state.by_client.get(&client).is_some_and(|count| *count >= max)
            && !state.make_room(|visit| visit.client == client, 1)
        {
            return Err(Full::Client);
        }
        let max = self.limits.connections_max;
        if state.all.len() >= max && !state.make_room(|_| true, max.div_ceil(SENT_AWAY_AT_ONCE)) {
            return Err(Full::Node);
        }
        let visit = Arc::new(Visit {
            client,
            has_asked: AtomicBool::new(false),
            has_arrived: AtomicBool::new(false),
            served: AtomicU32::new(0),
            idle_since: AtomicU64::new(self.now_ms()),
            sent_away: Notify::new(),
        });
        state.last += 1;
        let id = state.last;
        state.all.insert(id, visit.clone());
        state.newcomers.insert(id, visit.clone());
        if self.limits.connections_per_client_max.is_some() {
            *state.by_client.entry(client).or_default() += 1;
        }
        Ok(Place { crowd: self.clone(), id, visit })
    }

    /// The system has no room for more.
    pub(super) fn shrink(&self) {
        self.state().make_room(|_| true, 1);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends one newcomer away, or so many that are idle. Whether anybody goes.
    fn make_room(&mut self, of: impl Fn(&Visit) -> bool, idle_max: usize) -> bool {
        let newcomer = self.newcomers.iter().find(|(_, visit)| of(visit)).map(|(id, _)| *id);
        let mut leaving = Vec::from_iter(newcomer);
        if leaving.is_empty() {
            let idle = self.all.iter().filter(|(_, visit)| of(visit) && visit.is_idle());
            let mut idle: Vec<_> =
                idle.map(|(id, visit)| (visit.idle_since.load(Ordering::Relaxed), *id)).collect();
            idle.sort_unstable();
            leaving.extend(idle.into_iter().take(idle_max).map(|(_, id)| id));
        }
        for id in &leaving {
            if let Some(visit) = self.remove(*id) {
                visit.sent_away.notify_one();
            }
        }
        !leaving.is_empty()
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Visit>> {
        let visit = self.all.remove(&id)?;
        self.newcomers.remove(&id);
        if let Some(count) = self.by_client.get_mut(&visit.client) {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&visit.client);
            }
        }
        Some(visit)
    }
}

impl Visit {
    fn is_idle(&self) -> bool {
        self.served.load(Ordering::Relaxed) == 0
    }
}

impl Place {
    /// Resolves when others need the place more.
    pub(super) fn sent_away(&self) -> impl Future<Output = ()> + use<> {
        let visit = self.visit.clone();
        async move { visit.sent_away.notified().await }
    }

    /// What is noted with each request of the connection.
    pub(super) fn door(&self, is_tls: bool) -> Door {
        let Self { crowd, id, visit } = self;
        Door { crowd: crowd.clone(), id: *id, visit: visit.clone(), is_tls }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.state().remove(self.id);
    }
}

/// Where the requests of a connection come in.
#[derive(Clone, Debug)]
pub(super) struct Door {
    crowd: Arc<Crowd>,
    id: u64,
    visit: Arc<Visit>,
    is_tls: bool,
}

impl Door {
    /// The head of a request has come.
    pub(super) fn enter(&self) -> Arrival {
        self.visit.has_asked.store(true, Ordering::Relaxed);
        Arrival(Arc::new(Served { door: self.clone(), is_whole: AtomicBool::new(false) }))
    }

    pub(super) fn has_been_used(&self) -> bool {
        self.visit.has_asked.load(Ordering::Relaxed)
    }
}

/// A request that has come as far as its head. Held until the answer is done with.
#[derive(Clone, Debug)]
pub(crate) struct Arrival(Arc<Served>);

#[derive(Debug)]
struct Served {
    door: Door,
    is_whole: AtomicBool,
}

impl Arrival {
    /// The request has come as far as it is waited for: its connection is not to be sent away before the answer.
    pub(super) fn is_whole(&self) {
        let Door { crowd, id, visit, .. } = &self.0.door;
        if self.0.is_whole.swap(true, Ordering::Relaxed) {
            return;
        }
        visit.served.fetch_add(1, Ordering::Relaxed);
        if !visit.has_arrived.swap(true, Ordering::Relaxed) {
            crowd.state().newcomers.remove(id);
        }
    }

    /// The connection goes on without requests.
    pub(super) fn stays(&self) {
        self.0.door.visit.served.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.door.is_tls
    }

    pub(in crate::front) fn limits(&self) -> &Limits {
        &self.0.door.crowd.limits
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if *self.is_whole.get_mut() {
            let Door { crowd, visit, .. } = &self.door;
            visit.idle_since.store(crowd.now_ms(), Ordering::Relaxed);
            visit.served.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// An address of IPv4, or a network of IPv6 as one household gets it.
fn one_client(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[4..].fill(0);
            IpAddr::V6(Ipv6Addr::from(segments))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use futures::is_sent_away;
    use std::time::Duration;

    mod futures {
        use super::Place;
        use std::{future::Future, pin::pin, task::Context, task::Waker};

        /// Looks once; what it sees is not there any more.
        pub(super) fn is_sent_away(place: &Place) -> bool {
            pin!(place.sent_away()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
        }
    }

    pub(in crate::front) fn limits(
        connections_max: usize,
        connections_per_client_max: Option<usize>,
    ) -> Limits {
        let time = Duration::from_secs(10);
        Limits {
            connections_max,
            connections_per_client_max,
            header_time_max: time,
            body_time_max: time,
            send_time_max: time,
        }
    }

    fn from(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// A request of that connection that has come whole.
    fn request(place: &Place) -> Arrival {
        let door = place.door(false);
        let arrival = Arrival(Arc::new(Served { door, is_whole: AtomicBool::new(false) }));
        arrival.is_whole();
        arrival
    }

    #[test]
    fn who_has_asked_for_nothing_goes_first_and_the_oldest_of_these() {
        let crowd = Crowd::new(limits(3, None));
        let [served, old, new] = [1, 2, 3].map(|last| crowd.admit(from(last)).expect("a place"));
        let _answer = request(&served);
        let newest = crowd.admit(from(4)).expect("a place");
        assert!(is_sent_away(&old));
        assert!(!is_sent_away(&served) && !is_sent_away(&new) && !is_sent_away(&newest));
        drop(old); // later than its place was taken
        crowd.admit(from(5)).expect("a place");
        assert!(is_sent_away(&new));
    }

    #[test]
    fn who_is_between_two_requests_goes_next_and_who_is_served_stays() {
        let crowd = Crowd::new(limits(2, None));
        let [served, idle] = [1, 2].map(|last| crowd.admit(from(last)).expect("a place"));
        let _answer = request(&served);
        drop(request(&idle));
        let third = crowd.admit(from(3)).expect("a place");
        assert!(is_sent_away(&idle) && !is_sent_away(&served));
        let _answer = request(&third);
        assert_eq!(crowd.admit(from(4)).err(), Some(Full::Node));
        drop(served);
        crowd.admit(from(4)).expect("a place is free");
    }

    #[test]
    fn an_upgraded_connection_is_never_idle() {
        let crowd = Crowd::new(limits(1, None));
        let upgraded = crowd.admit(from(1)).expect("a place");
        let answer = request(&upgraded);
        answer.stays();
        drop(answer);
        assert_eq!(crowd.admit(from(2)).err(), Some(Full::Node));
    }

    #[test]
    fn one_client_pushes_out_its_own_connections_only() {
        let crowd = Crowd::new(limits(10, Some(2)));
        let other = crowd.admit(from(9)).expect("a place");
        let [one, two] = [(); 2].map(|()| crowd.admit(from(1)).expect("a place"));
        let three = crowd.admit(from(1)).expect("in the place of the first");
        assert!(is_sent_away(&one) && !is_sent_away(&other));
        let _answers = [request(&two), request(&three)];
        assert_eq!(crowd.admit(from(1)).err(), Some(Full::Client));
        crowd.admit(from(2)).expect("another client");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let client = |text: &str| one_client(text.parse().expect("an address"));
        assert_eq!(client("2001:db8:1:2:3::4"), client("2001:db8:1:2:ffff::"));
        assert_ne!(client("2001:db8:1:2::"), client("2001:db8:1:3::"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}
