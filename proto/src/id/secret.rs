//! The cluster secret, and the keys that each node derives from it (HKDF-SHA-256, RFC 5869).

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::hkdf;
use std::{fmt, str::FromStr};

const PREFIX: &str = "rwsec1.";
const LEN: usize = 32;

/// What a node uses when none is configured and every address of it is loopback. Known to
/// everybody, so it protects nothing; `node` refuses it elsewhere.
pub const DEVELOPMENT_SECRET: ClusterSecret = ClusterSecret(*b"ringway development only: public");

/// 32 random bytes shared by the nodes of one cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; LEN]);

impl ClusterSecret {
    pub fn from_entropy(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// 32 bytes for one `purpose` in one `cluster`; different pairs give unrelated bytes.
    pub fn derive(&self, purpose: &str, cluster: &str) -> [u8; 32] {
        let mut out = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"ringway/1")
            .extract(&self.0)
            .expand(&[purpose.as_bytes(), b"|", cluster.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut out))
            .expect("32 bytes are within HKDF's limit of 255 hashes");
        out
    }

    /// Eight hex digits by which people tell secrets apart in logs and metrics: 32 bits of a one-way
    /// digest, which say nothing of the 256.
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(&self.derive("fingerprint", "")[..4])
    }

    /// The text that `ringway secret` prints.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSecret;

impl fmt::Display for BadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a cluster secret: expected {PREFIX} and 43 characters, as `ringway secret` prints")
    }
}

impl std::error::Error for BadSecret {}

impl FromStr for ClusterSecret {
    type Err = BadSecret;

    fn from_str(text: &str) -> Result<Self, BadSecret> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(BadSecret)?;
        let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| BadSecret)?;
        Ok(Self(bytes.try_into().map_err(|_| BadSecret)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_its_text_and_shows_nothing_in_debug() {
        let secret = ClusterSecret::from_entropy([7; 32]);
        assert_eq!(secret.to_text().parse::<ClusterSecret>(), Ok(secret.clone()));
        assert_eq!(format!("{:?}\n", secret).trim(), "ClusterSecret(..)");
        for bad in ["", "rwsec1.", "rwsec1.AAAA", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"] {
            assert_eq!(bad.parse::<ClusterSecret>(), Err(BadSecret), "{bad}");
        }
    }

    #[test]
    fn a_fingerprint_is_golden_and_no_part_of_the_secret() {
        let secret = ClusterSecret::from_entropy([7; 32]);
        assert_eq!(secret.fingerprint(), GOLDEN, "operators compare it between nodes of two versions");
        assert!(!secret.to_text().contains(&secret.fingerprint()));
        assert_ne!(ClusterSecret::from_entropy([8; 32]).fingerprint(), secret.fingerprint());
    }
    const GOLDEN: &str = "d61d961c";

    #[test]
    fn purposes_and_clusters_get_unrelated_keys() {
        let secret = ClusterSecret::from_entropy([7; 32]);
        assert_ne!(secret.derive("seal", "ringway"), secret.derive("tls", "ringway"));
        assert_ne!(secret.derive("seal", "ringway"), secret.derive("seal", "other"));
    }
}
