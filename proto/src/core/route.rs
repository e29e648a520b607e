//! Who answers a request: the decision of the whole journey, as one pure function.

use super::{
    ring::{Position, Ring},
    view::{Phase, View},
};
use crate::id::{Birth, NodeRef};
use crate::wire::{GoneWhy, NotHere, NotHereWhy, Reason, Refusal};

/// What a request asks for, as far as routing cares.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// A new session; `chosen` is where placement wants it, if there is anybody to want.
    Open { chosen: Option<NodeRef> },
    /// The session that was born so.
    Session(&'a Birth),
    /// Whoever the ring gives this key to.
    Key(Position),
    /// Any node will do.
    Anyone,
}

/// How the request came to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// From a client: this is the entry node, and the only one that may send it on.
    Entry,
    /// From another node; `same_view` when that node decided by the view that this one has.
    Forwarded { same_view: bool },
}

/// What this node knows of the session that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    Live,
    Ended(GoneWhy),
    Unknown,
}

/// What the route says should happen to a session whose owner is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    Reinitialize,
    Expire,
}

/// Everything the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub me: NodeRef,
    pub my_phase: Phase,
    pub view: &'a View,
    pub ring: &'a Ring,
    /// The view has not changed for a while: what it says of the dead may be acted on.
    pub settled: bool,
    /// Seconds since the Unix epoch, by this node's clock.
    pub now_s: u32,
    pub hop: Hop,
    /// Nodes that did not serve this request, in this round.
    pub tried: &'a [NodeRef],
    /// Where the last of them pointed to.
    pub hint: Option<NodeRef>,
    pub holding: Holding,
    pub on_loss: OnLoss,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// This node, from its upstream.
    Here,
    /// This node, by opening a session at its upstream.
    Open,
    /// That node.
    There(NodeRef),
    /// Nobody yet: ask again when the view has changed, or after a pause.
    Wait,
    /// Not this node; the entry node shall look again.
    NotHere(NotHere),
    /// Nobody.
    Refuse(Refusal),
}

/// How long the news of a node may take to reach the last of 1,000, clocks apart included: gossip
/// needs about 10 rounds of a second.
const NEWS_S: u32 = 15;

pub fn route(ask: Ask<'_>, situation: &Situation<'_>) -> Route {
    match ask {
        Ask::Open { chosen } => open(chosen, situation),
        Ask::Session(birth) => session(birth, situation),
        Ask::Key(position) => key(position, situation),
        Ask::Anyone => Route::Here,
    }
}

fn open(chosen: Option<NodeRef>, situation: &Situation<'_>) -> Route {
    match (situation.hop, situation.my_phase) {
        (Hop::Entry, phase) => match chosen {
            Some(node) if node == situation.me => Route::Open,
            Some(node) => Route::There(node),
            // Draining alone: a session that may not outlive this node is better than none.
            None if phase == Phase::Draining => Route::Open,
            None => Route::Wait,
        },
        (Hop::Forwarded { .. }, Phase::Active | Phase::Joining) => Route::Open,
        (Hop::Forwarded { .. }, Phase::Draining | Phase::Dead) => {
            Route::NotHere(NotHere { hint: None, why: NotHereWhy::Draining })
        }
    }
}

fn session(birth: &Birth, situation: &Situation<'_>) -> Route {
    let home = birth.home;
    if home == situation.me {
        return match situation.holding {
            Holding::Live => Route::Here,
            Holding::Ended(why) => Route::Refuse(Refusal::Gone(why)),
            Holding::Unknown => Route::Refuse(Refusal::Gone(GoneWhy::Unknown)),
        };
    }
    if let Hop::Forwarded { .. } = situation.hop {
        let superseded = home.tag == situation.me.tag;
        let why = if superseded { NotHereWhy::Superseded } else { NotHereWhy::NotMine };
        let hint = (!superseded && is_serving(home, situation.view)).then_some(home);
        return Route::NotHere(NotHere { hint, why });
    }
    match situation.view.by_tag(home.tag) {
        // A later start under its name is proof that the home is gone.
        Some(member) if member.node.inc > home.inc => lost(situation.on_loss),
        Some(member) if member.node == home && member.phase != Phase::Dead => {
            if situation.tried.contains(&home) { Route::Wait } else { Route::There(home) }
        }
        Some(member) if member.node == home && situation.settled => lost(situation.on_loss),
        // A home never heard of may have joined a moment ago, and its news be on the way.
        Some(_) | None if situation.settled && situation.now_s > birth.minted_s.saturating_add(NEWS_S) => {
            lost(situation.on_loss)
        }
        Some(_) | None => Route::Wait,
    }
}

fn key(position: Position, situation: &Situation<'_>) -> Route {
    if let Hop::Forwarded { same_view } = situation.hop {
        let owner = situation.ring.owner(position);
        // By the same view the entry node knew what it did: the owner itself may be out of its reach.
        return if same_view || owner == Some(situation.me) {
            Route::Here
        } else {
            Route::NotHere(NotHere { hint: owner, why: NotHereWhy::NotMine })
        };
    }
    let untried = |node: &NodeRef| !situation.tried.contains(node);
    let hinted = situation.hint.filter(|node| is_serving(*node, situation.view));
    match hinted.into_iter().chain(situation.ring.successors(position)).find(untried) {
        Some(node) if node == situation.me => Route::Here,
        Some(node) => Route::There(node),
        None => Route::Wait,
    }
}

fn lost(on_loss: OnLoss) -> Route {
    Route::Refuse(match on_loss {
        OnLoss::Expire => Refusal::Gone(GoneWhy::LostOwner),
        OnLoss::Reinitialize => Refusal::not_run(Reason::OwnerLost),
    })
}

fn is_serving(node: NodeRef, view: &View) -> bool {
    view.get(node).is_some_and(|member| member.phase != Phase::Dead)
}

#[cfg(test)]
mod tests;
