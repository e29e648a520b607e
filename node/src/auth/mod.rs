//! Who calls. A caller proves it by a token ([`jwt`]), or a trusted proxy in front says it ([`header`]); what is
//! left of either is a [`Principal`]: a digest, to which sessions are bound and by which callers are told apart,
//! and all that logs say of them. `front` asks at the beginning of each request, before it reads a body.
//!
//! The same person is the same principal with every token: what counts is the issuer and the subject in it.
//! A stream that was opened with a token may outlive it, until it ends: whoever opens the next one is asked.

mod fetch;
mod header;
mod jwt;
mod keys;
mod metadata;
mod signatures;

pub(crate) use fetch::Authorities;
pub(crate) use keys::KeySet;

use crate::config::{self, Route};
use crate::headers::Headers;
use header::Named;
use hyper::header::{HeaderName, HeaderValue};
use ipnet::IpNet;
use jwt::Tokens;
use proto::id::{Principal, RouteId};
use proto::wire::Caller;
use ring::digest;
use std::{collections::HashMap, net::IpAddr, sync::Arc};
use tokio::task::JoinSet;

/// Why nobody knows who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// He has not shown it, or nothing to be believed; in words for him.
    Unproven(&'static str),
    /// He may have, but the keys that would tell are not known here.
    KeysUnknown,
}

/// What the routes of this node ask of their callers.
#[derive(Debug)]
pub(crate) struct Auth {
    routes: HashMap<RouteId, Proof>,
    /// Headers in which proxies say who calls: from anybody else they are thrown away.
    named_in: Vec<HeaderName>,
    trusted_proxies: Vec<IpNet>,
}

/// How callers of a route prove who they are.
#[derive(Clone, Debug)]
enum Proof {
    Token(Arc<Tokens>),
    Header(Named),
}

impl Auth {
    /// # Errors
    /// When what can't be changed later can't be read: a file of keys, or of authorities.
    pub(crate) fn new(routes: &[Arc<Route>], trusted_proxies: Vec<IpNet>) -> anyhow::Result<Self> {
        signatures::install();
        let mut of_routes = HashMap::new();
        let mut made: Vec<(&config::Auth, Proof)> = Vec::new();
        for route in routes {
            let Some(auth) = route.auth.as_deref() else { continue };
            // Routes with one issuer have its keys in common.
            let proof = match made.iter().find(|(written, _)| *written == auth) {
                Some((_, proof)) => proof.clone(),
                None => Proof::new(auth)?,
            };
            made.push((auth, proof.clone()));
            of_routes.insert(route.id, proof);
        }
        let header = |proof: &Proof| match proof {
            Proof::Header(Named(name)) => Some(name.clone()),
            Proof::Token(_) => None,
        };
        let named_in = of_routes.values().filter_map(header).collect();
        Ok(Self { routes: of_routes, named_in, trusted_proxies })
    }

    /// Throws away what only a proxy may say. To be called before anything else looks at the headers.
    pub(crate) fn cleanse(&self, headers: &mut Headers, from: IpAddr) {
        if !self.named_in.is_empty() && !self.trusts(from) {
            for name in &self.named_in {
                headers.remove(name);
            }
        }
    }

    /// Who calls. Where the route asks nobody that is anyone.
    pub(crate) async fn check(&self, route: &Route, headers: &Headers) -> Result<Caller, Denied> {
        match self.routes.get(&route.id) {
            None => Ok(Caller::Anyone),
            Some(Proof::Token(tokens)) => tokens.check(headers).await.map(Caller::Known),
            Some(Proof::Header(named)) => named.check(headers).map(Caller::Known),
        }
    }

    /// What a caller is told who was denied (RFC 6750, 3; RFC 9728, 5.1).
    pub(crate) fn challenge(
        &self,
        route: &Route,
        (scheme, host): (&str, Option<&str>),
        why: &'static str,
    ) -> HeaderValue {
        match self.routes.get(&route.id) {
            Some(Proof::Token(tokens)) => metadata::challenge(tokens, &route.path, (scheme, host), why),
            // He is not the one who could do better: the proxy is.
            Some(Proof::Header(_)) | None => HeaderValue::from_static("Trusted-Proxy"),
        }
    }

    /// Whether a path is that of such a document, of whatever route.
    pub(crate) fn is_metadata(path: &str) -> bool {
        metadata::about(path).is_some()
    }

    /// The document that says where tokens for a route are to be had, where it is at this path (RFC 9728).
    pub(crate) fn metadata(
        &self,
        routes: &[Arc<Route>],
        path: &str,
        at: (&str, Option<&str>),
    ) -> Option<serde_json::Value> {
        let about = metadata::about(path)?;
        let route = routes.iter().find(|route| route.endpoint(about).is_some())?;
        match self.routes.get(&route.id)? {
            Proof::Token(tokens) => Some(metadata::document(tokens, &route.path, at)),
            Proof::Header(_) => None,
        }
    }

    /// Whether what comes from this address is believed on who calls, and how.
    pub(crate) fn trusts(&self, from: IpAddr) -> bool {
        let from = from.to_canonical(); // IPv4 on a socket for both
        self.trusted_proxies.iter().any(|net| net.contains(&from))
    }

    /// Keeps the keys of every issuer up to date, for ever.
    pub(crate) async fn keep(self: Arc<Self>) -> anyhow::Result<()> {
        let mut keeping = JoinSet::new();
        let mut kept: Vec<Arc<Tokens>> = Vec::new();
        for proof in self.routes.values() {
            if let Proof::Token(tokens) = proof
                && !kept.iter().any(|other| Arc::ptr_eq(other, tokens))
            {
                kept.push(tokens.clone());
                let tokens = tokens.clone();
                keeping.spawn(async move { tokens.keys.keep().await });
            }
        }
        while let Some(ended) = keeping.join_next().await {
            ended?;
        }
        std::future::pending().await
    }
}

impl Proof {
    fn new(auth: &config::Auth) -> anyhow::Result<Self> {
        Ok(match auth {
            config::Auth::Jwt(jwt) => Self::Token(Arc::new(Tokens::new(jwt)?)),
            config::Auth::Header(name) => Self::Header(Named(name.clone())),
        })
    }
}

/// What is left of an identity: a digest of how it was proved and of its parts, each with its length before
/// it, so that no two identities are one text.
fn principal(how: &str, parts: [&[u8]; 2]) -> Principal {
    let mut digest = digest::Context::new(&digest::SHA256);
    for part in [b"ringway principal".as_slice(), how.as_bytes(), parts[0], parts[1]] {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    Principal(*digest.finish().as_ref().first_chunk().expect("a SHA-256 digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_principal_is_golden() {
        let one = principal("jwt", [b"https://id.example", b"alice"]);
        assert_eq!(one.to_string(), GOLDEN, "changing this takes every caller's sessions away");
        assert_ne!(one, principal("header", [b"https://id.example", b"alice"]));
    }
    const GOLDEN: &str = "1362388a59db0c9c3e8e2a8a1bf1d8d6";

    proptest! {
        #[test]
        fn two_identities_are_never_one(a in ".{0,8}", b in ".{0,8}", c in ".{0,8}", d in ".{0,8}") {
            let of = |one: &str, other: &str| principal("jwt", [one.as_bytes(), other.as_bytes()]);
            prop_assert_eq!(of(&a, &b) == of(&c, &d), (a, b) == (c, d));
        }
    }
}
