//! Tokens that are believed, and all others.

use super::super::{keys::tests::fixed, signatures};
use super::*;
use crate::headers::Headers;
use data_encoding::BASE64URL_NOPAD;
use hyper::header::HeaderValue;
use proptest::prelude::*;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "https://gw.example/mcp";

/// A pair of keys of the issuer's, made for the test.
enum Pair {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
}

impl Pair {
    fn ed() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random");
        Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("its own"))
    }

    fn ec() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("random");
        Self::Ec(EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).expect("its own"))
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::Ed(_) => "EdDSA",
            Self::Ec(_) => "ES256",
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Ed(pair) => {
                let x = BASE64URL_NOPAD.encode(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA"})
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let [x, y] = [&point[1..33], &point[33..]].map(|part| BASE64URL_NOPAD.encode(part));
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid})
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Ec(pair) => pair.sign(&SystemRandom::new(), message).expect("signed").as_ref().to_vec(),
        }
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        let message = message(&json!({"alg": self.alg(), "typ": "at+jwt", "kid": kid}), claims);
        let signature = BASE64URL_NOPAD.encode(&self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn message(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes())).join(".")
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now_s() + 300, "iat": now_s()})
}

/// The claims with one of them changed, or without it.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().expect("an object").remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

fn tokens(keys: &[Value]) -> Tokens {
    signatures::install();
    Tokens::with_keys(ISSUER.to_owned(), vec![AUDIENCE.to_owned()], fixed(&json!({"keys": keys})))
}

pub(in crate::auth) fn tokens_for(audiences: &[&str]) -> Tokens {
    let keys = fixed(&json!({"keys": [Pair::ed().jwk("1")]}));
    Tokens::with_keys(ISSUER.to_owned(), audiences.iter().map(|&one| one.to_owned()).collect(), keys)
}

fn bearer(token: &str) -> Headers {
    let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("a value");
    Headers::from_iter([(AUTHORIZATION, value)])
}

fn check(tokens: &Tokens, token: &str) -> Result<Principal, Denied> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(tokens.check(&bearer(token)))
}

#[test]
fn a_caller_stays_the_same_with_every_token_of_every_key() {
    let (ed, ec) = (Pair::ed(), Pair::ec());
    let tokens = tokens(&[ed.jwk("1"), ec.jwk("2")]);
    let alice = check(&tokens, &ed.token("1", &claims())).expect("good");
    for claims in [
        with("exp", json!(now_s() + 9)),
        with("exp", json!(now_s() - 30)),
        with("nbf", json!(now_s() + 30)),
        with("aud", json!(["other", AUDIENCE])),
        with("scope", json!("x")),
    ] {
        assert_eq!(check(&tokens, &ed.token("1", &claims)), Ok(alice), "{claims}");
        assert_eq!(check(&tokens, &ec.token("2", &claims)), Ok(alice), "{claims}");
    }
    let bob = check(&tokens, &ed.token("1", &with("sub", json!("bob")))).expect("good");
    assert_ne!(alice, bob);
    assert_ne!(bob, Principal::ANYONE);
    let unnamed = message(&json!({"alg": "ES256"}), &claims());
    let unnamed = format!("{unnamed}.{}", BASE64URL_NOPAD.encode(&ec.sign(unnamed.as_bytes())));
    assert_eq!(check(&tokens, &unnamed), Ok(alice), "a token need not name its key");
}

