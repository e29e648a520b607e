//! Requests that share one connection to a server, numbered anew: their own ids and progress tokens
//! are chosen by different clients, and collide.

use super::spots::range_of;
use crate::mcp::object::{Object, object};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::ops::Range;

/// A request's own names, to be put back into what the server says about it.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) id: Box<RawValue>,
    token: Option<Box<RawValue>>,
    /// It has asked for log messages.
    pub(crate) wants_logs: bool,
}

/// What a message of the server's is about.
#[derive(Debug)]
pub(crate) enum Of {
    /// It is the answer to this request.
    Answer {
        to: u64,
        is_error: bool,
    },
    /// It belongs to this request, which goes on.
    Request(u64),
    /// A log message, which does not say what it belongs to.
    Log,
    /// It asks its client something.
    Asks(Box<RawValue>),
    Nothing,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<Object<Meta<'a>>>,
    #[serde(borrow)]
    progress_token: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow)]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/logLevel")]
    log_level: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// A request under the number `number`, and the names that it had; `None` for what is no request.
pub(crate) fn numbered(body: &Bytes, number: u64) -> Option<(Vec<Bytes>, Names)> {
    let Call { id, params } = object(body).ok()?;
    let Object(meta) = read(params).meta.unwrap_or_default();
    let names = Names {
        id: id.to_owned(),
        token: meta.progress_token.map(ToOwned::to_owned),
        wants_logs: meta.log_level.is_some(),
    };
    let spots = [Some(id), meta.progress_token].into_iter().flatten();
    let ranges = spots.map(|raw| (range_of(raw, body), Bytes::from(number.to_string())));
    Some((with(body, ranges.collect()), names))
}

/// What a message of the server's is about.
pub(crate) fn of(message: &[u8]) -> Of {
    let Ok(said) = object::<Said<'_>>(message) else { return Of::Nothing };
    let answer = |to| Of::Answer { to, is_error: said.error.is_some() };
    match (said.method.as_deref(), said.id) {
        (None, id) => id.and_then(number).map_or(Of::Nothing, answer),
        (Some(_), Some(id)) => Of::Asks(id.to_owned()),
        (Some(method), None) => {
            let params = read(said.params);
            let subscription = params.meta.and_then(|Object(meta)| meta.subscription);
            let named = [params.progress_token, subscription].into_iter().flatten().find_map(number);
            let unnamed = if method == "notifications/message" { Of::Log } else { Of::Nothing };
            named.map_or(unnamed, Of::Request)
        }
    }
}

/// A message of the server's about a request, with the names that the request had.
pub(crate) fn restored(message: &Bytes, names: &Names) -> Vec<Bytes> {
    let Ok(said) = object::<Said<'_>>(message) else { return vec![message.clone()] };
    let id = Bytes::copy_from_slice(names.id.get().as_bytes());
    let token = names
        .token
        .as_ref()
        .map_or_else(|| id.clone(), |token| Bytes::copy_from_slice(token.get().as_bytes()));
    let mut spots = Vec::new();
    spots.extend(said.id.map(|raw| (raw, &id)));
    let [params, result] = [said.params, said.result].map(read);
    // In a result, and in what the server asks, it is the server's own.
    spots.extend(params.progress_token.filter(|_| said.id.is_none()).map(|raw| (raw, &token)));
    for params in [params, result] {
        spots.extend(params.meta.and_then(|Object(meta)| meta.subscription).map(|raw| (raw, &id)));
    }
    with(message, spots.into_iter().map(|(raw, name)| (range_of(raw, message), name.clone())).collect())
}

/// What is not of that form names nothing.
fn read(params: Option<&RawValue>) -> Params<'_> {
    params.and_then(|params| object(params.get().as_bytes()).ok()).unwrap_or_default()
}

fn number(raw: &RawValue) -> Option<u64> {
    raw.get().parse().ok()
}

/// The text with these ranges replaced; in pieces, since it may be long.
fn with(text: &Bytes, mut replaced: Vec<(Range<usize>, Bytes)>) -> Vec<Bytes> {
    replaced.sort_by_key(|(range, _)| range.start);
    let (mut pieces, mut done) = (Vec::new(), 0);
    for (range, name) in replaced {
        pieces.extend([text.slice(done..range.start), name]);
        done = range.end;
    }
    pieces.push(text.slice(done..));
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: Vec<Bytes>) -> String {
        String::from_utf8(pieces.concat()).expect("text")
    }

    #[test]
    fn a_request_gets_a_number_and_nothing_else_of_it_changes() {
        for (body, expected) in [
            (r#"{"jsonrpc":"2.0","id":"a\/b","method":"x"}"#, r#"{"jsonrpc":"2.0","id":7,"method":"x"}"#),
            (
                r#"{"params":{"_meta":{"progressToken":"p","k":1.0},"progressToken":2},"id" : 1 }"#,
                r#"{"params":{"_meta":{"progressToken":7,"k":1.0},"progressToken":2},"id" : 7 }"#,
            ),
        ] {
            let (pieces, names) = numbered(&Bytes::from_static(body.as_bytes()), 7).expect("a request");
            assert_eq!(text(pieces), expected);
            assert!(body.contains(names.id.get()));
        }
        assert!(numbered(&Bytes::from_static(br#"{"method":"notifications/x"}"#), 7).is_none());
    }

    #[test]
    fn what_the_server_says_gets_the_names_back() {
        let call = br#"{"id":"x","method":"tools/call","params":{"_meta":{"progressToken":1,"io.modelcontextprotocol/logLevel":"info"}}}"#;
        let (_, names) = numbered(&Bytes::from_static(call), 7).expect("a request");
        assert!(names.wants_logs);
        for (message, about, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":7,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":7},"progressToken":7}}"#,
                "Answer { to: 7, is_error: false }",
                r#"{"jsonrpc":"2.0","id":"x","result":{"_meta":{"io.modelcontextprotocol/subscriptionId":"x"},"progressToken":7}}"#,
            ),
            (
                r#"{"id":7,"error":{"code":1}}"#,
                "Answer { to: 7, is_error: true }",
                r#"{"id":"x","error":{"code":1}}"#,
            ),
            (
                r#"{"method":"notifications/progress","params":{"progressToken":7,"progress":7}}"#,
                "Request(7)",
                r#"{"method":"notifications/progress","params":{"progressToken":1,"progress":7}}"#,
            ),
            (
                r#"{"method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7}}}"#,
                "Request(7)",
                r#"{"method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"x"}}}"#,
            ),
            (r#"{"result":{"progressToken":7}}"#, "Nothing", r#"{"result":{"progressToken":7}}"#),
        ] {
            assert_eq!(format!("{:?}", of(message.as_bytes())), about, "{message}");
            assert_eq!(text(restored(&Bytes::from_static(message.as_bytes()), &names)), expected);
        }
    }

    #[test]
    fn what_belongs_to_no_request_is_told_apart() {
        for (message, about) in [
            (r#"{"method":"notifications/message","params":{"level":"info","data":1}}"#, "Log"),
            (r#"{"method":"notifications/tools/list_changed"}"#, "Nothing"),
            (r#"{"id":7,"method":"roots/list"}"#, "Asks(RawValue(7))"),
            (r#"{"id":"7","result":{}}"#, "Nothing"),
            ("nonsense", "Nothing"),
        ] {
            assert_eq!(format!("{:?}", of(message.as_bytes())), about, "{message}");
        }
    }
}
