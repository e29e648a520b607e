//! What a POST body asks for, without reading more of it than that.

use super::object::{Object, object};
use super::rpc::Id;
use proto::wire::Nature;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The ids of the requests in a body: those that someone waits for an answer to.
#[derive(Clone, Debug, Default)]
pub(crate) enum Calls {
    /// Notifications and responses only.
    #[default]
    None,
    One(Box<RawValue>),
    Many(Vec<Box<RawValue>>),
}

/// The methods that decide where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Initialize,
    Discover,
    Other,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) method: Method,
    pub(crate) nature: Nature,
    pub(crate) calls: Calls,
}

/// What a request or notification does, by its method (schemas of 2025-11-25 and 2026-07-28). What is not known may do
/// anything.
fn nature(method: &str) -> Nature {
    match method {
        "tools/list" => Nature::ListsTools,
        "logging/setLevel" => Nature::SetsLevel,
        "resources/subscribe" => Nature::Subscribes,
        "resources/unsubscribe" => Nature::Unsubscribes,
        "subscriptions/listen" => Nature::Listens,
        "ping"
        | "server/discover"
        | "prompts/list"
        | "prompts/get"
        | "resources/list"
        | "resources/templates/list"
        | "resources/read"
        | "completion/complete"
        | "tasks/list"
        | "tasks/get"
        | "tasks/result"
        | "tasks/cancel"
        // An answer counts once, by its key (SEP-2663).
        | "tasks/update"
        | "notifications/initialized"
        | "notifications/cancelled" => Nature::Safe,
        _ => Nature::Unsafe,
    }
}

/// The body is not what a POST may hold.
#[derive(Debug)]
pub(crate) enum NotRpc {
    NotJson(String),
    /// JSON, but not JSON-RPC 2.0 of the request's revision.
    Invalid(&'static str),
}

#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    pub(super) jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) params: Option<&'a RawValue>,
}

/// Reads a body; `batches` says whether the request's revision has them.
pub(crate) fn peek(body: &[u8], batches: bool) -> Result<Message, NotRpc> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'[') {
        let Object(envelope): Object<Envelope<'_>> = parse(body)?;
        return message(&envelope);
    }
    let envelopes: Vec<Object<Envelope<'_>>> = parse(body)?;
    if !batches {
        return Err(NotRpc::Invalid("this protocol version has no batches: send one message per request"));
    }
    let mut calls = Vec::new();
    let mut safe = true;
    for Object(envelope) in &envelopes {
        let message = message(envelope)?;
        if message.method == Method::Initialize {
            return Err(NotRpc::Invalid("initialize must not be part of a batch"));
        }
        safe &= message.nature != Nature::Unsafe;
        if let Calls::One(id) = message.calls {
            calls.push(id);
        }
    }
    if envelopes.is_empty() {
        return Err(NotRpc::Invalid("an empty batch"));
    }
    let calls = if calls.is_empty() { Calls::None } else { Calls::Many(calls) };
    // What a batch lists or sets is not looked at: it is a habit of one old revision.
    let nature = if safe { Nature::Safe } else { Nature::Unsafe };
    Ok(Message { method: Method::Other, nature, calls })
}

fn same_id(one: &RawValue, other: &RawValue) -> bool {
    one.get() == other.get() || Id::of(one) == Id::of(other)
}

impl Calls {
    /// Those that are left once `json` has been delivered: a response, or a batch of them.
    pub(crate) fn without(self, json: &[u8]) -> Self {
        let answered = |call: &RawValue| {
            let is_answer = |envelope: &Envelope<'_>| {
                envelope.method.is_none() && envelope.id.is_some_and(|id| same_id(id, call))
            };
            match object::<Envelope<'_>>(json) {
                Ok(envelope) => is_answer(&envelope),
                Err(_) => {
                    let batch = serde_json::from_slice::<Vec<Object<Envelope<'_>>>>(json);
                    batch.is_ok_and(|batch| batch.iter().any(|Object(envelope)| is_answer(envelope)))
                }
            }
        };
        match self {
            Self::One(call) if !answered(&call) => Self::One(call),
            Self::None | Self::One(_) => Self::None,
            Self::Many(mut calls) => {
                calls.retain(|call| !answered(call));
                if calls.is_empty() { Self::None } else { Self::Many(calls) }
            }
        }
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, NotRpc> {
    // What is skipped is not looked at, and a child that reads lines of text may end of another encoding.
    let text = std::str::from_utf8(body).map_err(|error| NotRpc::NotJson(format!("not UTF-8: {error}")))?;
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => NotRpc::Invalid("not a JSON-RPC 2.0 message"),
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => NotRpc::NotJson(error.to_string()),
    })
}

