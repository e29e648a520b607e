//! The sessions that a node owns, the copies that it keeps for others, and how both move: pure, and
//! apart from what serves them.
//!
//! An owner pushes each record to two backups, the first two of its heirs on their ring, until they
//! have it; the first of them is who takes over. What a node inherits, gives away or is given
//! follows from [`Succession`](super::succession::Succession) alone.

mod keepers;
mod succeed;
#[cfg(test)]
pub(crate) mod tests;

use self::keepers::Keepers;
use super::ring::{Position, Ring};
use super::succession::{Owner, Succession};
use super::tenure::{Ms, Rule, Rules};
use crate::id::{NodeRef, Nonce};
use crate::wire::{GoneWhy, Item, RECORDS_AT_ONCE, RECORDS_LEN_MAX, Record, Whose};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Copies besides the owner's own.
pub const BACKUPS: usize = 2;
/// "Ended" is told from "never was" for the last 100,000 sessions that a node knew of: 40 bytes
/// each, 4 MB.
pub const TOMBSTONES_MAX: usize = 100_000;
/// What a backup has not said that it has is sent again.
const AGAIN: Ms = 1_000;
/// How long after a backup has something it is looked whether others have it needlessly.
const TIDY: Ms = 200;
/// An end is told this often; after that the copies grow old by themselves.
const ENDS_TOLD_MAX: u32 = 10;

/// What a node has to do with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It owns it.
    Live,
    /// It owned it, and gave it to that one.
    Given(NodeRef),
    Ended(GoneWhy),
    Unknown,
}

#[derive(Clone, Debug)]
struct Owned {
    record: Arc<Record>,
    keepers: Keepers,
    /// It is known who may have kept copies for its earlier owners: they are among the keepers.
    traced: bool,
    /// When it is looked at next.
    due: Ms,
}

#[derive(Clone, Debug)]
struct Given {
    to: NodeRef,
    record: Arc<Record>,
    taken: bool,
    due: Ms,
}

#[derive(Clone, Debug)]
struct Ending {
    why: GoneWhy,
    /// Who may have a copy and does not know.
    untold: Vec<NodeRef>,
    told: u32,
    due: Ms,
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parcel {
    Keep { to: NodeRef, items: Vec<Item> },
    Give { to: NodeRef, record: Arc<Record> },
}

#[derive(Clone, Debug)]
pub struct Custody {
    me: NodeRef,
    rules: Rules,
    owned: BTreeMap<Nonce, Owned>,
    copies: BTreeMap<Nonce, (Arc<Record>, Ms)>,
    /// What it owned or kept in earlier incarnations: for others to ask for, not to go on from.
    past: BTreeMap<Nonce, (Arc<Record>, Ms)>,
    given: BTreeMap<Nonce, Given>,
    ending: BTreeMap<Nonce, Ending>,
    ended: BTreeMap<Nonce, GoneWhy>,
    ended_order: VecDeque<Nonce>,
    /// Everything that has to be looked at, by time.
    due: BTreeSet<(Ms, Nonce)>,
    /// Who keeps the copies: the ring over this node's heirs.
    heirs: Arc<Ring>,
}

impl Custody {
    pub fn new(me: NodeRef, rules: Rules) -> Self {
        Self {
            me,
            rules,
            owned: BTreeMap::new(),
            copies: BTreeMap::new(),
            past: BTreeMap::new(),
            given: BTreeMap::new(),
            ending: BTreeMap::new(),
            ended: BTreeMap::new(),
            ended_order: VecDeque::new(),
            due: BTreeSet::new(),
            heirs: Ring::over(Vec::new()).into(),
        }
    }

    /// Who this node is, by the last that custody was told.
    pub fn me(&self) -> NodeRef {
        self.me
    }

    pub fn holding(&self, nonce: Nonce) -> Holding {
        if self.owned.contains_key(&nonce) {
            return Holding::Live;
        }
        if let Some(given) = self.given.get(&nonce) {
            return Holding::Given(given.to);
        }
        self.ended.get(&nonce).map_or(Holding::Unknown, |why| Holding::Ended(*why))
    }

