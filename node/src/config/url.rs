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
        if uri.query().is_some() {
            return Err(wrong("has a query; the client's own query is passed on"));
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong("has a strange host"))?;
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let path = if text.ends_with(authority.as_str()) { "" } else { uri.path() };
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
    /// a URL with a path stands in place of the route's path, one without passes the path on.
    pub(crate) fn target(&self, route: &str, target: &str) -> String {
        if self.path.is_empty() {
            return target.to_owned();
        }
        let rest = target.strip_prefix(route).unwrap_or_default();
        format!("{}{rest}", self.path)
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
        ] {
            let error = UpstreamUrl::parse(text).expect_err(text);
            assert!(error.contains(what), "{error}");
        }
    }
}
