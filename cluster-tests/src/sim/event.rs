//! What can happen, in the order in which it does.

use super::clients::JourneyId;
use super::rpc::{Reply, RpcId};
use proto::core::tenure::Ms;
use proto::id::{NodeRef, Nonce};
use proto::wire::Note;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One process: the host that it runs on, and which of the starts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pid {
    pub(super) host: usize,
    pub(super) start: u32,
}

/// One call, for ever.
pub(super) type Uid = u64;

#[derive(Clone, Debug)]
pub(super) enum Event {
    Tick(Pid),
    Gossip(Pid),
    /// A datagram arrives.
    Note {
        host: usize,
        note: Note,
    },
    /// A process at `at` has found out that `of` is gone, or is about to try.
    Proof {
        at: Pid,
        of: NodeRef,
    },
    /// A request on a stream arrives.
    Request(RpcId),
    /// Its answer does.
    Reply(RpcId, Box<Reply>),
    /// Whoever waits for the answer finds the stream broken.
    Broken(RpcId),
    /// The backend has run a call.
    Done {
        at: Pid,
        uid: Uid,
    },
    /// A backup should have taken a new session by now.
    OpenDue {
        at: Pid,
        nonce: Nonce,
    },
    /// The backups should have heard of the end by now.
    EndDue {
        at: Pid,
        nonce: Nonce,
    },
    RecallDue {
        at: Pid,
        nonce: Nonce,
    },
    /// A journey looks again.
    Resume {
        journey: JourneyId,
        round: u32,
    },
    Deadline(JourneyId),
    Client(usize),
    Fault(usize),
    Thaw(usize),
    Crash(usize),
    Start {
        host: usize,
        clock_back: bool,
    },
    /// A fault of the network that was to last until now.
    Calm(super::network::Trouble),
    Heal,
    Probe,
    Last,
}

#[derive(Debug)]
struct Entry(Ms, u64, Event);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// By time, and what was planned first of what happens at the same time.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    planned: u64,
}

impl Agenda {
    pub(super) fn plan(&mut self, at: Ms, event: Event) {
        self.planned += 1;
        self.heap.push(Reverse(Entry(at, self.planned, event)));
    }

    pub(super) fn pop(&mut self) -> Option<(Ms, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.0, entry.2))
    }

    pub(super) fn count(&self) -> u64 {
        self.planned
    }
}