#[test]
fn wrong_claims_are_never_believed() {
    let pair = Pair::ed();
    let tokens = tokens(&[pair.jwk("1")]);
    for (name, value) in [
        ("iss", Value::Null),
        ("iss", json!("https://id.example/")),
        ("iss", json!([ISSUER])),
        ("iss", json!([ISSUER, "https://other.example"])),
        ("aud", Value::Null),
        ("aud", json!("https://gw.example/mcp/")),
        ("aud", json!("https://GW.example/mcp")),
        ("aud", json!(["other"])),
        ("aud", json!([])),
        ("aud", json!(7)),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!(["alice"])),
        ("exp", Value::Null),
        ("exp", json!(now_s() - 90)),
        ("exp", json!("99999999999")),
        ("exp", json!(-1)),
        ("exp", json!([])),
        ("nbf", json!(now_s() + 90)),
        ("nbf", json!("0")),
        ("nbf", json!(1e300)),
    ] {
        let denied = check(&tokens, &pair.token("1", &with(name, value.clone())));
        assert!(matches!(denied, Err(Denied::Unproven(_))), "{name} = {value}: {denied:?}");
    }
    // Twice the same claim: whichever a reader takes, it is not for him to choose.
    let twice = claims().to_string().replacen('{', "{\"sub\":\"bob\",", 1);
    let header = BASE64URL_NOPAD.encode(json!({"alg": "EdDSA", "kid": "1"}).to_string().as_bytes());
    let message = format!("{header}.{}", BASE64URL_NOPAD.encode(twice.as_bytes()));
    let token = format!("{message}.{}", BASE64URL_NOPAD.encode(&pair.sign(message.as_bytes())));
    assert!(check(&tokens, &token).is_err());
}

#[test]
fn a_token_that_its_issuer_has_not_signed_is_never_believed() {
    let (ed, ec, stranger) = (Pair::ed(), Pair::ec(), Pair::ed());
    let tokens = tokens(&[ed.jwk("1"), ec.jwk("2")]);
    let public = |pair: &Pair| match pair {
        Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
        Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
    };
    let with_secret = |header: &Value, secret: &[u8]| {
        let message = message(header, &claims());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    };
    let mut wrong = vec![
        stranger.token("1", &claims()),
        stranger.token("3", &claims()),
        ed.token("2", &claims()), // the name of the other key
        // With the public key for a shared secret.
        with_secret(&json!({"alg": "HS256", "kid": "1"}), &public(&ed)),
        with_secret(&json!({"alg": "HS256", "kid": "2"}), &public(&ec)),
        with_secret(&json!({"alg": "HS256"}), ed.jwk("1").to_string().as_bytes()),
        // An alg that is not the key's.
        format!("{}.{}", message(&json!({"alg": "ES256", "kid": "1"}), &claims()), "AA"),
    ];
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256", "RS256", "ES512", "EdDSA "] {
        let unsigned = message(&json!({"alg": alg, "kid": "1"}), &claims());
        wrong.extend([format!("{unsigned}."), unsigned.clone(), format!("{unsigned}.AAAA")]);
        // Its own key, in the token.
        let header = json!({"alg": alg, "kid": "1", "jwk": stranger.jwk("1"), "jku": "http://127.0.0.1:1/"});
        wrong.push(format!("{}.{}", message(&header, &claims()), "AAAA"));
    }
    let header = json!({"alg": "EdDSA", "jwk": stranger.jwk("3"), "kid": "3"});
    let signed = message(&header, &claims());
    wrong.push(format!("{signed}.{}", BASE64URL_NOPAD.encode(&stranger.sign(signed.as_bytes()))));
    for token in wrong {
        assert!(check(&tokens, &token).is_err(), "{token}");
    }
}

#[test]
fn only_one_bearer_token_of_a_sensible_length_is_read() {
    let pair = Pair::ed();
    let tokens = tokens(&[pair.jwk("1")]);
    let good = pair.token("1", &claims());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let of = |values: &[&str]| {
        let mut headers = Headers::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
        }
        runtime.block_on(tokens.check(&headers))
    };
    assert!(of(&[&format!("Bearer {good}")]).is_ok());
    assert!(of(&[&format!("bearer {good}")]).is_ok());
    let two = format!("Bearer {good}");
    let huge = pair.token("1", &with("pad", json!("x".repeat(TOKEN_LEN_MAX))));
    for wrong in [
        &[][..],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &["Basic YTpi"],
        &[&good],
        &[&two, &two],
        &[&two, "Bearer x"],
        &[&format!("Bearer {good} {good}")],
        &[&format!("Bearer {huge}")],
    ] {
        assert!(matches!(of(wrong), Err(Denied::Unproven(_))), "{wrong:?}");
    }
}

