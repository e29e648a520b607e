//! Session ids: a sealed birth certificate that any node of the cluster can open and nobody else
//! can make.
//!
//! `rw1.` and base64url of `version and key id (1) | nonce (12) | sealed certificate`. The nonce is
//! in clear: it is what is hashed onto the ring, and it was drawn so that it falls to the session's
//! home. The certificate is sealed with AES-256-GCM; nonces are random, so one secret should mint
//! fewer than 2^32 ids (NIST SP 800-38D, 8.3): at 1,000 sessions a second that is 49 days of
//! nothing else, and rotating the secret starts anew.

use super::{ClusterSecret, NodeRef, wrapped::WrapKey};
use crate::wire::codec;
use data_encoding::BASE64URL_NOPAD;
use ring::aead;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const PREFIX: &str = "rw1.";
const VERSION: u8 = 1;
const HEAD_LEN: usize = 1 + 12;
/// An upstream URL (512) and session id (1,024) at their longest, the fixed fields (64) and the
/// tag (16), times 4/3 for base64: 2,176. Longer texts are refused unread.
pub const SEALED_TEXT_LEN_MAX: usize = 2_304;
const UPSTREAM_URL_LEN_MAX: usize = 512;
const UPSTREAM_SESSION_LEN_MAX: usize = 1_024;

/// The 12 bytes that make a session id unique; its position on the ring is their hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 12]);

impl Nonce {
    /// The one that follows in the order of nonces; `None` after the last.
    pub fn next(self) -> Option<Self> {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let overflows;
            (*byte, overflows) = byte.overflowing_add(1);
            if !overflows {
                return Some(Self(bytes));
            }
        }
        None
    }

    /// Of a sealed id, or of the part of it that operators are shown ([`shortened`]). Nothing says that it
    /// was minted here.
    pub fn of_text(text: &str) -> Option<Self> {
        let head = shortened(text).strip_prefix(PREFIX).filter(|head| head.len() == HEAD_TEXT_LEN)?;
        // The last character has four bits of what follows; two more make whole bytes of them.
        let bytes = BASE64URL_NOPAD.decode(format!("{head}AA").as_bytes()).ok()?;
        let nonce = *bytes.get(1..HEAD_LEN)?.first_chunk()?;
        (bytes[0] >> 4 == VERSION).then_some(Self(nonce))
    }
}

/// 13 bytes in base64.
const HEAD_TEXT_LEN: usize = (HEAD_LEN * 8).div_ceil(6);

/// The beginning of a sealed id: who it is, and no right to use it.
pub fn shortened(text: &str) -> &str {
    text.get(..PREFIX.len() + HEAD_TEXT_LEN).unwrap_or(text)
}

/// Which route of the configuration: the same on every node that has the route's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteId(pub u32);

impl RouteId {
    pub fn of(path: &str) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(path.as_bytes());
        Self((hash >> 32) as u32)
    }
}

/// Who may use a session: a digest of the caller's identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Principal(pub [u8; 16]);

impl Principal {
    /// The caller on a route without authentication.
    pub const ANYONE: Self = Self([0; 16]);
}

/// In hexadecimal: all that logs say of a caller.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What was true when the session was born, and never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Seconds since the Unix epoch.
    pub minted_s: u32,
    pub home: NodeRef,
    pub route: RouteId,
    pub principal: Principal,
    pub upstream: Option<UpstreamBirth>,
}

/// The MCP server that a session was opened at, and the id which that server knows it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamBirth {
    pub url: Arc<str>,
    pub session: Arc<str>,
}

/// A session id whose seal has been opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionId {
    pub nonce: Nonce,
    pub birth: Birth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Not of the form of a session id.
    Malformed,
    /// Of the right form, but not minted with a secret of this cluster, or altered since.
    Forged,
}

