//! Getting a verdict agreed on: the proposer's half of Paxos, and when it begins.

use super::{Ms, RANK_STEP_PROOF, RANK_STEP_SILENCE, Rule, Tenure, next_of};
use crate::core::view::Phase;
use crate::core::witness::{self, WITNESSES_MAX};
use crate::id::NodeRef;
use crate::wire::{Ballot, Say, Verdict, WhyNot, WitnessSet};
use std::collections::BTreeSet;

/// A question is repeated this often to whoever has not answered it: the others know of a death some
/// milliseconds earlier or later.
const ASK_EVERY: Ms = 20;
/// A proposal that gets nowhere begins anew, with a higher ballot.
const STALE: Ms = 2_000;
/// After a duel was lost: some 30 to 190 ms, different for each node and round.
const BACK_OFF: Ms = 30;
const BACK_OFF_SPREAD: Ms = 160;

#[derive(Clone, Debug)]
pub(super) struct Proposal {
    /// Who has a say, as far as is known; nobody in particular where nobody knows.
    set: Option<WitnessSet>,
    ballot: Ballot,
    stage: Stage,
    began: Ms,
    ask_at: Ms,
}

#[derive(Clone, Debug)]
enum Stage {
    Preparing {
        promised: BTreeSet<NodeRef>,
        highest: Option<(Ballot, Vec<NodeRef>)>,
    },
    Accepting {
        heirs: Vec<NodeRef>,
        accepted: BTreeSet<NodeRef>,
    },
    /// Another proposer was ahead.
    BackingOff {
        until: Ms,
    },
}

/// What a witness is asked: for a promise, then for its agreement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) from: NodeRef,
    pub(super) over: NodeRef,
    pub(super) ballot: Ballot,
    /// The version of the witnesses' set that the proposer goes by.
    pub(super) ver: u32,
    /// Witnesses whose say is done without, since they are gone.
    pub(super) without: &'a [NodeRef],
}

impl Proposal {
    /// Who has a say in it, as far as is known.
    pub(super) fn everyone(&self) -> Vec<NodeRef> {
        self.set.as_ref().map(WitnessSet::everyone).unwrap_or_default()
    }
}

impl Tenure {
    /// Begins with those nodes whose turn it is to be judged by this one.
    pub(super) fn judge(&mut self, now: Ms) {
        let nodes: Vec<_> = self.peers.keys().copied().collect();
        for node in nodes {
            if !self.proposals.contains_key(&node) && self.due(node, now).is_some_and(|due| now >= due) {
                self.propose(node, now);
            }
        }
    }

    /// When this node shall propose that `node` is over; `None` while there is no reason to.
    fn due(&self, node: NodeRef, now: Ms) -> Option<Ms> {
        let peer = self.peers.get(&node)?;
        if let Some(since) = self.gone.get(&node) {
            let knows_enough = peer.set.is_some() || self.settled;
            return knows_enough.then(|| since + self.rank(node) * RANK_STEP_PROOF);
        }
        let asked_for = self.wanted.contains_key(&node)
            || self.members.get(&node) == Some(&Phase::Dead)
            || peer.acceptor.is_fencing();
        let known = peer.set.is_some() || self.members.contains_key(&node) || self.settled;
        (asked_for && known && self.has_evidence(node, now))
            .then(|| peer.heard + self.silence() + self.rank(node) * RANK_STEP_SILENCE)
    }

    /// How many others come before this node in judging that one.
    fn rank(&self, node: NodeRef) -> Ms {
        let mine = witness::rank(node.tag, self.me);
        let set = self.peers.get(&node).and_then(|peer| peer.set.as_ref());
        let others = set.map_or_else(|| self.living(), WitnessSet::everyone);
        let is_before = |other: &NodeRef| {
            *other != node && !self.is_out(*other) && witness::rank(node.tag, *other) < mine
        };
        others.iter().filter(|other| is_before(other)).count() as Ms
    }

