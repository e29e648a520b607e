//! The URL of an upstream.

use hyper::{Uri, header::HeaderValue};
use std::{fmt, sync::Arc};

/// An `http://` URL, taken apart once.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamUrl {
    text: Arc<str>,
    /// `host:port`, to connect to.
    address: Arc<str>,
    /// The `Host` header that the upstream expects.
    host: HeaderValue,
    path: String,
}

impl UpstreamUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("upstream {text:?} {what}");
        let uri: Uri = text.parse().map_err(|error| wrong(&format!("is not a URL: {error}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong("uses https, which this version does not speak to upstreams; use http"));
            }
            _ => return Err(wrong("does not begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("holds a user name or password, which would end up in logs"));
        }
        if authority.host().is_empty() {
            return Err(wrong("names no host"));
        }
        // Whatever follows the host but a port that fits would be read as port 80.
        let after_host = authority.as_str().get(authority.host().len()..).unwrap_or_default();
        let port: u16 = match after_host.strip_prefix(':') {
            None if after_host.is_empty() => 80,
            digits => digits
                .and_then(|digits| digits.parse().ok())
                .filter(|port| *port > 0)
                .ok_or_else(|| wrong("has a port that is not a number from 1 to 65535"))?,
        };
        if text.contains('#') {
            return Err(wrong("has a fragment, which no server is ever sent"));
        }
        if uri.query().is_some() {
            return Err(wrong("has a query; the client's own query is passed on"));
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong("has a strange host"))?;
        let address = format!("{}:{port}", authority.host());
        let has_path = text["http://".len()..].contains('/');
        let path = if has_path { uri.path() } else { "" };
        Ok(Self { text: text.into(), address: address.into(), host, path: path.to_owned() })
    }

    pub(crate) fn text(&self) -> &Arc<str> {
        &self.text
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The target to ask this upstream for, when a client asked for `target` at the route `route`:
    /// a URL with a path stands in place of the route's path, one without passes the path on. One slash
    /// parts it from what is below, whichever of the two paths ends with one.
    pub(crate) fn target(&self, route: &str, target: &str) -> String {
        if self.path.is_empty() {
            return target.to_owned();
        }
        let rest = target.strip_prefix(route).unwrap_or_default();
        match rest.chars().next() {
            None | Some('?') => format!("{}{rest}", self.path),
            Some(_) => {
                let (folder, below) = (self.path.strip_suffix('/'), rest.strip_prefix('/'));
                format!("{}/{}", folder.unwrap_or(&self.path), below.unwrap_or(rest))
            }
        }
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = UpstreamUrl::parse("http://localhost:3001/api/mcp").expect("a URL");
        assert_eq!(
            (&**url.address(), url.host().to_str().expect("ASCII")),
            ("localhost:3001", "localhost:3001")
        );
        assert_eq!(url.target("/mcp", "/mcp?x=1"), "/api/mcp?x=1");
        let bare = UpstreamUrl::parse("http://localhost").expect("a URL");
        assert_eq!(&**bare.address(), "localhost:80");
        assert_eq!(bare.target("/jobs", "/jobs/17?x=1"), "/jobs/17?x=1");
        let root = UpstreamUrl::parse("http://localhost/").expect("a URL");
        assert_eq!(root.target("/jobs", "/jobs"), "/");
        // A host that is called like the path.
        let same = UpstreamUrl::parse("http://mcp/mcp").expect("a URL");
        assert_eq!((&**same.address(), same.target("/tools", "/tools")), ("mcp:80", "/mcp".to_owned()));
    }

    #[test]
    fn one_slash_parts_a_url_from_what_is_below_it() {
        for (url, route, target, expected) in [
            ("http://a/", "/jobs", "/jobs/17?x=/", "/17?x=/"),
            ("http://a/api", "/", "/17", "/api/17"),
            ("http://a/api/", "/jobs/", "/jobs/17", "/api/17"),
            ("http://a/api/", "/jobs", "/jobs?x", "/api/?x"),
            ("http://a/api", "/", "/", "/api"),
        ] {
            let parsed = UpstreamUrl::parse(url).expect(url);
            assert_eq!(parsed.target(route, target), expected, "{url} {route} {target}");
        }
    }

    proptest! {
        #[test]
        fn a_url_means_what_it_says(
            host in "[a-z][a-z0-9.-]{0,12}|\\[::1\\]", port in proptest::option::of(1u16..),
            path in "(/[a-z0-9.%2]{0,3}){0,4}", below in "(/[a-z]{1,3}){0,3}", query in "(\\?[a-z=&/]{0,5})?",
        ) {
            let authority = port.map_or(host.clone(), |port| format!("{host}:{port}"));
            let url = UpstreamUrl::parse(&format!("http://{authority}{path}")).expect("a URL");
            prop_assert_eq!(&**url.address(), format!("{host}:{}", port.unwrap_or(80)));
            prop_assert_eq!(url.host().as_bytes(), authority.as_bytes());
            let asked = format!("/route{below}{query}");
            let expected = match path.as_str() {
                "" => asked.clone(),
                path if below.is_empty() => format!("{path}{query}"),
                path => format!("{}{below}{query}", path.strip_suffix('/').unwrap_or(path)),
            };
            prop_assert_eq!(url.target("/route", &asked), expected);
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "(http://)?[ -~ä]{0,40}") {
            if let Ok(url) = UpstreamUrl::parse(&text) {
                prop_assert_eq!(&**url.text(), &text);
            }
        }
    }

    #[test]
    fn what_can_not_be_an_upstream_is_named() {
        for (text, what) in [
            ("/mcp", "http://"),
            ("localhost:3001/mcp", "not a URL"),
            ("https://localhost/mcp", "https"),
            ("http://a:b@localhost/", "password"),
            ("http://localhost/?x", "query"),
            ("http://", "not a URL"),
            ("http://:80/", "no host"),
            ("http://localhost:99999/", "port"),
            ("http://localhost:/", "port"),
            ("http://localhost:0/", "port"),
            ("http://localhost/#x", "fragment"),
        ] {
            let error = UpstreamUrl::parse(text).expect_err(text);
            assert!(error.contains(what), "{error}");
        }
    }
}
