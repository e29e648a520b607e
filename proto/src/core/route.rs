//! Who answers a request: the decision of the whole journey, as one pure function.

use super::{
    custody::Holding,
    ring::{Position, Ring},
    succession::Succession,
    view::{Phase, View},
};
use crate::id::{Birth, NodeRef, Nonce};
use crate::wire::{GoneWhy, NotHere, NotHereWhy, Reason, Refusal};

/// What a request asks for, as far as routing cares.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// A new session; `chosen` is where placement wants it, if there is anybody to want.
    Open { chosen: Option<NodeRef> },
    /// The session that was born so.
    Session { birth: &'a Birth, nonce: Nonce },
    /// Whoever the ring gives this key to.
    Key(Position),
    /// State that an upstream keeps, as `home` reached it. This node may have that upstream too, and
    /// once the home is gone any node that has it will do, in the ring's order from `position` on.
    Pinned { home: NodeRef, is_mine: bool, position: Position },
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
    pub succession: &'a Succession,
    /// This node may serve sessions at present.
    pub leased: bool,
    pub hop: Hop,
    /// Nodes that did not serve this request, in this round.
    pub tried: &'a [NodeRef],
    /// Where the last of them pointed to.
    pub hint: Option<NodeRef>,
    /// What this node has to do with the session.
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
    /// This node, as the new owner of a session that it has nothing of yet.
    Revive,
    /// That node.
    There(NodeRef),
    /// Nobody yet: ask again when the world has changed, or after a pause. It is this node that is
    /// waited for, if it is known which.
    Wait(Option<NodeRef>),
    /// Not this node; the entry node shall look again.
    NotHere(NotHere),
    /// Nobody.
    Refuse(Refusal),
}

pub fn route(ask: Ask<'_>, situation: &Situation<'_>) -> Route {
    match ask {
        Ask::Open { chosen } => open(chosen, situation),
        Ask::Session { birth, nonce } => session(birth, nonce, situation),
        Ask::Key(position) => key(position, situation),
        Ask::Pinned { home, is_mine, position } => pinned(home, is_mine, position, situation),
        Ask::Anyone => Route::Here,
    }
}

fn open(chosen: Option<NodeRef>, situation: &Situation<'_>) -> Route {
    let draining = matches!(situation.my_phase, Phase::Draining | Phase::Dead);
    match situation.hop {
        Hop::Entry => match chosen {
            Some(node) if node != situation.me => Route::There(node),
            // Draining alone: a session that may not outlive this node is better than none.
            Some(_) => if_leased(Route::Open, situation),
            None if draining => if_leased(Route::Open, situation),
            None => Route::Wait(None),
        },
        Hop::Forwarded { .. } if draining => not_here(None, NotHereWhy::Draining),
        Hop::Forwarded { .. } => if_leased(Route::Open, situation),
    }
}

fn session(birth: &Birth, nonce: Nonce, situation: &Situation<'_>) -> Route {
    match situation.holding {
        Holding::Live => return if_leased(Route::Here, situation),
        Holding::Ended(why) => return Route::Refuse(Refusal::Gone(why)),
        Holding::Given(_) | Holding::Unknown => {}
    }
    let owner = situation.succession.owner(birth.home, Position::of_session(nonce));
    if owner.node == situation.me && situation.holding == Holding::Unknown {
        return match situation.on_loss {
            _ if owner.epoch == 1 => Route::Refuse(Refusal::Gone(GoneWhy::Unknown)),
            OnLoss::Expire => Route::Refuse(Refusal::Gone(GoneWhy::LostOwner)),
            OnLoss::Reinitialize => if_leased(Route::Revive, situation),
        };
    }
    let given = match situation.holding {
        Holding::Given(to) => Some(to),
        Holding::Live | Holding::Ended(_) | Holding::Unknown => None,
    };
    if let Hop::Forwarded { .. } = situation.hop {
        return not_here(given.or(Some(owner.node)), NotHereWhy::NotMine);
    }
    let may_serve = |node: &NodeRef| {
        *node != situation.me
            && !situation.tried.contains(node)
            && !situation.succession.is_over(*node)
            && is_serving(*node, situation.view)
    };
    match [given, situation.hint, Some(owner.node)].into_iter().flatten().find(may_serve) {
        Some(node) => Route::There(node),
        None => Route::Wait(Some(given.unwrap_or(owner.node))),
    }
}

/// What only a node with a lease may do; another node may have taken its sessions over.
fn if_leased(route: Route, situation: &Situation<'_>) -> Route {
    match situation.hop {
        _ if situation.leased => route,
        Hop::Entry => Route::Wait(None),
        Hop::Forwarded { .. } => not_here(None, NotHereWhy::Parked),
    }
}

fn not_here(hint: Option<NodeRef>, why: NotHereWhy) -> Route {
    Route::NotHere(NotHere { hint, why })
}

fn key(position: Position, situation: &Situation<'_>) -> Route {
    if let Hop::Forwarded { same_view } = situation.hop {
        let owner = situation.ring.owner(position);
        // By the same view the entry node knew what it did: the owner itself may be out of its reach.
        return if same_view || owner == Some(situation.me) {
            Route::Here
        } else {
            not_here(owner, NotHereWhy::NotMine)
        };
    }
    let untried = |node: &NodeRef| !situation.tried.contains(node);
    let hinted = situation.hint.filter(|node| is_serving(*node, situation.view));
    match hinted.into_iter().chain(situation.ring.successors(position)).find(untried) {
        Some(node) if node == situation.me => Route::Here,
        Some(node) => Route::There(node),
        None => Route::Wait(None),
    }
}

fn pinned(home: NodeRef, is_mine: bool, position: Position, situation: &Situation<'_>) -> Route {
    if let Hop::Forwarded { .. } = situation.hop {
        return if is_mine { Route::Here } else { not_here(None, NotHereWhy::NoUpstream) };
    }
    let lives = |node: &NodeRef| is_serving(*node, situation.view) && !situation.succession.is_over(*node);
    // Two nodes may mean different servers by one URL, so nobody else is asked while the home lives.
    if home != situation.me && lives(&home) {
        let was_asked = situation.tried.contains(&home);
        return if was_asked { Route::Wait(Some(home)) } else { Route::There(home) };
    }
    if situation.my_phase == Phase::Joining && home != situation.me {
        return Route::Wait(Some(home)); // this node has not met all the others yet
    }
    // A node that has started again is the likeliest to reach the same server.
    let restarted = situation.view.by_tag(home.tag).map(|member| member.node);
    let may_have_it = |node: &NodeRef| {
        if *node == situation.me { is_mine } else { lives(node) && !situation.tried.contains(node) }
    };
    let others = [situation.me].into_iter().chain(situation.ring.successors(position));
    match restarted.into_iter().chain(others).find(may_have_it) {
        Some(node) if node == situation.me => Route::Here,
        Some(node) => Route::There(node),
        None => Route::Refuse(Refusal::not_run(Reason::NoUpstream)),
    }
}

fn is_serving(node: NodeRef, view: &View) -> bool {
    view.get(node).is_some_and(|member| member.phase != Phase::Dead)
}

#[cfg(test)]
mod tests;
