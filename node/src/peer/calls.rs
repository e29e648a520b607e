//! Calls that other nodes have forwarded to this one, by the number that all copies of a call share:
//! so that none runs twice, and an answer that was lost on its way can be asked for again.

use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long an answer that was not delivered is kept: the entry node asks again within 10 s.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Undelivered answers at once: at 64 KiB each they take at most 64 MiB. Of more it is only known
/// that they ran.
const KEPT_MAX: usize = 1_024;
const KNOWN_MAX: usize = 65_536;
/// An answer that is longer is not kept.
pub(super) const KEPT_LEN_MAX: usize = 64 * 1024;

/// What became of a call whose answer was not delivered.
#[derive(Debug)]
pub(super) enum Done {
    /// The frame, and the body where there is one.
    Answer { frame: Bytes, body: Vec<Bytes> },
    /// It ran, and its answer is gone.
    Lost,
}

type Outcome = Option<Arc<Done>>;

/// All calls under way, and answers that were not delivered.
#[derive(Debug, Default)]
pub(super) struct Calls {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_uid: HashMap<u64, watch::Receiver<Outcome>>,
    kept: VecDeque<Kept>,
    /// How many of the oldest have no answer any more.
    bare: usize,
}

#[derive(Debug)]
struct Kept {
    since: Instant,
    uid: u64,
    told: watch::Sender<Outcome>,
}

pub(super) enum Begun {
    /// The first copy of it: to be run.
    New(Call),
    /// It was run, or is being run.
    Before(watch::Receiver<Outcome>),
    /// A first copy that comes after a later one.
    Late,
}

impl Calls {
    /// A copy of a call has come, of which `copies` were sent before.
    pub(super) fn begin(self: &Arc<Self>, uid: u64, copies: u8) -> Begun {
        let mut entries = self.entries();
        entries.forget_old();
        match entries.by_uid.get(&uid) {
            Some(_) if copies == 0 => Begun::Late,
            Some(outcome) => Begun::Before(outcome.clone()),
            None => {
                let (told, outcome) = watch::channel(None);
                entries.by_uid.insert(uid, outcome);
                Begun::New(Call { calls: self.clone(), uid, told: Some(told), again: copies > 0 })
            }
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn forget_old(&mut self) {
        while self.kept.len() - self.bare > KEPT_MAX {
            self.kept[self.bare].told.send_replace(Some(Arc::new(Done::Lost)));
            self.bare += 1;
        }
        while let Some(oldest) = self.kept.front() {
            if self.kept.len() <= KNOWN_MAX && oldest.since.elapsed() < KEPT_FOR {
                break;
            }
            self.by_uid.remove(&oldest.uid);
            self.kept.pop_front();
            self.bare = self.bare.saturating_sub(1);
        }
    }
}

/// A call under way. Dropped without an outcome it is forgotten: it was answered, or given up.
#[derive(Debug)]
pub(super) struct Call {
    calls: Arc<Calls>,
    uid: u64,
    told: Option<watch::Sender<Outcome>>,
    /// It is not the first copy, so an earlier one may yet come.
    again: bool,
}

impl Call {
    /// Its answer was not delivered, and waits to be asked for.
    pub(super) fn undelivered(mut self, done: Done) {
        self.keep(done);
    }

    /// It has certainly not run: the next copy of it may.
    pub(super) fn refused(mut self) {
        self.again = false;
    }

    fn keep(&mut self, done: Done) {
        let Some(told) = self.told.take() else { return };
        told.send_replace(Some(Arc::new(done)));
        self.calls.entries().kept.push_back(Kept { since: Instant::now(), uid: self.uid, told });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.again {
            // Remembered, so that a copy that was sent earlier does not run when it comes at last.
            self.keep(Done::Lost);
        } else if self.told.is_some() {
            self.calls.entries().by_uid.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_runs_once_whatever_copies_of_it_come() {
        let calls = Arc::new(Calls::default());
        let Begun::New(first) = calls.begin(1, 0) else { panic!("it is the first") };
        let Begun::Before(outcome) = calls.begin(1, 1) else { panic!("it is under way") };
        assert!(outcome.borrow().is_none());
        assert!(matches!(calls.begin(1, 0), Begun::Late));
        first.undelivered(Done::Lost);
        assert!(matches!(outcome.borrow().as_deref(), Some(Done::Lost)));
        assert!(matches!(calls.begin(1, 2), Begun::Before(_)));
    }

    #[test]
    fn what_was_delivered_is_forgotten_unless_an_earlier_copy_may_come() {
        let calls = Arc::new(Calls::default());
        let Begun::New(first) = calls.begin(1, 0) else { panic!("it is the first") };
        drop(first);
        let Begun::New(second) = calls.begin(2, 1) else { panic!("its first copy never came") };
        drop(second);
        assert!(matches!(calls.begin(2, 0), Begun::Late));
        assert_eq!(calls.entries().by_uid.len(), 1);
    }

    #[test]
    fn what_was_refused_may_be_tried_again() {
        let calls = Arc::new(Calls::default());
        for copies in 0..3 {
            let Begun::New(call) = calls.begin(1, copies) else { panic!("nothing of it has run") };
            call.refused();
        }
    }

    #[test]
    fn of_too_many_answers_it_is_still_known_that_they_ran() {
        let calls = Arc::new(Calls::default());
        for uid in 0..2 * KEPT_MAX as u64 {
            let Begun::New(call) = calls.begin(uid, 0) else { panic!("they are all different") };
            call.undelivered(Done::Answer { frame: Bytes::new(), body: Vec::new() });
        }
        drop(calls.begin(u64::MAX, 0));
        let has_answer = |uid| match calls.begin(uid, 1) {
            Begun::Before(outcome) => matches!(outcome.borrow().as_deref(), Some(Done::Answer { .. })),
            Begun::New(_) | Begun::Late => panic!("{uid} would run again"),
        };
        assert!(!has_answer(0) && has_answer(2 * KEPT_MAX as u64 - 1));
    }
}
