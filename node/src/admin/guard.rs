//! Who may ask an admin endpoint, and from where.
//!
//! With a token whoever has it may. Without one whoever reaches the address may, but no page of another site
//! in somebody's browser: not by sending a request (which has an `Origin`), and not by a name of its own that
//! it makes resolve to this address ("DNS rebinding"), which the `Host` of such a request gives away.

use crate::config::admin_token;
use crate::events::{Event, Events};
use crate::headers::Headers;
use crate::watched::Watched;
use hyper::{
    Method,
    header::{self, HeaderValue},
    http::uri::{Authority, Uri},
};
use ring::{hmac, rand::SystemRandom};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

const WHAT: &str = "admin_token_file";

/// The token that operators have to show.
#[derive(Debug)]
pub(crate) struct Token {
    current: RwLock<Shown>,
}

/// Compared by a keyed digest of each, which takes as long whatever the texts have in common.
#[derive(Debug)]
struct Shown {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Shown {
    fn new(token: &str) -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.expect("the system's random source works after start-up");
        let tag = hmac::sign(&key, token.as_bytes());
        Self { key, tag }
    }
}

impl Token {
    /// Reads it, and reads it again whenever the file changes, for as long as what comes beside it is polled.
    ///
    /// # Errors
    /// When the file holds no token; it is named.
    pub(crate) fn watch(
        file: &Path,
        events: Arc<Events>,
    ) -> anyhow::Result<(Arc<Self>, impl Future<Output = anyhow::Result<()>> + use<>)> {
        let (mut watched, contents) = Watched::read(vec![PathBuf::from(file)])?;
        let token = admin_token(&contents.concat())
            .map_err(|why| anyhow::anyhow!("{WHAT} {}: {why}", file.display()))?;
        let token = Arc::new(Self { current: RwLock::new(Shown::new(&token)) });
        let current = token.clone();
        let watching = async move {
            loop {
                match admin_token(&watched.changed().await.concat()) {
                    Ok(token) => {
                        *current.current.write().unwrap_or_else(PoisonError::into_inner) = Shown::new(&token);
                        events.tell(Event::Reloaded { what: WHAT });
                    }
                    Err(why) => {
                        let file = watched.paths().next().unwrap_or(Path::new(""));
                        let why = format!("{}: {why}", file.display());
                        events.tell(Event::Refused { what: WHAT, why });
                    }
                }
            }
        };
        Ok((token, watching))
    }

    fn is_shown(&self, headers: &Headers) -> bool {
        let shown = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let Some((scheme, token)) = shown.and_then(|shown| shown.split_at_checked("Bearer ".len())) else {
            return false;
        };
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        scheme.eq_ignore_ascii_case(b"Bearer ")
            && hmac::verify(&current.key, token, current.tag.as_ref()).is_ok()
    }
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// 401.
    NoToken,
    /// 403.
    Forbidden(&'static str),
}

/// Who may ask.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) token: Option<Arc<Token>>,
    /// Only programs on this machine reach the address.
    pub(crate) is_loopback: bool,
}

impl Guard {
    pub(super) fn check(&self, method: &Method, uri: &Uri, headers: &Headers) -> Result<(), Refused> {
        let host = host(uri, headers);
        let is_plain = host.as_ref().is_some_and(is_address);
        match &self.token {
            Some(token) if !token.is_shown(headers) => return Err(Refused::NoToken),
            // Who has the token is no page of another site.
            Some(_) => {}
            None if self.is_loopback && host.is_some() && !is_plain => {
                return Err(Refused::Forbidden(
                    "ask by this node's address, or by localhost, and by no other name",
                ));
            }
            None => {}
        }
        let changes = *method != Method::GET;
        match headers.get(header::ORIGIN) {
            Some(origin) if changes && !(is_plain && is_same(origin, host.as_ref())) => {
                Err(Refused::Forbidden("not for pages of other sites"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// By HTTP/2 it is the request's own.
fn host(uri: &Uri, headers: &Headers) -> Option<Authority> {
    let named = || headers.get(header::HOST)?.to_str().ok()?.parse().ok();
    uri.authority().cloned().or_else(named)
}

/// A number, or the one name that no name server is asked for.
fn is_address(host: &Authority) -> bool {
    let name = host.host();
    let number = name.trim_start_matches('[').trim_end_matches(']');
    number.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

fn is_same(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    // TLS may end at a proxy before this node.
    let origin = origin.filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
    origin.zip(host).is_some_and(|((_, origin), host)| origin.eq_ignore_ascii_case(host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn check(guard: &Guard, method: Method, pairs: &[(&str, &str)]) -> Result<(), Refused> {
        let mut headers = Headers::new();
        for (name, value) in pairs {
            let name: header::HeaderName = name.parse().expect("a header's name");
            headers.insert(name, value.parse().expect("a header's value"));
        }
        guard.check(&method, &Uri::from_static("/v1/drain"), &headers)
    }

    #[test]
    fn a_page_may_change_something_only_from_this_very_address() {
        let open = Guard { token: None, is_loopback: true };
        for (host, origin, is_let) in [
            ("127.0.0.1:9400", "http://127.0.0.1:9400", true),
            ("[::1]:9400", "http://[::1]:9400", true),
            ("localhost:9400", "http://LOCALHOST:9400", true),
            ("127.0.0.1:9400", "http://127.0.0.1:9401", false),
            ("127.0.0.1:9400", "http://evil.example", false),
            ("127.0.0.1:9400", "null", false),
            ("evil.example:9400", "http://evil.example:9400", false),
        ] {
            let checked = check(&open, Method::POST, &[("host", host), ("origin", origin)]);
            assert_eq!(checked.is_ok(), is_let, "{host} {origin}");
        }
        assert_eq!(check(&open, Method::POST, &[("host", "127.0.0.1:9400")]), Ok(()));
    }

    #[test]
    fn a_name_that_was_made_to_lead_here_reads_nothing() {
        let open = Guard { token: None, is_loopback: true };
        assert!(check(&open, Method::GET, &[("host", "evil.example:9400")]).is_err());
        assert_eq!(check(&open, Method::GET, &[("host", "10.0.0.1:9400")]), Ok(()));
        let elsewhere = Guard { token: None, is_loopback: false };
        assert_eq!(check(&elsewhere, Method::GET, &[("host", "ringway-0.ringway:9400")]), Ok(()));
    }

    #[tokio::test]
    async fn only_who_has_the_token_may_ask() {
        let dir = std::env::temp_dir().join(format!("ringway-token-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder for temporary files");
        let file = dir.join("token");
        std::fs::write(&file, "  0123456789abcdef\n").expect("it can be written");
        let (events, _passed) = Events::new("a".parse().expect("a plain name"), Arc::new(Metrics::new()));
        let (token, _watching) = Token::watch(&file, Arc::new(events)).expect("a token");
        std::fs::remove_dir_all(&dir).expect("it is ours");
        let guard = Guard { token: Some(token), is_loopback: true };
        let with = |shown: &str| check(&guard, Method::GET, &[("authorization", shown)]);
        assert_eq!(with("Bearer 0123456789abcdef"), Ok(()));
        assert_eq!(with("bearer 0123456789abcdef"), Ok(()));
        for wrong in
            ["0123456789abcdef", "Bearer 0123456789abcdeg", "Bearer ", "Bearer", "Basic 0123456789abcdef"]
        {
            assert_eq!(with(wrong), Err(Refused::NoToken), "{wrong}");
        }
        assert_eq!(check(&guard, Method::GET, &[]), Err(Refused::NoToken));
    }
}
