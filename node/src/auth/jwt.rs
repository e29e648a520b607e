//! Callers who show a token (RFC 6750, RFC 7519): signed by the issuer, for this audience, of this time. What was
//! verified is remembered by its digest until the token has expired or the issuer's keys have changed, so a
//! caller's second request costs a look-up.

use super::keys::{KeySet, Keys, Known};
use super::signatures::ALGORITHMS;
use super::{Denied, principal};
use crate::config::Jwt;
use crate::headers::Headers;
use hyper::header::AUTHORIZATION;
use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use lru::LruCache;
use proto::id::Principal;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// Identity providers' tokens have one to four kilobytes; all headers together may have 64 KiB.
const TOKEN_LEN_MAX: usize = 16 * 1024;
/// How far clocks may be apart.
const LEEWAY_S: u64 = 60;
/// Of 32 and about 80 bytes each: 1 MiB.
const VERIFIED_MAX: usize = 10_000;

/// What tokens of one issuer are worth.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) issuer: String,
    pub(super) audiences: Vec<String>,
    pub(super) keys: Keys,
    verified: Mutex<LruCache<[u8; 32], Verified>>,
}

/// A token that was verified.
#[derive(Clone, Copy, Debug)]
struct Verified {
    principal: Principal,
    until_s: u64,
    /// With which of the issuer's keys.
    version: u64,
}

/// What is read of a token. Whatever has another type is refused.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
}

/// Why a token says nothing.
enum Wrong {
    /// No known key may have signed it; a newer one may.
    NoKey,
    Bad(&'static str),
}

impl Tokens {
    pub(super) fn new(jwt: &Jwt) -> anyhow::Result<Self> {
        let keys = Keys::new(&jwt.jwks, jwt.ca.as_ref())?;
        Ok(Self::with_keys(jwt.issuer.clone(), jwt.audiences.clone(), keys))
    }

    fn with_keys(issuer: String, audiences: Vec<String>, keys: Keys) -> Self {
        let room = NonZeroUsize::new(VERIFIED_MAX).unwrap_or(NonZeroUsize::MIN);
        Self { issuer, audiences, keys, verified: Mutex::new(LruCache::new(room)) }
    }

    pub(super) async fn check(&self, headers: &Headers) -> Result<Principal, Denied> {
        let token = token(headers)?;
        let mut name = [0; 32];
        name.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let mut known = self.keys.known();
        if let Some(principal) = self.remembered(&name, known.version) {
            return Ok(principal);
        }
        let mut read = self.read(token, known.set.as_ref());
        if let Err(Wrong::NoKey) = read {
            known = self.keys.newer(&known).await;
            read = self.read(token, known.set.as_ref());
        }
        match read {
            Ok((principal, until_s)) => {
                self.remember(name, Verified { principal, until_s, version: known.version });
                Ok(principal)
            }
            Err(Wrong::Bad(why)) => Err(Denied::Unproven(why)),
            Err(Wrong::NoKey) => Err(unknown_key(&known)),
        }
    }

    fn remembered(&self, name: &[u8; 32], version: u64) -> Option<Principal> {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let found = *verified.get(name)?;
        let is_good = found.version == version && now_s() <= found.until_s;
        if !is_good {
            verified.pop(name);
        }
        is_good.then_some(found.principal)
    }

    fn remember(&self, name: [u8; 32], found: Verified) {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).put(name, found);
    }

    /// Whose token it is, and until when it says so.
    fn read(&self, token: &str, keys: Option<&Arc<KeySet>>) -> Result<(Principal, u64), Wrong> {
        let header = decode_header(token).map_err(|_| Wrong::Bad("This is not a JSON Web Token"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Wrong::Bad("Tokens with this alg are not accepted"));
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let keys = keys.ok_or(Wrong::NoKey)?;
        let mut wrong = Wrong::NoKey;
        for key in keys.of(header.kid.as_deref(), header.alg) {
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(decoded) => return self.believe(&decoded.claims),
                Err(error) => wrong = Wrong::Bad(in_words(error.kind())),
            }
        }
        Err(wrong)
    }

    /// Signed and in time; what remains is that each claim is one thing and not several.
    fn believe(&self, claims: &Claims) -> Result<(Principal, u64), Wrong> {
        let is_in_time = claims.nbf.is_none_or(|nbf| nbf <= (now_s() + LEEWAY_S) as f64);
        if claims.iss != self.issuer || claims.sub.is_empty() || !is_in_time {
            return Err(Wrong::Bad("The token's claims are not accepted"));
        }
        let until_s = (claims.exp.clamp(0.0, u32::MAX as f64) as u64).saturating_add(LEEWAY_S);
        Ok((principal("jwt", [claims.iss.as_bytes(), claims.sub.as_bytes()]), until_s))
    }
}

/// The token that a request brings: one, in the header, and nowhere else.
fn token(headers: &Headers) -> Result<&str, Denied> {
    let mut shown = headers.get_all(AUTHORIZATION);
    let (first, more) = (shown.next(), shown.next());
    let Some(first) = first else { return Err(Denied::Unproven("A bearer token is required")) };
    if more.is_some() {
        return Err(Denied::Unproven("More than one Authorization header"));
    }
    let text = first.to_str().map_err(|_| Denied::Unproven("This is not a bearer token"))?;
    let (scheme, token) = text.split_once(' ').ok_or(Denied::Unproven("This is not a bearer token"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denied::Unproven("A bearer token is required"));
    }
    if token.len() > TOKEN_LEN_MAX {
        return Err(Denied::Unproven("The token is too long"));
    }
    Ok(token.trim())
}

fn unknown_key(known: &Known) -> Denied {
    match known.set {
        None => Denied::KeysUnknown,
        Some(_) => Denied::Unproven("The token is signed with a key that is not the issuer's"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's own, and it may add to them")]
fn in_words(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "The token has expired",
        ErrorKind::ImmatureSignature => "The token is not valid yet",
        ErrorKind::InvalidIssuer => "The token is of another issuer",
        ErrorKind::InvalidAudience => "The token is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "The token lacks one of exp, iss, aud and sub",
        ErrorKind::InvalidSignature => "The token's signature is not the issuer's",
        _ => "The token is malformed",
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
pub(super) mod tests;
