//! What upstreams hand out and clients bring back (task ids, request states of 2026-07-28), sealed
//! together with the node and the upstream that it came from, so that it finds its way back.
//!
//! `rwt1.` or `rws1.` and base64url of `version and key id (1) | nonce (12) | sealed`, where what is
//! sealed is `home (4 + 8) | upstream (8) | the value as the upstream wrote it`. The kind and the
//! route are authenticated with it: a task's id passes for nothing else, and nowhere else.
//!
//! Nothing is rolled: the nonce is a keyed digest of what is sealed, so one value has one text, and a
//! client that compares two of them is right to. Two texts share a nonce as rarely as with random ones
//! (NIST SP 800-38D, 8.3: less than once in 2^32 for 2^32 values), and the keys are not those of
//! session ids.

use super::{ClusterSecret, Incarnation, NodeRef, Principal, RouteId, SealKeys, Tag};
use data_encoding::BASE64URL_NOPAD;
use ring::{aead, hmac};

const VERSION: u8 = 1;
const NONCE_LEN: usize = 12;
const HEAD_LEN: usize = 1 + NONCE_LEN;
/// A node's tag and incarnation, and an upstream's tag.
const ORIGIN_LEN: usize = 4 + 8 + 8;

/// What a wrapped value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapKind {
    /// The id of a task (SEP-2663).
    Task,
    /// `requestState` (SEP-2322).
    State,
}

impl WrapKind {
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Task => "rwt1.",
            Self::State => "rws1.",
        }
    }
}

/// Eight bytes that stand for an upstream. Two upstreams of one route with the same tag (1 in 2^64 per
/// pair) would be mistaken for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamTag(pub u64);

impl UpstreamTag {
    /// By the name that ids and records call the upstream by.
    pub fn of(name: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }
}

/// A value of an upstream's, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    pub home: NodeRef,
    pub upstream: UpstreamTag,
    pub value: String,
}

/// The keys of one secret.
pub(super) struct WrapKey {
    ver_kid: u8,
    seal: aead::LessSafeKey,
    nonces: hmac::Key,
}

impl WrapKey {
    pub(super) fn new(secret: &ClusterSecret, cluster: &str) -> Self {
        let bytes = secret.derive("wrap", cluster);
        let seal = aead::UnboundKey::new(&aead::AES_256_GCM, &bytes).expect("AES-256 takes 32 bytes");
        Self {
            ver_kid: VERSION << 4 | (secret.derive("wrap-kid", cluster)[0] & 0x0f),
            seal: aead::LessSafeKey::new(seal),
            nonces: hmac::Key::new(hmac::HMAC_SHA256, &secret.derive("wrap-nonce", cluster)),
        }
    }

    /// Where nobody is authenticated it names nobody, as it was before anybody could be.
    fn associated(&self, kind: WrapKind, route: RouteId, principal: Principal) -> Vec<u8> {
        let mut associated = vec![self.ver_kid, kind.prefix().as_bytes()[2]];
        associated.extend_from_slice(&route.0.to_be_bytes());
        if principal != Principal::ANYONE {
            associated.extend_from_slice(&principal.0);
        }
        associated
    }

    fn nonce(&self, associated: &[u8], plain: &[u8]) -> [u8; NONCE_LEN] {
        let mut digest = hmac::Context::with_key(&self.nonces);
        digest.update(associated);
        digest.update(plain);
        *digest.sign().as_ref().first_chunk().expect("a SHA-256 digest has 32 bytes")
    }
}

