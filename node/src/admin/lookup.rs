//! "Who owns this, and why?" Every node answers the same: what only the owner knows is asked of it.

use super::name_of;
use crate::journey::Journey;
use proto::core::{ring::Position, view::Phase};
use proto::id::{OpenError, SessionId};
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
    let birth = &id.birth;
    let home = name_of(journey, birth.home);
    let (state, owner, why) = match state(journey, text, id).await {
        Known::Said(SessionState::Live) => {
            ("live", Some(&home), format!("It was born on {home}, which lives and serves it."))
        }
        Known::Said(SessionState::Idle { .. }) => (
            "idle",
            Some(&home),
            format!("It was born on {home}, which lives and holds it; nobody has used it for a while."),
        ),
        Known::Said(SessionState::Ended(why)) => {
            let (state, story) = match why {
                GoneWhy::Deleted => ("closed", "its client ended it"),
                GoneWhy::Expired => ("expired", "it idled for longer than its route allows"),
                GoneWhy::LostUpstream => ("lost", "its upstream has forgotten it"),
                GoneWhy::LostOwner => ("lost", "its owner is gone"),
                GoneWhy::Unknown | GoneWhy::Forged | GoneWhy::OtherRoute => {
                    ("unknown", "it ended too long ago to say how")
                }
            };
            (state, None, format!("It was born on {home}, which lives; {story}."))
        }
        Known::Silent => ("unknown", None, format!("Its home {home} is a member, but does not answer.")),
        Known::Superseded => {
            ("lost", None, format!("It was born on {home}, which has been restarted since."))
        }
        Known::Gone => ("lost", None, format!("It was born on {home}, which is gone.")),
        Known::Unsettled => {
            ("unknown", None, format!("Its home {home} is not there; whether for good is not settled yet."))
        }
    };
    json!({
        "key": text, "valid": true, "home": home,
        "successors": successors(journey, Position::of_session(id.nonce)),
        "owner": owner, "epoch": 1, "state": state, "why": why,
    })
}

enum Known {
    /// By its home.
    Said(SessionState),
    Silent,
    Superseded,
    Gone,
    Unsettled,
}

async fn state(journey: &Journey, text: &str, id: &SessionId) -> Known {
    let home = id.birth.home;
    if home == journey.cluster.me() {
        return Known::Said(journey.sessions.state(id));
    }
    let world = journey.cluster.world();
    match world.view.by_tag(home.tag) {
        Some(member) if member.node.inc > home.inc => Known::Superseded,
        Some(member) if member.node == home && member.phase != Phase::Dead => {
            let said = journey.peers.locate(home, member.peer, text).await;
            said.map_or(Known::Silent, Known::Said)
        }
        Some(_) | None if journey.cluster.settled() => Known::Gone,
        Some(_) | None => Known::Unsettled,
    }
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