fn message(envelope: &Envelope<'_>) -> Result<Message, NotRpc> {
    if envelope.jsonrpc.as_deref() != Some("2.0") {
        return Err(NotRpc::Invalid("not a JSON-RPC 2.0 message: \"jsonrpc\" is not \"2.0\""));
    }
    let method = match envelope.method.as_deref() {
        Some("initialize") => Method::Initialize,
        Some("server/discover") => Method::Discover,
        Some(_) | None => Method::Other,
    };
    let calls = match envelope.id {
        Some(id) if envelope.method.is_some() => Calls::One(id.to_owned()),
        Some(_) => Calls::None, // an answer to a request of the server's
        None if envelope.method.is_some() => Calls::None,
        None => return Err(NotRpc::Invalid("neither a request, a notification nor a response")),
    };
    let nature = envelope.method.as_deref().map_or(Nature::Unsafe, nature);
    Ok(Message { method, nature, calls })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(body: &str, batches: bool) -> String {
        match peek(body.as_bytes(), batches) {
            Ok(Message { method, calls: Calls::None, .. }) => format!("{method:?}"),
            Ok(Message { method, calls: Calls::One(id), .. }) => format!("{method:?} {id}"),
            Ok(Message { calls: Calls::Many(ids), .. }) => format!("{ids:?}"),
            Err(NotRpc::NotJson(_)) => "not json".into(),
            Err(NotRpc::Invalid(_)) => "invalid".into(),
        }
    }

    #[test]
    fn a_body_is_told_by_its_shape() {
        for (body, expected) in [
            (r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"a":[1,{}]}}"#, "Initialize 0"),
            (r#"{"jsonrpc":"2.0","id":"x","method":"server/discover"}"#, "Discover \"x\""),
            (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, "Other"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"method":"initialize"}}"#, "Other"),
            (r#" {"method":"ping","params":{"id":9},"id":2,"jsonrpc":"2.0"}"#, "Other 2"),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, "invalid"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, "invalid"),
            (r#"{"jsonrpc":"2.0"}"#, "invalid"),
            (r#""text""#, "invalid"),
            (r#"["2.0",1,"ping",null]"#, "invalid"),
            ("", "not json"),
            ("{", "not json"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#, "not json"),
        ] {
            assert_eq!(kind(body, false), expected, "{body}");
        }
    }

    #[test]
    fn text_that_is_not_utf_8_is_no_json_wherever_it_stands() {
        let mut body = br#"{"jsonrpc":"2.0","id":1,"method":"ping","other":"x"}"#.to_vec();
        assert!(peek(&body, false).is_ok());
        let at = body.iter().position(|byte| *byte == b'x').expect("it is there");
        body[at] = 0xff;
        assert!(matches!(peek(&body, false), Err(NotRpc::NotJson(_))));
    }

    #[test]
    fn batches_pass_only_where_the_revision_has_them() {
        let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"b"}]"#;
        assert_eq!(kind(batch, false), "invalid");
        assert_eq!(kind(batch, true), "[RawValue(1)]");
        assert_eq!(kind(r#"[{"jsonrpc":"2.0","method":"b"}]"#, true), "Other");
        assert_eq!(kind("[]", true), "invalid");
        assert_eq!(kind(r#"[["2.0",1,"ping",null]]"#, true), "invalid");
        assert_eq!(kind(r#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#, true), "invalid");
    }

    #[test]
    fn an_answer_is_told_from_a_request_with_the_same_id() {
        let calls = || peek(br#"{"jsonrpc":"2.0","id":1,"method":"a"}"#, false).expect("a request").calls;
        let left = |json: &str| !matches!(calls().without(json.as_bytes()), Calls::None);
        assert!(!left(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
        assert!(left(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#));
        let calls = peek(br#"{"jsonrpc":"2.0","id":"a/b","method":"a"}"#, false).expect("a request").calls;
        assert!(matches!(calls.without(br#"{"jsonrpc":"2.0","id":"a\/b","result":{}}"#), Calls::None));
        assert!(left(r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}"#));
        assert!(left(""));
    }

    #[test]
    fn a_batch_is_answered_in_parts() {
        let batch = br#"[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":2,"method":"b"}]"#;
        let calls = peek(batch, true).expect("a batch").calls;
        let Calls::Many(left) = calls.clone().without(br#"{"jsonrpc":"2.0","id":2,"result":{}}"#) else {
            panic!("one is left")
        };
        assert_eq!(left.iter().map(|id| id.get()).collect::<Vec<_>>(), ["1"]);
        let both = br#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":2,"error":{}}]"#;
        assert!(matches!(calls.without(both), Calls::None));
    }
}
