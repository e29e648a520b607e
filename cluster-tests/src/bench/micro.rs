//! Pure functions of `proto`, timed in this process: batches of 10 ms or more, the median of several.

use std::hint::black_box;
use std::time::{Duration, Instant};

use proto::core::custody::Holding;
use proto::core::placement;
use proto::core::ring::{Position, Ring};
use proto::core::route::{self, Ask, Hop, OnLoss, Situation};
use proto::core::succession::Succession;
use proto::core::view::{Member, Phase, View};
use proto::id::{
    Birth, ClusterSecret, Incarnation, NodeName, NodeRef, Nonce, Principal, RouteId, SealKeys, Tag,
    UpstreamBirth,
};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::Size;
use super::report::{Report, Spread};

/// Long beside the clock's resolution, short enough that some batches are not interrupted.
const BATCH: Duration = Duration::from_millis(10);

/// Inputs of each kind, walked round and round: too many for a branch predictor to learn by heart.
const INPUTS: usize = 1 << 14;

pub(super) fn measure(size: Size, report: &mut Report) -> anyhow::Result<()> {
    let mut dice = Dice(1);
    let (small, large) = (World::of(3)?, World::of(1_000)?);
    rings(size, &large, &mut dice, report);
    seals(size, &large, &mut dice, report);
    births(size, &[&small, &large], &mut dice, report);
    decisions(size, &large, &mut dice, report);
    Ok(())
}

fn rings(size: Size, world: &World, dice: &mut Dice, report: &mut Report) {
    let positions: Vec<Position> = (0..INPUTS).map(|_| Position(dice.roll())).collect();
    let owner = time(size, &positions, |position| {
        black_box(world.ring.owner(*position));
    });
    report.goal("ring owner, 1,000 nodes", "ns", 250.0, &owner);
    report.row("ring owner, 1,000 nodes x 128 points", "ns", owner);

    let built = time(size, &[&world.view], |view| {
        black_box(Ring::new(view));
    });
    let built = built.scaled(1e-6);
    report.goal("building that ring", "ms", 60.0, &built);
    report.row("building that ring of its view, and dropping it", "ms", built);
}

fn seals(size: Size, world: &World, dice: &mut Dice, report: &mut Report) {
    let keys = SealKeys::new(&[ClusterSecret::from_entropy([7; 32])], "ringway");
    let birth = birth(world.ring.nodes()[0]);
    let seal = |nonce| keys.seal(nonce, &birth).expect("a short URL and session id");
    let nonces: Vec<Nonce> = (0..INPUTS).map(|_| Nonce(dice.bytes())).collect();
    let texts: Vec<String> = nonces.iter().map(|nonce| seal(*nonce)).collect();
    let what = format!("opening a sealed id of {} characters", texts[0].len());
    let opened = time(size, &texts, |text| {
        black_box(keys.open(text).expect("sealed with this key"));
    });
    report.goal(what.as_str(), "ns", 3_000.0, &opened);
    report.row(what, "ns", opened);
    let sealed = time(size, &nonces, |nonce| {
        black_box(seal(*nonce));
    });
    report.row("sealing it", "ns", sealed);
}

/// Drawing takes as many rolls as there are nodes, so what a roll costs is most of it: once with arithmetic, which
/// leaves the function's own cost, and once with the system's dice, which is what a node does.
fn births(size: Size, worlds: &[&World], dice: &mut Dice, report: &mut Report) {
    for World { ring, .. } in worlds {
        let (count, home) = (ring.nodes().len(), ring.nodes()[0]);
        let drawn = time(size, &[()], |()| {
            black_box(placement::draw(ring, home, || Nonce(dice.bytes())));
        });
        report.row(format!("drawing an id, {count} nodes, dice of arithmetic"), "ns", drawn);
        let system = SystemRandom::new();
        let drawn = time(size, &[()], |()| {
            let roll = || {
                let mut bytes = [0; 12];
                system.fill(&mut bytes).expect("the system's random source works");
                Nonce(bytes)
            };
            black_box(placement::draw(ring, home, roll));
        });
        report.row(format!("drawing an id, {count} nodes, the system's dice"), "ns", drawn);
    }
}

fn decisions(size: Size, world: &World, dice: &mut Dice, report: &mut Report) {
    let nodes = world.ring.nodes();
    let me = nodes[0];
    let succession = Succession::default();
    let situation = |holding| Situation {
        me,
        my_phase: Phase::Active,
        view: &world.view,
        ring: &world.ring,
        succession: &succession,
        leased: true,
        hop: Hop::Entry,
        tried: &[],
        hint: None,
        holding,
        on_loss: OnLoss::Reinitialize,
    };
    let (here, elsewhere) = (situation(Holding::Live), situation(Holding::Unknown));
    let nonce = Nonce([7; 12]);
    let mine = [birth(me)];
    let others: Vec<Birth> =
        (0..1_024).map(|_| birth(nodes[1 + (dice.roll() % (nodes.len() as u64 - 1)) as usize])).collect();
    for (whose, births, situation) in
        [("this node's session", &mine[..], &here), ("other nodes' sessions", &others, &elsewhere)]
    {
        let decided = time(size, births, |birth| {
            black_box(route::route(Ask::Session { birth, nonce }, black_box(situation)));
        });
        report.row(format!("route decision, 1,000 nodes, {whose}"), "ns", decided);
    }
    let rolls: Vec<[u64; 2]> = (0..INPUTS).map(|_| [dice.roll(), dice.roll()]).collect();
    let placed = time(size, &rolls, |rolls| {
        black_box(placement::choose(me, &world.ring, |at| at as u32 % 7, |_| true, *rolls));
    });
    report.row("choosing a home, 1,000 nodes", "ns", placed);
}

/// Nanoseconds for one call of `what`, batch by batch. The batch's length is found by doubling, which warms up too.
fn time<T>(size: Size, inputs: &[T], mut what: impl FnMut(&T)) -> Spread {
    let mut inputs = inputs.iter().cycle();
    let mut batch = |calls: u32| {
        let started = Instant::now();
        for input in inputs.by_ref().take(calls as usize) {
            what(black_box(input));
        }
        started.elapsed()
    };
    let mut calls = 1;
    while batch(calls) < BATCH {
        calls *= 2;
    }
    Spread::of((0..size.batches).map(|_| batch(calls).as_nanos() as f64 / f64::from(calls)))
}

/// A cluster in which all are active.
struct World {
    view: View,
    ring: Ring,
}

impl World {
    fn of(count: usize) -> anyhow::Result<World> {
        let members: anyhow::Result<Vec<Member>> = (0..count).map(member).collect();
        let view = View::new(members?);
        let ring = Ring::new(&view);
        Ok(World { view, ring })
    }
}

fn member(number: usize) -> anyhow::Result<Member> {
    let name: NodeName = format!("ringway-{number}").parse()?;
    let node = NodeRef { tag: Tag::of("ringway", &name), inc: Incarnation(1_790_000_000_123) };
    let [listen, peer, admin] =
        ["10.0.0.1:8080".parse()?, "10.0.0.1:7400".parse()?, "10.0.0.1:9400".parse()?];
    Ok(Member { name, node, phase: Phase::Active, listen, peer, admin, version: "0.1.0".to_owned() })
}

/// As an HTTP route's session is born: a URL and a UUID.
fn birth(home: NodeRef) -> Birth {
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

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self) -> [u8; 12] {
        let (first, second) = (self.roll().to_le_bytes(), self.roll().to_le_bytes());
        std::array::from_fn(|at| if at < 8 { first[at] } else { second[at - 8] })
    }
}
