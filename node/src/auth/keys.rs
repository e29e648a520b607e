//! An issuer's keys, kept up to date: from a file that is read again when it changes, or from a URL that is asked
//! every few minutes, and at once when a token names a key that is not known. Keys stay known while the issuer
//! does not answer.

use super::fetch::{Authorities, FETCH_TIME_MAX, fetch};
use super::signatures::ALGORITHMS;
use crate::config::Jwks;
use crate::watched::Watched;
use hyper::Uri;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// How soon it is known that an issuer has withdrawn a key. New ones are asked for when they are met.
const FETCH_EVERY: Duration = Duration::from_secs(5 * 60);
/// While the issuer does not answer.
const FETCH_AGAIN: Duration = Duration::from_secs(10);
/// Anybody can make up names of keys: the issuer is asked for unknown ones five times at once, and then every 10 s.
const ASKED_AT_ONCE: u32 = 5;
const ASK_EVERY: Duration = Duration::from_secs(10);
/// An issuer has a handful. A token that names no key is tried with all that fit it.
const KEYS_MAX: usize = 100;

/// The keys of an issuer that signatures can be checked with.
#[derive(Debug)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

impl KeySet {
    /// Reads a JSON Web Key Set (RFC 7517, 5). Keys of other kinds and for other uses are passed over.
    ///
    /// # Errors
    /// When it is none, or holds no key of use.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Written {
            keys: Vec<serde_json::Value>,
        }
        let written: Written =
            serde_json::from_slice(bytes).map_err(|error| format!("is no JSON Web Key Set: {error}"))?;
        if written.keys.len() > KEYS_MAX {
            return Err(format!("holds {} keys, at most {KEYS_MAX} are read", written.keys.len()));
        }
        let keys: Vec<_> = written.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err(
                "holds no key that tokens are signed with (RSA, EC P-256 or P-384, Ed25519)".to_owned()
            );
        }
        Ok(Self(keys))
    }

    /// Those that may have signed a token which says this of itself.
    pub(super) fn of(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        let fits = move |key: &&Key| {
            key.algorithms.contains(&algorithm) && (id.is_none() || key.id.as_deref() == id)
        };
        self.0.iter().filter(fits)
    }
}

impl Key {
    fn read(written: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(written).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let fits = |algorithm: &&Algorithm| match (&jwk.algorithm, algorithm) {
            (AlgorithmParameters::RSA(_), algorithm) => {
                algorithm.family() == jsonwebtoken::AlgorithmFamily::Rsa
            }
            (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => key.curve == EllipticCurve::P256,
            (AlgorithmParameters::EllipticCurve(key), Algorithm::ES384) => key.curve == EllipticCurve::P384,
            (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => key.curve == EllipticCurve::Ed25519,
            _ => false, // secrets that the issuer shares with others, and what is not known
        };
        // A key that says what it is for is for nothing else.
        let is_said = |algorithm: &&Algorithm| {
            let said = jwk.common.key_algorithm;
            said.is_none_or(|said| said.to_string() == format!("{algorithm:?}"))
        };
        let algorithms: Vec<_> = ALGORITHMS.iter().filter(fits).filter(is_said).copied().collect();
        let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| !algorithms.is_empty())?;
        Some(Self { id: jwk.common.key_id, algorithms, key })
    }
}

/// The keys as they are known.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) set: Option<Arc<KeySet>>,
    /// Grows with every change: what was verified before it has to be verified again.
    pub(super) version: u64,
    /// How often the issuer was asked, whatever came of it.
    looks: u64,
}

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct Keys {
    source: Source,
    known: watch::Sender<Known>,
    wanted: Notify,
    allowance: Mutex<Allowance>,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url { uri: Uri, authorities: Authorities },
}

