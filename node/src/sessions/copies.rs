//! Records on their way: copies to backups, sessions to their next owners.

use super::Sessions;
use crate::peer::{Found, Peers};
use proto::core::custody::{BACKUPS, Parcel};
use proto::core::revival::Revival;
use proto::core::ring::Position;
use proto::core::view::Phase;
use proto::id::{NodeRef, Nonce};
use proto::wire::{Give, GoneWhy, Item, Keep, Recall, Recalled};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet};

/// What has changed is sent together with what else changes in this time.
const GATHER: Duration = Duration::from_millis(2);
/// What was not taken is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Messages under way at once: a node that does not answer must not hold up the others.
const UNDER_WAY_MAX: usize = 32;
/// A new session is told to its client once a backup has it, or after this long: one that would be
/// lost if its owner died now is better than none.
const COPY_TIME_MAX: Duration = Duration::from_millis(200);
/// How long a new owner asks the others for what they know.
const RECALL_TIME_MAX: Duration = Duration::from_millis(400);

impl Sessions {
    /// Sends what is to be sent, for ever.
    pub(crate) async fn send_copies(self: Arc<Self>, peers: Arc<Peers>) -> anyhow::Result<()> {
        let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let mut is_more_to_come = false;
        loop {
            if !is_more_to_come {
                let _ = tokio::time::timeout(LOOK_EVERY, self.table.changed()).await;
            }
            tokio::time::sleep(GATHER).await;
            let parcels = self.table.parcels();
            is_more_to_come = self.table.custody(|custody, now| custody.is_due(now));
            for parcel in parcels {
                let Ok(permit) = room.clone().acquire_owned().await else { break };
                let (sessions, peers) = (self.clone(), peers.clone());
                tokio::spawn(async move {
                    sessions.send_parcel(&peers, parcel).await;
                    drop(permit);
                });
            }
        }
    }

    async fn send_parcel(&self, peers: &Arc<Peers>, parcel: Parcel) {
        let me = self.cluster.me();
        match parcel {
            Parcel::Keep { to, items } => {
                let Some(at) = self.address(to) else { return };
                let keep = Keep { from: me, to, items };
                if peers.keep(to, at, &keep).await {
                    self.table.custody(|custody, now| custody.kept(to, &keep.items, now));
                }
            }
            Parcel::Give { to, record } => {
                let Some(at) = self.address(to) else { return };
                let nonce = record.nonce;
                if peers.give(to, at, &Give { from: me, to, record }).await {
                    self.table.custody(|custody, _| custody.taken(to, nonce));
                }
            }
        }
    }

    /// Waits until a backup has the session's record, or until nobody is likely to take it.
    pub(super) async fn copied(&self, peers: &Arc<Peers>, nonce: Nonce) {
        let Some(record) = self.table.record(nonce).filter(|record| record.keep_s > 0) else { return };
        let mut asked = self.tell_backups(peers, nonce, &Item::Live(record));
        let first = async { while !asked.join_next().await.is_none_or(|kept| kept.unwrap_or(false)) {} };
        if tokio::time::timeout(COPY_TIME_MAX, first).await.is_err() {
            tracing::debug!("a session begins without a copy");
        }
        asked.detach_all(); // the other one goes on by itself
    }

    /// Waits until the backups know that a session has ended, or are not likely to.
    pub(super) async fn end_copied(&self, peers: &Arc<Peers>, nonce: Nonce, why: GoneWhy) {
        let mut asked = self.tell_backups(peers, nonce, &Item::Ended { nonce, why });
        let all = async { while asked.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(COPY_TIME_MAX, all).await;
        asked.detach_all();
    }

    fn tell_backups(&self, peers: &Arc<Peers>, nonce: Nonce, item: &Item) -> JoinSet<bool> {
        let heirs = self.table.custody(|custody, _| custody.heirs().clone());
        let mut asked = JoinSet::new();
        for to in heirs.successors(Position::of_session(nonce)).take(BACKUPS) {
            let Some(at) = self.address(to) else { continue };
            let keep = Keep { from: self.cluster.me(), to, items: vec![item.clone()] };
            let (peers, table) = (peers.clone(), self.table.clone());
            asked.spawn(async move {
                let kept = peers.keep(to, at, &keep).await;
                if kept {
                    table.custody(|custody, now| custody.kept(to, &keep.items, now));
                }
                kept
            });
        }
        asked
    }

    /// What all nodes know of a session, as far as they answer in time. Also those that are over are
    /// asked: their processes may go on.
    pub(super) async fn recall(&self, peers: &Arc<Peers>, nonce: Nonce) -> Revival {
        let (me, world) = (self.cluster.me(), self.cluster.world());
        let mut asked = JoinSet::new();
        for member in world.view.members() {
            let (peers, to, at) = (peers.clone(), member.node, member.peer);
            if to == me || self.cluster.is_gone(to) {
                continue;
            }
            let is_dead = member.phase == Phase::Dead;
            asked.spawn(async move {
                if is_dead && peers.who_is_at(at).await == Found::Refused {
                    return Some(Recalled { item: None });
                }
                peers.recall(to, at, Recall { nonce }).await
            });
        }
        let mut heard = Revival::default();
        let gathering = async {
            while let Some(answer) = asked.join_next().await {
                match answer.ok().flatten() {
                    Some(Recalled { item }) => heard.hear(item),
                    None => heard.miss(),
                }
            }
        };
        if tokio::time::timeout(RECALL_TIME_MAX, gathering).await.is_err() {
            heard.miss();
        }
        // A copy may have come meanwhile.
        heard.hear(self.table.recall(nonce));
        heard
    }

    fn address(&self, node: NodeRef) -> Option<SocketAddr> {
        self.cluster.world().view.get(node).map(|member| member.peer)
    }
}
