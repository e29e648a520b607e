//! Which web pages may call: the guard against DNS rebinding (MCP, transports: "Servers MUST
//! validate the `Origin` header"), and what browsers must be told about those that may (Fetch, CORS).

use super::coming::Request;
use crate::answer::{Answer, whole};
use crate::headers::Headers;
use hyper::{
    StatusCode, Uri,
    header::{self, HeaderName, HeaderValue},
};

/// What a page may read of an answer, besides what every page may.
const READABLE: HeaderValue = HeaderValue::from_static(
    "mcp-session-id, mcp-protocol-version, last-event-id, www-authenticate, retry-after, ringway-node, ringway-hops",
);
/// Asked by Chromium where a public page calls a private address (Private Network Access).
const ASKS_FOR_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const LETS_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");
/// A browser asks again after two hours, the longest that Chromium remembers.
const REMEMBERED_S: HeaderValue = HeaderValue::from_static("7200");

/// A request without an `Origin` does not come from a page of another site; one with an `Origin` must
/// come from this machine or from an origin that the configuration allows. The `Host` header proves
/// nothing: in a rebinding attack it names the attacker, and so does the origin. Over TLS it does: a browser
/// gets here by a name that the certificate has, and so does a page that another route serves.
pub(super) fn is_allowed(request: &Request, allowed: &[String], is_tls: bool) -> bool {
    let mut origins = request.headers.get_all(header::ORIGIN);
    origins.all(|origin| {
        origin.to_str().is_ok_and(|origin| {
            is_loopback(origin)
                || allowed.iter().any(|one| one == origin)
                || (is_tls && origin.strip_prefix("https://").is_some_and(|own| is_called(request, own)))
        })
    })
}

/// Whether a request calls this node so.
fn is_called(request: &Request, own: &str) -> bool {
    let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = request.uri.authority().map(|authority| authority.as_str()).or(host); // HTTP/2 has no Host
    host.is_some_and(|host| host.eq_ignore_ascii_case(own))
}

/// The answer to a browser that asks whether it may send a request; `None` if it does not ask.
pub(super) fn preflight(headers: &Headers, methods: &'static str) -> Option<Answer> {
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
    // A page of a public site that is allowed may also call a node in a private network.
    if headers.contains_key(ASKS_FOR_PRIVATE) {
        told.insert(LETS_PRIVATE, HeaderValue::from_static("true"));
    }
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
    use crate::front::Coming;
    use bytes::Bytes;
    use hyper::{Method, Version, http::Extensions};

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
            assert_eq!(is_allowed(&request(origin, "x"), &allowed, false), expected, "{origin}");
        }
        assert!(is_allowed(&Request { headers: Headers::new(), ..request("", "") }, &allowed, false));
    }

    #[test]
    fn over_tls_a_nodes_own_name_is_its_own() {
        for (origin, host, expected) in [
            ("https://mcp.example", "mcp.example", true),
            ("https://mcp.example:8443", "MCP.example:8443", true),
            ("http://mcp.example", "mcp.example", false),
            ("https://mcp.example:8443", "mcp.example", false),
            ("https://evil.example", "mcp.example", false),
        ] {
            let request = request(origin, host);
            assert_eq!(is_allowed(&request, &[], true), expected, "{origin} at {host}");
            assert!(!is_allowed(&request, &[], false), "without TLS a name proves nothing");
        }
        let mut http_2 = request("https://mcp.example", "");
        http_2.uri = Uri::from_static("https://mcp.example/mcp");
        assert!(is_allowed(&http_2, &[], true));
    }

    #[test]
    fn who_asks_whether_it_may_call_a_private_address_is_told() {
        let mut headers = Headers::from_iter([
            (header::ORIGIN, HeaderValue::from_static("http://localhost")),
            (header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST")),
        ]);
        let told = |headers: &Headers| {
            preflight(headers, "GET").expect("it asks").headers().get(LETS_PRIVATE).cloned()
        };
        assert_eq!(told(&headers), None);
        headers.insert(ASKS_FOR_PRIVATE, HeaderValue::from_static("true"));
        assert_eq!(told(&headers).expect("an answer"), "true");
    }

    fn request(origin: &str, host: &str) -> Request {
        let headers = [(header::ORIGIN, origin), (header::HOST, host)];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_str(value).expect("plain text")));
        Request {
            method: Method::POST,
            uri: Uri::from_static("/mcp"),
            version: Version::HTTP_11,
            headers: headers.into_iter().collect(),
            extensions: Extensions::new(),
            body: Coming::Whole(Bytes::new()),
        }
    }
}
