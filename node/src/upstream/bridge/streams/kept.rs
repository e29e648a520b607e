//! What is kept of a session's streams, for how long, and what is said of the rest.

use super::super::stream::{EventId, OWN, Stream, StreamNo};
use super::Streams;
use crate::mcp::{self, Calls, NOT_SERVED};
use bytes::Bytes;
use proto::wire::Reason;
use serde_json::{json, value::RawValue};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Unread by readers that are there: 8 times what a hop has in flight (256 KiB). Beyond it the server
/// is not read from. With what is kept, a session holds 6 MiB and one message: only the server adds to
/// that, and readers that come and go turn the one into the other.
pub(super) const AWAITED_LEN_MAX: usize = 2 * 1024 * 1024;
/// Kept for readers that may come: a hundred answers of usual size, or one with a large picture. The
/// children of SDK servers take 40 MiB and more, so this is a tenth of what a session costs anyway.
pub(super) const KEPT_LEN_MAX: usize = 4 * 1024 * 1024;
/// An answered call's stream from its end, and what has been read of the server's own from then on:
/// clients come back within seconds.
pub(super) const KEPT_TIME: Duration = Duration::from_secs(60);
/// A reader that takes nothing for so long is cut off where others wait for it. It can resume.
pub(super) const STALLED_TIME_MAX: Duration = Duration::from_secs(30);
/// Streams of which nothing is left but the ids of their calls: with those of at most 256 bytes, 90 KiB.
pub(super) const FORGOTTEN_MAX: usize = 256;
const FORGOTTEN_IDS_LEN_MAX: usize = 256;
/// What the language server protocol calls a request that was cancelled; MCP has no code for it, and
/// this one is outside JSON-RPC's reserved range.
const CANCELLED: i64 = -32800;

/// A stream of which nothing is left.
#[derive(Debug)]
pub(super) struct Forgotten {
    pub(super) last: EventId,
    calls: Vec<Box<RawValue>>,
}

impl Streams {
    /// Whether enough waits for readers that are there.
    pub(in crate::upstream::bridge) fn is_full(&self) -> bool {
        self.weight.awaited >= AWAITED_LEN_MAX
    }

