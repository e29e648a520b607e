//! How fast new sessions are begun: so many a second, and those beyond wait for their turn, one of each client
//! after the other, so that a client that opens thousands at once keeps nobody else waiting. [`turns`](super::turns)
//! tells it the time and holds those that wait.

use proto::id::Principal;
use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

/// Clients wait 30 to 60 s for an answer, and the upstream needs some of that. What would wait longer than this
/// is told so at once.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(8);
/// This part of a second's sessions may begin at once, so that a rate is not overstepped by more than that.
const BURST: u32 = 10;

/// Somebody who waits; each has its own number.
pub(super) type Ticket = u64;

/// Time is counted from any moment on, the same for all calls, and never goes back.
#[derive(Debug)]
pub(super) struct Pace {
    /// Between two sessions.
    step: Duration,
    burst: u32,
    waiting_max: usize,
    /// When the next session may begin. With all of the burst unused, that is so many steps ago.
    next: Duration,
    queues: HashMap<Principal, VecDeque<Ticket>>,
    /// Clients with somebody in their queue, in the order of their turns.
    order: VecDeque<Principal>,
    waiting: usize,
    last: Ticket,
}

/// What becomes of a session that somebody asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It begins now.
    Now,
    /// It waits for its turn. Where all places are taken, whoever has the most loses the last of its own.
    Waits { ticket: Ticket, displaced: Option<Ticket> },
    /// There is no place to wait at.
    Refused,
}