impl Keys {
    /// # Errors
    /// When a file can't be read. A URL is asked later.
    pub(super) fn new(jwks: &Jwks, ca: Option<&PathBuf>) -> anyhow::Result<Self> {
        let mut known = Known::default();
        let source = match jwks {
            Jwks::File(path) => {
                let set = KeySet::parse(&std::fs::read(path)?).map_err(anyhow::Error::msg)?;
                known.set = Some(Arc::new(set));
                Source::File(path.clone())
            }
            Jwks::Url(uri) => {
                let authorities = match ca {
                    Some(path) => Authorities::read(path).map_err(anyhow::Error::msg)?,
                    None => Authorities::of_this_machine(),
                };
                Source::Url { uri: uri.clone(), authorities }
            }
        };
        let (known, _) = watch::channel(known);
        Ok(Self {
            source,
            known,
            wanted: Notify::new(),
            allowance: Mutex::new(Allowance::new(Instant::now())),
        })
    }

    pub(super) fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// What is known after the issuer was asked once more, if it may be asked now, because what was known before
    /// does not do.
    pub(super) async fn newer(&self, before: &Known) -> Known {
        let is_first = before.looks == 0;
        let may_ask = match self.source {
            Source::File(_) => false,
            // The first question is on its way in any case.
            Source::Url { .. } if is_first => true,
            Source::Url { .. } => self.may_ask(),
        };
        if may_ask {
            if !is_first {
                self.wanted.notify_one();
            }
            let mut known = self.known.subscribe();
            let looked = known.wait_for(|known| known.looks > before.looks);
            let _ = tokio::time::timeout(FETCH_TIME_MAX, looked).await; // then with what there is
        }
        self.known()
    }

    fn may_ask(&self) -> bool {
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }

    /// Keeps them up to date, for ever.
    pub(super) async fn keep(&self) {
        match &self.source {
            Source::File(path) => self.keep_file(path).await,
            Source::Url { uri, authorities } => self.keep_fetched(uri, authorities).await,
        }
    }

    async fn keep_file(&self, path: &Path) {
        let mut watched = loop {
            match Watched::read(vec![path.to_owned()]) {
                Ok((watched, contents)) => {
                    self.learn(contents.first().map_or(&[], Vec::as_slice), &path.display());
                    break watched;
                }
                Err(_) => tokio::time::sleep(FETCH_AGAIN).await, // it was there a moment ago
            }
        };
        loop {
            let contents = watched.changed().await;
            self.learn(contents.first().map_or(&[], Vec::as_slice), &path.display());
        }
    }

