//! Single JSON-RPC messages, as far as whoever stands between a client and a server must know them:
//! what kind each is, and which request it belongs to.

use super::object::{Object, object};
use super::peek::{Envelope, NotRpc, parse};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A request's id or a progress token. Text and numbers are never equal, and text is equal however it
/// is escaped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    Text(Box<str>),
    /// As it is written.
    Number(Box<str>),
}

impl Id {
    pub(crate) fn of(raw: &RawValue) -> Self {
        match serde_json::from_str::<String>(raw.get()) {
            Ok(text) => Self::Text(text.into()),
            Err(_) => Self::Number(raw.get().into()),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Rpc<'a> {
    Request {
        id: &'a RawValue,
        method: Cow<'a, str>,
        /// By which its progress will be told.
        token: Option<Id>,
    },
    Notification {
        method: Cow<'a, str>,
        about: About,
    },
    Response {
        id: &'a RawValue,
    },
}

/// What a notification is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// No request in particular.
    Nothing,
    /// The progress of the request with this token.
    Progress(Id),
    /// The end of this request, which nobody waits for any more.
    Cancelled(Id),
}

#[derive(Default, Deserialize)]
struct Asked<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<Object<Token<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token<'a> {
    #[serde(borrow)]
    progress_token: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cancelled<'a> {
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
}

impl<'a> Rpc<'a> {
    /// Reads one message.
    pub(crate) fn read(json: &'a [u8]) -> Result<Self, NotRpc> {
        let Object(Envelope { jsonrpc, id, method, params }) = parse(json)?;
        if jsonrpc.as_deref() != Some("2.0") {
            return Err(NotRpc::Invalid("not a JSON-RPC 2.0 message: \"jsonrpc\" is not \"2.0\""));
        }
        match (id, method) {
            (Some(id), Some(method)) => {
                let meta = params.and_then(read_params::<Asked<'_>>).unwrap_or_default().meta;
                let token = meta.and_then(|Object(meta)| meta.progress_token).map(Id::of);
                Ok(Self::Request { id, method, token })
            }
            (None, Some(method)) => {
                let about = params.map_or(About::Nothing, |params| about(&method, params));
                Ok(Self::Notification { method, about })
            }
            (Some(id), None) => Ok(Self::Response { id }),
            (None, None) => Err(NotRpc::Invalid("neither a request, a notification nor a response")),
        }
    }
}

fn about(method: &str, params: &RawValue) -> About {
    let found = match method {
        "notifications/progress" => read_params::<Token<'_>>(params)
            .and_then(|params| params.progress_token)
            .map(Id::of)
            .map(About::Progress),
        "notifications/cancelled" => read_params::<Cancelled<'_>>(params)
            .and_then(|params| params.request_id)
            .map(Id::of)
            .map(About::Cancelled),
        _ => None,
    };
    found.unwrap_or(About::Nothing)
}

/// What can't be read is left to the other end, which knows what it should have been.
fn read_params<'a, T: Deserialize<'a>>(params: &'a RawValue) -> Option<T> {
    object(params.get().as_bytes()).ok()
}

/// The messages of a body, which is one or a batch of them.
pub(crate) fn messages(body: &Bytes) -> Result<Vec<Bytes>, NotRpc> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'[') {
        return Ok(vec![body.clone()]);
    }
    let batch: Vec<&RawValue> = parse(body)?;
    Ok(batch.into_iter().map(|message| body.slice_ref(message.get().as_bytes())).collect())
}

/// The same JSON on one line. Line breaks in it are white space; in a text they would be escaped.
pub(crate) fn one_line(json: Bytes) -> Bytes {
    let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !json.iter().any(breaks) {
        return json;
    }
    json.iter().map(|byte| if breaks(byte) { b' ' } else { *byte }).collect::<Vec<_>>().into()
}

/// The revision that an answer to `initialize` names; `None` for an error.
pub(crate) fn negotiated(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        result: Initialized,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Initialized {
        protocol_version: String,
    }
    object::<Answer>(answer).ok().map(|answer| answer.result.protocol_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> String {
        match Rpc::read(json.as_bytes()) {
            Ok(Rpc::Request { id, method, token }) => format!("{method} {id} {token:?}"),
            Ok(Rpc::Notification { method, about }) => format!("{method} {about:?}"),
            Ok(Rpc::Response { id }) => format!("answers {id}"),
            Err(NotRpc::NotJson(_)) => "not json".into(),
            Err(NotRpc::Invalid(_)) => "invalid".into(),
        }
    }

    #[test]
    fn a_message_says_which_request_it_belongs_to() {
        for (json, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "ping 1 None"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}"#, "a 1 None"),
            (
                r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"a","_meta":{"progressToken":7}}}"#,
                r#"tools/call "x" Some(Number("7"))"#,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"7","progress":1}}"#,
                r#"notifications/progress Progress(Text("7"))"#,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":12345678901234567890123}}"#,
                r#"notifications/cancelled Cancelled(Number("12345678901234567890123"))"#,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{}}"#,
                "notifications/cancelled Nothing",
            ),
            (
                r#"{"jsonrpc":"2.0","method":"other","params":{"progressToken":1,"requestId":2}}"#,
                "other Nothing",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"method":"a"}}"#, "answers 1"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#, "answers 1"),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#, "invalid"),
            (r#"{"id":1,"method":"a"}"#, "invalid"),
            ("[]", "invalid"),
            (r#"["2.0",1,"a",null]"#, "invalid"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":[7]}}"#, "a 1 None"),
            ("Server running on stdio", "not json"),
        ] {
            assert_eq!(read(json), expected, "{json}");
        }
    }

    #[test]
    fn ids_are_equal_as_values_of_one_type() {
        let id = |json| Id::of(serde_json::from_str::<&RawValue>(json).expect("JSON"));
        assert_eq!(id(r#""a/b""#), id(r#""a\/b""#));
        assert_ne!(id("1"), id("\"1\""));
        assert_ne!(id("1"), id("2"));
    }

    #[test]
    fn a_batch_falls_into_its_messages_without_a_copy() {
        let body = Bytes::from_static(b" [{\"a\": 1} , {\"b\":[2]}]\n");
        let parts = messages(&body).expect("a batch");
        assert_eq!(parts, [&b"{\"a\": 1}"[..], b"{\"b\":[2]}"]);
        assert!(body.as_ptr_range().contains(&parts[1].as_ptr()));
        assert_eq!(messages(&Bytes::from_static(b"{}")).expect("a message"), [&b"{}"[..]]);
        assert!(messages(&Bytes::from_static(b"[{]")).is_err());
    }

    #[test]
    fn a_message_is_put_on_one_line_untouched_otherwise() {
        let text = Bytes::from_static(br#"{"b":"a\nb","a":1.0}"#);
        assert_eq!(one_line(text.clone()).as_ptr(), text.as_ptr());
        assert_eq!(one_line(Bytes::from_static(b"{\r\n\"b\":\n1}")), &b"{  \"b\": 1}"[..]);
    }

    #[test]
    fn the_negotiated_revision_is_the_servers_word() {
        let answer =
            br#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#;
        assert_eq!(negotiated(answer).as_deref(), Some("2025-06-18"));
        assert_eq!(negotiated(br#"{"jsonrpc":"2.0","id":0,"error":{}}"#), None);
    }
}
