//! "Who owns this, and why?" Every node answers the same: what only the owner knows is asked of it.

use super::name_of;
use crate::journey::Journey;
use proto::core::{ring::Position, route::OnLoss, succession::Owner, view::Phase};
use proto::id::{NodeRef, OpenError, SessionId};
use proto::wire::{GoneWhy, SessionState};
use serde_json::{Value, json};

/// Owner and copies: what placement goes by.
const SUCCESSORS_SHOWN: usize = 3;

pub(super) enum Question {
    Session(String),
    Key(String),
}

/// Reads `session=ID` or `key=K`.
pub(super) fn question(query: &str) -> Result<Question, &'static str> {
    let value = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    match (value("session"), value("key")) {
        (Some(id), None) => Ok(Question::Session(id)),
        (None, Some(key)) => Ok(Question::Key(key)),
        (None, None) | (Some(_), Some(_)) => Err("name one of session=ID and key=KEY"),
    }
}

pub(super) async fn answer(journey: &Journey, question: &Question) -> Value {
    match question {
        Question::Key(key) => by_key(journey, key),
        Question::Session(text) => match journey.cluster.seal().open(text) {
            Ok(id) => by_session(journey, text, &id).await,
            Err(error) => {
                let why = match error {
                    OpenError::Malformed => "This is not a session id of Ringway's.",
                    OpenError::Forged => "The seal does not open: minted by another cluster, or altered.",
                };
                json!({
                    "key": text, "valid": false, "home": null, "successors": [], "owner": null, "epoch": null,
                    "state": "unknown", "why": why,
                })
            }
        },
    }
}

fn by_key(journey: &Journey, key: &str) -> Value {
    let successors = successors(journey, Position::of_key(key.as_bytes()));
    let owner = successors.first().cloned();
    let why = match &owner {
        Some(owner) => format!("The ring gives this key to {owner}; it moves when the ring changes."),
        None => "No node is active, so the ring is empty.".to_owned(),
    };
    json!({
        "key": key, "valid": true, "home": owner, "successors": successors, "owner": owner, "epoch": null,
        "state": if owner.is_some() { "live" } else { "unknown" }, "why": why,
    })
}

async fn by_session(journey: &Journey, text: &str, id: &SessionId) -> Value {
    let home = name_of(journey, id.birth.home);
    let Found { state, owner, epoch, story } = find(journey, text, id).await;
    let owner = owner.map(|owner| name_of(journey, owner));
    let born = match (&owner, epoch) {
        (Some(owner), Some(2..)) => format!("It was born on {home}, and {owner} has taken it over"),
        (Some(_), _) => format!("It was born on {home}, which lives"),
        (None, _) => format!("It was born on {home}"),
    };
    json!({
        "key": text, "valid": true, "home": home,
        "successors": successors(journey, Position::of_session(id.nonce)),
        "owner": owner, "epoch": epoch, "state": state, "why": format!("{born}; {story}."),
    })
}

/// What is known of a session.
struct Found {
    state: &'static str,
    owner: Option<NodeRef>,
    epoch: Option<u32>,
    story: &'static str,
}

impl Found {
    fn nobody(state: &'static str, story: &'static str) -> Self {
        Self { state, owner: None, epoch: None, story }
    }

    fn at(owner: NodeRef, epoch: u32, state: &'static str, story: &'static str) -> Self {
        Self { state, owner: Some(owner), epoch: Some(epoch), story }
    }

    fn said(by: Owner, state: SessionState, id: &SessionId, journey: &Journey) -> Self {
        match state {
            SessionState::Live { epoch } => Self::at(by.node, epoch, "live", "it is being used"),
            SessionState::Idle { epoch, .. } => {
                Self::at(by.node, epoch, "idle", "nobody has used it for a while")
            }
            SessionState::Moved { to } => {
                Self::at(to, by.epoch + 1, "live", "it was given there a moment ago")
            }
            SessionState::Ended(GoneWhy::Unknown) if by.epoch > 1 => match on_loss(journey, id) {
                Some(OnLoss::Reinitialize) => {
                    Self::at(by.node, by.epoch, "idle", "nobody has asked for it since its last owner went")
                }
                Some(OnLoss::Expire) | None => {
                    Self::nobody("lost", "its owner is gone, and its route lets sessions go with it")
                }
            },
            SessionState::Ended(why) => {
                let (state, story) = match why {
                    GoneWhy::Deleted => ("closed", "its client ended it"),
                    GoneWhy::Expired => ("expired", "it idled for longer than its route allows"),
                    GoneWhy::LostUpstream => ("lost", "its upstream has forgotten it"),
                    GoneWhy::LostOwner => ("lost", "its owner is gone"),
                    GoneWhy::Unknown | GoneWhy::Forged | GoneWhy::OtherRoute => {
                        ("unknown", "it ended too long ago to say how")
                    }
                };
                Self::nobody(state, story)
            }
        }
    }
}

async fn find(journey: &Journey, text: &str, id: &SessionId) -> Found {
    let (me, world) = (journey.cluster.me(), journey.cluster.world());
    let owner = world.succession.owner(id.birth.home, Position::of_session(id.nonce));
    let ask = async |node: NodeRef| match world.view.get(node) {
        _ if node == me => Some(journey.sessions.state(id)),
        Some(member) if member.phase != Phase::Dead => journey.peers.locate(node, member.peer, text).await,
        Some(_) | None => None,
    };
    match ask(owner.node).await {
        // Asked on, so that every node says the same.
        Some(SessionState::Moved { to }) => {
            let taker = Owner { node: to, epoch: owner.epoch + 1 };
            let state = ask(to).await.unwrap_or(SessionState::Moved { to });
            Found::said(taker, state, id, journey)
        }
        Some(state) => Found::said(owner, state, id, journey),
        None => {
            let story = match world.view.get(owner.node) {
                Some(member) if member.phase != Phase::Dead => "its owner is a member, but does not answer",
                Some(_) | None => "its owner is not there; whether for good is not settled yet",
            };
            Found::nobody("unknown", story)
        }
    }
}

fn on_loss(journey: &Journey, id: &SessionId) -> Option<OnLoss> {
    journey.sessions.route(id.birth.route).map(|route| route.on_loss)
}

fn successors(journey: &Journey, position: Position) -> Vec<String> {
    let world = journey.cluster.world();
    world.ring.successors(position).take(SUCCESSORS_SHOWN).map(|node| name_of(journey, node)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_one_thing() {
        assert!(matches!(question("session=rw1.x"), Ok(Question::Session(id)) if id == "rw1.x"));
        assert!(matches!(question("key=a%20b+c%zz"), Ok(Question::Key(key)) if key == "a b c%zz"));
        assert!(question("").is_err());
        assert!(question("session=a&key=b").is_err());
    }
}
