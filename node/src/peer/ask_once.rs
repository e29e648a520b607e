//! Short questions between nodes: one message there, one back.

use super::frames::{Reader, Writer};
use super::link::Peers;
use proto::id::NodeRef;
use proto::wire::{
    Give, Keep, Kept, Lane, Locate, Located, Message, Recall, Recalled, SessionState, StreamCode, Taken,
};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// All of these are answered from memory; a node that takes longer is said not to answer.
const TIME_MAX: Duration = Duration::from_secs(3);

impl Peers {
    /// What a node knows of a session.
    pub(crate) async fn locate(
        self: &Arc<Self>,
        to: NodeRef,
        at: SocketAddr,
        session: &str,
    ) -> Option<SessionState> {
        self.ask_once(to, at, &Locate { session }).await.map(|Located { state }| state)
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
