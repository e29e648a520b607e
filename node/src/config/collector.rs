//! Where spans are sent.

use super::UpstreamUrl;
use hyper::header::HeaderValue;
use std::fmt;

/// A collector that takes OTLP over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    url: UpstreamUrl,
    target: String,
}

impl Collector {
    /// `http://HOST:PORT`, to which the protocol's own path is added as other programs do.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let url = UpstreamUrl::parse(text).map_err(|what| what.replacen("upstream", "otlp", 1))?;
        let base = url.target("/", "/");
        let target = format!("{}/v1/traces", base.trim_end_matches('/'));
        Ok(Self { url, target })
    }

    pub(crate) fn address(&self) -> &str {
        self.url.address()
    }

    pub(crate) fn host(&self) -> &HeaderValue {
        self.url.host()
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_protocol_is_added() {
        for (url, target) in [
            ("http://127.0.0.1:4318", "/v1/traces"),
            ("http://collector:4318/", "/v1/traces"),
            ("http://collector/otlp", "/otlp/v1/traces"),
            ("http://collector/otlp/", "/otlp/v1/traces"),
        ] {
            assert_eq!(Collector::parse(url).expect("a URL").target(), target, "{url}");
        }
        let error = Collector::parse("https://collector").expect_err("no TLS to collectors");
        assert!(error.starts_with("otlp \"https://collector\"") && error.contains("https"), "{error}");
    }
}
