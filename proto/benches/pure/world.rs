//! What is decided about: clusters in which all are active, sessions, and inputs that no branch predictor learns.

use proto::core::ring::Ring;
use proto::core::view::{Member, Phase, View};
use proto::id::{Birth, Incarnation, NodeName, NodeRef, Nonce, Principal, RouteId, Tag, UpstreamBirth};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Inputs of each kind, walked round and round: too many to be learned by heart.
pub(crate) const INPUTS: u64 = 1 << 14;

pub(crate) struct World {
    pub(crate) view: View,
    pub(crate) ring: Ring,
}

impl World {
    pub(crate) fn of(count: usize) -> World {
        let view = View::new((0..count).map(member).collect());
        let ring = Ring::new(&view);
        World { view, ring }
    }
}

/// The same on every run, and as good as dice.
pub(crate) fn roll(number: u64) -> u64 {
    xxh3_64(&number.to_be_bytes())
}

pub(crate) fn nonce(number: u64) -> Nonce {
    let bytes = xxh3_128(&number.to_be_bytes()).to_be_bytes();
    Nonce(std::array::from_fn(|at| bytes[at]))
}

/// As an HTTP route's session is born: a URL and a UUID.
pub(crate) fn birth(home: NodeRef) -> Birth {
    Birth {
        minted_s: 1_790_000_000,
        home,
        route: RouteId::of("/mcp"),
        principal: Principal::ANYONE,
        upstream: Some(UpstreamBirth {
            url: "http://127.0.0.1:3001/mcp".into(),
            session: "5f0f0d0e-1d53-4a0e-9f0c-0d6d8f8e7a6b".into(),
        }),
    }
}

fn member(number: usize) -> Member {
    let name: NodeName = format!("ringway-{number}").parse().expect("a name");
    let node = NodeRef { tag: Tag::of("ringway", &name), inc: Incarnation(1_790_000_000_123) };
    let [listen, peer, admin] =
        ["10.0.0.1:8080", "10.0.0.1:7400", "10.0.0.1:9400"].map(|text| text.parse().expect("an address"));
    Member { name, node, phase: Phase::Active, listen, peer, admin, version: "0.1.0".to_owned() }
}
