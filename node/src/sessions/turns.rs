//! Where new sessions wait for their turn. The node that opens a session has them wait, not the one that its client
//! has reached: it is its own upstream, and its own children, that are not to be overrun, whichever nodes the
//! storm comes through; and whom it refuses may be taken by another node, which the entry node asks at once.

use super::pace::{Asked, Pace, Ticket, WAIT_MAX};
use proto::id::Principal;
use proto::wire::{Limit, Reason, Refusal};
use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::oneshot, time::Instant};

#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    since: Instant,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    /// Told when it is their turn; dropped if they have lost it.
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
    /// Somebody gives turns out, as long as anybody waits.
    is_driven: bool,
}

impl Turns {
    pub(super) fn new(per_second: NonZeroU32) -> Arc<Self> {
        let state = State { pace: Pace::new(per_second), waiting: HashMap::new(), is_driven: false };
        Arc::new(Self { state: Mutex::new(state), since: Instant::now() })
    }

    /// Resolves when this client may open a session.
    pub(super) async fn wait(self: &Arc<Self>, client: Principal) -> Result<(), Refusal> {
        let (turn, told) = oneshot::channel();
        let _place = {
            let mut state = self.state();
            match state.pace.ask(client, self.since.elapsed()) {
                Asked::Now => return Ok(()),
                Asked::Refused => return Err(state.refusal()),
                Asked::Waits { ticket, displaced } => {
                    state.waiting.insert(ticket, turn);
                    if let Some(displaced) = displaced {
                        state.waiting.remove(&displaced);
                    }
                    if !std::mem::replace(&mut state.is_driven, true) {
                        tokio::spawn(self.clone().drive());
                    }
                    Place { turns: self.clone(), client, ticket }
                }
            }
        };
        // Others may have come before it in the meantime.
        match tokio::time::timeout(WAIT_MAX, told).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.state().refusal()),
        }
    }

    /// Gives out turns until nobody waits.
    async fn drive(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                while let Some(ticket) = state.pace.due(self.since.elapsed()) {
                    if let Some(turn) = state.waiting.remove(&ticket) {
                        let _ = turn.send(()); // who has just left would have had it
                    }
                }
                let Some(next) = state.pace.next() else {
                    state.is_driven = false;
                    return;
                };
                self.since + next
            };
            tokio::time::sleep_until(next).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn refusal(&self) -> Refusal {
        let wait_ms = u32::try_from(self.pace.wait().as_millis()).unwrap_or(u32::MAX);
        Refusal::not_run(Reason::Limited(Limit::NewSessions { retry_after_ms: wait_ms }))
    }
}

/// Of somebody who waits; given back by whoever stops waiting, for whatever reason.
struct Place {
    turns: Arc<Turns>,
    client: Principal,
    ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        if state.waiting.remove(&self.ticket).is_some() {
            state.pace.leave(self.client, self.ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn client(number: u8) -> Principal {
        Principal([number; 16])
    }

    #[tokio::test(start_paused = true)]
    async fn each_has_its_turn_and_none_begins_early() {
        let turns = Turns::new(NonZeroU32::new(20).expect("not zero"));
        let began = Instant::now();
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let turns = turns.clone();
                tokio::spawn(async move {
                    turns.wait(client(1)).await.expect("a turn within 8 s");
                    began.elapsed()
                })
            })
            .collect();
        let mut times = Vec::new();
        for one in waiting {
            times.push(one.await.expect("no panic"));
        }
        times.sort();
        assert!(times[99] >= Duration::from_millis(4_850), "{:?}", times[99]);
        assert!(times[99] < Duration::from_millis(5_200), "{:?}", times[99]);
        assert!(times.iter().filter(|time| **time < Duration::from_secs(1)).count() <= 22);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_no_gap_and_who_is_too_many_hears_when_to_come_back() {
        let turns = Turns::new(NonZeroU32::new(1).expect("not zero"));
        turns.wait(client(1)).await.expect("the first");
        let impatient = tokio::time::timeout(Duration::from_millis(1), turns.wait(client(1))).await;
        assert!(impatient.is_err(), "it waits");
        let mut waiting = Vec::new();
        for _ in 0..8 {
            let turns = turns.clone();
            waiting.push(tokio::spawn(async move { turns.wait(client(1)).await }));
            tokio::task::yield_now().await;
        }
        let refused = turns.wait(client(1)).await.expect_err("nine would take 9 s");
        let Refusal::Undelivered { reason: Reason::Limited(Limit::NewSessions { retry_after_ms }), .. } =
            refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!(retry_after_ms, 9_000);
        for one in waiting {
            one.await.expect("no panic").expect("a turn");
        }
    }
}