    /// Every member that is not gone for certain, and this node.
    fn living(&self) -> Vec<NodeRef> {
        let others = self.members.keys().copied().filter(|node| !self.is_gone(*node));
        others.chain([self.me]).collect()
    }

    pub(super) fn propose(&mut self, over: NodeRef, now: Ms) {
        if self.succession.is_over(over) {
            return;
        }
        let known = if over == self.me {
            Some(self.own.set.clone())
        } else {
            self.peers.get(&over).and_then(|peer| peer.set.clone())
        };
        let so_far = self.proposals.remove(&over).and_then(|proposal| proposal.set);
        let set = [known, so_far].into_iter().flatten().max_by_key(|set| set.ver);
        self.ballots += 1;
        let ballot = Ballot { n: self.ballots, by: self.me };
        let stage = Stage::Preparing { promised: BTreeSet::new(), highest: None };
        self.proposals.insert(over, Proposal { set, ballot, stage, began: now, ask_at: now });
        self.push(over, now);
    }

    pub(super) fn push_proposals(&mut self, now: Ms) {
        for over in self.proposals.keys().copied().collect::<Vec<_>>() {
            if over != self.me && self.due(over, now).is_none() {
                self.proposals.remove(&over); // it has been heard again, or nobody asks for it any more
                continue;
            }
            let Some(proposal) = self.proposals.get(&over) else { continue };
            let again = match proposal.stage {
                Stage::BackingOff { until } => now >= until,
                Stage::Preparing { .. } | Stage::Accepting { .. } => {
                    now.saturating_sub(proposal.began) > STALE
                }
            };
            if again {
                self.propose(over, now);
            } else if now >= proposal.ask_at {
                self.push(over, now);
            }
        }
    }

    /// Asks everyone who has a say and has not answered, this node first of all.
    fn push(&mut self, over: NodeRef, now: Ms) {
        let living = self.living();
        let Some(proposal) = self.proposals.get(&over) else { return };
        let is_known_quorum =
            proposal.set.as_ref().is_some_and(|set| set.has_quorum(|node| !self.is_gone(node)));
        let everyone = proposal.everyone();
        // Where the witnesses are not enough, all who live have a say, and must know that it is so.
        let without: Vec<_> = match is_known_quorum {
            true => Vec::new(),
            false => everyone.iter().copied().filter(|node| *node != over && self.is_gone(*node)).collect(),
        };
        let mut asked: BTreeSet<_> = everyone.into_iter().collect();
        if !is_known_quorum {
            asked.extend(living);
        }
        let (ballot, ver) = (proposal.ballot, proposal.set.as_ref().map_or(0, |set| set.ver));
        let say = match &proposal.stage {
            Stage::BackingOff { .. } => return,
            Stage::Preparing { promised, .. } => {
                asked.retain(|node| !promised.contains(node));
                Say::Prepare { over, ballot, ver, without }
            }
            Stage::Accepting { heirs, accepted } => {
                asked.retain(|node| !accepted.contains(node));
                Say::Accept { over, ballot, ver, without, heirs: heirs.clone() }
            }
        };
        if let Some(proposal) = self.proposals.get_mut(&over) {
            proposal.ask_at = now + ASK_EVERY;
        }
        let has_a_say_itself = asked.remove(&self.me);
        asked.remove(&over);
        for node in asked {
            self.send(node, say.clone());
        }
        if has_a_say_itself {
            self.ask_myself(say, now);
        }
    }

    fn ask_myself(&mut self, say: Say, now: Ms) {
        let me = self.me;
        let answer = match say {
            Say::Prepare { over, ballot, ver, without } => {
                self.on_prepare(Question { from: me, over, ballot, ver, without: &without }, now)
            }
            Say::Accept { over, ballot, ver, without, heirs } => {
                self.on_accept(Question { from: me, over, ballot, ver, without: &without }, &heirs, now)
            }
            other @ (Say::Beat { .. }
            | Say::Acked { .. }
            | Say::Fenced
            | Say::Declare { .. }
            | Say::Stored { .. }
            | Say::Promised { .. }
            | Say::Accepted { .. }
            | Say::No { .. }
            | Say::Verdicts(_)) => other,
        };
        match answer {
            Say::Promised { over, ballot, accepted } => self.on_promise(me, over, ballot, &accepted, now),
            Say::Accepted { over, ballot } => self.on_accepted(me, over, ballot, now),
            Say::No { over, ballot, why } => self.on_no(over, ballot, &why, now),
            Say::Beat { .. }
            | Say::Acked { .. }
            | Say::Fenced
            | Say::Declare { .. }
            | Say::Stored { .. }
            | Say::Prepare { .. }
            | Say::Accept { .. }
            | Say::Verdicts(_) => {}
        }
    }

