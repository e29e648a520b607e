//! A short name for a value that all nodes must hold alike, such as a view.

use serde::{Deserialize, Serialize};
use std::fmt;

/// 64 bits of XXH3 over the value's canonical bytes. Two equal fingerprints mean equal values for
/// every practical purpose; it guards against disagreement, not against an adversary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    pub fn of(canonical: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(canonical))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
