//! Counts what is forwarded to each other node, through handles that are looked up once per incarnation.

use super::metrics::{ForwardLabels, Metrics, PeerLabels};
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
use proto::core::view::Member;
use proto::id::NodeRef;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

/// What became of a forwarded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    Answered,
    Refused,
    NotHere,
    Unsent,
}

impl Forwarded {
    const ALL: [Self; 4] = [Self::Answered, Self::Refused, Self::NotHere, Self::Unsent];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::NotHere => "not_here",
            Self::Unsent => "unsent",
        }
    }
}

/// What is counted of one other node.
pub(crate) struct Peer {
    forwards: [Counter; 4],
    seconds: Histogram,
}

impl Peer {
    pub(crate) fn count(&self, what: Forwarded, seconds: f64) {
        self.forwards[what as usize].inc();
        match what {
            Forwarded::Answered => self.seconds.observe(seconds),
            Forwarded::Refused | Forwarded::NotHere | Forwarded::Unsent => {}
        }
    }
}

/// Every other node that something was forwarded to. One that is not a member any more is forgotten, so that
/// names which come and go do not add up.
#[derive(Default)]
pub(super) struct Peers(RwLock<HashMap<NodeRef, (String, Arc<Peer>)>>);

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers(..)")
    }
}

impl Metrics {
    pub(crate) fn peer(&self, member: &Member) -> Arc<Peer> {
        let known = self.peers.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, peer)) = known.get(&member.node) {
            return peer.clone();
        }
        drop(known);
        let name = member.name.to_string();
        let forwards = Forwarded::ALL.map(|what| {
            let labels = ForwardLabels { peer: name.clone(), outcome: what.word() };
            self.forwards.get_or_create_owned(&labels)
        });
        let seconds = self.forward_seconds.get_or_create_owned(&PeerLabels { peer: name.clone() });
        let peer = Arc::new(Peer { forwards, seconds });
        let mut known = self.peers.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(member.node, (name, peer.clone()));
        peer
    }

    /// How many requests to that node have come to this.
    pub(crate) fn forwarded(&self, to: &str, what: Forwarded) -> u64 {
        let labels = ForwardLabels { peer: to.to_owned(), outcome: what.word() };
        self.forwards.get(&labels).map_or(0, |counter| counter.get())
    }

    /// Only these are members now.
    pub(crate) fn keep_peers(&self, members: &[Member]) {
        let mut known = self.peers.0.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|node, (name, _)| {
            let is_member = members.iter().any(|member| member.node == *node);
            if !members.iter().any(|member| member.name.as_str() == name) {
                for what in Forwarded::ALL {
                    self.forwards.remove(&ForwardLabels { peer: name.clone(), outcome: what.word() });
                }
                self.forward_seconds.remove(&PeerLabels { peer: name.clone() });
            }
            is_member
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Format;
    use proto::core::view::Phase;
    use proto::id::{Incarnation, Tag};

    fn member(name: &str, inc: u64) -> Member {
        let name = name.parse().expect("a plain name");
        let node = NodeRef { tag: Tag::of("ringway", &name), inc: Incarnation(inc) };
        let at = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let version = String::new();
        Member { name, node, phase: Phase::Active, listen: at, peer: at, admin: at, version }
    }

    #[test]
    fn a_node_that_starts_again_is_counted_on_and_one_that_left_is_forgotten() {
        let metrics = Metrics::new();
        let count = || {
            let text = metrics.render(Format::Plain);
            let of = |name: &str| text.matches(&format!("peer=\"{name}\",outcome=\"answered\"}} 2")).count();
            (of("b"), of("c"), text.contains("peer=\"c\""))
        };
        for (name, inc) in [("b", 1), ("b", 2), ("c", 1), ("c", 1)] {
            metrics.peer(&member(name, inc)).count(Forwarded::Answered, 0.001);
            metrics.keep_peers(&[member("b", 2), member("c", 1)]);
        }
        assert_eq!(count(), (1, 1, true));
        metrics.keep_peers(&[member("b", 3)]);
        assert_eq!(count(), (1, 0, false));
    }
}