/// The upstream's URL or session id is too long to be carried in a header by every client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    UrlTooLong { len: usize, len_max: usize },
    UpstreamSessionTooLong { len: usize, len_max: usize },
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UrlTooLong { len, len_max } => {
                write!(f, "upstream URL has {len} bytes, at most {len_max} fit")
            }
            Self::UpstreamSessionTooLong { len, len_max } => {
                write!(f, "upstream session id has {len} bytes, at most {len_max} fit")
            }
        }
    }
}

impl std::error::Error for SealError {}

/// The keys that seal and open ids: the first seals, all open.
pub struct SealKeys {
    keys: Vec<(u8, aead::LessSafeKey)>,
    /// From the same secrets, for what is not a session id.
    pub(super) wraps: Vec<WrapKey>,
    /// How often each has opened something: only of those that seal nothing any more, so that what is
    /// opened a thousand times a second by the first costs no write to memory that all threads share.
    pub(super) opened: Vec<AtomicU64>,
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKeys({})", self.keys.len())
    }
}

impl SealKeys {
    /// # Panics
    /// If `secrets` is empty: a cluster has at least one.
    pub fn new(secrets: &[ClusterSecret], cluster: &str) -> Self {
        assert!(!secrets.is_empty(), "a cluster has at least one secret");
        let derive = |secret: &ClusterSecret| {
            let bytes = secret.derive("seal", cluster);
            // Four bits name the key, so that an id of a rotated secret is opened at the first try.
            let kid = secret.derive("seal-kid", cluster)[0] & 0x0f;
            let key = aead::UnboundKey::new(&aead::AES_256_GCM, &bytes).expect("AES-256 takes 32 bytes");
            (VERSION << 4 | kid, aead::LessSafeKey::new(key))
        };
        let wraps = secrets.iter().map(|secret| WrapKey::new(secret, cluster)).collect();
        let opened = secrets.iter().map(|_| AtomicU64::new(0)).collect();
        Self { keys: secrets.iter().map(derive).collect(), wraps, opened }
    }

    /// Of each secret, in their order, how often it has opened what a client brought: none for the
    /// first, which is not counted.
    pub fn opened(&self) -> impl Iterator<Item = u64> {
        self.opened.iter().map(|count| count.load(Ordering::Relaxed))
    }

