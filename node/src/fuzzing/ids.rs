//! What clients bring back under a seal: only what this cluster sealed opens, and only as it was sealed.

use proto::id::{
    Birth, ClusterSecret, Incarnation, NodeRef, Nonce, Principal, RouteId, SealKeys, Tag, UpstreamBirth,
    UpstreamTag, WrapKind, Wrapped,
};
use std::sync::OnceLock;

pub(super) const TOKENS: &[&str] = &["rw1.", "rwt1.", "rws1.", "FAkJ", "=", "A", "-_", "\u{1}"];

/// As of a cluster in the middle of a rotation: two secrets.
fn keys() -> &'static SealKeys {
    static KEYS: OnceLock<SealKeys> = OnceLock::new();
    KEYS.get_or_init(|| SealKeys::new(&[1, 2].map(|seed| ClusterSecret::from_entropy([seed; 32])), "ringway"))
}

/// The ids of sessions: the bytes as an id's text, and as a birth and what is done to its id.
pub fn seal(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = keys().open(text)
    {
        let again = older_or_newer(|keys| keys.seal(id.nonce, &id.birth).is_ok_and(|again| again == text));
        assert!(again, "{text:?} opens and was never sealed");
    }
    let Some((birth, change)) = birth(bytes) else { return };
    let nonce = Nonce(std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default()));
    let text = keys().seal(nonce, &birth).expect("all of it is short");
    let id = keys().open(&text).expect("its own id");
    assert_eq!((id.nonce, &id.birth), (nonce, &birth));
    let altered = altered(&text, change);
    assert!(altered == text || keys().open(&altered).is_err(), "{altered} opens, made of {text}");
}

/// The names of tasks and states, likewise.
pub fn names(bytes: &[u8]) {
    let route = RouteId(9);
    for kind in [WrapKind::Task, WrapKind::State] {
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Some(wrapped) = keys().open_wrapped(kind, route, Principal::ANYONE, text)
        {
            let again = older_or_newer(|keys| keys.wrap(kind, route, Principal::ANYONE, &wrapped) == text);
            assert!(again, "{text:?} opens and was never wrapped");
        }
        let Some((birth, change)) = birth(bytes) else { return };
        let whose = birth.principal;
        let upstream = birth.upstream.as_ref().map_or("", |upstream| &*upstream.url);
        let wrapped = Wrapped {
            home: birth.home,
            upstream: UpstreamTag::of(upstream),
            value: String::from_utf8_lossy(bytes).into_owned(),
        };
        let text = keys().wrap(kind, route, whose, &wrapped);
        assert_eq!(keys().open_wrapped(kind, route, whose, &text).as_ref(), Some(&wrapped));
        assert_eq!(keys().open_wrapped(kind, RouteId(8), whose, &text), None);
        let other = Principal(whose.0.map(|byte| !byte));
        assert_eq!(keys().open_wrapped(kind, route, other, &text), None);
        let altered = altered(&text, change);
        let opened = keys().open_wrapped(kind, route, whose, &altered);
        assert!(altered == text || opened.is_none(), "{altered} opens, made of {text}");
    }
}

/// Whether it holds with the keys of one of the secrets alone.
fn older_or_newer(holds: impl Fn(&SealKeys) -> bool) -> bool {
    [1, 2].iter().any(|seed| {
        let secret = ClusterSecret::from_entropy([*seed; 32]);
        holds(&SealKeys::new(&[secret], "ringway"))
    })
}

/// A birth made of the first bytes, and what is left.
fn birth(bytes: &[u8]) -> Option<(Birth, &[u8])> {
    let (numbers, rest) = bytes.split_first_chunk::<16>()?;
    let (principal, rest) = rest.split_first_chunk::<16>()?;
    let number =
        |at: usize| u32::from_be_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]]);
    let upstream = std::str::from_utf8(rest).ok().and_then(|text| text.split_once(' '));
    let birth = Birth {
        minted_s: number(0),
        home: NodeRef { tag: Tag(number(4)), inc: Incarnation(u64::from(number(8)) << 20) },
        route: RouteId(number(12)),
        principal: Principal(*principal),
        upstream: upstream.map(|(url, session)| UpstreamBirth {
            url: url.chars().take(100).collect::<String>().into(),
            session: session.chars().take(200).collect::<String>().into(),
        }),
    };
    Some((birth, rest))
}

/// The text with one thing done to it, which may come to nothing.
fn altered(text: &str, change: &[u8]) -> String {
    let byte = |at: usize| change.get(at).copied().map_or(0, usize::from);
    let at = (byte(1) * 256 + byte(2)) % text.len();
    let letter =
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=. "[byte(3) % 67]);
    match byte(0) % 6 {
        0 => format!("{}{letter}{}", &text[..at], &text[at + 1..]),
        1 => format!("{}{letter}{}", &text[..at], &text[at..]),
        2 => format!("{}{}", &text[..at], &text[at + 1..]),
        3 => text[..at].to_owned(),
        4 => format!("{text}{}", String::from_utf8_lossy(change)),
        _ => {
            let other = text.len() - 1 - at;
            let mut letters: Vec<char> = text.chars().collect();
            letters.swap(at, other);
            letters.into_iter().collect()
        }
    }
}