    async fn keep_fetched(&self, uri: &Uri, authorities: &Authorities) {
        let mut is_well = true;
        loop {
            let fetched = fetch(uri, authorities).await;
            let learnt = fetched.and_then(|bytes| KeySet::parse(&bytes));
            if let Err(error) = &learnt
                && is_well
            {
                tracing::warn!(%uri, %error, "the issuer's keys can't be had: going on with what is known");
            } else if learnt.is_ok() && !is_well {
                tracing::info!(%uri, "the issuer's keys can be had again");
            }
            is_well = learnt.is_ok();
            self.known.send_modify(|known| {
                known.looks += 1;
                if let Ok(set) = learnt {
                    known.set = Some(Arc::new(set));
                    known.version += 1;
                }
            });
            let pause = if is_well { FETCH_EVERY } else { FETCH_AGAIN };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    fn learn(&self, bytes: &[u8], from: &dyn std::fmt::Display) {
        match KeySet::parse(bytes) {
            Ok(set) => {
                tracing::info!(%from, keys = set.0.len(), "the issuer's keys were read");
                self.known.send_modify(|known| {
                    known.set = Some(Arc::new(set));
                    known.version += 1;
                });
            }
            Err(error) => tracing::warn!(%from, %error, "not read: going on with the keys from before"),
        }
    }
}

/// How often something may be done: some times at once, and again as time passes.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: ASKED_AT_ONCE, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_secs() / ASK_EVERY.as_secs();
        if passed > 0 {
            self.left =
                ASKED_AT_ONCE.min(self.left.saturating_add(u32::try_from(passed).unwrap_or(u32::MAX)));
            self.since = now;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const ED: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    pub(in crate::auth) fn fixed(set: &serde_json::Value) -> Keys {
        let set = KeySet::parse(set.to_string().as_bytes()).expect("a key set");
        let (known, _) = watch::channel(Known { set: Some(Arc::new(set)), ..Known::default() });
        let source = Source::File("fixed".into());
        let allowance = Mutex::new(Allowance::new(Instant::now()));
        Keys { source, known, wanted: Notify::new(), allowance }
    }

    impl Keys {
        pub(in crate::auth) fn replace(&self, set: &serde_json::Value) {
            self.learn(set.to_string().as_bytes(), &"a test");
        }
    }

    #[test]
    fn a_key_is_for_what_it_says_and_what_is_of_no_use_is_passed_over() {
        let set = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": ED, "kid": "ed"},
            {"kty": "OKP", "crv": "X25519", "x": ED, "kid": "x"},
            {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "rsa", "alg": "RS256", "use": "sig"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "any"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "enc", "use": "enc"},
            {"kty": "EC", "crv": "P-256", "x": ED, "y": ED, "kid": "ec"},
            {"kty": "EC", "crv": "secp256k1", "x": ED, "y": ED, "kid": "coin"},
            {"kty": "new"}, 7,
        ]});
        let set = KeySet::parse(set.to_string().as_bytes()).expect("some are of use");
        let of = |id: &str, algorithm| set.of(Some(id), algorithm).count();
        assert_eq!((of("ed", Algorithm::EdDSA), of("ed", Algorithm::ES256)), (1, 0));
        assert_eq!((of("rsa", Algorithm::RS256), of("rsa", Algorithm::PS256)), (1, 0));
        assert_eq!((of("any", Algorithm::RS256), of("any", Algorithm::PS512)), (1, 1));
        assert_eq!((of("ec", Algorithm::ES256), of("ec", Algorithm::ES384)), (1, 0));
        for id in ["x", "shared", "enc", "coin"] {
            assert!(ALGORITHMS.iter().all(|algorithm| of(id, *algorithm) == 0), "{id}");
        }
        assert_eq!(of("shared", Algorithm::HS256), 0);
        assert_eq!(set.of(None, Algorithm::RS256).count(), 2);
    }

    #[test]
    fn what_is_no_key_set_is_refused_in_words() {
        let many = json!({"keys": vec![json!({}); KEYS_MAX + 1]}).to_string();
        for (text, part) in
            [("", "no JSON"), ("{}", "no JSON"), ("{\"keys\":[]}", "holds no key"), (&many, "at most 100")]
        {
            let error = KeySet::parse(text.as_bytes()).expect_err(text);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn unknown_keys_are_asked_for_a_few_times_and_then_now_and_then() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let at = |s: u64| start + Duration::from_secs(s);
        assert_eq!((0..100).filter(|_| allowance.take(start)).count(), 5);
        assert!(!allowance.take(at(9)));
        assert!(allowance.take(at(10)));
        assert!(!allowance.take(at(11)));
        assert_eq!((0..100).filter(|_| allowance.take(at(3_600))).count(), 5);
    }

    #[tokio::test]
    async fn keys_are_fetched_asked_for_again_and_kept_when_nobody_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let uri: Uri =
            format!("http://{}/jwks", listener.local_addr().expect("bound")).parse().expect("a URL");
        let keys = Keys::new(&Jwks::Url(uri), None).expect("nothing is read yet");
        let issuer = async {
            for (at, kid) in ["one", "two", ""].into_iter().enumerate() {
                let (mut connection, _) = listener.accept().await.expect("asked");
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    assert_ne!(connection.read_buf(&mut asked).await.expect("a request"), 0);
                }
                let body =
                    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": ED, "kid": kid}]}).to_string();
                let status = if at == 2 { "503 Away" } else { "200 OK" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                connection.write_all(answer.as_bytes()).await.expect("answered");
            }
            std::future::pending::<()>().await;
        };
        let has = |known: &Known, kid| {
            known.set.as_ref().is_some_and(|set| set.of(Some(kid), Algorithm::EdDSA).count() == 1)
        };
        let asks = async {
            let nothing = keys.known();
            assert!(nothing.set.is_none());
            let first = keys.newer(&nothing).await;
            assert!(has(&first, "one") && !has(&first, "two"));
            let second = keys.newer(&first).await;
            assert!(has(&second, "two") && !has(&second, "one") && second.version > first.version);
            let third = keys.newer(&second).await;
            assert!(has(&third, "two") && third.version == second.version, "kept when the issuer is away");
        };
        tokio::select! {
            () = keys.keep() => {}
            () = issuer => {}
            () = asks => {}
        }
    }
}
