//! The sessions of this node as operators see them, and an operator's word that one shall end.

use super::{GoneWhy, Sessions};
use crate::config::Route;
use crate::mcp;
use proto::core::revival::Found;
use proto::core::ring::Position;
use proto::id::{Birth, Nonce, RouteId, SessionId};
use proto::wire::{
    CLIENT_LEN_MAX, EndOutcome, Explained, Item, LISTED_LEN_MAX, List, Listed, Record, Seen, SessionState,
    Whose,
};
use serde_json::Value;
use std::sync::Arc;

impl Sessions {
    /// From one nonce on, as many as are asked for or fit an answer.
    pub(crate) fn list(&self, List { from, most }: List) -> Listed {
        // One more, which tells that there are more.
        let (digest, rows) = self.table.list(from, usize::from(most) + 1, &self.cluster.world().succession);
        let (mut sessions, mut len) = (Vec::new(), 0);
        for row in &rows {
            let seen = self.seen(row);
            len += seen.wire_len();
            if sessions.len() == usize::from(most) || (len > LISTED_LEN_MAX && !sessions.is_empty()) {
                break;
            }
            sessions.push(seen);
        }
        let more = sessions.len() < rows.len();
        Listed { digest, sessions, more }
    }

    pub(crate) fn explain(&self, nonce: Nonce) -> Explained {
        self.table.explain(nonce)
    }

    /// The path of a route.
    pub(crate) fn path(&self, id: RouteId) -> Option<&str> {
        self.route(id).map(|route| route.path.as_str())
    }

    /// Ends a session by an operator's word, if it is this node's: its client is answered 404 from now on.
    pub(crate) async fn end_by_operator(self: &Arc<Self>, nonce: Nonce, birth: Birth) -> EndOutcome {
        let owner = self.cluster.world().succession.owner(birth.home, Position::of_session(nonce));
        match self.table.explain(nonce).state {
            SessionState::Live { .. } | SessionState::Idle { .. } if self.cluster.is_leased() => {}
            SessionState::Live { .. } | SessionState::Idle { .. } => return EndOutcome::Unsettled,
            SessionState::Moved { to } => return EndOutcome::Elsewhere(Some(to)),
            SessionState::Ended(GoneWhy::Unknown) if owner.node != self.cluster.me() => {
                return EndOutcome::Elsewhere(Some(owner.node));
            }
            // This node owns it since another one is over, and nobody has asked for it since.
            SessionState::Ended(GoneWhy::Unknown) if owner.epoch > 1 => {
                let Some(route) = self.route(birth.route).cloned() else {
                    return EndOutcome::Gone(GoneWhy::OtherRoute);
                };
                if let Some(outcome) = self.find_to_end(&route, SessionId { nonce, birth }).await {
                    return outcome;
                }
            }
            SessionState::Ended(why) => return EndOutcome::Gone(why),
        }
        let Some(live) = self.table.end(nonce, GoneWhy::Operator) else { return EndOutcome::Unsettled };
        self.metrics.session_ended(GoneWhy::Operator.word());
        self.publish_count();
        self.end_upstream_soon(vec![live]);
        self.end_copied(&self.peers, nonce, GoneWhy::Operator).await;
        EndOutcome::Ended
    }

    /// Takes up what there is of a session, so that it can be ended; or says why there is nothing to end.
    async fn find_to_end(self: &Arc<Self>, route: &Arc<Route>, id: SessionId) -> Option<EndOutcome> {
        let heard = self.recall(&self.peers, id.nonce).await;
        let owner = self.cluster.world().succession.owner(id.birth.home, Position::of_session(id.nonce));
        if owner.node != self.cluster.me() || !self.cluster.is_leased() {
            return Some(EndOutcome::Unsettled);
        }
        let record = match heard.conclude(owner.epoch, self.cluster.settled()) {
            Found::Record(record) => record,
            Found::Ended(why) => {
                self.keep_items(owner.node, &[Item::Ended { nonce: id.nonce, why }]);
                return Some(EndOutcome::Gone(why));
            }
            Found::Nothing if id.birth.upstream.is_none() => {
                return Some(EndOutcome::Gone(GoneWhy::LostOwner));
            }
            Found::Nothing => self.record(route, &id, owner.epoch, &[]),
            Found::Unsure => return Some(EndOutcome::Unsettled),
        };
        let place = self.place(route, &record);
        self.table.find(owner.node, record, route.clone(), place);
        None
    }

    fn seen(&self, row: &Row) -> Seen {
        let Row { record, whose, served } = row;
        let said = serde_json::from_slice::<Value>(&record.initialize).unwrap_or_default();
        let asked_for = said["params"]["protocolVersion"].as_str();
        let served = served.unwrap_or_default();
        let protocol = served.protocol.or_else(|| mcp::Revision::named(asked_for?));
        Seen {
            nonce: record.nonce,
            birth: record.birth.clone(),
            epoch: record.epoch,
            whose: *whose,
            is_idle: served.is_idle || matches!(whose, Whose::Kept { .. }),
            idle_s: served.idle_s,
            streams: served.streams,
            client: client(&said["params"]["clientInfo"]),
            protocol: protocol.map(|revision| Arc::from(revision.name())),
        }
    }
}

/// One session of the table's.
pub(super) struct Row {
    pub(super) record: Arc<Record>,
    pub(super) whose: Whose,
    /// `None` where this node does not own it.
    pub(super) served: Option<Served>,
}

/// How a session is being served.
#[derive(Clone, Copy, Default)]
pub(super) struct Served {
    pub(super) is_idle: bool,
    pub(super) idle_s: u32,
    pub(super) streams: u32,
    pub(super) protocol: Option<mcp::Revision>,
}

/// `name/version`, as a client calls itself.
fn client(info: &Value) -> Option<Arc<str>> {
    let word = |key: &str| {
        // What would change a terminal's colours is no name.
        let plain = info[key].as_str()?.chars().filter(|c| !c.is_control());
        let mut word = String::new();
        for c in plain {
            if word.len() + c.len_utf8() > CLIENT_LEN_MAX {
                break;
            }
            word.push(c);
        }
        Some(word).filter(|word| !word.is_empty())
    };
    let name = word("name")?;
    Some(word("version").map_or_else(|| name.clone(), |version| format!("{name}/{version}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_client_is_called_what_it_calls_itself_but_not_at_any_length() {
        let named = |info| client(&info).map(|client| client.to_string());
        assert_eq!(named(json!({"name": "curl", "version": "8"})).as_deref(), Some("curl/8"));
        assert_eq!(named(json!({"name": "curl"})).as_deref(), Some("curl"));
        assert_eq!(named(json!({"name": "\u{1b}[31mred"})).as_deref(), Some("[31mred"));
        assert_eq!(named(json!({"version": "8"})), None);
        assert_eq!(named(json!(7)), None);
        let long = named(json!({"name": "\u{e4}".repeat(99), "version": "9".repeat(99)})).expect("a name");
        assert_eq!(long.len(), 2 * CLIENT_LEN_MAX + 1);
    }
}
