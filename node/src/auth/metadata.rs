//! What callers are told who have no token yet: where to get one (RFC 9728; MCP, "Authorization").

use super::jwt::Tokens;
use hyper::{Uri, header::HeaderValue};
use serde_json::{Value, json};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Whose document is at this path: the path that follows the well-known one, of which "/" is none.
pub(super) fn about(path: &str) -> Option<&str> {
    match path.strip_prefix(WELL_KNOWN)? {
        "" => Some("/"),
        below if below.starts_with('/') => Some(below),
        _ => None,
    }
}

pub(super) fn document(tokens: &Tokens, path: &str, at: (&str, Option<&str>)) -> Value {
    json!({
        "resource": resource(tokens, path, at),
        "authorization_servers": [tokens.issuer],
        "bearer_methods_supported": ["header"],
    })
}

pub(super) fn challenge(
    tokens: &Tokens,
    path: &str,
    at: (&str, Option<&str>),
    why: &'static str,
) -> HeaderValue {
    let resource = resource(tokens, path, at);
    let origin = origin(&resource).unwrap_or_default();
    let below = if path == "/" { "" } else { path };
    let text = format!(
        "Bearer error=\"invalid_token\", error_description=\"{why}\", \
         resource_metadata=\"{origin}{WELL_KNOWN}{below}\""
    );
    HeaderValue::from_str(&text)
        .unwrap_or_else(|_| HeaderValue::from_static("Bearer error=\"invalid_token\""))
}

/// What the route is called by those who hand out tokens for it: the audience that is at the host which the
/// client called, else the first one that is a URL; where none is, the URL that the client called.
fn resource(tokens: &Tokens, path: &str, (scheme, host): (&str, Option<&str>)) -> String {
    let mut urls = tokens.audiences.iter().filter(|audience| origin(audience).is_some());
    let is_called = |url: &&String| {
        url.parse::<Uri>().is_ok_and(|url| host.is_some() && url.authority().map(|all| all.as_str()) == host)
    };
    match urls.clone().find(is_called).or_else(|| urls.next()) {
        Some(url) => url.clone(),
        None => format!("{scheme}://{}{path}", host.unwrap_or("localhost")),
    }
}

/// Scheme and host of a URL.
fn origin(url: &str) -> Option<String> {
    let url = url.parse::<Uri>().ok()?;
    let scheme = url.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    Some(format!("{scheme}://{}", url.authority()?))
}

#[cfg(test)]
mod tests {
    use super::super::jwt::tests::tokens_for;
    use super::*;

    #[test]
    fn the_document_of_a_route_is_at_its_path_below_the_well_known_one() {
        for (path, expected) in [
            ("/.well-known/oauth-protected-resource/mcp", Some("/mcp")),
            ("/.well-known/oauth-protected-resource", Some("/")),
            ("/.well-known/oauth-protected-resources", None),
            ("/mcp", None),
        ] {
            assert_eq!(about(path), expected, "{path}");
        }
    }

    #[test]
    fn a_resource_is_the_audience_that_was_called_or_the_first_or_what_was_called() {
        let urls = tokens_for(&["name", "https://gw.example/mcp", "http://b:8080/mcp"]);
        let names = tokens_for(&["name"]);
        let of = |tokens, host| document(tokens, "/mcp", ("http", host))["resource"].clone();
        assert_eq!(of(&urls, Some("b:8080")), "http://b:8080/mcp");
        assert_eq!(of(&urls, Some("c:8080")), "https://gw.example/mcp");
        assert_eq!(of(&names, Some("c:8080")), "http://c:8080/mcp");
        let challenge = challenge(&urls, "/mcp", ("http", None), "No token");
        assert_eq!(
            challenge,
            "Bearer error=\"invalid_token\", error_description=\"No token\", \
             resource_metadata=\"https://gw.example/.well-known/oauth-protected-resource/mcp\""
        );
    }
}
