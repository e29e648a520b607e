//! What a POST's body asks for: the same as when all of it is read.

use super::reference::{Fields, Full, full};
use crate::mcp::{self, Calls, Id, Method, Rpc, peek};
use bytes::Bytes;
use serde_json::{Value, value::RawValue};

pub(super) const TOKENS: &[&str] = &[
    "{\"jsonrpc\":\"2.0\",",
    "\"id\":1",
    "\"id\":\"a\\/b\"",
    "\"id\":null",
    "\"method\":\"initialize\"",
    "\"method\":\"server/discover\"",
    "\"method\":\"tools/list\"",
    "\"method\":\"notifications/cancelled\"",
    "\"params\":{\"requestId\":7}",
    "\"params\":{\"_meta\":{\"progressToken\":\"p\"}}",
    "\"result\":{}",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\\u006d",
    "\\ud800",
    "1e999",
    "\"2.0\"",
    " ",
    "\n",
    "null",
    "true",
    "-0.5",
];

pub fn rpc(body: &[u8]) {
    let meant = full(body);
    let text = std::str::from_utf8(body).unwrap_or_default();
    for batches in [false, true] {
        let peeked = peek(body, batches);
        match (&meant, &peeked) {
            (Full::NotJson, peeked) => assert!(peeked.is_err(), "it is no JSON"),
            (Full::Beyond, _) => {}
            (Full::Json(Value::Array(_)), Err(_)) if !batches => {}
            (Full::Json(Value::Array(_)), peeked) => {
                let expected = if batches { batch(text) } else { None };
                assert_eq!(peeked.as_ref().ok().map(|message| ids(&message.calls)), expected);
            }
            (Full::Json(_), peeked) => {
                let expected = Envelope::of(text);
                assert_eq!(
                    peeked.as_ref().ok().map(|message| message.method),
                    expected.as_ref().map(Envelope::kind)
                );
                let called = expected.map(|expected| expected.call().into_iter().collect::<Vec<_>>());
                assert_eq!(peeked.as_ref().ok().map(|message| ids(&message.calls)), called);
            }
        }
        if let Ok(message) = peeked {
            answered(&message.calls);
        }
    }
    single(body, text, &meant);
    parts(body, &meant);
}

/// A message, read key by key.
struct Envelope {
    method: Option<String>,
    id: Option<String>,
    params: Option<Box<RawValue>>,
}

impl Envelope {
    fn of(json: &str) -> Option<Self> {
        let fields = Fields::of(json)?;
        if ["jsonrpc", "id", "method", "params"].iter().any(|key| fields.has_twice(key)) {
            return None;
        }
        let word =
            |key: &str| fields.get(key).map(|raw| serde_json::from_str::<String>(raw.get())).transpose().ok();
        let id = fields.get("id").map(|raw| raw.get().to_owned());
        let method = word("method")?;
        let is_whole = word("jsonrpc")?.as_deref() == Some("2.0") && (id.is_some() || method.is_some());
        is_whole.then(|| Self { method, id, params: fields.get("params").map(ToOwned::to_owned) })
    }

    fn kind(&self) -> Method {
        match self.method.as_deref() {
            Some("initialize") => Method::Initialize,
            Some("server/discover") => Method::Discover,
            Some(_) | None => Method::Other,
        }
    }

    /// The id of a request.
    fn call(&self) -> Option<String> {
        self.id.clone().filter(|_| self.method.is_some())
    }

    fn token(&self) -> Option<Id> {
        let params = Fields::of(self.params.as_ref()?.get())?;
        let meta = Fields::of(params.get("_meta")?.get())?;
        meta.get("progressToken").map(Id::of)
    }
}

/// The ids of the requests in a batch, if it may be sent.
fn batch(text: &str) -> Option<Vec<String>> {
    let parts: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let envelopes: Vec<_> = parts.iter().map(|part| Envelope::of(part.get())).collect::<Option<_>>()?;
    let may_be_sent =
        !envelopes.is_empty() && envelopes.iter().all(|envelope| envelope.kind() != Method::Initialize);
    may_be_sent.then(|| envelopes.iter().filter_map(Envelope::call).collect())
}

fn ids(calls: &Calls) -> Vec<String> {
    match calls {
        Calls::None => Vec::new(),
        Calls::One(id) => vec![id.get().to_owned()],
        Calls::Many(ids) => ids.iter().map(|id| id.get().to_owned()).collect(),
    }
}

/// A response answers its call, and a request with the same id does not.
fn answered(calls: &Calls) {
    for id in ids(calls) {
        let asked = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        assert_eq!(ids(&calls.clone().without(asked.as_bytes())), ids(calls));
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        let left = ids(&calls.clone().without(answer.as_bytes()));
        assert!(left.len() < ids(calls).len() && !left.contains(&id), "{id} is answered");
    }
}

/// The body as a single message.
fn single(body: &[u8], text: &str, meant: &Full) {
    let read = Rpc::read(body);
    let expected = match meant {
        Full::Beyond => return,
        Full::NotJson => return assert!(read.is_err(), "it is no JSON"),
        Full::Json(_) => Envelope::of(text),
    };
    match (read, expected) {
        (Err(_), None) => {}
        (Ok(Rpc::Request { id, method, token }), Some(expected)) => {
            assert_eq!(
                (Some(id.get()), Some(&*method)),
                (expected.id.as_deref(), expected.method.as_deref())
            );
            assert_eq!(token, expected.token());
        }
        (Ok(Rpc::Notification { method, .. }), Some(expected)) => {
            assert_eq!((None, Some(&*method)), (expected.id.as_deref(), expected.method.as_deref()));
        }
        (Ok(Rpc::Response { id }), Some(expected)) => {
            assert_eq!((Some(id.get()), None), (expected.id.as_deref(), expected.method.as_deref()));
        }
        (read, expected) => panic!("{read:?}, and it should be {:?}", expected.and_then(|it| it.method)),
    }
}

/// The body in its messages, each on one line.
fn parts(body: &[u8], meant: &Full) {
    let body = Bytes::copy_from_slice(body);
    let Full::Json(meant) = meant else { return };
    let messages = mcp::messages(&body).expect("it is JSON");
    let read = |json: &[u8]| serde_json::from_slice::<Value>(json).expect("part of JSON");
    let parts: Vec<_> = messages.iter().map(|part| read(part)).collect();
    assert_eq!(&parts, meant.as_array().unwrap_or(&vec![meant.clone()]));
    let line = mcp::one_line(body);
    assert!(!line.contains(&b'\n') && read(&line) == *meant);
    let _ = mcp::negotiated(&line);
}
