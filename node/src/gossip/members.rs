//! Between chitchat's key-value states and members.

use super::Census;
use chitchat::{Chitchat, ChitchatId, NodeState};
use proto::core::view::{Member, Phase};
use proto::id::{Incarnation, NodeName, NodeRef, Tag};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, watch};

const INCARNATION: &str = "incarnation";
const PHASE: &str = "phase";
const LISTEN: &str = "listen";
const ADMIN: &str = "admin";
const VERSION: &str = "version";
const SESSIONS: &str = "sessions";

/// Deaths and what is forgotten are looked for this often; joins and changes are told at once.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Ten rounds of gossip: time for a newcomer's first beats.
const NEWCOMER_FOR: Duration = Duration::from_secs(2);

/// What a node says of itself when it begins to gossip.
pub(super) fn announcement(me: &Member) -> Vec<(String, String)> {
    [
        (INCARNATION, me.node.inc.0.to_string()),
        (PHASE, me.phase.word().to_owned()),
        (LISTEN, me.listen.to_string()),
        (ADMIN, me.admin.to_string()),
        (VERSION, me.version.clone()),
        (SESSIONS, "0".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

/// Saying the same again costs nothing: chitchat sends what has changed.
pub(super) fn announce_phase(me: &mut NodeState, phase: Phase) {
    me.set(PHASE, phase.word());
}

pub(super) fn announce_incarnation(me: &mut NodeState, inc: Incarnation) {
    me.set(INCARNATION, inc.0);
}

pub(super) fn announce_sessions(me: &mut NodeState, sessions: u32) {
    me.set(SESSIONS, sessions);
}

/// Publishes the members whenever something about them changes.
pub(super) async fn watch(chitchat: Arc<Mutex<Chitchat>>, publish: watch::Sender<Census>) {
    let mut live = chitchat.lock().await.live_nodes_watcher();
    let mut heard = Heard::default();
    loop {
        let census = heard.census(&*chitchat.lock().await);
        publish.send_if_modified(|known| {
            let modified = *known != census;
            if modified {
                *known = census;
            }
            modified
        });
        // Whether it is a change or the time that ends the wait, the next step is to look.
        let _ = tokio::time::timeout(LOOK_EVERY, live.changed()).await;
    }
}

/// Since when each node has been heard of. chitchat calls a node dead until it has felt a few beats
/// of its heart, which for a newcomer means only that it is new.
#[derive(Default)]
struct Heard(BTreeMap<ChitchatId, Instant>);

impl Heard {
    fn census(&mut self, chitchat: &Chitchat) -> Census {
        self.0.retain(|id, _| chitchat.node_state(id).is_some());
        let mut census = Census::new();
        for (id, dead) in
            chitchat.live_nodes().map(|id| (id, false)).chain(chitchat.dead_nodes().map(|id| (id, true)))
        {
            let since = *self.0.entry(id.clone()).or_insert_with(Instant::now);
            if dead && since.elapsed() < NEWCOMER_FOR {
                continue;
            }
            census.extend(chitchat.node_state(id).and_then(|state| member(id, state, dead)));
        }
        census.sort_by(|(a, _), (b, _)| (&a.name, a.node.inc).cmp(&(&b.name, b.node.inc)));
        census
    }
}

/// `None` while the node has not told everything yet, or tells what nobody can use.
fn member(id: &ChitchatId, state: &NodeState, dead: bool) -> Option<(Member, u32)> {
    let name: NodeName = id.node_id.parse().ok()?;
    let address = |key| state.get(key)?.parse::<SocketAddr>().ok();
    let phase = Phase::from_word(state.get(PHASE)?)?;
    // A process may go on under another incarnation than the one that chitchat knows it by.
    let inc = Incarnation(state.get(INCARNATION)?.parse().ok()?);
    let member = Member {
        node: NodeRef { tag: Tag::of(crate::config::CLUSTER, &name), inc },
        name,
        phase: if dead { Phase::Dead } else { phase },
        listen: address(LISTEN)?,
        peer: id.gossip_advertise_addr,
        admin: address(ADMIN)?,
        version: state.get(VERSION)?.to_owned(),
    };
    let sessions = state.get(SESSIONS).and_then(|count| count.parse().ok()).unwrap_or(0);
    Some((member, sessions))
}
