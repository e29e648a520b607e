//! The key of a request: what ties those that belong together to one node.

use crate::config::{Key, Route, is_mirrored};
use crate::headers::Headers;
use crate::mcp::modern;
use hyper::header::AUTHORIZATION;
use proto::core::ring::Position;
use proto::id::Principal;
use proto::wire::Caller;
use std::net::IpAddr;

/// The place on the ring that a request without a session is tied to, if its route ties it to any.
pub(super) fn key(route: &Route, target: &str, headers: &Headers, caller: Caller) -> Option<Position> {
    said(route, target, headers, caller).map(|key| Position::of_key(&key))
}

/// Whoever comes with that key. A place on the ring is none to be known by: others with the same one are
/// easily made up.
pub(super) fn who(route: &Route, target: &str, headers: &Headers, caller: Caller) -> Option<Principal> {
    said(route, target, headers, caller).map(|key| digest(&key))
}

fn said(route: &Route, target: &str, headers: &Headers, caller: Caller) -> Option<Vec<u8>> {
    match route.key.as_ref()? {
        Key::Principal => match caller {
            Caller::Known(principal) => Some(principal.0.to_vec()), // whatever token it shows today
            Caller::Anyone | Caller::Counted(_) => Some(principal(headers).0.to_vec()),
        },
        // As the body says it, whichever way the client writes it.
        Key::Header(name) if is_mirrored(name) => Some(modern::decoded(headers.get(name)?).into_owned()),
        Key::Header(name) => Some(headers.get(name)?.as_bytes().to_vec()),
        Key::Cookie(name) => cookie(headers, name),
        Key::Query(name) => query(target, name),
    }
}

/// Who calls where nobody is authenticated: whoever has these credentials.
fn principal(headers: &Headers) -> Principal {
    headers.get(AUTHORIZATION).map_or(Principal::ANYONE, |credentials| digest(credentials.as_bytes()))
}

/// Whose sessions are counted together: those of the same credentials or, without any, of the same
/// address.
pub(crate) fn client(headers: &Headers, from: IpAddr) -> Principal {
    match principal(headers) {
        Principal::ANYONE => digest(from.to_canonical().to_string().as_bytes()),
        known => known,
    }
}

fn digest(of: &[u8]) -> Principal {
    let digest = ring::digest::digest(&ring::digest::SHA256, of);
    Principal(*digest.as_ref().first_chunk().expect("a SHA-256 digest has 32 bytes"))
}

fn cookie(headers: &Headers, name: &str) -> Option<Vec<u8>> {
    let lines = headers.get_all(hyper::header::COOKIE);
    let mut pairs = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
    pairs.find_map(|pair| {
        pair.trim().strip_prefix(name)?.strip_prefix('=').map(|value| value.as_bytes().to_vec())
    })
}

pub(super) fn query(target: &str, name: &str) -> Option<Vec<u8>> {
    let (_, query) = target.split_once('?')?;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(|value| value.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::tests::{headers, route};
    use crate::config::Protocol;
    use hyper::header::{COOKIE, HeaderName, HeaderValue};

    fn key_of(by: Option<Key>, target: &str, headers: &Headers) -> Option<Position> {
        key(&route(Protocol::Http, by), target, headers, Caller::Anyone)
    }

    fn header(name: &'static str) -> Option<Key> {
        Some(Key::Header(HeaderName::from_static(name)))
    }

    #[test]
    fn a_key_is_found_where_the_route_says() {
        let mut headers = headers([("x-job-id", "7")]);
        headers.insert(COOKIE, HeaderValue::from_static("other=1; sid=7"));
        let expected = Some(Position::of_key(b"7"));
        assert_eq!(key_of(header("x-job-id"), "/jobs", &headers), expected);
        assert_eq!(key_of(Some(Key::Cookie("sid".into())), "/jobs", &headers), expected);
        assert_eq!(key_of(Some(Key::Query("sid".into())), "/jobs?a=1&sid=7", &headers), expected);
        for absent in [None, header("x-other"), Some(Key::Cookie("si".into())), Some(Key::Query("si".into()))]
        {
            assert_eq!(key_of(absent.clone(), "/jobs?sid=7", &headers), None, "{absent:?}");
        }
    }

    #[test]
    fn a_mirrored_header_means_what_the_body_says() {
        let plain = key_of(header("mcp-param-city"), "/x", &headers([("mcp-param-city", "Bern")]));
        let encoded = headers([("mcp-param-city", "=?base64?QmVybg==?=")]);
        assert_eq!(plain, Some(Position::of_key(b"Bern")));
        assert_eq!(key_of(header("mcp-param-city"), "/x", &encoded), plain);
        let other = headers([("x-city", "=?base64?QmVybg==?=")]);
        assert_ne!(key_of(header("x-city"), "/x", &other), plain, "nothing says that it is encoded");
    }

    #[test]
    fn a_caller_is_who_has_the_credentials_and_nobody_is_one_caller() {
        let of = |headers: Headers| key_of(Some(Key::Principal), "/x", &headers).expect("everybody has one");
        assert_eq!(
            of(headers([("authorization", "Bearer a")])),
            of(headers([("authorization", "Bearer a")]))
        );
        assert_ne!(
            of(headers([("authorization", "Bearer a")])),
            of(headers([("authorization", "Bearer b")]))
        );
        assert_eq!(of(Headers::new()), of(headers([("x-other", "1")])));
    }

    #[test]
    fn an_authenticated_caller_stays_the_same_when_its_token_is_renewed() {
        let route = route(Protocol::Mcp, Some(Key::Principal));
        let of = |token, caller| {
            let headers = headers([("authorization", token)]);
            (key(&route, "/x", &headers, caller), who(&route, "/x", &headers, caller))
        };
        let [one, other] = [1, 2].map(|byte| Caller::Known(Principal([byte; 16])));
        assert_eq!(of("Bearer a", one), of("Bearer b", one));
        assert_ne!(of("Bearer a", one), of("Bearer a", other));
        assert_ne!(of("Bearer a", one), of("Bearer a", Caller::Anyone));
    }

    #[test]
    fn callers_are_told_apart_though_they_have_the_same_place_on_the_ring() {
        let [one, other] = ["=?base64?uTlC6ntzgmc9UpYJO7xWrw==?=", "=?base64?uTlC6ntzgmA6UpYJO7xWrw==?="]
            .map(|name| headers([("mcp-param-user", name)]));
        let by = || header("mcp-param-user");
        assert_eq!(key_of(by(), "/x", &one), key_of(by(), "/x", &other), "XXH3 is not made to prevent that");
        let caller_of = |headers| who(&route(Protocol::Mcp, by()), "/x", headers, Caller::Anyone);
        assert!(caller_of(&one).is_some());
        assert_ne!(caller_of(&one), caller_of(&other));
    }
}
