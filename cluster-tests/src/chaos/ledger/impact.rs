//! What one fault did: whose sessions had to be taken over, how long that took, and which failures it explains. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::schedule::Fault;
use super::{Asked, At, Call, SessionNo};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Wait {
    /// That somebody else serves the sessions of the nodes that were taken.
    Takeover,
    /// That every session is served after the healing.
    Service,
}

/// That a session of a node that was taken was served again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Served {
    /// Since the fault.
    pub(in super::super) after: Duration,
    /// By a node that the fault had not taken.
    pub(in super::super) by_other: bool,
}

/// A fault, and the sessions that it touched.
#[derive(Debug, Clone)]
pub(in super::super) struct Impact {
    pub(in super::super) fault: Fault,
    pub(in super::super) at: At,
    pub(in super::super) healed: Option<At>,
    pub(in super::super) ended: Option<At>,
    /// Why it did not happen, or not as it should; its times say nothing then.
    pub(in super::super) mishap: Option<String>,
    /// Of each session that the fault's nodes owned: until another node served it, or they themselves once healed.
    pub(in super::super) takeovers: BTreeMap<SessionNo, Option<Served>>,
    /// Of each session in use: from the healing until it was served.
    pub(in super::super) after_healing: BTreeMap<SessionNo, Option<Duration>>,
    /// Sessions whose owner changed although nothing had happened to it.
    pub(in super::super) needless: BTreeSet<SessionNo>,
}

impl Impact {
    pub(super) fn new(fault: Fault, at: At, sessions: Vec<SessionNo>) -> Impact {
        Impact {
            fault,
            at,
            healed: None,
            ended: None,
            mishap: None,
            takeovers: sessions.into_iter().map(|no| (no, None)).collect(),
            after_healing: BTreeMap::new(),
            needless: BTreeSet::new(),
        }
    }

    pub(super) fn healed(&mut self, at: At, sessions: Vec<SessionNo>) {
        self.healed = Some(at);
        self.after_healing = sessions.into_iter().map(|no| (no, None)).collect();
    }

    /// A call was answered well. It ends the wait for its session, unless the nodes that the fault took could still
    /// have answered it: a cut one serves what it is asked itself until its lease ends.
    pub(super) fn served(&mut self, call: &Call) {
        let is_back = self.healed.is_some_and(|healed| call.sent >= healed);
        let by_owner = call.owner.as_ref().is_some_and(|owner| self.takes(owner));
        if call.sent >= self.at
            && (is_back || !(by_owner || self.takes(&call.entry)))
            && let Some(open @ None) = self.takeovers.get_mut(&call.session)
        {
            *open = Some(Served { after: call.done.saturating_sub(self.at), by_other: !by_owner });
        }
        if let Some(healed) = self.healed
            && call.sent >= healed
            && let Some(open @ None) = self.after_healing.get_mut(&call.session)
        {
            *open = Some(call.done.saturating_sub(healed));
        }
    }

    /// The sessions that are still waited for.
    pub(super) fn waiting(&self, wait: Wait) -> Vec<SessionNo> {
        let all: Vec<SessionNo> = match wait {
            Wait::Takeover => self.takeovers.keys().copied().collect(),
            Wait::Service => self.after_healing.keys().copied().collect(),
        };
        all.into_iter().filter(|no| self.is_waiting(wait, *no)).collect()
    }

    pub(super) fn is_waiting(&self, wait: Wait, session: SessionNo) -> bool {
        match wait {
            Wait::Takeover => self.takeovers.get(&session).is_some_and(Option::is_none),
            Wait::Service => self.after_healing.get(&session).is_some_and(Option::is_none),
        }
    }

    /// The session's owner has changed.
    pub(super) fn moved(&mut self, session: SessionNo) {
        if self.ended.is_none() && !self.fault.kind.takes_nodes() {
            self.needless.insert(session);
        }
    }

    /// Whether no cluster could have kept the call from failing.
    pub(super) fn explains(&self, call: &Call) -> bool {
        if !self.fault.kind.is_abrupt() {
            return false;
        }
        let is_during = call.done >= self.at && self.healed.is_none_or(|healed| call.sent <= healed);
        // About the node that it speaks to, only the client can do something.
        if is_during && self.takes(&call.entry) {
            return true;
        }
        // What has gone to the owner may have run there, and may not be sent again.
        let was_before_takeover = match self.takeovers.get(&call.session) {
            Some(Some(served)) => call.sent <= self.at + served.after,
            Some(None) => true,
            None => false,
        };
        is_during && was_before_takeover && call.asked != Asked::Read && call.outcome.is_unknown()
    }

    fn takes(&self, node: &str) -> bool {
        self.fault.nodes.iter().any(|taken| taken == node)
    }
}
