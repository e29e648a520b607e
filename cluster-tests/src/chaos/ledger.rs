//! What clients saw, and what is wrong with it: fed with observations in any order that could have happened,
//! gives the verdict. Pure: time comes in as the time since the run began. Fed by `load`, `streams` and `mod`.
//!
//! `book` judges one session, `impact` follows what one fault did to all of them.

mod book;
mod impact;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use super::options::Upstreams;
use super::schedule::Fault;
use book::Book;
pub(super) use impact::{Impact, Wait};

/// Since the run began.
pub(super) type At = Duration;

/// A session, by the order in which they were opened.
pub(super) type SessionNo = usize;

/// What a call asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The next number: must not run twice.
    Count,
    /// The name of the upstream's own session.
    WhoAmI,
    /// `tools/list` or `ping`: may be sent again.
    Read,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Counted(u64),
    Named(String),
    Read,
    /// -31001, as the contract has it.
    Honest {
        reason: String,
        may_have_run: bool,
    },
    /// 404: "Session not found".
    NotFound,
    /// The connection broke before the answer was whole.
    Broken,
    TimedOut,
    /// Anything that the contract does not know.
    Strange(String),
}

impl Outcome {
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Outcome::Counted(_) | Outcome::Named(_) | Outcome::Read)
    }

    /// Whether the upstream may have done what was asked, although nobody says so.
    fn is_unknown(&self) -> bool {
        match self {
            Outcome::Honest { may_have_run, .. } => *may_have_run,
            Outcome::Broken | Outcome::TimedOut | Outcome::Strange(_) => true,
            Outcome::Counted(_) | Outcome::Named(_) | Outcome::Read | Outcome::NotFound => false,
        }
    }

    /// What a failure is counted under, and told as.
    pub(super) fn kind(&self) -> String {
        match self {
            Outcome::Counted(_) | Outcome::Named(_) | Outcome::Read => "ok".to_owned(),
            Outcome::Honest { reason, may_have_run: true } => format!("-31001 {reason}, may have run"),
            Outcome::Honest { reason, may_have_run: false } => format!("-31001 {reason}, has not run"),
            Outcome::NotFound => "404 session not found".to_owned(),
            Outcome::Broken => "connection broke".to_owned(),
            Outcome::TimedOut => "no answer in time".to_owned(),
            Outcome::Strange(what) => what.clone(),
        }
    }
}

/// A call and its end.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) session: SessionNo,
    pub(super) asked: Asked,
    /// The node that the client spoke to.
    pub(super) entry: String,
    pub(super) sent: At,
    pub(super) done: At,
    pub(super) outcome: Outcome,
    /// As the answer says.
    pub(super) owner: Option<String>,
    pub(super) epoch: Option<u64>,
}

/// Who owns a session.
#[derive(Debug, Clone)]
pub(super) struct Ownership {
    pub(super) session: SessionNo,
    pub(super) owner: String,
    pub(super) epoch: Option<u64>,
    pub(super) sent: At,
    pub(super) done: At,
    /// Whether it has just served the session. Otherwise it is what some node knew of it, which may be old.
    pub(super) has_served: bool,
}

/// What the one who made an observation is to find out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// Who owns the session, and under which epoch.
    LookUp,
}

/// Something that must never be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wrong {
    /// The same number twice.
    Repeated,
    /// A number below one that was given before.
    Backwards,
    /// More numbers left out than calls whose outcome is not known.
    Skipped,
    /// Another upstream session answered.
    OtherSession,
    /// Two nodes under one epoch, or an epoch that had been superseded.
    TwoOwners,
}

impl Wrong {
    pub(super) const ALL: [Wrong; 5] =
        [Wrong::Repeated, Wrong::Backwards, Wrong::Skipped, Wrong::OtherSession, Wrong::TwoOwners];

    pub(super) fn name(self) -> &'static str {
        match self {
            Wrong::Repeated => "number given twice",
            Wrong::Backwards => "number went backwards",
            Wrong::Skipped => "numbers left out",
            Wrong::OtherSession => "another session answered",
            Wrong::TwoOwners => "two owners",
        }
    }
}

/// A wrong answer, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) wrong: Wrong,
    pub(super) session: SessionNo,
    pub(super) at: At,
    pub(super) what: String,
}

/// Calls by what came of them. Failures are told apart: those that no cluster could have prevented, since the calls
/// were on their way at a node that a fault took, and the others.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) ok: u64,
    pub(super) unavoidable: BTreeMap<String, u64>,
    pub(super) avoidable: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn failed(&self) -> u64 {
        self.unavoidable.values().chain(self.avoidable.values()).sum()
    }
}

/// All observations of a run.
#[derive(Debug)]
pub(super) struct Ledger {
    upstreams: Upstreams,
    books: Vec<Book>,
    /// Which session each upstream session belongs to.
    names: BTreeMap<String, SessionNo>,
    impacts: Vec<Impact>,
    tally: Tally,
    findings: Vec<Finding>,
}

impl Ledger {
    pub(super) fn new(upstreams: Upstreams) -> Ledger {
        Ledger {
            upstreams,
            books: Vec::new(),
            names: BTreeMap::new(),
            impacts: Vec::new(),
            tally: Tally::default(),
            findings: Vec::new(),
        }
    }

    /// A session has been opened.
    pub(super) fn opened(&mut self) -> SessionNo {
        self.books.push(Book::default());
        self.books.len() - 1
    }

