//! What is said on streams: it arrives whole and once, or whoever waits for the answer finds the
//! stream broken and can't tell how much of it arrived.

use super::clients::{Ask, Asker, JourneyId, Outcome};
use super::event::{Event, Pid};
use super::world::World;
use proto::core::tenure::Ms;
use proto::id::{NodeRef, Nonce};
use proto::wire::{Item, Record};
use std::sync::Arc;

pub(super) type RpcId = u64;

#[derive(Clone, Debug)]
pub(super) enum Request {
    Keep(Vec<Item>),
    Give(Arc<Record>),
    Recall(Nonce),
    Forward { journey: JourneyId, ask: Ask },
}

#[derive(Clone, Debug)]
pub(super) enum Reply {
    Kept,
    Taken,
    Recalled(Option<Item>),
    Forwarded(Outcome),
}

#[derive(Debug)]
pub(super) struct Rpc {
    pub(super) from: Pid,
    pub(super) to: NodeRef,
    host: usize,
    /// The process that took the connection.
    peer: Option<Pid>,
    pub(super) request: Request,
    /// Some of it may have arrived.
    sent: bool,
    served: bool,
    /// Nobody waits for the answer any more; the request may still be read.
    abandoned: bool,
}

impl World {
    pub(super) fn ask(&mut self, from: Pid, to: NodeRef, request: Request, patience: Ms) -> RpcId {
        self.last_rpc += 1;
        let id = self.last_rpc;
        let host = self.by_tag[&to.tag];
        // Who greets with another start's incarnation is not talked to.
        let meant = |it: &&super::process::Process| (it.began_as..=it.me()).contains(&to);
        let peer = self.hosts[host].process.as_ref().filter(meant).map(|it| it.pid);
        self.rpcs
            .insert(id, Rpc { from, to, host, peer, request, sent: false, served: false, abandoned: false });
        let delay = self.net.stream(from.host, host, &mut self.rng);
        self.agenda.plan(self.now + delay, Event::Request(id));
        self.agenda.plan(self.now + patience, Event::Broken(id));
        id
    }

    /// A request gets to its host, if it does.
    pub(super) fn on_request(&mut self, id: RpcId) {
        let Some(rpc) = self.rpcs.get_mut(&id) else { return };
        let (from, host) = (rpc.from, rpc.host);
        if !self.net.is_up(from.host, host, self.now) {
            let again = self.now + self.rng.between(60, 220);
            return self.agenda.plan(again, Event::Request(id));
        }
        let there = self.hosts[host].process.as_ref().map(|it| it.pid);
        if there.is_none() || there != rpc.peer {
            // Refused: nobody listens, or somebody else than the one that was meant.
            if self.net.is_up(host, from.host, self.now) {
                let soon = self.now + self.rng.between(1, 6);
                self.agenda.plan(soon, Event::Broken(id));
            }
            return;
        }
        rpc.sent = true;
        if self.hosts[host].process.as_ref().is_some_and(|it| it.frozen_since.is_some()) {
            return self.put_off(host, Event::Request(id));
        }
        let Some(rpc) = self.rpcs.get_mut(&id) else { return };
        rpc.served = true;
        let (request, Some(pid)) = (rpc.request.clone(), there) else { return };
        self.serve_rpc(pid, id, request);
    }

    fn serve_rpc(&mut self, pid: Pid, id: RpcId, request: Request) {
        let Some((from, to)) = self.rpcs.get(&id).map(|rpc| (rpc.from, rpc.to)) else { return };
        match request {
            Request::Keep(items) => {
                self.keep(pid, to, &items);
                self.reply(id, Reply::Kept);
            }
            Request::Give(record) => {
                self.take(pid, from, to, &record);
                self.reply(id, Reply::Taken);
            }
            Request::Recall(nonce) => {
                let item = self.process(pid).and_then(|it| it.custody.recall(nonce));
                self.reply(id, Reply::Recalled(item));
            }
            Request::Forward { ask, .. } => self.on_forwarded(pid, Asker::Remote(id), ask),
        }
    }

    pub(super) fn reply(&mut self, id: RpcId, reply: Reply) {
        let Some(rpc) = self.rpcs.get(&id) else { return };
        let delay = self.net.stream(rpc.host, rpc.from.host, &mut self.rng);
        self.agenda.plan(self.now + delay, Event::Reply(id, Box::new(reply)));
    }

    pub(super) fn on_reply(&mut self, id: RpcId, reply: Reply) {
        let Some(rpc) = self.rpcs.get(&id) else { return };
        let (from, host) = (rpc.from, rpc.host);
        if !self.net.is_up(host, from.host, self.now) {
            if self.hosts[host].pid() == rpc.peer {
                let again = self.now + self.rng.between(60, 220);
                self.agenda.plan(again, Event::Reply(id, Box::new(reply)));
            }
            return;
        }
        if self.is_frozen(from) {
            return self.put_off(from.host, Event::Reply(id, Box::new(reply)));
        }
        let Some(rpc) = self.rpcs.remove(&id) else { return };
        if rpc.abandoned || self.process(from).is_none() {
            return;
        }
        match (rpc.request, reply) {
            (Request::Keep(items), Reply::Kept) => self.on_kept(from, rpc.to, &items),
            (Request::Give(record), Reply::Taken) => {
                if let Some(process) = self.process(from) {
                    process.custody.taken(rpc.to, record.nonce);
                }
            }
            (Request::Recall(nonce), Reply::Recalled(item)) => {
                self.on_recalled(from, id, rpc.to, nonce, Some(item))
            }
            (Request::Forward { journey, .. }, Reply::Forwarded(outcome)) => {
                self.on_outcome(journey, rpc.to, outcome);
            }
            (request, reply) => unreachable!("{reply:?} to {request:?}"),
        }
    }

    pub(super) fn on_broken(&mut self, id: RpcId) {
        let Some(rpc) = self.rpcs.get_mut(&id).filter(|rpc| !rpc.abandoned) else { return };
        let (from, to, request, sent) = (rpc.from, rpc.to, rpc.request.clone(), rpc.sent);
        if self.is_frozen(from) {
            return self.put_off(from.host, Event::Broken(id));
        }
        // What a frozen process has in its buffers it will read, long after everyone has gone.
        match self.rpcs.get_mut(&id).filter(|rpc| rpc.sent && !rpc.served) {
            Some(unread) => unread.abandoned = true,
            None => drop(self.rpcs.remove(&id)),
        }
        if self.process(from).is_none() {
            return;
        }
        match request {
            Request::Keep(_) | Request::Give(_) => {} // sent again by itself
            Request::Recall(nonce) => self.on_recalled(from, id, to, nonce, None),
            Request::Forward { journey, .. } => self.on_broken_hop(journey, to, sent),
        }
    }

    /// Streams to and from a process that has crashed break, where that can be noticed.
    pub(super) fn break_streams(&mut self, gone: Pid) {
        let now = self.now;
        self.rpcs.retain(|_, rpc| rpc.from != gone || rpc.sent);
        let broken: Vec<_> = self
            .rpcs
            .iter()
            .filter(|(_, rpc)| rpc.peer == Some(gone) && self.net.is_up(gone.host, rpc.from.host, now))
            .map(|(id, _)| *id)
            .collect();
        for id in broken {
            let soon = now + self.rng.between(1, 60);
            self.agenda.plan(soon, Event::Broken(id));
        }
    }
}
