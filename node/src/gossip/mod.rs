//! Who is there: chitchat, carried over the peers' own endpoint. The only folder that names chitchat.
//!
//! Gossip says which nodes exist, where, and in which phase. It decides nothing: whoever wires it up
//! hands its findings to the cluster.

mod carrier;
mod members;
mod seeds;

pub(crate) use carrier::Wire;
pub(crate) use seeds::resolve;

use carrier::Carrier;
use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use proto::core::view::{Member, Phase};
use proto::id::Incarnation;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// Up to about ten nodes; a change is everywhere after two or three rounds.
const INTERVAL: Duration = Duration::from_millis(200);
/// chitchat's phi grows linearly with silence: at 50 a node is dead after 4.5 to 6 s of it. Lower,
/// and a node that stalls for a second is convicted.
const PHI_THRESHOLD: f64 = 50.0;
const SAMPLING_WINDOW: usize = 200;
const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// How long the dead are remembered.
const GRACE: Duration = Duration::from_secs(15 * 60);

/// Members with the number of sessions that each owns.
pub(crate) type Census = Vec<(Member, u32)>;

/// This node's part in the gossip.
pub(crate) struct Gossip {
    handle: Arc<ChitchatHandle>,
    census: watch::Receiver<Census>,
    tasks: Vec<JoinHandle<()>>,
}

impl Gossip {
    /// Begins to gossip as `me`.
    pub(crate) async fn start(
        me: &Member,
        cluster: String,
        seeds: Vec<String>,
        wire: Wire,
    ) -> anyhow::Result<Self> {
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(me.name.as_str(), me.node.inc.0, me.peer),
            cluster_id: cluster,
            gossip_interval: INTERVAL,
            listen_addr: me.peer,
            seed_nodes: Vec::new(), // `seeds` looks after them, and resolves them more often
            failure_detector_config: FailureDetectorConfig::new(
                PHI_THRESHOLD,
                SAMPLING_WINDOW,
                HEARTBEAT_INTERVAL_MAX,
                INTERVAL,
                GRACE,
            ),
            marked_for_deletion_grace_period: GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let handle = Arc::new(spawn_chitchat(config, members::announcement(me), &Carrier::new(wire)).await?);
        let (publish, census) = watch::channel(vec![(me.clone(), 0)]);
        let watching = tokio::spawn(members::watch(handle.chitchat(), publish));
        let seeding = tokio::spawn(seeds::keep_in_touch(handle.clone(), seeds, me.peer, census.clone()));
        Ok(Self { handle, census, tasks: vec![watching, seeding] })
    }

    pub(crate) fn census(&self) -> watch::Receiver<Census> {
        self.census.clone()
    }

    pub(crate) async fn announce_phase(&self, phase: Phase) {
        self.handle
            .with_chitchat(|chitchat| members::announce_phase(chitchat.self_node_state(), phase))
            .await;
    }

    pub(crate) async fn announce_incarnation(&self, inc: Incarnation) {
        self.handle
            .with_chitchat(|chitchat| members::announce_incarnation(chitchat.self_node_state(), inc))
            .await;
    }

    pub(crate) async fn announce_sessions(&self, sessions: u32) {
        self.handle
            .with_chitchat(|chitchat| members::announce_sessions(chitchat.self_node_state(), sessions))
            .await;
    }

    /// Says and hears nothing more.
    pub(crate) fn end(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.handle.abort();
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.end();
    }
}
