//! JSON-RPC errors that Ringway makes itself.

use super::Calls;
use bytes::Bytes;
use serde_json::json;

pub(crate) const PARSE_ERROR: i64 = -32700;
pub(crate) const INVALID_REQUEST: i64 = -32600;
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
pub(crate) const INVALID_PARAMS: i64 = -32602;
/// 2026-07-28, Streamable HTTP, "Server Validation".
pub(crate) const HEADER_MISMATCH: i64 = -32020;
/// What the SDKs' own servers use.
pub(crate) const SESSION_NOT_FOUND: i64 = -32001;
/// Ringway's own, outside the reserved range (-32768 to -32000, JSON-RPC 2.0, 5.1).
pub(crate) const NOT_SERVED: i64 = -31001;

/// The body of an error answer: one error object per call, each with the call's own id, or one with
/// `null` where no call is known (JSON-RPC 2.0, 5).
pub(crate) fn error_body(calls: &Calls, code: i64, message: &str, data: Option<&serde_json::Value>) -> Bytes {
    let mut error = json!({ "code": code, "message": message });
    if let Some(data) = data {
        error["data"] = data.clone();
    }
    let object = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
    let text = match calls {
        Calls::None => object("null"),
        Calls::One(id) => object(id.get()),
        Calls::Many(ids) => {
            let objects: Vec<_> = ids.iter().map(|id| object(id.get())).collect();
            format!("[{}]", objects.join(","))
        }
    };
    Bytes::from(text)
}

/// The code of a JSON-RPC error.
pub(crate) fn error_code(message: &[u8]) -> Option<i64> {
    serde_json::from_slice::<serde_json::Value>(message).ok()?["error"]["code"].as_i64()
}

/// The error in the body of a server's refusal, addressed to each of the calls that were refused, if that
/// is what the body holds: servers often do not say whom it is for.
pub(crate) fn readdressed(refusal: &[u8], calls: &Calls) -> Option<Bytes> {
    let refusal: serde_json::Value = serde_json::from_slice(refusal).ok()?;
    let error = refusal.get("error").filter(|_| refusal.get("jsonrpc").is_some())?;
    let (code, message) = (error.get("code")?.as_i64()?, error.get("message")?.as_str()?);
    Some(error_body(calls, code, message, error.get("data")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::peek;

    fn body(posted: &str) -> String {
        let calls = peek(posted.as_bytes(), true).expect("JSON-RPC").calls;
        String::from_utf8(error_body(&calls, -1, "no", None).to_vec()).expect("text")
    }

    #[test]
    fn a_refusal_is_readdressed_to_who_waits() {
        let calls = peek(br#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#, false).expect("JSON-RPC").calls;
        let refusal = br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no","data":1}}"#;
        let expected = r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32000,"data":1,"message":"no"}}"#;
        assert_eq!(readdressed(refusal, &calls).as_deref(), Some(expected.as_bytes()));
        for other in ["no", "{}", r#"{"error":{"code":1,"message":"x"}}"#, r#"{"jsonrpc":"2.0","error":{}}"#]
        {
            assert_eq!(readdressed(other.as_bytes(), &calls), None, "{other}");
        }
    }

    #[test]
    fn an_error_echoes_the_id_with_its_type() {
        let error = r#""error":{"code":-1,"message":"no"}}"#;
        for id in ["7", "\"7\"", "\"ä\\n\"", "1.5"] {
            let posted = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            assert_eq!(body(&posted), format!(r#"{{"jsonrpc":"2.0","id":{id},{error}"#));
        }
        let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":"b","method":"c"}]"#;
        assert_eq!(
            body(batch),
            format!(r#"[{{"jsonrpc":"2.0","id":1,{error},{{"jsonrpc":"2.0","id":"b",{error}]"#)
        );
    }
}
