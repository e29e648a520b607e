//! One session: whether its numbers follow each other, and whether it had one owner at a time. Pure.
//!
//! Where the outcome of calls is not known, that many numbers may be left out, now or later, and no more. An
//! upstream that dies with its node may begin again at 1, but only under a later epoch of the session's ownership:
//! that is how its client could have known.

use std::collections::BTreeMap;

use super::super::options::Upstreams;
use super::{At, Ownership, Wrong};

type Mistake = (Wrong, String);

/// What is known of a session.
#[derive(Debug, Default)]
pub(super) struct Book {
    last: u64,
    /// Calls whose outcome is not known and that no left-out number has explained yet.
    unknown: u64,
    name: Option<String>,
    owner: Option<String>,
    /// Each epoch's one owner.
    owners: BTreeMap<u64, String>,
    /// The latest epoch, and since when somebody was told of it.
    newest: Option<(u64, At)>,
    /// The epoch under which the upstream's session began, where it is known.
    began: Option<u64>,
    /// A fresh upstream session that no later epoch has explained yet.
    unexplained: Option<Mistake>,
    pub(super) lost: Option<String>,
}

impl Book {
    pub(super) fn owner(&self) -> Option<&String> {
        self.owner.as_ref()
    }

    pub(super) fn is_unexplained(&self) -> bool {
        self.unexplained.is_some()
    }

    pub(super) fn unexplained(&self) -> Option<Mistake> {
        self.unexplained.clone()
    }

    /// A call for a number ended without one, and may have run.
    pub(super) fn not_known(&mut self) {
        self.unknown += 1;
    }

    pub(super) fn counted(&mut self, upstreams: Upstreams, number: u64) -> Option<Mistake> {
        let (last, unknown) = (self.last, self.unknown);
        // Whatever is wrong with it, it goes on from here: one mistake is told once.
        self.last = number;
        if number > last {
            let left_out = number - last - 1;
            self.unknown = unknown.saturating_sub(left_out);
            let what = || format!("{number} after {last}, with {unknown} calls of unknown outcome");
            return (left_out > unknown).then(|| (Wrong::Skipped, what()));
        }
        let mistake = match number == last {
            true => (Wrong::Repeated, format!("{number} twice")),
            false => (Wrong::Backwards, format!("{number} after {last}")),
        };
        // Calls of unknown outcome may have been the first ones of the fresh session.
        if number == 0 || number - 1 > unknown {
            return Some(mistake);
        }
        self.unknown -= number - 1;
        self.name = None;
        self.fresh(upstreams, mistake)
    }

    pub(super) fn named(&mut self, upstreams: Upstreams, name: &str) -> Option<Mistake> {
        let before = self.name.replace(name.to_owned())?;
        if before == name {
            return None;
        }
        self.last = 0;
        self.fresh(upstreams, (Wrong::OtherSession, format!("{name} answers for {before}")))
    }

    pub(super) fn owned(&mut self, said: &Ownership) -> Option<Mistake> {
        let owner = &said.owner;
        let Some(epoch) = said.epoch else {
            self.owner = Some(owner.clone());
            return None;
        };
        self.began.get_or_insert(epoch);
        let first = self.owners.entry(epoch).or_insert_with(|| owner.clone());
        if first != owner {
            return Some((Wrong::TwoOwners, format!("epoch {epoch} is {first}'s and {owner}'s")));
        }
        match self.newest {
            // It was asked when a client knew of a later epoch already: a superseded owner that goes on.
            Some((newest, since)) if epoch < newest && said.has_served && said.sent >= since => {
                return Some((
                    Wrong::TwoOwners,
                    format!("{owner} serves epoch {epoch} after epoch {newest}"),
                ));
            }
            // The answer has been overtaken, or comes from one who can't know better.
            Some((newest, _)) if epoch < newest => return None,
            Some((newest, _)) if epoch == newest => {}
            Some(_) | None => self.newest = Some((epoch, said.done)),
        }
        self.owner = Some(owner.clone());
        if self.unexplained.is_some() && self.began.is_some_and(|began| epoch > began) {
            (self.began, self.unexplained) = (Some(epoch), None);
        }
        None
    }

    /// The upstream's session is another one than before. Fine where the old one could have died with its node and
    /// ownership has moved since, which a look-up may yet have to show.
    fn fresh(&mut self, upstreams: Upstreams, mistake: Mistake) -> Option<Mistake> {
        if upstreams == Upstreams::Http {
            return Some(mistake);
        }
        let newest = self.newest.map(|(newest, _)| newest);
        if newest > self.began {
            self.began = newest;
            return None;
        }
        // An earlier one that nothing has explained stays what it was.
        self.unexplained.replace(mistake)
    }
}
