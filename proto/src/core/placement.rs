//! Where a new session is born, and an id that says so.
//!
//! Load is balanced here, when a session is born, and never by moving live ones.

use super::ring::{Position, Ring};
use crate::id::{NodeRef, Nonce};

/// A node keeps what lands on it while that makes it at most 1.25 times as loaded as the mean
/// (consistent hashing with bounded loads, Mirrokni et al., 2017): 5 / 4.
const BOUND: (u64, u64) = (5, 4);

/// Chooses a home among the ring's nodes: `me` while within the load bound, else the less loaded of
/// two drawn at random (Mitzenmacher's power of two choices). `sessions(i)` is the load of the ring's
/// i-th node, `usable(i)` whether it may be chosen.
pub fn choose(
    me: NodeRef,
    ring: &Ring,
    sessions: impl Fn(usize) -> u32,
    usable: impl Fn(usize) -> bool,
    dice: [u64; 2],
) -> Option<NodeRef> {
    let nodes = ring.nodes();
    let usable_at = || (0..nodes.len()).filter(|at| usable(*at));
    let (count, total) = usable_at().fold((0, 0), |(n, sum), at| (n + 1, sum + u64::from(sessions(at))));
    if count == 0 {
        return None;
    }
    if let Some(mine) = usable_at().find(|at| nodes[*at] == me) {
        let bound = (BOUND.0 * (total + 1)).div_ceil(BOUND.1 * count);
        if u64::from(sessions(mine)) < bound {
            return Some(me);
        }
    }
    let drawn = dice.map(|die| usable_at().nth((die % count) as usize).expect("drawn below the count"));
    drawn.into_iter().min_by_key(|at| sessions(*at)).map(|at| nodes[at])
}

/// Draws nonces until the ring gives one to `home`: as many as there are nodes, on average.
///
/// A home that is not on the ring (it is draining, and nobody else is there) gets the first one; so
/// does one that 64 times the expected number of draws have missed (e^-64 for an average share).
/// That is harmless: the home is sealed in the id, the ring's answer is only where copies go.
pub fn draw(ring: &Ring, home: NodeRef, mut roll: impl FnMut() -> Nonce) -> Nonce {
    if !ring.nodes().contains(&home) {
        return roll();
    }
    let mut nonce = roll();
    for _ in 0..64 * ring.nodes().len() {
        if ring.owner(Position::of_session(nonce)) == Some(home) {
            break;
        }
        nonce = roll();
    }
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::view::{Phase, View, tests::member};
    use proptest::prelude::*;

    fn ring(count: usize) -> Ring {
        let names = (0..count).map(|at| member(&format!("n{at:04}"), 1, Phase::Active));
        Ring::new(&View::new(names.collect()))
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014): dice for tests that fall alike on every run.
    fn dice(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    #[test]
    fn a_session_is_born_where_it_landed_while_that_is_fair() {
        let ring = ring(3);
        let me = ring.nodes()[0];
        assert_eq!(choose(me, &ring, |_| 0, |_| true, [1, 2]), Some(me), "an empty cluster");
        assert_eq!(
            choose(me, &ring, |at| [12, 10, 10][at], |_| true, [1, 2]),
            Some(me),
            "within 1.25 of the mean"
        );
        let other = choose(me, &ring, |at| [20, 10, 9][at], |_| true, [1, 2]);
        assert_eq!(other, Some(ring.nodes()[2]), "over it: the less loaded of the two drawn");
    }

    #[test]
    fn only_usable_nodes_are_chosen() {
        let ring = ring(3);
        let me = ring.nodes()[0];
        assert_eq!(choose(me, &ring, |_| 0, |at| at == 2, [7, 8]), Some(ring.nodes()[2]));
        assert_eq!(choose(me, &ring, |_| 0, |_| false, [7, 8]), None);
    }

    #[test]
    fn one_sided_arrivals_stay_within_the_bound() {
        let ring = ring(5);
        let me = ring.nodes()[3];
        let mut load = [0u32; 5];
        let mut roll = dice(1);
        for _ in 0..5_000 {
            let home = choose(me, &ring, |at| load[at], |_| true, [roll(), roll()]).expect("somebody");
            load[ring.nodes().iter().position(|node| *node == home).expect("on the ring")] += 1;
        }
        assert!(load.iter().all(|sessions| *sessions <= 1_250 + 1), "1.25 x the mean of 1,000: {load:?}");
    }

    proptest! {
        #[test]
        fn a_home_is_usable_and_not_busier_than_it_must_be(
            nodes in proptest::collection::vec((0u32..50, any::<bool>()), 1..8),
            me in any::<proptest::sample::Index>(),
            dice in any::<[u64; 2]>(),
        ) {
            let ring = ring(nodes.len());
            let me = me.index(nodes.len());
            let (load, usable) = (|at: usize| nodes[at].0, |at: usize| nodes[at].1);
            let may: Vec<usize> = (0..nodes.len()).filter(|at| usable(*at)).collect();
            let home = choose(ring.nodes()[me], &ring, load, usable, dice);
            let home = home.map(|home| ring.nodes().iter().position(|node| *node == home).expect("on the ring"));
            prop_assert_eq!(home.is_none(), may.is_empty());
            let Some(home) = home else { return Ok(()) };
            prop_assert!(usable(home));
            let total: u32 = may.iter().map(|at| load(*at)).sum();
            // With the session that is being placed, by the paper's bound, in whole sessions.
            let bound = (5 * (total + 1)).div_ceil(4 * may.len() as u32);
            if usable(me) && load(me) < bound {
                prop_assert_eq!(home, me);
            } else {
                let drawn = dice.map(|die| may[(die % may.len() as u64) as usize]);
                prop_assert!(drawn.contains(&home));
                prop_assert!(drawn.iter().all(|at| load(home) <= load(*at)));
            }
        }
    }

    #[test]
    fn a_drawn_id_hashes_to_its_home() {
        let mut roll = dice(2);
        let mut nonce = || {
            let mut bytes = [0; 12];
            bytes[..8].copy_from_slice(&roll().to_be_bytes());
            Nonce(bytes)
        };
        for count in [1, 2, 3, 50] {
            let ring = ring(count);
            for home in ring.nodes() {
                let drawn = draw(&ring, *home, &mut nonce);
                assert_eq!(ring.owner(Position::of_session(drawn)), Some(*home));
            }
        }
        let stranger = member("stranger", 1, Phase::Active).node;
        draw(&ring(3), stranger, &mut nonce); // ends
    }
}