    pub fn owned(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.owned.values().map(|owned| &owned.record)
    }

    /// What it owns, what it has given to whom, and what it keeps a copy of although the copy's owner is over:
    /// from that nonce on, in the order of nonces, and at most so many.
    pub fn listed(&self, from: Nonce, most: usize, succession: &Succession) -> Vec<(Arc<Record>, Whose)> {
        let owned = self.owned.range(from..).map(|(_, owned)| (owned.record.clone(), Whose::Own)).take(most);
        let given = self.given.range(from..).filter(|(nonce, _)| !self.ended.contains_key(nonce));
        let given = given.map(|(_, given)| (given.record.clone(), Whose::Given { to: given.to })).take(most);
        let mut listed: BTreeMap<Nonce, (Arc<Record>, Whose)> =
            given.chain(owned).map(|(record, whose)| (record.nonce, (record, whose))).collect();
        // Behind the last of these nothing more is asked for.
        let last = listed.keys().nth(most.saturating_sub(1)).copied().unwrap_or(Nonce([u8::MAX; 12]));
        for (nonce, (record, _)) in self.past.range(from..=last).chain(self.copies.range(from..=last)) {
            if listed.contains_key(nonce) || self.ended.contains_key(nonce) {
                continue;
            }
            let Owner { node, epoch } = succession.owner(record.birth.home, Position::of_session(*nonce));
            if epoch > record.epoch {
                let record = Arc::new(Record { epoch, ..(**record).clone() });
                listed.insert(*nonce, (record, Whose::Kept { owner: node }));
            }
        }
        listed.into_values().take(most).collect()
    }

    pub fn record(&self, nonce: Nonce) -> Option<&Arc<Record>> {
        self.owned.get(&nonce).map(|owned| &owned.record)
    }

    pub fn copies(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.copies.values().map(|(record, _)| record)
    }

    /// How many backups have the latest version of a session's record.
    pub fn kept_by(&self, nonce: Nonce) -> usize {
        self.owned.get(&nonce).map_or(0, |owned| owned.keepers.count())
    }

    /// Whether a backup that is there still misses the end of a session.
    pub fn is_end_untold(&self, nonce: Nonce) -> bool {
        self.ending.contains_key(&nonce)
    }

    pub fn heirs(&self) -> &Arc<Ring> {
        &self.heirs
    }

    // --- as the owner ---

    /// A session of this node's is born, or was found again at its upstream.
    pub fn own(&mut self, record: Record, now: Ms) {
        let nonce = record.nonce;
        self.copies.remove(&nonce);
        self.forget_due(nonce);
        let traced = record.epoch == 1;
        let owned = Owned { record: record.into(), keepers: Keepers::default(), traced, due: now };
        self.owned.insert(nonce, owned);
        self.due.insert((now, nonce));
    }

    /// Changes what is on record; nothing is written where nothing changes.
    pub fn change(&mut self, nonce: Nonce, change: impl FnOnce(&mut Record), now: Ms) {
        let Some(owned) = self.owned.get_mut(&nonce) else { return };
        let mut record = (*owned.record).clone();
        change(&mut record);
        if record == *owned.record {
            return;
        }
        record.rev += 1;
        owned.record = record.into();
        owned.keepers.is_outdated();
        self.due.remove(&(owned.due, nonce));
        owned.due = now;
        self.due.insert((now, nonce));
    }

    /// A session is over for good.
    pub fn end(&mut self, nonce: Nonce, why: GoneWhy, now: Ms) -> Option<Arc<Record>> {
        let owned = self.owned.remove(&nonce)?;
        self.due.remove(&(owned.due, nonce));
        self.bury(nonce, why);
        let mut untold: Vec<_> = owned.keepers.may_have().collect();
        untold.extend(self.heirs.successors(Position::of_session(nonce)).take(BACKUPS));
        untold.sort_unstable();
        untold.dedup();
        self.ending.insert(nonce, Ending { why, untold, told: 0, due: now });
        self.due.insert((now, nonce));
        Some(owned.record)
    }

