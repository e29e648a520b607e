//! Which web pages may call: the guard against DNS rebinding (MCP, transports: "Servers MUST
//! validate the `Origin` header").

use hyper::{HeaderMap, Uri, header};

/// A request without an `Origin` does not come from a page of another site; one with an `Origin` must
/// come from this machine or from an origin that the configuration allows. The `Host` header proves
/// nothing: in a rebinding attack it names the attacker, and so does the origin.
pub(super) fn is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    origins.all(|origin| {
        origin.to_str().is_ok_and(|origin| is_loopback(origin) || allowed.iter().any(|one| one == origin))
    })
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
