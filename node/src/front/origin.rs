//! Which web pages may call: the guard against DNS rebinding (MCP, transports: "Servers MUST
//! validate the `Origin` header"), and what browsers must be told about those that may (Fetch, CORS).

use crate::answer::{Answer, whole};
use hyper::{
    HeaderMap, StatusCode, Uri,
    header::{self, HeaderValue},
};

/// What a page may read of an answer, besides what every page may.
const READABLE: HeaderValue = HeaderValue::from_static(
    "mcp-session-id, mcp-protocol-version, last-event-id, www-authenticate, ringway-node, ringway-hops",
);
/// A browser asks again after two hours, the longest that Chromium remembers.
const REMEMBERED_S: HeaderValue = HeaderValue::from_static("7200");

/// A request without an `Origin` does not come from a page of another site; one with an `Origin` must
/// come from this machine or from an origin that the configuration allows. The `Host` header proves
/// nothing: in a rebinding attack it names the attacker, and so does the origin.
pub(super) fn is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    origins.all(|origin| {
        origin.to_str().is_ok_and(|origin| is_loopback(origin) || allowed.iter().any(|one| one == origin))
    })
}

/// The answer to a browser that asks whether it may send a request; `None` if it does not ask.
pub(super) fn preflight(headers: &HeaderMap, methods: &'static str) -> Option<Answer> {
    headers.get(header::ORIGIN)?;
    headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let mut answer = Answer::new(whole(""));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let told = answer.headers_mut();
    told.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    // MCP has headers whose names servers choose (`Mcp-Param-*`), so whatever is asked for is allowed.
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        told.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    told.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED_S);
    Some(answer)
}

/// Lets the page that asked read the answer. The upstream's own word on it does not count.
pub(super) fn let_read(answer: &mut Answer, origin: HeaderValue) {
    let told = answer.headers_mut();
    told.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    told.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    told.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READABLE);
    told.append(header::VARY, HeaderValue::from_static("origin"));
}

fn is_loopback(origin: &str) -> bool {
    let host = origin.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    let Some(host) = host else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn only_this_machines_pages_and_the_allowed_may_call() {
        let allowed = ["https://app.example".to_owned()];
        for (origin, expected) in [
            ("http://localhost", true),
            ("http://localhost:6274", true),
            ("http://127.0.0.1:3000", true),
            ("http://[::1]:3000", true),
            ("https://app.example", true),
            ("https://app.example.evil", false),
            ("http://localhost.evil.example", false),
            ("http://evil.example", false),
            ("null", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))]);
            assert_eq!(is_allowed(&headers, &allowed), expected, "{origin}");
        }
        assert!(is_allowed(&HeaderMap::new(), &allowed));
    }
}