    /// Who keeps copies from now on, and who is given what when this node leaves.
    pub fn entrust(&mut self, heirs: Vec<NodeRef>, now: Ms) {
        if self.heirs.nodes() == heirs {
            return;
        }
        self.heirs = Ring::over(heirs).into();
        for (nonce, owned) in &mut self.owned {
            self.due.remove(&(owned.due, *nonce));
            owned.due = now;
            self.due.insert((now, *nonce));
        }
    }

    /// What is to be sent now: at most a message to each node per kind of thing.
    pub fn parcels(&mut self, now: Ms) -> Vec<Parcel> {
        let mut keep: BTreeMap<NodeRef, Vec<Item>> = BTreeMap::new();
        let mut give = Vec::new();
        let (mut looked_at, mut len) = (0, 0);
        while let Some((at, nonce)) = self.due.first().copied() {
            len += self.owned.get(&nonce).map_or(0, |owned| owned.record.wire_len());
            if at > now || looked_at == RECORDS_AT_ONCE || (looked_at > 0 && len > RECORDS_LEN_MAX) {
                break;
            }
            looked_at += 1;
            self.due.remove(&(at, nonce));
            let heirs = self.heirs.clone();
            let backups = || heirs.successors(Position::of_session(nonce)).take(BACKUPS);
            if let Some(owned) = self.owned.get_mut(&nonce) {
                if owned.record.keep_s == 0 {
                    continue; // it shall end with its owner
                }
                let missing: Vec<_> = backups().filter(|node| !owned.keepers.has_latest(*node)).collect();
                // Once all who shall have it do, those who had it before shall not have it any more: they
                // would take it up again as it was then. Where there are too few it is well kept there.
                let is_backup = |node: &NodeRef| backups().any(|backup| backup == *node);
                let enough = missing.is_empty() && backups().count() == BACKUPS;
                let former = owned.keepers.may_have().filter(|node| enough && !is_backup(node));
                let former: Vec<_> = former.collect();
                if missing.is_empty() && former.is_empty() {
                    // Told again from time to time, so that nobody takes it for forgotten.
                    owned.keepers.tell_again();
                    owned.due = now + Ms::from(owned.record.keep_s) * 1_000 / 4;
                } else {
                    owned.due = now + AGAIN;
                }
                if missing.iter().any(|node| owned.keepers.is_dismissed(*node)) {
                    // It is wanted again: by a later version, which no late dismissal can hit.
                    Arc::make_mut(&mut owned.record).rev += 1;
                    owned.keepers.is_outdated();
                    owned.due = now;
                    self.due.insert((now, nonce));
                    continue;
                }
                self.due.insert((owned.due, nonce));
                for node in missing {
                    owned.keepers.sent(node);
                    keep.entry(node).or_default().push(Item::Live(owned.record.clone()));
                }
                for node in former {
                    owned.keepers.dismiss(node);
                    let version = owned.record.version();
                    keep.entry(node).or_default().push(Item::Elsewhere { nonce, version });
                }
            } else if let Some(given) = self.given.get_mut(&nonce).filter(|given| !given.taken) {
                given.due = now + AGAIN;
                self.due.insert((given.due, nonce));
                give.push(Parcel::Give { to: given.to, record: given.record.clone() });
            } else if let Some(ending) = self.ending.get_mut(&nonce) {
                ending.told += 1;
                if ending.untold.is_empty() || ending.told > ENDS_TOLD_MAX {
                    self.ending.remove(&nonce);
                    continue;
                }
                ending.due = now + AGAIN;
                self.due.insert((ending.due, nonce));
                for node in &ending.untold {
                    keep.entry(*node).or_default().push(Item::Ended { nonce, why: ending.why });
                }
            }
        }
        let kept = keep.into_iter().map(|(to, items)| Parcel::Keep { to, items });
        kept.chain(give).collect()
    }

    /// Whether there is more to be looked at now.
    pub fn is_due(&self, now: Ms) -> bool {
        self.due.first().is_some_and(|(at, _)| *at <= now)
    }

