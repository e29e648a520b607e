//! Names of headers, from bytes.

use super::{FORWARDED_HOST, FORWARDED_PROTO, HOPS, NODE};
use crate::mcp;
use hyper::header::{self, HeaderName, InvalidHeaderName};

/// The name that these bytes are. Those that nearly every message of an MCP client or server has are found here for
/// less than it takes to look at each byte of any name, and those of MCP need no memory.
pub(crate) fn name(bytes: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    match known(bytes) {
        Some(name) => Ok(name),
        None => HeaderName::from_bytes(bytes),
    }
}

fn known(bytes: &[u8]) -> Option<HeaderName> {
    let is = |name: &str| bytes.eq_ignore_ascii_case(name.as_bytes());
    Some(match bytes.len() {
        4 if is("host") => header::HOST,
        4 if is("date") => header::DATE,
        6 if is("accept") => header::ACCEPT,
        6 if is("server") => header::SERVER,
        10 if is("user-agent") => header::USER_AGENT,
        10 if is("connection") => header::CONNECTION,
        12 if is("content-type") => header::CONTENT_TYPE,
        12 if is("ringway-node") => NODE,
        12 if is("ringway-hops") => HOPS,
        13 if is("authorization") => header::AUTHORIZATION,
        13 if is("cache-control") => header::CACHE_CONTROL,
        13 if is("last-event-id") => mcp::LAST_EVENT_ID,
        14 if is("content-length") => header::CONTENT_LENGTH,
        14 if is("mcp-session-id") => mcp::SESSION_ID,
        15 if is("accept-encoding") => header::ACCEPT_ENCODING,
        15 if is("accept-language") => header::ACCEPT_LANGUAGE,
        16 if is("x-forwarded-host") => FORWARDED_HOST,
        17 if is("transfer-encoding") => header::TRANSFER_ENCODING,
        17 if is("x-forwarded-proto") => FORWARDED_PROTO,
        20 if is("mcp-protocol-version") => mcp::PROTOCOL_VERSION,
        _ => return None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::headers) const NAMES: [&str; 20] = [
        "host",
        "date",
        "accept",
        "server",
        "user-agent",
        "connection",
        "content-type",
        "ringway-node",
        "ringway-hops",
        "authorization",
        "cache-control",
        "last-event-id",
        "content-length",
        "mcp-session-id",
        "accept-encoding",
        "accept-language",
        "x-forwarded-host",
        "transfer-encoding",
        "x-forwarded-proto",
        "mcp-protocol-version",
    ];

    #[test]
    fn each_name_is_known_as_itself() {
        for name in NAMES {
            assert_eq!(known(name.as_bytes()).expect("known").as_str(), name);
        }
    }
}
