//! What every request says of itself (2026-07-28, "`_meta`").

use crate::mcp::object::{Object, object};
use serde::{Deserialize, de::IgnoredAny};

#[derive(Deserialize)]
struct Call {
    params: Option<Object<Params>>,
}

#[derive(Deserialize)]
struct Params {
    #[serde(rename = "_meta")]
    meta: Option<Object<Meta>>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<String>,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<IgnoredAny>,
}

/// Whether a request says what none may leave out, so that no server refuses it for that.
pub(crate) fn is_complete(body: &[u8]) -> bool {
    let call = object::<Call>(body).ok();
    let meta = call.and_then(|call| call.params?.0.meta);
    meta.is_some_and(|Object(meta)| meta.version.is_some() && meta.capabilities.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_leaves_something_out_is_told_from_one_that_does_not() {
        let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
        let able = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
        let body = |meta: &str| format!(r#"{{"method":"server/discover","params":{{"_meta":{{{meta}}}}}}}"#);
        assert!(is_complete(body(&format!("{version},{able}")).as_bytes()));
        for incomplete in [body(version), body(able), body(""), r#"{"method":"x"}"#.into(), String::new()] {
            assert!(!is_complete(incomplete.as_bytes()), "{incomplete}");
        }
    }
}