    // --- as a witness that is asked ---

    pub(super) fn on_prepare(&mut self, asked: Question<'_>, now: Ms) -> Say {
        if let Some(refusal) = self.objection(asked, now) {
            return refusal;
        }
        let Question { over, ballot, .. } = asked;
        match self.peer(over, now).acceptor.prepare(ballot) {
            Ok(accepted) => Say::Promised { over, ballot, accepted },
            Err(promised) => Say::No { over, ballot, why: WhyNot::Promised(promised) },
        }
    }

    pub(super) fn on_accept(&mut self, asked: Question<'_>, heirs: &[NodeRef], now: Ms) -> Say {
        if let Some(refusal) = self.objection(asked, now) {
            return refusal;
        }
        let Question { over, ballot, .. } = asked;
        let keeps_promises = self.keeps(Rule::KeepPromises);
        match self.peer(over, now).acceptor.accept(ballot, heirs, keeps_promises) {
            Ok(()) => Say::Accepted { over, ballot },
            Err(promised) => Say::No { over, ballot, why: WhyNot::Promised(promised) },
        }
    }

    /// Why this witness does not even look at the ballot.
    fn objection(&mut self, asked: Question<'_>, now: Ms) -> Option<Say> {
        let Question { from, over, ballot, ver, without } = asked;
        if let Some(verdict) = self.succession.verdict(over) {
            return Some(Say::Verdicts(vec![verdict]));
        }
        let set = if over == self.me {
            Some(&self.own.set)
        } else {
            self.peers.get(&over).and_then(|peer| peer.set.as_ref())
        };
        if let Some(newer) = set.filter(|set| set.ver > ver && self.keeps(Rule::LatestSet)) {
            return Some(Say::No { over, ballot, why: WhyNot::Newer(newer.clone()) });
        }
        let set_is_known = set.is_some();
        self.peer(over, now);
        let sees = from == over
            || (self.has_evidence(over, now) && (ver > 0 || set_is_known || self.may_be_strangers(over)));
        let agrees = sees && without.iter().all(|node| self.is_gone(*node));
        (!agrees).then_some(Say::No { over, ballot, why: WhyNot::NoEvidence })
    }

    // --- as the proposer that is answered ---

    pub(super) fn on_promise(
        &mut self,
        from: NodeRef,
        over: NodeRef,
        ballot: Ballot,
        accepted: &Option<(Ballot, Vec<NodeRef>)>,
        now: Ms,
    ) {
        let Some(proposal) = self.proposals.get_mut(&over).filter(|it| it.ballot == ballot) else { return };
        let Stage::Preparing { promised, highest } = &mut proposal.stage else { return };
        promised.insert(from);
        if let Some(accepted) = accepted
            && highest.as_ref().is_none_or(|(highest, _)| *highest < accepted.0)
        {
            *highest = Some(accepted.clone());
        }
        let (promised, highest) = (promised.clone(), highest.clone());
        if !self.is_decided(over, &promised) {
            return;
        }
        let taken_up = highest.filter(|_| self.keeps(Rule::TakeUpAccepted)).map(|(_, heirs)| heirs);
        let heirs = taken_up.unwrap_or_else(|| self.heirs_of(over));
        if let Some(proposal) = self.proposals.get_mut(&over) {
            proposal.stage = Stage::Accepting { heirs, accepted: BTreeSet::new() };
        }
        self.push(over, now);
    }