    /// When [`Self::pass_time`] is next of use.
    pub(in crate::upstream::bridge) fn deadline(&self) -> Option<Instant> {
        let cancelled = self.cancelled.front().map(|(until, _)| *until);
        let ended = self.ended.front().map(|(until, _)| *until);
        let stalled = || self.streams.values().filter_map(Stream::waits_since).min();
        let stalled = self.is_full().then(stalled).flatten().map(|since| since + STALLED_TIME_MAX);
        let rests = self.own().rests_since().map(|since| since + KEPT_TIME);
        [cancelled, ended, stalled, rests].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(in crate::upstream::bridge) fn pass_time(&mut self, now: Instant) {
        while let Some((id, no)) = due(&mut self.cancelled, now) {
            if let Some(call) = self.in_flight.get(&id).filter(|call| call.stream == no) {
                let calls = Calls::One(call.id.clone());
                let error = mcp::error_body(&calls, CANCELLED, "Request cancelled", None);
                self.answered(&id, error, now);
            }
        }
        while let Some(no) = due(&mut self.ended, now) {
            match self.streams.get(&no).is_some_and(|stream| stream.reader().is_some()) {
                true => self.ended.push_back((now + KEPT_TIME, no)), // still being read
                false => self.forget(no),
            }
        }
        if self.own().rests_since().is_some_and(|since| since + KEPT_TIME <= now) {
            self.change(OWN, Stream::forget_read);
        }
        if self.is_full() {
            let is_stalled =
                |stream: &&Stream| stream.waits_since().is_some_and(|since| since + STALLED_TIME_MAX <= now);
            let stalled: Vec<_> = self
                .streams
                .values()
                .filter(is_stalled)
                .filter_map(|it| Some((it.no(), it.reader()?)))
                .collect();
            for (no, reader) in stalled {
                tracing::debug!(stream = no.0, "a reader that takes nothing was cut off");
                self.effects.wake.push(reader);
                self.detach(no, reader);
            }
        }
        self.trim();
    }

    /// Keeps no more than there is room for: what has ended goes first, the oldest of it, then what was
    /// read, then what waits for readers of calls that have gone.
    pub(super) fn trim(&mut self) {
        while self.weight.kept > KEPT_LEN_MAX {
            let is_left = |no: &StreamNo| self.streams.get(no).is_none_or(|stream| stream.reader().is_none());
            if let Some(at) = self.ended.iter().position(|(_, no)| is_left(no)) {
                if let Some((_, no)) = self.ended.remove(at) {
                    self.forget(no);
                }
                continue;
            }
            let most_read = self.streams.values().max_by_key(|stream| stream.read_cost());
            if let Some(no) = most_read.filter(|stream| stream.read_cost() > 0).map(Stream::no) {
                self.change(no, Stream::forget_read);
                continue;
            }
            if !self.forget_what_waits() {
                return;
            }
        }
    }

    /// Drops what no reader has come for: all of a call's stream, or one notification of the server's
    /// own, and its requests only if there is nothing else. Says whether there was anything.
    fn forget_what_waits(&mut self) -> bool {
        let waits = |stream: &&Stream| stream.reader().is_none() && stream.unread_cost() > 0;
        let of_call = self.streams.range(StreamNo(OWN.0 + 1)..).map(|(_, stream)| stream).find(waits);
        let Some(no) = of_call.or(Some(self.own()).filter(waits)).map(Stream::no) else { return false };
        if no != OWN || self.change(OWN, Stream::forget_notification) != Some(true) {
            let lost: Vec<_> = self.change(no, |it| it.forget_unread().collect()).unwrap_or_default();
            lost.into_iter().for_each(|id| self.refuse(id));
        }
        true
    }

    pub(super) fn forget(&mut self, no: StreamNo) {
        let Some(mut stream) = self.remove(no) else { return };
        let last = stream.last_id();
        stream.forget_unread().for_each(|id| self.refuse(id));
        let calls = stream.calls;
        if calls.iter().map(|id| id.get().len()).sum::<usize>() <= FORGOTTEN_IDS_LEN_MAX {
            if self.forgotten.len() == FORGOTTEN_MAX {
                self.forgotten.pop_front();
            }
            self.forgotten.push_back(Forgotten { last, calls });
        }
    }

    /// What a stream that has broken off ends with where nobody else knows which calls it owes answers.
    pub(in crate::upstream::bridge) fn broken(&self, no: StreamNo) -> Bytes {
        let message = "The server ended before it answered; the request may have run";
        let stream = self.streams.get(&no);
        stream.map(|it| errors(&it.calls, it.last_id(), Reason::UpstreamBroke, message)).unwrap_or_default()
    }
}

impl Forgotten {
    /// Their id is that of the last event, so that a client that asks on from there is told that there
    /// is nothing more.
    pub(super) fn events(&self) -> Bytes {
        let message = "The answer to this request is not kept any more; the request has run";
        errors(&self.calls, self.last, Reason::AnswerLost, message)
    }
}

/// For each call an event with an error in place of its answer.
fn errors(calls: &[Box<RawValue>], id: EventId, reason: Reason, message: &str) -> Bytes {
    let data = json!({ "reason": reason.word(), "mayHaveRun": true });
    let event = |call: &RawValue| {
        let error = mcp::error_body(&Calls::One(call.to_owned()), NOT_SERVED, message, Some(&data));
        format!("event: message\nid: {id}\ndata: {}\n\n", String::from_utf8_lossy(&error))
    };
    calls.iter().map(|call| event(call)).collect::<String>().into()
}

/// The first of what comes in the order of its times, once its time has come.
fn due<T>(queue: &mut VecDeque<(Instant, T)>, now: Instant) -> Option<T> {
    let is_due = queue.front().is_some_and(|(time, _)| *time <= now);
    is_due.then(|| queue.pop_front()).flatten().map(|(_, due)| due)
}