impl SealKeys {
    /// The text that the client gets. It is as long as 4/3 of the value and 71 bytes:
    /// (1 + 12 + 20 + 16) * 4/3 and the prefix.
    pub fn wrap(&self, kind: WrapKind, route: RouteId, principal: Principal, wrapped: &Wrapped) -> String {
        let key = &self.wraps[0];
        let Wrapped { home, upstream, value } = wrapped;
        let mut bytes = Vec::with_capacity(HEAD_LEN + ORIGIN_LEN + value.len() + aead::MAX_TAG_LEN);
        bytes.push(key.ver_kid);
        bytes.extend_from_slice(&[0; NONCE_LEN]);
        bytes.extend_from_slice(&home.tag.0.to_be_bytes());
        bytes.extend_from_slice(&home.inc.0.to_be_bytes());
        bytes.extend_from_slice(&upstream.0.to_be_bytes());
        bytes.extend_from_slice(value.as_bytes());
        let associated = key.associated(kind, route, principal);
        let nonce = key.nonce(&associated, &bytes[HEAD_LEN..]);
        bytes[1..HEAD_LEN].copy_from_slice(&nonce);
        let tag = key
            .seal
            .seal_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(&associated),
                &mut bytes[HEAD_LEN..],
            )
            .expect("a value fits a message, far below AES-GCM's limit of 64 GiB");
        bytes.extend_from_slice(tag.as_ref());
        let mut text = String::with_capacity(kind.prefix().len() + bytes.len().div_ceil(3) * 4);
        text.push_str(kind.prefix());
        BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        text
    }

    /// What was wrapped, for this route and this caller; `None` for any text that is not this cluster's own,
    /// or another caller's.
    pub fn open_wrapped(
        &self,
        kind: WrapKind,
        route: RouteId,
        principal: Principal,
        text: &str,
    ) -> Option<Wrapped> {
        let body = text.strip_prefix(kind.prefix())?;
        let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).ok()?;
        let (head, sealed) = bytes.split_at_checked(HEAD_LEN)?;
        let nonce = *head.last_chunk::<NONCE_LEN>()?;
        // Two secrets share four bits once in 16 rotations, so there may be two keys to try.
        let candidates = self.wraps.iter().enumerate().filter(|(_, key)| key.ver_kid == head[0]);
        let (at, plain) = candidates.into_iter().find_map(|(at, key)| {
            let mut opened = sealed.to_vec(); // opening in place spoils it when the key is wrong
            let aad = aead::Aad::from(key.associated(kind, route, principal));
            let iv = aead::Nonce::assume_unique_for_key(nonce);
            let len = key.seal.open_in_place(iv, aad, &mut opened).ok()?.len();
            opened.truncate(len);
            Some((at, opened))
        })?;
        self.count_opened(at);
        let (tag, rest) = plain.split_first_chunk::<4>()?;
        let (inc, rest) = rest.split_first_chunk::<8>()?;
        let (upstream, value) = rest.split_first_chunk::<8>()?;
        Some(Wrapped {
            home: NodeRef { tag: Tag(u32::from_be_bytes(*tag)), inc: Incarnation(u64::from_be_bytes(*inc)) },
            upstream: UpstreamTag(u64::from_be_bytes(*upstream)),
            value: String::from_utf8(value.to_vec()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Birth, Nonce};
    use proptest::prelude::*;

    const ROUTE: RouteId = RouteId(9);
    const ANYONE: Principal = Principal::ANYONE;

    fn keys(seeds: &[u8]) -> SealKeys {
        let secrets: Vec<_> = seeds.iter().map(|seed| ClusterSecret::from_entropy([*seed; 32])).collect();
        SealKeys::new(&secrets, "ringway")
    }

    fn wrapped(value: &str) -> Wrapped {
        let home = NodeRef { tag: Tag(0x0102_0304), inc: Incarnation(1_790_000_000_123) };
        let upstream = UpstreamTag::of("http://127.0.0.1:3001/mcp");
        Wrapped { home, upstream, value: value.to_owned() }
    }

    #[test]
    fn a_wrapped_task_is_golden() {
        let text =
            keys(&[1]).wrap(WrapKind::Task, ROUTE, ANYONE, &wrapped("786512e2-9e0d-44bd-8f29-789f320fe840"));
        assert_eq!(text, GOLDEN, "changing this loses every task of a rolling upgrade");
        assert!(text.bytes().all(|b| (0x21..=0x7e).contains(&b)), "it goes into a header as it is");
    }
    const GOLDEN: &str = "rwt1.GFqOwmIFAzJ4xY4biDRbARj1WIeTTCjywxxu4TCHiENYUg71oFafRLra8Gg_do5eMAI4iUWNL-r0DR2BA9Dxk1IwGZgfAcB5-hIbcUytwWDm6riOZg";

    #[test]
    fn what_was_wrapped_comes_back_however_long_and_whatever_it_is() {
        for value in ["", "t", "ä \"\n\\", &"s".repeat(300_000)] {
            let wrapped = wrapped(value);
            let text = keys(&[1]).wrap(WrapKind::State, ROUTE, ANYONE, &wrapped);
            assert!(text.len() <= value.len() * 4 / 3 + 72, "{}", text.len());
            assert_eq!(keys(&[1]).open_wrapped(WrapKind::State, ROUTE, ANYONE, &text), Some(wrapped));
        }
    }

    #[test]
    fn one_value_has_one_text_and_two_have_two() {
        let text = |value: &str| keys(&[1]).wrap(WrapKind::Task, ROUTE, ANYONE, &wrapped(value));
        assert_eq!(text("a"), text("a"));
        let nonce = |text: &str| text[..WrapKind::Task.prefix().len() + HEAD_LEN * 4 / 3].to_owned();
        assert_ne!(nonce(&text("a")), nonce(&text("b")));
    }

    #[test]
    fn a_task_a_state_and_a_session_never_pass_for_each_other_nor_on_another_route() {
        let keys = keys(&[1]);
        let task = keys.wrap(WrapKind::Task, ROUTE, ANYONE, &wrapped("1"));
        let state = keys.wrap(WrapKind::State, ROUTE, ANYONE, &wrapped("1"));
        let body = |text: &str| text[5..].to_owned();
        let as_state = format!("{}{}", WrapKind::State.prefix(), body(&task));
        let as_task = format!("{}{}", WrapKind::Task.prefix(), body(&state));
        let home = wrapped("").home;
        let birth = Birth { minted_s: 0, home, route: ROUTE, principal: Principal::ANYONE, upstream: None };
        let session = keys.seal(Nonce([9; 12]), &birth).expect("short enough");
        let session_as_task = format!("{}{}", WrapKind::Task.prefix(), &session[4..]);
        assert_eq!(keys.open_wrapped(WrapKind::State, ROUTE, ANYONE, &as_state), None);
        for text in [&as_task, &session_as_task, &session, &state] {
            assert_eq!(keys.open_wrapped(WrapKind::Task, ROUTE, ANYONE, text), None, "{text}");
        }
        assert!(keys.open(&format!("rw1.{}", body(&task))).is_err());
        assert_eq!(keys.open_wrapped(WrapKind::Task, RouteId(10), ANYONE, &task), None);
    }

    #[test]
    fn what_one_caller_was_given_is_nothing_to_another() {
        let (keys, [one, other]) = (keys(&[1]), [1, 2].map(|byte| Principal([byte; 16])));
        let task = keys.wrap(WrapKind::Task, ROUTE, one, &wrapped("1"));
        assert_eq!(keys.open_wrapped(WrapKind::Task, ROUTE, one, &task), Some(wrapped("1")));
        for nobody in [other, ANYONE] {
            assert_eq!(keys.open_wrapped(WrapKind::Task, ROUTE, nobody, &task), None);
        }
        let of_anyone = keys.wrap(WrapKind::Task, ROUTE, ANYONE, &wrapped("1"));
        assert_eq!(keys.open_wrapped(WrapKind::Task, ROUTE, one, &of_anyone), None);
    }

    #[test]
    fn a_rotated_secret_still_opens_and_a_foreign_one_never() {
        for new in 0..=255u8 {
            let old = keys(&[1]).wrap(WrapKind::Task, ROUTE, ANYONE, &wrapped("1"));
            assert!(keys(&[new, 1]).open_wrapped(WrapKind::Task, ROUTE, ANYONE, &old).is_some(), "{new}");
            if new != 1 {
                assert_eq!(keys(&[new]).open_wrapped(WrapKind::Task, ROUTE, ANYONE, &old), None, "{new}");
            }
        }
    }

    #[test]
    fn every_altered_bit_and_every_truncation_is_refused() {
        let keys = keys(&[1]);
        let text = keys.wrap(WrapKind::Task, ROUTE, ANYONE, &wrapped("1"));
        let raw = BASE64URL_NOPAD.decode(&text.as_bytes()[5..]).expect("own text");
        for bit in 0..raw.len() * 8 {
            let mut altered = raw.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let altered = format!("rwt1.{}", BASE64URL_NOPAD.encode(&altered));
            assert_eq!(keys.open_wrapped(WrapKind::Task, ROUTE, ANYONE, &altered), None, "bit {bit}");
        }
        for len in 0..text.len() {
            assert_eq!(keys.open_wrapped(WrapKind::Task, ROUTE, ANYONE, &text[..len]), None, "cut to {len}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_open_panic(text in "(rwt1\\.)?[A-Za-z0-9_-]{0,400}") {
            prop_assert!(keys(&[1]).open_wrapped(WrapKind::Task, ROUTE, ANYONE, &text).is_none());
        }
    }
}