    pub(super) fn on_accepted(&mut self, from: NodeRef, over: NodeRef, ballot: Ballot, now: Ms) {
        let Some(proposal) = self.proposals.get_mut(&over).filter(|it| it.ballot == ballot) else { return };
        let Stage::Accepting { heirs, accepted } = &mut proposal.stage else { return };
        accepted.insert(from);
        let (heirs, accepted) = (heirs.clone(), accepted.clone());
        if !self.is_decided(over, &accepted) {
            return;
        }
        let verdict = Verdict { over, heirs };
        let others = self.members.keys().copied().filter(|node| !self.is_gone(*node));
        for node in others.chain([over].into_iter().filter(|over| *over != self.me)).collect::<Vec<_>>() {
            self.send(node, Say::Verdicts(vec![verdict.clone()]));
        }
        self.learn(&verdict, now);
    }

    pub(super) fn on_no(&mut self, over: NodeRef, ballot: Ballot, why: &WhyNot, now: Ms) {
        let me = self.me;
        let Some(proposal) = self.proposals.get_mut(&over).filter(|it| it.ballot == ballot) else { return };
        match why {
            WhyNot::NoEvidence => {} // it may have some the next time it is asked
            WhyNot::Promised(promised) => {
                self.ballots = self.ballots.max(promised.n);
                let spread = witness::rank(over.tag, me) ^ u64::from(self.ballots).wrapping_mul(0x9e37_79b9);
                let until = now + BACK_OFF + spread % BACK_OFF_SPREAD;
                proposal.stage = Stage::BackingOff { until };
            }
            WhyNot::Newer(set) => {
                if proposal.set.as_ref().is_none_or(|known| known.ver < set.ver) {
                    proposal.set = Some(set.clone());
                    self.propose(over, now);
                }
            }
        }
    }

    /// Whether those that `voted` are enough to decide about `over`.
    fn is_decided(&self, over: NodeRef, voted: &BTreeSet<NodeRef>) -> bool {
        let Some(proposal) = self.proposals.get(&over) else { return false };
        let living = self.living();
        let others = living.into_iter().filter(|node| *node != over || over == self.me);
        match &proposal.set {
            Some(set) => set.is_decided(|node| voted.contains(&node), |node| self.is_gone(node), others),
            // Who knows of no witnesses may know of too few nodes as well.
            None => self.may_be_strangers(over) && others.into_iter().all(|node| voted.contains(&node)),
        }
    }

    /// Whether all who live may decide about a node whose witnesses nobody knows: it may be serving
    /// by the word of some that have not been heard of yet, unless its process is gone.
    fn may_be_strangers(&self, over: NodeRef) -> bool {
        self.settled && self.is_gone(over)
    }

    /// Who shall take over: the witnesses that can, or whoever else lives. Of a node that may have
    /// given sessions away it is those that it may have given them to.
    fn heirs_of(&self, over: NodeRef) -> Vec<NodeRef> {
        if over == self.me && !self.own.retiring {
            return vec![next_of(self.me)];
        }
        let can = |node: NodeRef| match node == self.me {
            true => !self.own.retiring && over != self.me,
            false => !self.is_out(node) && self.members.get(&node) == Some(&Phase::Active),
        };
        let set = self.proposals.get(&over).and_then(|proposal| proposal.set.as_ref());
        let gives = set.is_some_and(|set| set.gives);
        let witnesses = set.map(|set| set.members.clone()).unwrap_or_default();
        let mut heirs: Vec<_> =
            witnesses.into_iter().filter(|node| *node != over && (gives || can(*node))).collect();
        if heirs.is_empty() {
            heirs = self.living().into_iter().filter(|node| *node != over && can(*node)).collect();
            heirs.sort_unstable_by_key(|node| witness::rank(over.tag, *node));
            heirs.truncate(WITNESSES_MAX);
        }
        if heirs.is_empty() && over != self.me {
            heirs.push(self.me);
        }
        heirs.sort_unstable();
        heirs
    }
}