#[test]
fn what_was_verified_is_forgotten_with_the_keys_and_with_its_time() {
    let (old, new) = (Pair::ed(), Pair::ed());
    let tokens = tokens(&[old.jwk("old")]);
    let token = old.token("old", &claims());
    let alice = check(&tokens, &token).expect("good");
    assert_eq!(check(&tokens, &token), Ok(alice), "remembered");
    tokens.keys.replace(&json!({"keys": [old.jwk("old"), new.jwk("new")]}));
    assert_eq!(check(&tokens, &token), Ok(alice));
    assert_eq!(check(&tokens, &new.token("new", &claims())), Ok(alice));
    tokens.keys.replace(&json!({"keys": [new.jwk("new")]}));
    assert!(check(&tokens, &token).is_err(), "its key was withdrawn");
    let mut name = [0; 32];
    name.copy_from_slice(digest(&SHA256, b"x").as_ref());
    let version = tokens.keys.known().version;
    tokens.remember(name, Verified { principal: alice, until_s: now_s() + 9, version });
    assert_eq!(tokens.remembered(&name, version), Some(alice));
    tokens.remember(name, Verified { principal: alice, until_s: now_s() - 1, version });
    assert_eq!(tokens.remembered(&name, version), None);
    for filled in 0..VERIFIED_MAX + 10 {
        name[..8].copy_from_slice(&filled.to_be_bytes());
        tokens.remember(name, Verified { principal: alice, until_s: now_s() + 9, version });
    }
    assert_eq!(tokens.verified.lock().expect("whole").len(), VERIFIED_MAX);
}

/// RFC 7515, A.2: the only signature here that this file has not made.
#[test]
fn an_rsa_signature_is_checked_as_the_specification_shows() {
    signatures::install();
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let signed = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let set = json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]});
    let set = KeySet::parse(set.to_string().as_bytes()).expect("a key");
    let key = set.of(None, jsonwebtoken::Algorithm::RS256).next().expect("it fits");
    let is_good = |signed: &str, algorithm| {
        jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.key, algorithm).expect("a verifier")
    };
    assert!(is_good(signed, jsonwebtoken::Algorithm::RS256));
    assert!(!is_good(signed, jsonwebtoken::Algorithm::RS384));
    assert!(!is_good(signed, jsonwebtoken::Algorithm::PS256));
    assert!(!is_good(&signed.replace('Q', "R"), jsonwebtoken::Algorithm::RS256));
}

proptest! {
    #[test]
    fn no_altered_token_is_believed(at in any::<prop::sample::Index>(), by in 1u8..64, is_ec in any::<bool>()) {
        let pair = if is_ec { Pair::ec() } else { Pair::ed() };
        let tokens = tokens(&[pair.jwk("1")]);
        let token = pair.token("1", &claims());
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut altered = token.clone().into_bytes();
        let at = at.index(altered.len());
        altered[at] = match ALPHABET.iter().position(|one| *one == altered[at]) {
            Some(place) => ALPHABET[(place + usize::from(by)) % 64],
            None => b'A', // one of the dots
        };
        let altered = String::from_utf8(altered).expect("ASCII");
        prop_assert!(check(&tokens, &altered).is_err(), "{altered}");
        prop_assert!(check(&tokens, &token[..at]).is_err());
        prop_assert!(check(&tokens, &token).is_ok());
    }

    #[test]
    fn no_text_is_believed_and_none_makes_it_panic(text in "[ -~]{0,200}") {
        let tokens = tokens_for(&[AUDIENCE]);
        signatures::install();
        prop_assert!(check(&tokens, &text).is_err());
    }
}
