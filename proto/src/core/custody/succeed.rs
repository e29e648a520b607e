//! What becomes of records when owners change: inherited, given, taken, or left to others.

use super::{BACKUPS, Custody, Given};
use crate::core::ring::{Position, Ring};
use crate::core::succession::{Owner, Succession};
use crate::core::tenure::{Ms, Rule};
use crate::id::{NodeRef, Nonce};
use crate::wire::Record;
use std::sync::Arc;

impl Custody {
    /// Takes over what the verdicts give to this node, of what it has copies of.
    pub fn inherit(&mut self, succession: &Succession, now: Ms) -> Vec<Arc<Record>> {
        let me = self.me;
        let owner = |record: &Record| succession.owner(record.birth.home, Position::of_session(record.nonce));
        let inherited: Vec<_> = self
            .copies
            .values()
            .filter_map(|(record, _)| {
                // A copy of what this node gave away, or that is further down the line, is no reason
                // to take it back. Of an owner in between others may have a later one, or know that it
                // has ended: they are asked when somebody asks for it.
                let is_given = self.given.contains_key(&record.nonce);
                let Owner { node, epoch } = owner(record);
                let is_next = (record.epoch..=record.epoch + 1).contains(&epoch);
                (node == me && is_next && !is_given).then(|| record.owned_in(epoch))
            })
            .collect();
        let taken = inherited.into_iter().map(|record| self.adopt(record, now));
        let taken = taken.collect();
        for (nonce, owned) in &mut self.owned {
            if !owned.traced {
                let at = Position::of_session(*nonce);
                let kept = succession.kept_before(owned.record.birth.home, at, me, BACKUPS);
                owned.traced = kept.is_some();
                let others = kept.into_iter().flatten().filter(|node| *node != me);
                others.for_each(|node| owned.keepers.sent(node));
            }
            owned.keepers.have_none(|node| succession.is_over(node));
        }
        for ending in self.ending.values_mut() {
            ending.untold.retain(|node| !succession.is_over(*node));
        }
        self.give_again(succession, now);
        taken
    }

    fn adopt(&mut self, record: Record, now: Ms) -> Arc<Record> {
        let nonce = record.nonce;
        self.given.remove(&nonce);
        self.own(record, now);
        self.owned[&nonce].record.clone()
    }

    /// Gives a session away, to whoever will own it once this node is over. From now on this node
    /// serves it no more. `None` where there is nobody.
    pub fn give(&mut self, nonce: Nonce, succession: &Succession, now: Ms) -> Option<NodeRef> {
        let owned = self.owned.get(&nonce)?;
        let to = self.next_owner(&owned.record, succession).filter(|owner| owner.node != self.me)?;
        let owned = self.owned.remove(&nonce)?;
        self.due.remove(&(owned.due, nonce));
        if !self.rules.keeps(Rule::GivenIsGiven) {
            self.owned.insert(nonce, owned.clone());
        }
        let record = owned.record.owned_in(to.epoch).into();
        self.given.insert(nonce, Given { to: to.node, record, taken: false, due: now });
        self.due.insert((now, nonce));
        Some(to.node)
    }

    /// Whoever was given something and is over now has not kept it: the next in line gets it.
    fn give_again(&mut self, succession: &Succession, now: Ms) {
        let lost = self.given.iter().filter(|(_, given)| succession.is_over(given.to));
        for nonce in lost.map(|(nonce, _)| *nonce).collect::<Vec<_>>() {
            let Some(given) = self.given.get(&nonce) else { continue };
            let Some(next) = self.next_owner(&given.record, succession) else { continue };
            let record = given.record.owned_in(next.epoch).into();
            self.due.remove(&(given.due, nonce));
            self.given.insert(nonce, Given { to: next.node, record, taken: false, due: now });
            self.due.insert((now, nonce));
        }
    }

    fn next_owner(&self, record: &Record, succession: &Succession) -> Option<Owner> {
        if self.heirs.nodes().is_empty() {
            return None; // who it will be is for others to say
        }
        let (home, at) = (record.birth.home, Position::of_session(record.nonce));
        // What was given to this node is its own by the verdicts only once the giver is over.
        let is_mine = succession.owner(home, at).node == self.me;
        let next = succession.owner_after(home, at, Some((self.me, &*self.heirs)));
        // It gives to nobody but its own heirs, which no verdict can pass over.
        (is_mine && self.heirs.nodes().contains(&next.node)).then_some(next)
    }

    /// The taker has it.
    pub fn taken(&mut self, by: NodeRef, nonce: Nonce) {
        if let Some(given) = self.given.get_mut(&nonce).filter(|given| given.to == by) {
            given.taken = true;
        }
    }

    /// What was given away and has not been taken yet.
    pub fn untaken(&self) -> usize {
        self.given.values().filter(|given| !given.taken).count()
    }

    /// This node, if it is still the one that was meant, is given a session by its owner; `None`
    /// where it knows that to be out of date.
    pub fn take(&mut self, to: NodeRef, record: &Arc<Record>, now: Ms) -> Option<Arc<Record>> {
        let nonce = record.nonce;
        if to != self.me || self.ended.contains_key(&nonce) {
            return None;
        }
        if let Some(owned) = self.owned.get(&nonce) {
            return (owned.record.epoch < record.epoch).then(|| self.adopt((**record).clone(), now));
        }
        if self.given.get(&nonce).is_some_and(|given| given.record.epoch > record.epoch) {
            return None; // given on already: a late repetition
        }
        // An owner in between may have written more than the one that gives it.
        let is_later = |copy: &Record| copy.epoch + 1 >= record.epoch && copy.rev > record.rev;
        let later = self.copies.get(&nonce).filter(|(copy, _)| is_later(copy));
        let latest = later.map_or_else(|| (**record).clone(), |(copy, _)| copy.owned_in(record.epoch));
        Some(self.adopt(latest, now))
    }

    /// This node goes on under another incarnation: with what it owned, where it is its own heir.
    /// What it has to leave to others it can still be asked for: these may not have got the latest.
    pub fn be_reborn(&mut self, me: NodeRef, heir: bool, succession: &Succession, now: Ms) {
        self.me = me;
        self.heirs = Ring::over(Vec::new()).into();
        self.due.clear();
        for (nonce, ending) in &mut self.ending {
            ending.due = now;
            self.due.insert((now, *nonce));
        }
        // Those who told the earlier incarnation to keep something can't tell this one to drop it.
        for (nonce, (record, _)) in std::mem::take(&mut self.copies) {
            self.keep_older(nonce, record, now);
        }
        let given = std::mem::take(&mut self.given).into_iter().map(|(nonce, given)| (nonce, given.record));
        let owned = std::mem::take(&mut self.owned).into_iter().map(|(nonce, owned)| (nonce, owned.record));
        for (nonce, record) in given {
            self.keep_older(nonce, record, now);
        }
        for (nonce, record) in owned {
            let owner = succession.owner(record.birth.home, Position::of_session(nonce));
            if heir && owner.node == me {
                self.adopt(record.owned_in(owner.epoch), now);
            } else {
                self.keep_older(nonce, record, now);
            }
        }
    }

    /// Keeps a record of its past, unless it has a later one.
    fn keep_older(&mut self, nonce: Nonce, record: Arc<Record>, now: Ms) {
        if self.past.get(&nonce).is_none_or(|(known, _)| known.version() < record.version()) {
            self.past.insert(nonce, (record, now));
        }
    }
}