    pub(super) fn count_opened(&self, at: usize) {
        if at > 0 {
            self.opened[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The text that the client gets.
    pub fn seal(&self, nonce: Nonce, birth: &Birth) -> Result<String, SealError> {
        if let Some(upstream) = &birth.upstream {
            check_len(&upstream.url, UPSTREAM_URL_LEN_MAX, |len, len_max| SealError::UrlTooLong {
                len,
                len_max,
            })?;
            check_len(&upstream.session, UPSTREAM_SESSION_LEN_MAX, |len, len_max| {
                SealError::UpstreamSessionTooLong { len, len_max }
            })?;
        }
        let (ver_kid, key) = &self.keys[0];
        let mut bytes = Vec::with_capacity(256);
        bytes.push(*ver_kid);
        bytes.extend_from_slice(&nonce.0);
        codec::pack_into(&mut bytes, birth);
        let tag = key
            .seal_in_place_separate_tag(iv(nonce), aead::Aad::from([*ver_kid]), &mut bytes[HEAD_LEN..])
            .expect("a certificate is far below AES-GCM's limit of 64 GiB");
        bytes.extend_from_slice(tag.as_ref());
        let mut text = String::with_capacity(PREFIX.len() + bytes.len().div_ceil(3) * 4);
        text.push_str(PREFIX);
        BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        Ok(text)
    }

    pub fn open(&self, text: &str) -> Result<SessionId, OpenError> {
        self.open_by(text).map(|(id, _)| id)
    }

    /// The same, and the place of the secret that it was sealed with.
    pub fn open_by(&self, text: &str) -> Result<(SessionId, usize), OpenError> {
        if text.len() > SEALED_TEXT_LEN_MAX {
            return Err(OpenError::Malformed);
        }
        let body = text.strip_prefix(PREFIX).ok_or(OpenError::Malformed)?;
        let mut buffer = [0; SEALED_TEXT_LEN_MAX];
        let len = BASE64URL_NOPAD.decode_len(body.len()).map_err(|_| OpenError::Malformed)?;
        BASE64URL_NOPAD.decode_mut(body.as_bytes(), &mut buffer[..len]).map_err(|_| OpenError::Malformed)?;
        let (head, sealed) = buffer[..len].split_at_mut_checked(HEAD_LEN).ok_or(OpenError::Malformed)?;
        let nonce = Nonce(*head.last_chunk::<12>().ok_or(OpenError::Malformed)?);
        let ver_kid = head[0];
        if ver_kid >> 4 != VERSION {
            return Err(OpenError::Malformed);
        }
        let mut candidates = self.keys.iter().enumerate().filter(|(_, (kid, _))| *kid == ver_kid).peekable();
        while let Some((at, (_, key))) = candidates.next() {
            let aad = aead::Aad::from([ver_kid]);
            let opened = match candidates.peek() {
                None => key.open_in_place(iv(nonce), aad, sealed).ok().map(|plain| codec::unpack(plain)),
                // Opening in place spoils the bytes when the key is wrong, so all but the last
                // candidate work on a copy. Two secrets share four bits once in 16 rotations.
                Some(_) => key
                    .open_in_place(iv(nonce), aad, &mut sealed.to_vec())
                    .ok()
                    .map(|plain| codec::unpack(plain)),
            };
            if let Some(birth) = opened {
                self.count_opened(at);
                return Ok((SessionId { nonce, birth: birth.map_err(|_| OpenError::Malformed)? }, at));
            }
        }
        Err(OpenError::Forged)
    }
}

fn iv(nonce: Nonce) -> aead::Nonce {
    aead::Nonce::assume_unique_for_key(nonce.0)
}

fn check_len(text: &str, len_max: usize, error: impl Fn(usize, usize) -> SealError) -> Result<(), SealError> {
    if text.len() > len_max { Err(error(text.len(), len_max)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Tag};
    use proptest::prelude::*;

    fn keys(seeds: &[u8]) -> SealKeys {
        let secrets: Vec<_> = seeds.iter().map(|seed| ClusterSecret::from_entropy([*seed; 32])).collect();
        SealKeys::new(&secrets, "ringway")
    }

    fn birth() -> Birth {
        Birth {
            minted_s: 1_790_000_000,
            home: NodeRef { tag: Tag(0x0102_0304), inc: Incarnation(1_790_000_000_123) },
            route: RouteId::of("/mcp"),
            principal: Principal::ANYONE,
            upstream: Some(UpstreamBirth {
                url: "http://127.0.0.1:3001/mcp".into(),
                session: "5f0f0d0e-1d53-4a0e-9f0c-0d6d8f8e7a6b".into(),
            }),
        }
    }

    #[test]
    fn a_sealed_id_is_golden() {
        let text = keys(&[1]).seal(Nonce([9; 12]), &birth()).expect("short enough");
        assert_eq!(text, GOLDEN, "changing this breaks every live session of a rolling upgrade");
        assert!(text.bytes().all(|b| (0x21..=0x7e).contains(&b)), "the specification asks for visible ASCII");
    }
    const GOLDEN: &str = "rw1.FAkJCQkJCQkJCQkJCaLorjJHb-D8ev16aZRGIqPPDfhhobvLzPDkLfSRI0JeAHJioNdlbWJkQ-j20r8mpwBbiVk2cwvkkndmiWuoaxLqlbrvVnEW053GZcoSXSgan8FEqVZWynxDbDcviwlibnHCZgodWCgn6B9TtBBPJYMY0N15eNTPDA";

    #[test]
    fn any_node_opens_what_another_sealed() {
        let text = keys(&[1]).seal(Nonce([9; 12]), &birth()).expect("short enough");
        let opened = keys(&[1]).open(&text).expect("same secret");
        assert_eq!(opened, SessionId { nonce: Nonce([9; 12]), birth: birth() });
    }

    #[test]
    fn a_rotated_secret_still_opens_and_a_foreign_one_never() {
        for new in 0..=255u8 {
            let old = keys(&[1]).seal(Nonce([new; 12]), &birth()).expect("short enough");
            assert!(
                keys(&[new, 1]).open(&old).is_ok(),
                "rotating to {new}, whether or not the key ids collide"
            );
            if new != 1 {
                assert_eq!(keys(&[new]).open(&old), Err(OpenError::Forged));
            }
        }
    }

    #[test]
    fn what_an_older_secret_still_opens_is_counted() {
        let old = keys(&[1]).seal(Nonce([9; 12]), &birth()).expect("short enough");
        let keys = keys(&[2, 1]);
        let new = keys.seal(Nonce([8; 12]), &birth()).expect("short enough");
        for text in [&old, &new, &old, &old[..40].to_owned()] {
            let _ = keys.open(text);
        }
        assert_eq!(keys.opened().collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn every_altered_bit_and_every_truncation_is_refused() {
        let keys = keys(&[1]);
        let text = keys.seal(Nonce([9; 12]), &birth()).expect("short enough");
        let raw = BASE64URL_NOPAD.decode(&text.as_bytes()[PREFIX.len()..]).expect("own text");
        for bit in 0..raw.len() * 8 {
            let mut altered = raw.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(
                keys.open(&format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&altered))).is_err(),
                "bit {bit}"
            );
        }
        for len in 0..text.len() {
            assert!(keys.open(&text[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_shortened_id_says_which_session_and_opens_nothing() {
        let nonce = Nonce([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255]);
        let text = keys(&[1]).seal(nonce, &birth()).expect("short enough");
        let short = shortened(&text);
        assert_eq!(short.len(), 22);
        assert_eq!((Nonce::of_text(short), Nonce::of_text(&text)), (Some(nonce), Some(nonce)));
        assert!(keys(&[1]).open(short).is_err());
        for bad in [
            "",
            "rw1.",
            "rw2.FAkJCQkJCQkJCQkJCa",
            &short[..21],
            "rw1.\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
        ] {
            assert_eq!(Nonce::of_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn nonces_follow_each_other() {
        assert_eq!(Nonce([0; 12]).next(), Some(Nonce([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])));
        assert_eq!(Nonce([255; 12]).next(), None);
        let mut low = [255; 12];
        low[0] = 7;
        assert_eq!(Nonce(low).next(), Some(Nonce([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])));
    }

    #[test]
    fn one_id_has_one_spelling() {
        let keys = keys(&[1]);
        let text = keys.seal(Nonce([9; 12]), &birth()).expect("short enough");
        for other in
            [format!("{text}="), format!(" {text}"), text.replace("rw1.", "RW1."), format!("{text}A")]
        {
            assert!(keys.open(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut long = birth();
        long.upstream = Some(UpstreamBirth { url: "u".repeat(513).into(), session: "s".into() });
        assert_eq!(
            keys(&[1]).seal(Nonce([0; 12]), &long),
            Err(SealError::UrlTooLong { len: 513, len_max: 512 })
        );
        long.upstream = Some(UpstreamBirth { url: "u".repeat(512).into(), session: "s".repeat(1024).into() });
        let text = keys(&[1]).seal(Nonce([0; 12]), &long).expect("just fits");
        assert!(text.len() <= SEALED_TEXT_LEN_MAX);
        assert_eq!(keys(&[1]).open(&text).expect("opens").birth, long);
    }

    proptest! {
        #[test]
        fn no_text_makes_open_panic(text in "(rw1\\.)?[A-Za-z0-9_-]{0,400}") {
            prop_assert!(keys(&[1]).open(&text).is_err());
        }
    }
}
