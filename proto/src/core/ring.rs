//! The consistent-hash ring over a view. The only file that names hashring.
//!
//! 128 points per node; a key belongs to the first point at or after its own position, and its
//! successors are the distinct nodes met walking on from there. Positions are wire format: two
//! nodes that place points or keys differently own the same key at once.

use super::view::View;
use crate::id::{NodeRef, Nonce, Tag};
use hashring::HashRing;
use std::hash::{BuildHasher, Hash, Hasher};
use xxhash_rust::xxh3::xxh3_64;

/// At 128 points the shares of equal nodes spread by about 9 % (1 / sqrt(128)).
pub const POINTS_PER_NODE: u32 = 128;

/// All positions there are.
const WHOLE: f64 = (1u128 << 64) as f64;

/// A place on the ring, as 64 bits of XXH3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

impl Position {
    pub fn of_session(nonce: Nonce) -> Self {
        Self(xxh3_64(&nonce.0))
    }

    /// Of a key that the client brings: a header's, cookie's or query parameter's value.
    pub fn of_key(key: &[u8]) -> Self {
        Self(xxh3_64(key))
    }

    /// How far around the ring, from 0 up to 1, for pictures.
    pub fn fraction(self) -> f64 {
        self.0 as f64 / WHOLE
    }

    fn of_point(tag: Tag, replica: u32) -> Self {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&tag.0.to_be_bytes());
        bytes[4..].copy_from_slice(&replica.to_be_bytes());
        Self(xxh3_64(&bytes))
    }
}

impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// A node's point, by the node's index among the ring's nodes.
#[derive(Clone, Copy, Debug)]
struct Point {
    position: Position,
    node: u32,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.position.hash(state);
    }
}

/// Positions are hashes already; hashring shall take them as they are.
#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("positions are written whole")
    }

    fn write_u64(&mut self, position: u64) {
        self.0 = position;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl BuildHasher for AsItIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

/// A piece of the ring that falls to one node, in fractions of the circle: what lies behind `from`, up to `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arc {
    pub from: f64,
    pub to: f64,
    pub owner: NodeRef,
}

/// The ring over the active members of one view, or over a node's heirs.
#[derive(Debug)]
pub struct Ring {
    nodes: Vec<NodeRef>,
    points: HashRing<Point, AsItIs>,
    /// The same points in ring order: hashring finds a key's first one, but does not walk on from it
    /// (its iterator exists only for its own hasher, its `get_with_replicas` repeats nodes).
    walk: Vec<Point>,
}

impl Ring {
    pub fn new(view: &View) -> Self {
        Self::over(view.active().map(|member| member.node).collect())
    }

    /// The ring over these nodes and no others.
    pub fn over(nodes: Vec<NodeRef>) -> Self {
        let mut walk: Vec<Point> = (0u32..)
            .zip(&nodes)
            .flat_map(|(node, at)| (0..POINTS_PER_NODE).map(move |replica| (node, *at, replica)))
            .map(|(node, at, replica)| Point { position: Position::of_point(at.tag, replica), node })
            .collect();
        // Stable, as hashring's own sort: should two points ever share a position, both lists agree.
        walk.sort_by_key(|point| point.position);
        let mut points = HashRing::with_hasher(AsItIs::default());
        points.batch_add(walk.clone());
        Self { nodes, points, walk }
    }

    /// The nodes on the ring, sorted by name.
    pub fn nodes(&self) -> &[NodeRef] {
        &self.nodes
    }

    pub fn owner(&self, position: Position) -> Option<NodeRef> {
        self.points.get(&position).map(|point| self.nodes[point.node as usize])
    }

    /// The owner and then every other node once, in the order in which the ring meets them.
    pub fn successors(&self, position: Position) -> Successors<'_> {
        let start = self.walk.partition_point(|point| point.position < position);
        Successors { ring: self, next: start, left: self.walk.len(), met: Vec::new() }
    }

    /// The whole circle from 0 to 1, cut where the owner changes; a piece that wraps around zero is two.
    /// At most one more than there are points. What a piece lacks to its node's share is rounding.
    pub fn arcs(&self) -> Vec<Arc> {
        let mut arcs: Vec<Arc> = Vec::new();
        let ends = self.walk.iter().map(|point| (point.position.fraction(), point.node));
        let around_zero = self.walk.first().map(|point| (1.0, point.node));
        let mut from = 0.0;
        for (to, node) in ends.chain(around_zero) {
            let owner = self.nodes[node as usize];
            match arcs.last_mut() {
                Some(last) if last.owner == owner => last.to = to,
                Some(_) | None => arcs.push(Arc { from, to, owner }),
            }
            from = to;
        }
        arcs
    }

    /// Each node's part of the ring; the parts sum to 1.
    pub fn shares(&self) -> Vec<(NodeRef, f64)> {
        let mut arcs = vec![0u128; self.nodes.len()];
        let mut before = self.walk.last().map_or(0, |point| point.position.0);
        for point in &self.walk {
            // A point owns the arc that ends at it; the first one's arc wraps around zero.
            arcs[point.node as usize] += u128::from(point.position.0.wrapping_sub(before));
            before = point.position.0;
        }
        self.nodes.iter().zip(arcs).map(|(node, arc)| (*node, arc as f64 / WHOLE)).collect()
    }
}

