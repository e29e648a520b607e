//! The connections that this node has dialled, kept as they should be.
//!
//! When the cluster's secrets change, each is replaced by one that is proved by the secrets of now. What is in
//! progress on the old one ends there, in its own time; only where the other end has proved itself by a secret
//! that was removed is that time bounded (`endpoint::distrusted`, at both ends, so that it is enough if one of
//! them knows). And what a peak of requests took is given back after it.

use super::link::{Link, Peers};
use proto::wire::Lane;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// How often connections are looked at, and those tried again that could not be replaced.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Peers {
    /// Runs until the endpoint is gone.
    pub(crate) async fn keep_up(self: Arc<Self>) {
        let mut credentials = self.bound.credentials_until_changed();
        loop {
            credentials.borrow_and_update();
            self.look_after_all().await;
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                changed = credentials.changed() => if changed.is_err() { return },
            }
        }
    }

    /// All peers at once, since a dial to one that does not answer takes two seconds.
    async fn look_after_all(self: &Arc<Self>) {
        let mut all = JoinSet::new();
        for link in self.all_links() {
            all.spawn(look_after(self.clone(), link));
        }
        all.join_all().await;
    }
}

async fn look_after(peers: Arc<Peers>, link: Arc<Link>) {
    for lane in [Lane::Control, Lane::Calls, Lane::Streams] {
        link.look_after(&peers.bound, lane).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::PEAK_KEPT;
    use super::super::scene::{Node, SOON, node, relay, secrets, wait_until};
    use super::super::{Lifelines, Sign};
    use super::*;
    use quinn::Connection;
    use tokio::{sync::mpsc::error::TryRecvError, time::timeout};

    const OLD_NEW: &[u8] = &[1, 2];
    const NEW_OLD: &[u8] = &[2, 1];
    const NEW: &[u8] = &[2];

    fn take(node: &Node, list: &[u8]) {
        node.bound.take_secrets(&secrets(list)).expect("good secrets");
    }

    async fn connection(peers: &Arc<Peers>, to: &Node) -> Connection {
        let slot = timeout(SOON, peers.slot(to.addr, Lane::Calls)).await.expect("in time").expect("a peer");
        slot.connection().clone()
    }

    async fn until_other_than(last: &Connection, peers: &Arc<Peers>, to: &Node) -> Connection {
        let began = tokio::time::Instant::now();
        loop {
            let now = connection(peers, to).await;
            if now.stable_id() != last.stable_id() {
                return now;
            }
            assert!(began.elapsed() < SOON, "the same connection is used for ever");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_is_in_progress_stays_on_its_connection_and_what_begins_gets_another() {
        let (a, b) = (node("a", &[1]), node("b", &[1]));
        let peers = Peers::new(a.bound.clone());
        let _renewing = tokio::spawn(peers.clone().keep_up());
        let slot = peers.slot(b.addr, Lane::Calls).await.expect("a peer");
        let first = slot.connection().clone();
        // The dialling node is ahead of the other, then behind.
        for list in [OLD_NEW, NEW_OLD] {
            take(&a, list);
            assert!(connection(&peers, &b).await.close_reason().is_none());
            take(&b, list);
        }
        let second = until_other_than(&first, &peers, &b).await;
        assert!(first.close_reason().is_none(), "something is in progress on it");
        drop(slot);
        timeout(SOON, first.closed()).await.expect("nothing is in progress on it any more");
        assert!(second.close_reason().is_none());

        // Made when the other end still used the old secret, or not: what counts is what that has shown.
        for node in [&b, &a] {
            take(node, NEW);
        }
        let third = connection(&peers, &b).await;
        let stranger = node("stranger", &[1]);
        assert!(Peers::new(stranger.bound.clone()).slot(b.addr, Lane::Calls).await.is_err());
        let newcomer = node("newcomer", NEW);
        assert!(Peers::new(newcomer.bound.clone()).slot(b.addr, Lane::Calls).await.is_ok());
        assert!(third.close_reason().is_none());
    }

    #[tokio::test]
    async fn what_a_peak_took_is_closed_when_it_is_over_and_one_connection_stays() {
        let (a, b) = (node("a", &[1]), node("b", &[1]));
        let peers = Peers::new(a.bound.clone());
        let _keeping = tokio::spawn(peers.clone().keep_up());
        let (mut slots, mut connections) = (Vec::new(), Vec::<Connection>::new());
        while connections.len() < 3 {
            let slot = peers.slot(b.addr, Lane::Calls).await.expect("room");
            if connections.iter().all(|known| known.stable_id() != slot.connection().stable_id()) {
                connections.push(slot.connection().clone());
            }
            slots.push(slot);
        }
        // Something is in progress on the second alone, and on the last nothing any more.
        slots.retain(|slot| slot.connection().stable_id() == connections[1].stable_id());
        timeout(SOON, connections[2].closed()).await.expect("there is a spare one, the first");
        assert!(connections[..2].iter().all(|connection| connection.close_reason().is_none()));
        drop(slots);
        timeout(SOON, connections[1].closed()).await.expect("one is enough");
        assert!(connections[0].close_reason().is_none());
    }

    #[tokio::test]
    async fn a_connection_that_has_carried_very_many_is_not_kept_when_it_carries_none() {
        let (a, b) = (node("a", &[1]), node("b", &[1]));
        let peers = Peers::new(a.bound.clone());
        let _keeping = tokio::spawn(peers.clone().keep_up());
        let mut slots = Vec::new();
        for _ in 0..=PEAK_KEPT {
            slots.push(peers.slot(b.addr, Lane::Streams).await.expect("room"));
        }
        let swollen = slots[0].connection().clone();
        slots.truncate(1);
        assert!(swollen.close_reason().is_none(), "something is in progress on it");
        drop(slots);
        timeout(SOON, swollen.closed()).await.expect("it is not kept");
        assert!(peers.slot(b.addr, Lane::Streams).await.is_ok());
    }

    #[tokio::test]
    async fn a_connection_is_used_for_as_long_as_the_other_end_accepts_no_other() {
        let (a, b) = (node("a", &[1]), node("b", &[1]));
        let peers = Peers::new(a.bound.clone());
        let _renewing = tokio::spawn(peers.clone().keep_up());
        let first = connection(&peers, &b).await;
        // Somebody has left out a step for the other node.
        take(&a, NEW_OLD);
        let refused = &b.bound.strangers;
        wait_until("it is tried", || refused.seen(crate::peer::At::Connection) > 1).await;
        assert_eq!(connection(&peers, &b).await.stable_id(), first.stable_id());
        take(&b, OLD_NEW);
        until_other_than(&first, &peers, &b).await;
    }

    #[tokio::test]
    async fn a_lifeline_is_replaced_and_nobody_sees_its_end() {
        let (a, b) = (node("a", &[1]), node("b", &[1]));
        let (at, recorded) = relay::tcp(b.addr).await;
        let (lifelines, mut signs) = Lifelines::new(a.bound.clone());
        let whom = b.bound.greeting().node;
        lifelines.watch([(whom, at)]);
        assert_eq!(timeout(SOON, signs.recv()).await.expect("a sign"), Some(Sign::Alive(whom)));
        for list in [OLD_NEW, NEW_OLD] {
            take(&a, list);
            take(&b, list);
        }
        wait_until("it shows the new secret", || recorded.conversations() > 1).await;
        for node in [&b, &a] {
            take(node, NEW);
        }
        // As long as lifelines have to be replaced that are proved by a secret which is removed.
        wait_until("all are proved by the new secret", || recorded.open() == 1).await;
        assert_eq!(signs.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(b.bound.strangers.seen(crate::peer::At::Lifeline), 0);
    }
}
