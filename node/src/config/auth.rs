//! How callers prove who they are: by a token of an issuer's, or by what a proxy in front says of them.

use super::written::{At, Mistakes, Table, WordOrTable};
use crate::auth::{Authorities, KeySet};
use hyper::{Uri, header::HeaderName};
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How callers prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    Jwt(Jwt),
    /// The header in which a trusted proxy names them.
    Header(HeaderName),
}

/// Tokens of one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Jwt {
    pub(crate) issuer: String,
    /// What a token must be meant for: one of these. URLs among them are this route's own, as clients know it.
    pub(crate) audiences: Vec<String>,
    pub(crate) jwks: Jwks,
    /// Who vouches for the issuer's host, where this machine does not know it.
    pub(crate) ca: Option<PathBuf>,
}

/// Where the issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Jwks {
    File(PathBuf),
    Url(Uri),
}

/// What is written of it; `None` stands for "none".
pub(super) struct Asked {
    pub(super) auth: Option<Arc<Auth>>,
    pub(super) line: Option<usize>,
}

const KNOWN: &str =
    "\"none\", { jwt = { issuer = \"...\", audience = \"...\", jwks = \"...\" } } or { header = \"...\" }";

/// Reads `auth`; files are named relative to `beside`.
pub(super) fn read(table: &mut Table<'_>, beside: Option<&Path>, m: &mut Mistakes) -> Option<Asked> {
    let At { value, line } = table.word_or_table("auth", "auth", m)?;
    let mut table = match value {
        WordOrTable::Word(word) if word == "none" => return Some(Asked { auth: None, line }),
        WordOrTable::Word(word) => {
            m.add(line, format!("auth {word:?} is not {KNOWN}"));
            return None;
        }
        WordOrTable::Table(table) => table,
    };
    let header = table.string("header", m);
    let jwt = table.word_or_table("jwt", "auth's jwt", m);
    let (has_header, has_jwt) = (header.is_some(), jwt.is_some());
    table.finish(&["jwt", "header"], m);
    if has_header == has_jwt {
        m.add(line, format!("auth names {}: write {KNOWN}", if has_jwt { "both" } else { "neither" }));
        return None;
    }
    let auth = match (jwt, header) {
        (Some(At { value: WordOrTable::Table(table), line }), _) => {
            Auth::Jwt(jwt_of(table, line, beside, m)?)
        }
        (Some(At { value: WordOrTable::Word(_), line }), _) => {
            m.add(line, "jwt: expected { issuer = \"...\", audience = \"...\", jwks = \"...\" }");
            return None;
        }
        (None, header) => Auth::Header(header_of(header?, m)?),
    };
    Some(Asked { auth: Some(Arc::new(auth)), line })
}

/// Reads `trusted_proxies`: those on this machine, unless it is said otherwise.
pub(super) fn proxies(written: Option<At<Vec<At<String>>>>, m: &mut Mistakes) -> Vec<IpNet> {
    let Some(written) = written else {
        let loopback = IpNet::new(IpAddr::from(Ipv4Addr::LOCALHOST), 8).ok().map(|net| net.trunc());
        return loopback.into_iter().chain([IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST))]).collect();
    };
    let mut proxies = Vec::new();
    for At { value, line } in written.value {
        let net = value.parse::<IpNet>().or_else(|_| value.parse::<IpAddr>().map(IpNet::from));
        match net {
            Ok(net) if net.trunc() != net => m.add(
                line,
                format!("trusted_proxies: {value:?} has bits beyond its prefix: write {:?}", net.trunc().to_string()),
            ),
            Ok(net) => proxies.push(net),
            Err(_) => m.add(
                line,
                format!("trusted_proxies: {value:?} is not an address such as 10.0.0.5, or addresses such as 10.0.1.0/24"),
            ),
        }
    }
    proxies
}

fn header_of(at: At<String>, m: &mut Mistakes) -> Option<HeaderName> {
    let Ok(name) = at.value.parse::<HeaderName>() else {
        m.add(at.line, format!("auth: {:?} is not a header's name", at.value));
        return None;
    };
    // These say something else, and clients send them.
    let others = ["authorization", "cookie", "host", "content-length", "content-type", "accept", "origin"];
    if name.as_str().starts_with("mcp-") || others.contains(&name.as_str()) {
        m.add(at.line, format!("auth: {name} is no header in which a proxy says who calls"));
        return None;
    }
    Some(name)
}

