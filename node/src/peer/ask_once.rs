//! Short questions between nodes: one message there, one back.

use super::frames::{Reader, Writer};
use super::link::Peers;
use proto::id::{NodeRef, Nonce};
use proto::wire::{
    Count, Counted, End, EndAnswer, EndOutcome, Explain, Explained, Give, Keep, Kept, Lane, List, Listed,
    Message, Recall, Recalled, StreamCode, Taken,
};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// All of these are answered from memory; a node that takes longer is said not to answer.
const TIME_MAX: Duration = Duration::from_secs(3);

impl Peers {
    /// What a node knows of a session.
    pub(crate) async fn explain(
        self: &Arc<Self>,
        to: NodeRef,
        at: SocketAddr,
        nonce: Nonce,
    ) -> Option<Explained> {
        self.ask_once(to, at, &Explain { nonce }).await
    }

    /// Some of a node's sessions.
    pub(crate) async fn list(self: &Arc<Self>, to: NodeRef, at: SocketAddr, list: List) -> Option<Listed> {
        self.ask_once(to, at, &list).await
    }

    /// How much a node has to do.
    pub(crate) async fn count(self: &Arc<Self>, to: NodeRef, at: SocketAddr) -> Option<Counted> {
        self.ask_once(to, at, &Count {}).await
    }

    /// Has a node end a session.
    pub(crate) async fn end(self: &Arc<Self>, to: NodeRef, at: SocketAddr, end: &End) -> Option<EndOutcome> {
        self.ask_once(to, at, end).await.map(|EndAnswer { outcome }| outcome)
    }

    /// Hands a backup what it shall keep; whether it has it.
    pub(crate) async fn keep(self: &Arc<Self>, to: NodeRef, at: SocketAddr, keep: &Keep) -> bool {
        self.ask_once::<_, Kept>(to, at, keep).await.is_some()
    }

    /// Gives a session away; whether it was taken.
    pub(crate) async fn give(self: &Arc<Self>, to: NodeRef, at: SocketAddr, give: &Give) -> bool {
        self.ask_once::<_, Taken>(to, at, give).await.is_some()
    }

    /// What a node has of a session; `None` where it could not be asked.
    pub(crate) async fn recall(
        self: &Arc<Self>,
        to: NodeRef,
        at: SocketAddr,
        recall: Recall,
    ) -> Option<Recalled> {
        self.ask_once(to, at, &recall).await
    }

    async fn ask_once<Q, A>(self: &Arc<Self>, to: NodeRef, at: SocketAddr, question: &Q) -> Option<A>
    where
        Q: Message + Serialize,
        A: Message + for<'a> Deserialize<'a>,
    {
        let asking = async {
            let slot = self.slot(at, Lane::Calls).await.ok().filter(|slot| slot.node() == to)?;
            let (send, recv) = slot.connection().open_bi().await.ok()?;
            let mut writer = Writer::new(send, StreamCode::ClientGone);
            writer.message(question).await.ok()?;
            writer.finish();
            Reader::new(recv).frame().await.ok()?.read::<A>().ok()
        };
        tokio::time::timeout(TIME_MAX, asking).await.ok()?
    }
}
