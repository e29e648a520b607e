//! An identity provider as far as a resource server sees one: it signs tokens, and publishes its keys as a file
//! or at a URL on this machine. Called by tests, which choose subjects, times and the moment of a new key.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::places;

/// Who it is, in its tokens.
pub const ISSUER: &str = "https://id.example";
/// What its tokens are for.
pub const AUDIENCE: &str = "https://gw.example/mcp";

#[derive(Debug)]
struct Key {
    id: String,
    pair: Ed25519KeyPair,
}

/// An issuer whose newest key signs.
#[derive(Debug)]
pub struct Issuer {
    keys: Vec<Key>,
    made: usize,
    /// Where the key set is published as a file.
    pub file: PathBuf,
    /// What the URL answers; `None` where the issuer is away.
    served: Arc<Mutex<Option<String>>>,
}

impl Issuer {
    /// With one key, published as a file.
    pub fn new() -> anyhow::Result<Issuer> {
        let file = places::scratch("issuer")?.join("jwks.json");
        let mut issuer = Issuer { keys: Vec::new(), made: 0, file, served: Arc::default() };
        issuer.add_key()?;
        Ok(issuer)
    }

    /// Makes a key that signs from now on. The others are still published.
    pub fn add_key(&mut self) -> anyhow::Result<()> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().context("no random bytes")?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).ok().context("not its own key")?;
        self.made += 1;
        self.keys.push(Key { id: format!("key-{}", self.made), pair });
        self.publish()
    }

    /// Withdraws all keys but the one that signs.
    pub fn withdraw_old_keys(&mut self) -> anyhow::Result<()> {
        self.keys.drain(..self.keys.len() - 1);
        self.publish()
    }

    fn publish(&self) -> anyhow::Result<()> {
        let keys: Vec<Value> = self
            .keys
            .iter()
            .map(|Key { id, pair }| {
                let x = BASE64URL_NOPAD.encode(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": id, "x": x})
            })
            .collect();
        let set = json!({"keys": keys}).to_string();
        let new = self.file.with_extension("new");
        std::fs::write(&new, &set).context("writing the key set")?;
        std::fs::rename(&new, &self.file).context("publishing the key set")?;
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if served.is_some() {
            *served = Some(set);
        }
        Ok(())
    }

    /// Publishes the keys at a URL too, and gives it.
    pub async fn serve(&self) -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/jwks.json", listener.local_addr()?);
        self.come_back()?;
        let served = self.served.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                let service = service_fn(move |_| {
                    let set = served.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    async move {
                        let status =
                            if set.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                        let body = Full::new(Bytes::from(set.unwrap_or_default()));
                        Response::builder().status(status).body(body)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Ok(url)
    }

    /// The URL answers nothing of use any more.
    pub fn go_away(&self) {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The URL gives the keys again.
    pub fn come_back(&self) -> anyhow::Result<()> {
        let set = std::fs::read_to_string(&self.file).context("reading the key set")?;
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) = Some(set);
        Ok(())
    }

    /// A token of this subject's, good for five minutes.
    pub fn token(&self, subject: &str) -> String {
        self.sign(&json!({"sub": subject}))
    }

    /// A token with these claims, besides or instead of those of a good one.
    pub fn sign(&self, claims: &Value) -> String {
        let key = self.keys.last().expect("it has one from the start");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut all = json!({"iss": ISSUER, "aud": AUDIENCE, "exp": now.as_secs() + 300});
        // No two are the same, as with real issuers.
        all["jti"] = json!(now.as_nanos().to_string());
        for (name, value) in claims.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": key.id});
        let message =
            [&header, &all].map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes())).join(".");
        let signature = BASE64URL_NOPAD.encode(key.pair.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }
}

/// The lines of a config that ask every caller for a token of that issuer's.
pub fn asked_by(jwks: &str) -> String {
    format!("auth = {{ jwt = {{ issuer = \"{ISSUER}\", audience = \"{AUDIENCE}\", jwks = {jwks:?} }} }}\n")
}

/// The same with its keys in a file.
pub fn asked_by_file(jwks: &Path) -> String {
    asked_by(&jwks.to_string_lossy())
}