fn jwt_of(mut table: Table<'_>, line: Option<usize>, beside: Option<&Path>, m: &mut Mistakes) -> Option<Jwt> {
    let issuer = table.string("issuer", m);
    let audience = table.strings("audience", m);
    let jwks = table.string("jwks", m);
    let ca = table.string("ca", m);
    table.finish(&["issuer", "audience", "jwks", "ca"], m);
    for (key, is_there) in [
        ("issuer", issuer.as_ref().is_some_and(|at| !at.value.is_empty())),
        ("audience", audience.as_ref().is_some_and(|at| !at.value.is_empty())),
        ("jwks", jwks.is_some()),
    ] {
        if !is_there {
            m.add(line, format!("jwt names no {key}"));
        }
    }
    let audiences: Vec<_> = audience?.value.into_iter().map(|at| at.value).collect();
    if audiences.iter().any(String::is_empty) {
        m.add(line, "jwt: an audience is empty");
    }
    let beside = |path: &str| beside.map_or_else(|| PathBuf::from(path), |folder| folder.join(path));
    let ca = ca.and_then(|at| {
        let path = beside(&at.value);
        Authorities::read(&path)
            .map_err(|error| m.add(at.line, format!("ca {}: {error}", path.display())))
            .ok()?;
        Some(At { value: path, line: at.line })
    });
    let jwks = jwks_at(jwks?, &beside, m)?;
    if let (Jwks::File(_), Some(At { line, .. })) = (&jwks, &ca) {
        m.add(*line, "ca is for keys that are fetched; jwks names a file");
    }
    Some(Jwt { issuer: issuer?.value, audiences, jwks, ca: ca.map(|at| at.value) })
}