    /// A call has ended.
    pub(super) fn called(&mut self, call: &Call) -> Next {
        if !call.outcome.is_good() {
            self.failed(call);
            return Next::Nothing;
        }
        self.tally.ok += 1;
        for impact in &mut self.impacts {
            impact.served(call);
        }
        let mut is_unplaced = false;
        if let Some(owner) = &call.owner {
            is_unplaced = call.epoch.is_none() && self.books[call.session].owner() != Some(owner);
            self.owned(&Ownership {
                session: call.session,
                owner: owner.clone(),
                epoch: call.epoch,
                sent: call.sent,
                done: call.done,
                has_served: true,
            });
        }
        let book = &mut self.books[call.session];
        let wrong = match &call.outcome {
            Outcome::Counted(number) => book.counted(self.upstreams, *number),
            Outcome::Named(name) => match self.names.get(name) {
                Some(other) if *other != call.session => {
                    Some((Wrong::OtherSession, format!("{name} is session {other}'s")))
                }
                Some(_) | None => {
                    self.names.insert(name.clone(), call.session);
                    book.named(self.upstreams, name)
                }
            },
            Outcome::Read
            | Outcome::Honest { .. }
            | Outcome::NotFound
            | Outcome::Broken
            | Outcome::TimedOut
            | Outcome::Strange(_) => None,
        };
        let to_explain = book.is_unexplained();
        self.found(call.session, call.done, wrong);
        if is_unplaced || to_explain { Next::LookUp } else { Next::Nothing }
    }

    /// Somebody has said who owns a session.
    pub(super) fn owned(&mut self, said: &Ownership) {
        let book = &mut self.books[said.session];
        let before = book.owner().cloned();
        let wrong = book.owned(said);
        if before.is_some()
            && book.owner() != before.as_ref()
            && let Some(impact) = self.impacts.last_mut()
        {
            impact.moved(said.session);
        }
        self.found(said.session, said.done, wrong);
    }

    /// A fault begins now.
    pub(super) fn begun(&mut self, fault: Fault, at: At) {
        let taken =
            |book: &Book| book.owner().is_some_and(|owner| fault.nodes.iter().any(|node| node == owner));
        let sessions = self.in_use().filter(|(_, book)| taken(book)).map(|(no, _)| no).collect();
        self.impacts.push(Impact::new(fault, at, sessions));
    }

    /// It did not happen as it should.
    pub(super) fn mishap(&mut self, why: String) {
        if let Some(impact) = self.impacts.last_mut() {
            impact.mishap = Some(why);
        }
    }

    /// It is undone: thawed, joined again, started again.
    pub(super) fn healed(&mut self, at: At) {
        let sessions = self.in_use().map(|(no, _)| no).collect();
        if let Some(impact) = self.impacts.last_mut() {
            impact.healed(at, sessions);
        }
    }

    /// Nothing of it is left, or nobody waits for that any longer.
    pub(super) fn ended(&mut self, at: At) {
        if let Some(impact) = self.impacts.last_mut() {
            impact.ended = Some(at);
        }
    }

    /// It can't be used, for now or for good; what the last answer was.
    pub(super) fn lost(&mut self, session: SessionNo, why: String) {
        self.books[session].lost = Some(why);
    }

    /// It can be used after all.
    pub(super) fn regained(&mut self, session: SessionNo) {
        self.books[session].lost = None;
    }

    /// The sessions in use for which the running fault makes somebody wait.
    pub(super) fn waiting(&self, wait: Wait) -> Vec<SessionNo> {
        let unserved = self.open_impact().map(|impact| impact.waiting(wait)).unwrap_or_default();
        unserved.into_iter().filter(|no| self.books[*no].lost.is_none()).collect()
    }

    /// Whether this one is among them.
    pub(super) fn is_waiting(&self, wait: Wait, session: SessionNo) -> bool {
        let is_unserved = self.open_impact().is_some_and(|impact| impact.is_waiting(wait, session));
        is_unserved && self.books[session].lost.is_none()
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn impacts(&self) -> &[Impact] {
        &self.impacts
    }

    /// How many sessions were ever opened.
    pub(super) fn sessions(&self) -> usize {
        self.books.len()
    }

    /// Lost sessions, each with the last thing that was said of it.
    pub(super) fn losses(&self) -> impl Iterator<Item = (SessionNo, &str)> {
        self.books.iter().enumerate().filter_map(|(no, book)| Some((no, book.lost.as_deref()?)))
    }

    /// Everything wrong, with those fresh upstream sessions that no later epoch has explained.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let fresh = self.books.iter().enumerate().filter_map(|(no, book)| {
            let (wrong, what) = book.unexplained()?;
            Some(Finding { wrong, session: no, at: At::MAX, what })
        });
        self.findings.iter().cloned().chain(fresh).collect()
    }

    /// Whether clients could rely on the cluster.
    pub(super) fn is_clean(&self) -> bool {
        self.findings().is_empty() && self.losses().next().is_none()
    }

    fn failed(&mut self, call: &Call) {
        if call.asked == Asked::Count && call.outcome.is_unknown() {
            self.books[call.session].not_known();
        }
        let is_unavoidable = self.impacts.iter().any(|impact| impact.explains(call));
        let tally = if is_unavoidable { &mut self.tally.unavoidable } else { &mut self.tally.avoidable };
        *tally.entry(call.outcome.kind()).or_default() += 1;
    }

    fn found(&mut self, session: SessionNo, at: At, wrong: Option<(Wrong, String)>) {
        self.findings.extend(wrong.map(|(wrong, what)| Finding { wrong, session, at, what }));
    }

    fn in_use(&self) -> impl Iterator<Item = (SessionNo, &Book)> {
        self.books.iter().enumerate().filter(|(_, book)| book.lost.is_none())
    }

    fn open_impact(&self) -> Option<&Impact> {
        self.impacts.last().filter(|impact| impact.ended.is_none())
    }
}