    /// A backup has what it was sent.
    pub fn kept(&mut self, by: NodeRef, items: &[Item], now: Ms) {
        for item in items {
            match item {
                Item::Live(record) => {
                    let Some(owned) = self.owned.get_mut(&record.nonce) else { continue };
                    owned.keepers.sent(by); // by a late repetition, after it had been dismissed
                    let counts = !owned.keepers.has_latest(by) && !owned.keepers.is_dismissed(by);
                    if owned.record.version() == record.version() && counts {
                        owned.keepers.kept(by);
                        self.due.remove(&(owned.due, record.nonce));
                        owned.due = owned.due.min(now + TIDY);
                        self.due.insert((owned.due, record.nonce));
                    }
                }
                Item::Elsewhere { nonce, .. } => {
                    let Some(owned) = self.owned.get_mut(nonce) else { continue };
                    owned.keepers.have_none(|node| node == by);
                }
                Item::Ended { nonce, .. } => {
                    let Some(ending) = self.ending.get_mut(nonce) else { continue };
                    ending.untold.retain(|node| *node != by);
                    self.due.remove(&(ending.due, *nonce));
                    ending.due = now;
                    self.due.insert((now, *nonce));
                }
            }
        }
    }

    // --- as a backup ---

    /// Keeps what an owner has sent to this node, if it is still the one that was meant: of an earlier
    /// incarnation in this process the owner may have taken leave already.
    pub fn keep(&mut self, to: NodeRef, item: &Item, now: Ms) {
        match item {
            Item::Live(_) | Item::Elsewhere { .. } if to != self.me => {}
            Item::Live(record) => {
                let nonce = record.nonce;
                let is_over = self.ended.contains_key(&nonce) && self.rules.keeps(Rule::EndedStaysEnded);
                if is_over || self.owned.contains_key(&nonce) {
                    return;
                }
                let regresses =
                    self.copies.get(&nonce).is_some_and(|(known, _)| known.version() > record.version());
                if !regresses || !self.rules.keeps(Rule::RecordsNeverRegress) {
                    self.copies.insert(nonce, (record.clone(), now));
                }
            }
            Item::Elsewhere { nonce, version } => {
                if self.copies.get(nonce).is_some_and(|(copy, _)| copy.version() <= *version) {
                    self.copies.remove(nonce);
                }
            }
            Item::Ended { nonce, why } => {
                self.copies.remove(nonce);
                self.past.remove(nonce);
                // By an owner before this one, who had the right to.
                if self.end(*nonce, *why, now).is_none() {
                    self.bury(*nonce, *why);
                }
            }
        }
    }

    /// What this node knows of a session, for a new owner that knows less.
    pub fn recall(&self, nonce: Nonce) -> Option<Item> {
        if let Some(why) = self.ended.get(&nonce) {
            return Some(Item::Ended { nonce, why: *why });
        }
        let copies = [self.copies.get(&nonce), self.past.get(&nonce)].into_iter().flatten();
        let given = self.given.get(&nonce).map(|given| &given.record);
        let all = copies.map(|(record, _)| record).chain(self.record(nonce)).chain(given);
        all.max_by_key(|record| record.version()).map(|record| Item::Live(record.clone()))
    }

    /// Drops copies that nobody has told of for too long.
    pub fn forget_old(&mut self, now: Ms) {
        let is_told_of =
            |record: &Record, since: Ms| now.saturating_sub(since) < Ms::from(record.keep_s) * 1_000;
        self.copies.retain(|_, (record, since)| is_told_of(record, *since));
        self.past.retain(|_, (record, since)| is_told_of(record, *since));
    }

    // --- small things ---

    fn bury(&mut self, nonce: Nonce, why: GoneWhy) {
        if self.ended.insert(nonce, why).is_none() {
            self.ended_order.push_back(nonce);
        }
        if self.ended_order.len() > TOMBSTONES_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    fn forget_due(&mut self, nonce: Nonce) {
        if let Some(owned) = self.owned.get(&nonce) {
            self.due.remove(&(owned.due, nonce));
        }
        if let Some(given) = self.given.get(&nonce) {
            self.due.remove(&(given.due, nonce));
        }
    }
}
