//! One line of the log for each event.

use super::Event;
use tracing::{info, warn};

pub(super) fn line(event: &Event) {
    let kind = event.kind();
    match event {
        Event::Joined { name, peer, incarnation } => {
            info!(kind, %name, %peer, incarnation, "a node has joined")
        }
        Event::Active { name } => info!(kind, %name, "a node is active"),
        Event::Draining { name } => info!(kind, %name, "a node is draining"),
        Event::Left { name } => info!(kind, %name, "a node has left"),
        Event::Died { name, how } => warn!(kind, %name, how = how.word(), "a node has died"),
        Event::Verdict { over, heirs } => info!(kind, name = over, ?heirs, "a node is over"),
        Event::Takeover { from, sessions } => info!(kind, from, sessions, "took over"),
        Event::Reborn { incarnation, lost } => {
            warn!(kind, incarnation, lost, "the others took this node for gone: reborn");
        }
        Event::Leased => info!(kind, "enough of the others answer"),
        Event::Parked => warn!(kind, "too few of the others answer: serving no session"),
        Event::DrainBegan { deadline, sessions } => info!(kind, ?deadline, sessions, "draining"),
        Event::DrainProgress { sessions, busy } => info!(kind, sessions, busy, "draining"),
        Event::DrainEnded { took, lost } => info!(kind, ?took, lost, "drained"),
        Event::SessionEnded { session, route } => info!(kind, session, route, "an operator ended a session"),
        Event::Reloaded { what } => info!(kind, what, "read again"),
        Event::Refused { what, why } => warn!(kind, what, why, "can't be used, and what was there before is"),
    }
}
