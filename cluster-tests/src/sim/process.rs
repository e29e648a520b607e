//! One node process as a value: the production state machines, and what stands around them.

use super::clients::Asker;
use super::event::{Event, Pid, Uid};
use super::gossip::Sight;
use super::rpc::RpcId;
use proto::core::custody::Custody;
use proto::core::revival::Revival;
use proto::core::ring::Ring;
use proto::core::tenure::{Ms, Rules, Tenure};
use proto::core::view::{Phase, View};
use proto::id::{Birth, NodeRef, Nonce, Tag};
use std::collections::{BTreeMap, BTreeSet};

/// A clock from any zero, up to 5 % fast or slow: two of them run 10 % apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) zero: Ms,
    pub(super) permille: u64,
}

impl Clock {
    pub(super) fn read(self, now: Ms) -> Ms {
        self.zero + now * self.permille / 1_000
    }
}

/// A call that this process has begun to run.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) nonce: Nonce,
    pub(super) done: bool,
    pub(super) askers: Vec<Asker>,
}

/// A session whose client has not been told of it.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) asker: Asker,
    pub(super) birth: Birth,
}

/// A session that is looked for, since this node owns it and has nothing of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reviving {
    pub(super) askers: Vec<(Asker, super::clients::Ask)>,
    pub(super) asked: BTreeSet<RpcId>,
    pub(super) heard: Revival,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    pub(super) me: NodeRef,
    pub(super) since: Ms,
    pub(super) deadline: Ms,
    pub(super) resigned: Option<Ms>,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) tenure: Tenure,
    pub(super) custody: Custody,
    pub(super) phase: Phase,
    pub(super) began: Ms,
    /// Its first incarnation.
    pub(super) began_as: NodeRef,
    pub(super) clock: Clock,
    pub(super) known: BTreeMap<Tag, Sight>,
    pub(super) beat: u64,
    /// A live node that this one takes for dead, until then.
    pub(super) flap: Option<(Tag, Ms)>,
    /// Hears no gossip until then.
    pub(super) deaf_until: Ms,
    pub(super) met_others: bool,
    pub(super) view: View,
    pub(super) ring: Ring,
    pub(super) seen: Vec<(NodeRef, Phase)>,
    pub(super) view_changed: Ms,
    /// When it went on as another incarnation, or began.
    pub(super) reborn: Ms,
    pub(super) frozen_since: Option<Ms>,
    pub(super) frozen_total: Ms,
    pub(super) thawed: Ms,
    pub(super) inbox: Vec<Event>,
    pub(super) drain: Option<Drain>,
    pub(super) calls: BTreeMap<Uid, Call>,
    pub(super) opening: BTreeMap<Nonce, Opening>,
    pub(super) ending: BTreeMap<Nonce, Vec<Asker>>,
    pub(super) reviving: BTreeMap<Nonce, Reviving>,
    pub(super) loads: BTreeMap<NodeRef, u32>,
}

impl Process {
    pub(super) fn new(pid: Pid, me: NodeRef, clock: Clock, now: Ms, rules: Rules) -> Self {
        Self {
            pid,
            tenure: Tenure::new(me, clock.read(now), rules),
            custody: Custody::new(me, rules),
            phase: Phase::Joining,
            began: now,
            began_as: me,
            clock,
            known: BTreeMap::new(),
            beat: 0,
            flap: None,
            deaf_until: 0,
            met_others: false,
            view: View::default(),
            ring: Ring::over(Vec::new()),
            seen: Vec::new(),
            view_changed: now,
            reborn: now,
            frozen_since: None,
            frozen_total: 0,
            thawed: 0,
            inbox: Vec::new(),
            drain: None,
            calls: BTreeMap::new(),
            opening: BTreeMap::new(),
            ending: BTreeMap::new(),
            reviving: BTreeMap::new(),
            loads: BTreeMap::new(),
        }
    }

    pub(super) fn me(&self) -> NodeRef {
        self.tenure.me()
    }

    pub(super) fn may_serve(&self, now: Ms) -> bool {
        self.tenure.may_serve(self.clock.read(now))
    }

    pub(super) fn is_running_calls_of(&self, nonce: Nonce) -> bool {
        self.calls.values().any(|call| call.nonce == nonce && !call.done)
    }
}