fn jwks_at(at: At<String>, beside: &impl Fn(&str) -> PathBuf, m: &mut Mistakes) -> Option<Jwks> {
    if !at.value.contains("://") {
        let path = beside(&at.value);
        let read = std::fs::read(&path).map_err(|error| error.to_string());
        return match read.and_then(|bytes| KeySet::parse(&bytes)) {
            Ok(_) => Some(Jwks::File(path)),
            Err(error) => {
                m.add(at.line, format!("jwks {}: {error}", path.display()));
                None
            }
        };
    }
    let wrong = |what: &str| format!("jwks {:?} {what}", at.value);
    let uri = match at.value.parse::<Uri>() {
        Ok(uri) => uri,
        Err(error) => {
            m.add(at.line, wrong(&format!("is not a URL: {error}")));
            return None;
        }
    };
    let (host, authority) = (uri.host().unwrap_or_default(), uri.authority().map_or("", |all| all.as_str()));
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let mistake = match uri.scheme_str() {
        _ if authority.contains('@') => "holds a user name or password, which would end up in logs",
        Some("https") => return Some(Jwks::Url(uri)),
        Some("http") if is_here => return Some(Jwks::Url(uri)),
        Some("http") => "is in clear: whoever is on the way could make keys of his own; use https",
        _ => "is neither https:// nor a file",
    };
    m.add(at.line, wrong(mistake));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Flags, load};

    const KEYS: &str =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn read(name: &str, text: &str) -> Result<Config, Vec<(Option<usize>, String)>> {
        let folder = std::env::temp_dir().join(format!("ringway-auth-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("jwks.json"), KEYS).expect("written");
        std::fs::write(folder.join("empty.json"), r#"{"keys":[]}"#).expect("written");
        let read = load(Some((&folder.join("node.toml"), text)), Flags::default());
        std::fs::remove_dir_all(&folder).expect("it is ours");
        read.map_err(|mistakes| mistakes.0.into_iter().map(|mistake| (mistake.line, mistake.what)).collect())
    }

    #[test]
    fn a_route_asks_what_it_says_or_what_the_node_says() {
        let config = read(
            "asks",
            r#"
            auth = { jwt = { issuer = "https://id.example", audience = "https://gw.example/mcp", jwks = "jwks.json" } }
            trusted_proxies = ["10.0.0.5", "10.0.1.0/24", "::1"]
            upstream = ["http://127.0.0.1:1/mcp"]
            [[route]]
            path = "/open"
            auth = "none"
            upstream = "http://127.0.0.1:1/mcp"
            [[route]]
            path = "/named"
            auth = { header = "X-Forwarded-User" }
            upstream = "http://127.0.0.1:1/mcp"
            [[route]]
            path = "/plain"
            affinity = "none"
            upstream = "http://127.0.0.1:1"
            [[route]]
            path = "/other"
            upstream = "http://127.0.0.1:1/mcp"
            [route.auth.jwt]
            issuer = "i"
            audience = ["a", "b"]
            jwks = "https://id.example/jwks.json"
            "#,
        )
        .expect("valid");
        let [open, named, plain, other, short] = config.routes.as_slice() else { panic!("five routes") };
        assert_eq!((&open.auth, &plain.auth), (&None, &None));
        let header = Auth::Header(HeaderName::from_static("x-forwarded-user"));
        assert_eq!(named.auth.as_deref(), Some(&header));
        let Some(Auth::Jwt(jwt)) = short.auth.as_deref() else { panic!("the node's") };
        assert!(matches!(&jwt.jwks, Jwks::File(path) if path.ends_with("jwks.json")), "{jwt:?}");
        let Some(Auth::Jwt(jwt)) = other.auth.as_deref() else { panic!("its own") };
        assert_eq!((jwt.audiences.len(), &jwt.issuer), (2, &"i".to_owned()));
        let trusts = |address: &str| {
            let address: IpAddr = address.parse().expect("an address");
            config.trusted_proxies.iter().any(|net| net.contains(&address))
        };
        for (address, expected) in
            [("10.0.0.5", true), ("10.0.0.6", false), ("10.0.1.9", true), ("::1", true), ("127.0.0.1", false)]
        {
            assert_eq!(trusts(address), expected, "{address}");
        }
    }

    #[test]
    fn without_a_word_on_it_proxies_are_on_this_machine() {
        let config = read("default", "").expect("valid");
        let trusts = |address: &str| {
            let address: IpAddr = address.parse().expect("an address");
            config.trusted_proxies.iter().any(|net| net.contains(&address))
        };
        assert!(trusts("127.0.0.1") && trusts("127.9.9.9") && trusts("::1"));
        assert!(!trusts("10.0.0.1") && !trusts("::2"));
        assert!(read("nobody", "trusted_proxies = []").expect("valid").trusted_proxies.is_empty());
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        let jwt =
            |jwks: &str| format!("auth = {{ jwt = {{ issuer = \"i\", audience = \"a\", jwks = {jwks} }} }}");
        for (at, (written, part)) in [
            ("auth = \"some\"".to_owned(), "auth \"some\" is not"),
            ("auth = 7".to_owned(), "expected a string or a table"),
            ("auth = {}".to_owned(), "auth names neither"),
            ("auth = { header = \"a b\" }".to_owned(), "not a header's name"),
            ("auth = { header = \"Authorization\" }".to_owned(), "no header in which"),
            ("auth = { header = \"X\", jwt = {} }".to_owned(), "auth names both"),
            ("auth = { jwt = \"x\" }".to_owned(), "jwt: expected"),
            ("auth = { header = \"X\", hedaer = \"Y\" }".to_owned(), "unknown key \"hedaer\""),
            (jwt("\"absent.json\""), "absent.json"),
            (jwt("\"empty.json\""), "no key"),
            (jwt("\"http://id.example/jwks\""), "in clear"),
            (jwt("\"ftp://id.example/jwks\""), "neither https"),
            (jwt("\"https://a:b@id.example/jwks\""), "password"),
            (jwt("\"https://id.example/jwks\", ca = \"absent.pem\""), "absent.pem"),
            (jwt("\"https://id.example/jwks\", aud = \"x\""), "unknown key \"aud\""),
            ("auth = { jwt = { audience = \"a\", jwks = \"jwks.json\" } }".to_owned(), "no issuer"),
            ("auth = { jwt = { issuer = \"i\", jwks = \"jwks.json\" } }".to_owned(), "no audience"),
            ("auth = { jwt = { issuer = \"i\", audience = \"a\" } }".to_owned(), "no jwks"),
            ("trusted_proxies = [\"proxy.example\"]".to_owned(), "not an address"),
            ("trusted_proxies = [\"10.0.0.1/24\"]".to_owned(), "write \"10.0.0.0/24\""),
        ]
        .into_iter()
        .enumerate()
        {
            let found = read(&format!("mistake{at}"), &format!("\n{written}\n")).expect_err(&written);
            assert_eq!(found.len(), 1, "{written}: {found:?}");
            assert!(found[0].0 == Some(2) && found[0].1.contains(part), "{written}: {found:?}");
        }
        let plain = "[[route]]\npath = \"/x\"\nupstream = \"http://127.0.0.1:1\"\naffinity = \"none\"\n\
                     auth = { header = \"X-User\" }";
        let found = read("plain", plain).expect_err("not MCP");
        assert!(found[0].0 == Some(5) && found[0].1.contains("for MCP routes"), "{found:?}");
    }
}
