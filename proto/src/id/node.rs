//! Who a node is: its configured name, and which start under that name.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// The configured name of a node, unique in its cluster: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadNodeName(String);

impl fmt::Display for BadNodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node name {:?} is not 1 to 64 of the characters A-Z a-z 0-9 . _ -", self.0)
    }
}

impl std::error::Error for BadNodeName {}

impl NodeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = BadNodeName;

    fn from_str(text: &str) -> Result<Self, BadNodeName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if (1..=64).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(BadNodeName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = BadNodeName;

    fn try_from(text: String) -> Result<Self, BadNodeName> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Grows with every start under one name, and with every rebirth in the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// A process may have been reborn after others last heard of it. It takes 1.5 s of silence for each
/// time, so that nobody misses 1,000 of them in a row.
const REBIRTHS_UNHEARD: u64 = 1_000;

impl Incarnation {
    /// Of a process that starts: milliseconds of the wall clock, or above all that earlier ones under
    /// its name can have come to, where the cluster has seen one of these.
    pub fn at_start(wall_ms: u64, known: Option<Self>) -> Self {
        Self(wall_ms.max(known.map_or(0, |known| known.0.saturating_add(REBIRTHS_UNHEARD))))
    }

    /// The one that follows in the same process.
    pub fn reborn(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Four bytes that stand for a node's name in ids and on the ring. Two names of one cluster with
/// the same tag (1 in 2^32 per pair) are refused when the second one joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tag(pub u32);

impl Tag {
    /// The first four bytes of SHA-256 over `cluster|name`.
    pub fn of(cluster: &str, name: &NodeName) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, format!("{cluster}|{name}").as_bytes());
        let first = digest.as_ref().first_chunk::<4>().expect("a SHA-256 digest has 32 bytes");
        Self(u32::from_be_bytes(*first))
    }
}

/// One process: a name's tag and its incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeRef {
    pub tag: Tag,
    pub inc: Incarnation,
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{}", self.tag.0, self.inc.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for good in ["a", "node-1", "ringway-0.ringway", "A_b"] {
            assert_eq!(good.parse::<NodeName>().expect(good).as_str(), good);
        }
        let long = "x".repeat(65);
        for bad in ["", "a b", "a/b", "ä", long.as_str()] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_start_is_later_than_every_rebirth_before_it_also_by_a_clock_that_was_set_back() {
        let first = Incarnation::at_start(5_000_000, None);
        assert_eq!(first, Incarnation(5_000_000));
        let unheard = first.reborn().reborn();
        assert!(Incarnation::at_start(1, Some(first)) > unheard);
        assert_eq!(Incarnation::at_start(9_000_000, Some(first)), Incarnation(9_000_000));
    }

    #[test]
    fn a_tag_is_golden() {
        let name: NodeName = "a".parse().expect("a plain name");
        assert_eq!(Tag::of("ringway", &name), Tag(1_699_657_714));
        assert_ne!(Tag::of("other", &name), Tag::of("ringway", &name));
    }
}
