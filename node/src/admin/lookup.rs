//! "Who owns this, and why?" Every node answers the same: what only the owner knows is asked of it.

use super::name_of;
use crate::everywhere;
use crate::journey::Journey;
use proto::core::{ring::Position, route::OnLoss, succession::Owner, view::Phase};
use proto::id::{NodeRef, Nonce, OpenError, SessionId, shortened};
use proto::wire::{Came, Explained, GoneWhy, SessionState};
use serde_json::{Value, json};
use std::sync::Arc;

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

pub(super) async fn answer(journey: &Arc<Journey>, question: &Question) -> Value {
    match question {
        Question::Key(key) => by_key(journey, key),
        Question::Session(text) => match open(journey, text).await {
            Ok(id) => by_session(journey, text, &id).await,
            Err(why) => json!({
                "key": text, "valid": false, "home": null, "successors": [], "owner": null, "epoch": null,
                "route": null, "state": "unknown", "position": null, "why": why,
            }),
        },
    }
}

/// Reads a session id, or the part of one that the list of sessions shows; or says why it is none.
pub(super) async fn open(journey: &Arc<Journey>, text: &str) -> Result<SessionId, String> {
    let error = match journey.cluster.seal().open(text) {
        Ok(id) => return Ok(id),
        Err(error) => error,
    };
    if let Some(nonce) = Nonce::of_text(text).filter(|_| shortened(text) == text) {
        let (birth, unreachable) = everywhere::find(journey, nonce).await;
        return match birth {
            Some(birth) => Ok(SessionId { nonce, birth }),
            None if unreachable.is_empty() => {
                Err("No node serves a session whose id begins like this. Ask with \
                                                   the whole id: that says what became of it."
                    .to_owned())
            }
            None => {
                let silent: Vec<_> = unreachable.iter().map(ToString::to_string).collect();
                let silent = silent.join(", ");
                Err(format!(
                    "No node that answers serves a session whose id begins like this; {silent} did not."
                ))
            }
        };
    }
    Err(match error {
        OpenError::Malformed => "This is not a session id of Ringway's.",
        OpenError::Forged => {
            "The seal does not open: minted by another cluster, altered, or sealed under a secret that this node \
             has no more."
        }
    }
    .to_owned())
}

fn by_key(journey: &Journey, key: &str) -> Value {
    let position = Position::of_key(key.as_bytes());
    let successors = successors(journey, position);
    let owner = successors.first().cloned();
    let why = match &owner {
        Some(owner) => format!("The ring gives this key to {owner}; it moves when the ring changes."),
        None => "No node is active, so the ring is empty.".to_owned(),
    };
    json!({
        "key": key, "valid": true, "home": owner, "successors": successors, "owner": owner, "epoch": null,
        "state": if owner.is_some() { "live" } else { "unknown" }, "position": position.fraction(),
        "why": why,
    })
}

pub(super) async fn by_session(journey: &Journey, text: &str, id: &SessionId) -> Value {
    let found = find(journey, id).await;
    let route = journey.sessions.path(id.birth.route);
    let (way, Found { state, owner, epoch, story, .. }) = (way(journey, id, &found), found);
    let elsewhere = if route.is_none() { ", and no route of this node is its own" } else { "" };
    let position = Position::of_session(id.nonce);
    json!({
        "key": text, "valid": true, "home": name_of(journey, id.birth.home),
        "successors": successors(journey, position), "position": position.fraction(),
        "owner": owner.map(|owner| name_of(journey, owner)), "epoch": epoch, "route": route, "state": state,
        "why": format!("{way}; {story}{elsewhere}."),
    })
}