impl Pace {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let per_second = per_second.get();
        Self {
            step: Duration::from_secs(1) / per_second,
            burst: (per_second / BURST).max(1),
            waiting_max: (per_second as usize).saturating_mul(WAIT_MAX.as_secs() as usize),
            next: Duration::ZERO,
            queues: HashMap::new(),
            order: VecDeque::new(),
            waiting: 0,
            last: 0,
        }
    }

    /// A client opens a session.
    pub(super) fn ask(&mut self, client: Principal, now: Duration) -> Asked {
        if self.waiting == 0 && self.take(now) {
            return Asked::Now;
        }
        let mut displaced = None;
        if self.waiting >= self.waiting_max {
            // One place each: then nobody has more than who comes.
            if self.waiting <= self.order.len() {
                return Asked::Refused;
            }
            let own = self.queues.get(&client).map_or(0, VecDeque::len);
            let longest = self.queues.iter().max_by_key(|(_, queue)| queue.len());
            match longest.map(|(client, queue)| (*client, queue.len())) {
                Some((other, len)) if len > own + 1 => {
                    displaced = self.queues.get_mut(&other).and_then(VecDeque::pop_back);
                    self.waiting -= 1;
                }
                Some(_) | None => return Asked::Refused,
            }
        }
        self.last += 1;
        let queue = self.queues.entry(client).or_default();
        if queue.is_empty() {
            self.order.push_back(client);
        }
        queue.push_back(self.last);
        self.waiting += 1;
        Asked::Waits { ticket: self.last, displaced }
    }

    /// Whose turn it is now, if it is anybody's: to be asked until it is nobody's.
    pub(super) fn due(&mut self, now: Duration) -> Option<Ticket> {
        if self.waiting == 0 || !self.take(now) {
            return None;
        }
        let client = self.order.pop_front()?;
        let queue = self.queues.get_mut(&client)?;
        let ticket = queue.pop_front()?;
        self.waiting -= 1;
        match queue.is_empty() {
            true => drop(self.queues.remove(&client)),
            false => self.order.push_back(client),
        }
        Some(ticket)
    }

    /// When it will be somebody's turn; never, where nobody waits.
    pub(super) fn next(&self) -> Option<Duration> {
        (self.waiting > 0).then_some(self.next)
    }

    /// That one waits no more.
    pub(super) fn leave(&mut self, client: Principal, ticket: Ticket) {
        let Some(queue) = self.queues.get_mut(&client) else { return };
        let before = queue.len();
        queue.retain(|one| *one != ticket);
        self.waiting -= before - queue.len();
        if queue.is_empty() {
            self.queues.remove(&client);
            self.order.retain(|one| *one != client);
        }
    }

    /// How long it would take until all who wait now have had their turn.
    pub(super) fn wait(&self) -> Duration {
        let waiting = u32::try_from(self.waiting).unwrap_or(u32::MAX);
        self.step.saturating_mul(waiting.saturating_add(1))
    }

    fn take(&mut self, now: Duration) -> bool {
        if now < self.next {
            return false;
        }
        // Time in which nobody came counts for no more than the burst.
        let saved = self.step * (self.burst - 1);
        self.next = self.next.max(now.saturating_sub(saved)) + self.step;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(per_second: u32) -> Pace {
        Pace::new(NonZeroU32::new(per_second).expect("not zero"))
    }

    fn client(number: u8) -> Principal {
        Principal([number; 16])
    }

    fn ticket(asked: Asked) -> Ticket {
        let Asked::Waits { ticket, displaced: None } = asked else { panic!("{asked:?}") };
        ticket
    }

    /// All whose turn it is until then, with the time of each.
    fn turns(pace: &mut Pace, until: Duration) -> Vec<(Duration, Ticket)> {
        let mut turns = Vec::new();
        while let Some(at) = pace.next().filter(|at| *at <= until) {
            turns.extend(pace.due(at).map(|ticket| (at, ticket)));
        }
        turns
    }

    #[test]
    fn a_storm_becomes_a_steady_rate() {
        let mut pace = pace(100);
        let start = 10 * SECOND;
        let mut at_once = 0;
        for _ in 0..500 {
            at_once += usize::from(pace.ask(client(1), start) == Asked::Now);
        }
        assert_eq!(at_once, 10, "a tenth of a second's");
        let turns = turns(&mut pace, start + 10 * SECOND);
        assert_eq!(turns.len(), 490, "each has its turn");
        assert!(turns.is_sorted_by(|one, other| one.1 < other.1), "who came first");
        for (at, _) in &turns {
            let second = turns.iter().filter(|(other, _)| *other >= *at && *other < *at + SECOND).count();
            assert!(second <= 100, "{second} in a second");
        }
        let (last, _) = turns[489];
        assert!(last <= start + 5 * SECOND, "{last:?}: it is no slower than asked for");
    }

    #[test]
    fn who_comes_at_no_more_than_the_rate_never_waits() {
        let mut pace = pace(50);
        for number in 0..1_000 {
            assert_eq!(pace.ask(client(1), number * (SECOND / 50)), Asked::Now, "{number}");
        }
    }

    #[test]
    fn a_client_that_storms_keeps_no_other_waiting() {
        let mut pace = pace(10);
        assert_eq!(pace.ask(client(1), SECOND), Asked::Now);
        for _ in 0..70 {
            ticket(pace.ask(client(1), SECOND));
        }
        let others = [ticket(pace.ask(client(2), SECOND)), ticket(pace.ask(client(3), SECOND))];
        let first: Vec<_> = turns(&mut pace, SECOND * 2).into_iter().take(3).map(|(_, who)| who).collect();
        assert!(others.iter().all(|other| first.contains(other)), "{first:?}");
    }

    #[test]
    fn who_would_wait_too_long_is_refused_and_the_storming_client_first() {
        let mut pace = pace(10);
        assert_eq!(pace.ask(client(1), SECOND), Asked::Now);
        let all: Vec<_> = (0..80).map(|_| ticket(pace.ask(client(1), SECOND))).collect();
        assert_eq!(pace.ask(client(1), SECOND), Asked::Refused, "8 s are taken");
        assert!(pace.wait() > WAIT_MAX);
        let asked = pace.ask(client(2), SECOND);
        let Asked::Waits { displaced: Some(displaced), .. } = asked else { panic!("{asked:?}") };
        assert_eq!(displaced, all[79], "the last of whoever has the most");
        // Until all have their share.
        for _ in 0..39 {
            assert!(matches!(pace.ask(client(2), SECOND), Asked::Waits { displaced: Some(_), .. }));
        }
        assert_eq!(pace.ask(client(2), SECOND), Asked::Refused);
        assert_eq!(turns(&mut pace, SECOND * 20).len(), 80);
    }

    #[test]
    fn who_leaves_frees_its_place_and_its_turn() {
        let mut pace = pace(1);
        assert_eq!(pace.ask(client(1), SECOND), Asked::Now);
        let [one, other] = [1, 2].map(|number| ticket(pace.ask(client(number), SECOND)));
        pace.leave(client(1), one);
        pace.leave(client(1), one);
        assert_eq!(turns(&mut pace, SECOND * 2), [(SECOND * 2, other)]);
        assert_eq!(pace.next(), None);
    }
}