/// An iterator over distinct nodes; what it remembers is at most one entry per node it has met.
#[derive(Debug)]
pub struct Successors<'a> {
    ring: &'a Ring,
    next: usize,
    left: usize,
    met: Vec<u32>,
}

impl Iterator for Successors<'_> {
    type Item = NodeRef;

    fn next(&mut self) -> Option<NodeRef> {
        while self.left > 0 && self.met.len() < self.ring.nodes.len() {
            let point = self.ring.walk[self.next % self.ring.walk.len()];
            self.next += 1;
            self.left -= 1;
            if !self.met.contains(&point.node) {
                self.met.push(point.node);
                return Some(self.ring.nodes[point.node as usize]);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::view::{Phase, tests::member};
    use proptest::prelude::*;

    fn ring_of(names: &[&str]) -> Ring {
        Ring::new(&View::new(names.iter().map(|name| member(name, 1, Phase::Active)).collect()))
    }

    fn names(ring: &Ring, key: &str) -> Vec<NodeRef> {
        ring.successors(Position::of_key(key.as_bytes())).collect()
    }

    fn node(name: &str) -> NodeRef {
        member(name, 1, Phase::Active).node
    }

    fn over(tags: &std::collections::BTreeSet<u32>) -> Vec<NodeRef> {
        tags.iter().map(|tag| NodeRef { tag: Tag(*tag), inc: crate::id::Incarnation(1) }).collect()
    }

    #[test]
    fn positions_are_golden() {
        assert_eq!(Position::of_key(b"key"), Position(13_540_649_951_185_429_987));
        assert_eq!(Position::of_session(Nonce([9; 12])), Position(1998720844623657012));
        assert_eq!(Position::of_point(Tag(0x0102_0304), 5), Position(3942282689147866508));
        assert_eq!(names(&ring_of(&["a", "b", "c"]), "key"), [node("c"), node("a"), node("b")]);
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        let ring = ring_of(&[]);
        assert_eq!(ring.owner(Position(7)), None);
        assert_eq!(ring.successors(Position(7)).count(), 0);
        assert!(ring.shares().is_empty());
    }

    #[test]
    fn only_active_members_are_on_the_ring() {
        for phase in Phase::ALL {
            let ring = Ring::new(&View::new(vec![member("a", 1, Phase::Active), member("b", 1, phase)]));
            assert_eq!(ring.nodes().len(), if phase == Phase::Active { 2 } else { 1 }, "{phase}");
        }
    }

    #[test]
    fn a_join_takes_keys_and_moves_none_between_the_others() {
        let (before, after) = (ring_of(&["a", "b", "c"]), ring_of(&["a", "b", "c", "d"]));
        let mut moved = 0;
        for key in 0..10_000u32 {
            let position = Position::of_key(&key.to_be_bytes());
            let (old, new) = (before.owner(position), after.owner(position));
            if old != new {
                assert_eq!(new, Some(node("d")));
                moved += 1;
            }
        }
        assert!((1_500..3_500).contains(&moved), "about a quarter of 10,000 keys: {moved}");
    }

    #[test]
    fn a_restart_keeps_a_nodes_points() {
        let later = Ring::new(&View::new(vec![member("a", 9, Phase::Active), member("b", 1, Phase::Active)]));
        let before = ring_of(&["a", "b"]);
        for key in 0..1_000u32 {
            let position = Position::of_key(&key.to_be_bytes());
            assert_eq!(later.owner(position).map(|n| n.tag), before.owner(position).map(|n| n.tag));
        }
    }

    #[test]
    fn shares_say_where_keys_fall() {
        let ring = ring_of(&["a", "b", "c", "d", "e"]);
        let shares = ring.shares();
        assert!((shares.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
        let keys = 50_000u32;
        for (node, share) in shares {
            let hits =
                (0..keys).filter(|k| ring.owner(Position::of_key(&k.to_be_bytes())) == Some(node)).count();
            let seen = hits as f64 / f64::from(keys);
            assert!((seen - share).abs() < 0.01, "{node}: share {share}, seen {seen}");
        }
        assert!((ring_of(&["a"]).shares()[0].1 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn arcs_cover_the_circle_and_sum_to_the_shares() {
        let ring = ring_of(&["a", "b", "c", "d", "e"]);
        let arcs = ring.arcs();
        assert_eq!((arcs[0].from, arcs[arcs.len() - 1].to), (0.0, 1.0));
        assert!(arcs.windows(2).all(|two| two[0].to == two[1].from && two[0].owner != two[1].owner));
        for (node, share) in ring.shares() {
            let own = arcs.iter().filter(|arc| arc.owner == node);
            let sum: f64 = own.map(|arc| arc.to - arc.from).sum();
            assert!((sum - share).abs() < 1e-9, "{node}: {sum} of {share}");
        }
        for key in 0..1_000u32 {
            let position = Position::of_key(&key.to_be_bytes());
            let at = position.fraction();
            let arc = arcs.iter().find(|arc| arc.from < at && at <= arc.to).expect("the circle is covered");
            assert_eq!(Some(arc.owner), ring.owner(position));
        }
        let alone = ring_of(&["a"]).arcs();
        assert_eq!(alone, [Arc { from: 0.0, to: 1.0, owner: node("a") }]);
        assert!(ring_of(&[]).arcs().is_empty());
    }

    proptest! {
        #[test]
        fn the_first_successor_is_the_owner_and_all_are_distinct(key in any::<[u8; 12]>(), count in 1usize..9) {
            let all = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
            let ring = ring_of(&all[..count]);
            let position = Position::of_session(Nonce(key));
            let successors: Vec<_> = ring.successors(position).collect();
            prop_assert_eq!(successors.first().copied(), ring.owner(position));
            prop_assert_eq!(successors.len(), count);
            let distinct: std::collections::BTreeSet<_> = successors.into_iter().collect();
            prop_assert_eq!(distinct.len(), count);
        }

        /// The model: of all points the next one at or after the key, round the circle.
        #[test]
        fn an_owner_is_the_node_of_the_next_point(
            tags in proptest::collection::btree_set(any::<u32>(), 1..12),
            keys in proptest::collection::vec(any::<u64>(), 1..10),
        ) {
            let nodes = over(&tags);
            let ring = Ring::over(nodes.clone());
            let points = nodes.iter().flat_map(|node| {
                (0..POINTS_PER_NODE).map(|replica| (Position::of_point(node.tag, replica), *node))
            });
            let points: Vec<_> = points.collect();
            // Keys between points, and keys that are points.
            let keys = keys.into_iter().map(Position).chain([points[0].0, Position(0), Position(u64::MAX)]);
            for key in keys {
                let next = points.iter().filter(|(at, _)| *at >= key).min_by_key(|(at, _)| *at);
                let next = next.or_else(|| points.iter().min_by_key(|(at, _)| *at)).map(|(_, node)| *node);
                prop_assert_eq!(ring.owner(key), next);
                prop_assert_eq!(ring.successors(key).next(), next);
            }
        }

        /// Who leaves gives its keys to the next in line, and nobody else's move.
        #[test]
        fn a_leave_moves_the_leavers_keys_to_their_successors(
            tags in proptest::collection::btree_set(any::<u32>(), 2..10),
            leaver in any::<proptest::sample::Index>(),
            keys in proptest::collection::vec(any::<u64>(), 1..10),
        ) {
            let nodes = over(&tags);
            let leaver = *leaver.get(&nodes);
            let before = Ring::over(nodes.clone());
            let after = Ring::over(nodes.into_iter().filter(|node| *node != leaver).collect());
            for key in keys.into_iter().map(Position) {
                let line: Vec<_> = before.successors(key).filter(|node| *node != leaver).collect();
                prop_assert_eq!(after.successors(key).collect::<Vec<_>>(), line);
            }
        }

        /// A share is the sum of 128 arcs, each as long as chance has it: by Chernoff's bound it is over 1.7
        /// times the mean once in e^(128 (0.7 - ln 1.7)) = 2 x 10^9 times, and under 0.3 times more rarely.
        #[test]
        fn no_share_is_far_from_the_mean(tags in proptest::collection::btree_set(any::<u32>(), 2..12)) {
            let nodes = over(&tags);
            let mean = 1.0 / nodes.len() as f64;
            for (node, share) in Ring::over(nodes).shares() {
                prop_assert!((share - mean).abs() < mean * 0.7, "{node}: {share}, the mean is {mean}");
            }
        }
    }
}