/// How it came to where it is, and by which rule.
fn way(journey: &Journey, id: &SessionId, found: &Found) -> String {
    let line = journey.cluster.world().succession.line(id.birth.home, Position::of_session(id.nonce));
    let (home, name) = (id.birth.home, |node| told_name(journey, node));
    let Some(owner) = found.owner else { return format!("It was born on {}", name(home)) };
    let born = name(home);
    if owner == home {
        return format!("It lives on {born}, where it was born: nothing moves a session whose home lives");
    }
    // By the verdicts; a node that leaves has given it away before there is one about itself.
    let before = line.iter().position(|node| *node == owner).and_then(|at| at.checked_sub(1));
    let before = name(before.map_or_else(|| line.last().copied().unwrap_or(home), |at| line[at]));
    let owner = name(owner);
    match found.came {
        Some(Came::Given) => format!("It was born on {born}, and {before} handed it to {owner} when it left"),
        Some(Came::Inherited) => {
            format!(
                "It was born on {born}, and {owner} took it over, with its copy, after {before} was found dead"
            )
        }
        Some(Came::Born | Came::Revived) | None => {
            format!(
                "It was born on {born}, and the verdict on {before}, which was found dead or has left, gives it to {owner}"
            )
        }
    }
}

/// A node's name, and whether that has started anew since.
fn told_name(journey: &Journey, node: NodeRef) -> String {
    let (name, world) = (name_of(journey, node), journey.cluster.world());
    match world.view.by_tag(node.tag) {
        // One that has left has become another one for its last moments.
        Some(member) if member.node.inc > node.inc && member.phase != Phase::Dead => {
            format!("an earlier {name}")
        }
        Some(_) | None => name,
    }
}

/// What is known of a session.
struct Found {
    state: &'static str,
    owner: Option<NodeRef>,
    epoch: Option<u32>,
    came: Option<Came>,
    story: &'static str,
}

impl Found {
    fn nobody(state: &'static str, story: &'static str) -> Self {
        Self { state, owner: None, epoch: None, came: None, story }
    }

    fn at(owner: NodeRef, epoch: u32, state: &'static str, story: &'static str) -> Self {
        Self { state, owner: Some(owner), epoch: Some(epoch), came: None, story }
    }

    fn said(by: Owner, Explained { state, came }: Explained, id: &SessionId, journey: &Journey) -> Self {
        match state {
            SessionState::Live { epoch } => {
                Self { came, ..Self::at(by.node, epoch, "live", "it is being used") }
            }
            SessionState::Idle { epoch, .. } => {
                Self { came, ..Self::at(by.node, epoch, "idle", "nobody has used it for a while") }
            }
            SessionState::Moved { to } => Self {
                came: Some(Came::Given),
                ..Self::at(to, by.epoch + 1, "live", "it was given there a moment ago")
            },
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
                    GoneWhy::Operator => ("closed", "an operator ended it"),
                    GoneWhy::Expired => ("expired", "it idled for longer than its route allows"),
                    GoneWhy::LostUpstream => ("lost", "its upstream has forgotten it"),
                    GoneWhy::LostOwner => ("lost", "its owner is gone"),
                    GoneWhy::Unknown | GoneWhy::Forged | GoneWhy::OtherRoute | GoneWhy::Foreign => {
                        ("unknown", "it ended too long ago to say how")
                    }
                };
                Self::nobody(state, story)
            }
        }
    }
}

async fn find(journey: &Journey, id: &SessionId) -> Found {
    let (me, world) = (journey.cluster.me(), journey.cluster.world());
    let owner = world.succession.owner(id.birth.home, Position::of_session(id.nonce));
    let ask = async |node: NodeRef| match world.view.get(node) {
        _ if node == me => Some(journey.sessions.explain(id.nonce)),
        Some(member) if member.phase != Phase::Dead => {
            journey.peers.explain(node, member.peer, id.nonce).await
        }
        Some(_) | None => None,
    };
    match ask(owner.node).await {
        // Asked on, so that every node says the same.
        Some(moved @ Explained { state: SessionState::Moved { to }, .. }) => {
            let taker = Owner { node: to, epoch: owner.epoch + 1 };
            Found::said(taker, ask(to).await.unwrap_or(moved), id, journey)
        }
        Some(said) => Found::said(owner, said, id, journey),
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
