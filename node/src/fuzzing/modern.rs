//! What is replaced in messages of 2026-07-28: what it has to be, and every other byte stays.

use super::{
    cuts::cut,
    reference::{Full, full},
};
use crate::headers::Headers;
use crate::mcp::modern::{
    About, MirroredParams, Request, Rewriter, decoded, encoded, is_complete, mismatch, numbered, of,
    restored, rewritten, splice,
};
use bytes::Bytes;
use proto::id::WrapKind;
use serde_json::Value;

pub(super) const TOKENS: &[&str] = &[
    "{\"jsonrpc\":\"2.0\",\"id\":1,",
    "\"method\":\"tasks/get\"",
    "\"method\":\"tools/call\"",
    "\"method\":\"subscriptions/listen\"",
    "\"method\":\"notifications/tasks\"",
    "\"params\":{",
    "\"taskId\":\"t\"",
    "\"requestState\":\"s\"",
    "\"notifications\":{\"taskIds\":[\"a\"]}",
    "\"result\":{",
    "\"resultType\":\"task\"",
    "\"resultType\":\"input_required\"",
    "\"_meta\":{\"progressToken\":1}",
    "\"io.modelcontextprotocol/subscriptionId\":7",
    "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"",
    "\\u0074",
    "data: ",
    "\n\n",
    "\r\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\"x-mcp-header\":\"Region\"",
];

pub fn modern(input: &[u8]) {
    let (body, pieces) = cut(input);
    let meant = full(body);
    spots(body, &meant);
    answers(body, &meant);
    numbers(body, &meant);
    headers(body);
    assert_eq!(streamed(&[body]), streamed(&pieces), "the same messages wherever the stream is cut");
}

/// A request's tasks and states.
fn spots(body: &[u8], meant: &Full) {
    let request = Request::read(body);
    assert!(!matches!(meant, Full::NotJson) || request.spots.is_empty(), "it is no JSON");
    let mut from = 0;
    for spot in &request.spots {
        assert!(spot.range.start >= from && spot.range.end <= body.len(), "in the order of the body");
        from = spot.range.end;
        let said: String = serde_json::from_slice(&body[spot.range.clone()]).expect("a string");
        assert_eq!(said, spot.text);
    }
    let renamed = |text: &str| format!("rwt1.\"{text}");
    let replaced = request.spots.iter().map(|spot| (spot.range.clone(), renamed(&spot.text)));
    let Some(spliced) = splice(body, replaced) else { return assert!(request.spots.is_empty()) };
    let again = Request::read(&spliced);
    assert_eq!(again.about, request.about);
    assert_eq!(outside(&spliced, &again), outside(body, &request), "every other byte stays");
    let expected: Vec<_> = request.spots.iter().map(|spot| (spot.kind, renamed(&spot.text))).collect();
    assert_eq!(again.spots.into_iter().map(|spot| (spot.kind, spot.text)).collect::<Vec<_>>(), expected);
}

/// What stands around the spots of a request.
fn outside<'a>(body: &'a [u8], request: &Request) -> Vec<&'a [u8]> {
    let mut from = 0;
    let mut around: Vec<_> = request
        .spots
        .iter()
        .map(|spot| &body[std::mem::replace(&mut from, spot.range.end)..spot.range.start])
        .collect();
    around.push(&body[from..]);
    around
}

/// What a server hands out. A name and back is the text as it was, but for how it was escaped.
fn answers(body: &[u8], meant: &Full) {
    const OURS: &str = "rwt1.\"";
    for about in [About::Nothing, About::Work, About::Tasks] {
        let plain = rewritten(body, about, |_, text| Some(text.to_owned()));
        let named = rewritten(body, about, |_: WrapKind, text| Some(format!("{OURS}{text}")));
        assert_eq!(plain.is_some(), named.is_some());
        assert_eq!(rewritten(body, about, |_, _| None), None, "nothing is named");
        let (Some(plain), Some(named)) = (plain, named) else { continue };
        assert!(!matches!(meant, Full::NotJson), "it is no JSON");
        assert_ne!(plain, named);
        let back = rewritten(&named, about, |_, text| text.strip_prefix(OURS).map(str::to_owned));
        assert_eq!(back.as_ref(), Some(&plain), "every other byte stays");
        if let Full::Json(meant) = meant {
            assert_eq!(&serde_json::from_slice::<Value>(&plain).expect("it was JSON"), meant);
        }
    }
}

/// Requests numbered anew, and what is said about them.
fn numbers(body: &[u8], meant: &Full) {
    let _ = (of(body), is_complete(body));
    let body = Bytes::copy_from_slice(body);
    let (_, names) =
        numbered(&Bytes::from_static(br#"{"id":"x","params":{"_meta":{"progressToken":9}}}"#), 7)
            .expect("a request");
    let said = restored(&body, &names).concat();
    let Full::Json(meant) = meant else { return };
    let without_names = |json: &Value| {
        let mut json = json.clone();
        for place in ["/id", "/params/progressToken", "/params/_meta/progressToken"] {
            json.pointer_mut(place).map(Value::take);
        }
        for part in ["params", "result"] {
            let meta = json.get_mut(part).and_then(|part| part.get_mut("_meta"));
            meta.and_then(|meta| meta.get_mut("io.modelcontextprotocol/subscriptionId")).map(Value::take);
        }
        json
    };
    let read = |json: &[u8]| serde_json::from_slice::<Value>(json).expect("it was JSON");
    assert_eq!(without_names(&read(&said)), without_names(meant), "only names are restored");
    let Some((pieces, names)) = numbered(&body, 7) else { return };
    let asked = pieces.concat();
    assert_eq!(without_names(&read(&asked)), without_names(meant), "only names are numbered");
    assert_eq!(read(&asked)["id"], 7);
    assert_eq!(names.id.get().parse::<Value>().ok().as_ref(), meant.get("id"));
    let (again, _) = numbered(&Bytes::from(asked.clone()), 7).expect("a request still");
    assert_eq!(again.concat(), asked, "every other byte stays");
}

/// Headers that mirror the body.
fn headers(body: &[u8]) {
    let mut params = MirroredParams::default();
    params.learn(body);
    let _ = mismatch(&Headers::new(), body, &params);
    let text = String::from_utf8_lossy(body);
    assert_eq!(decoded(&encoded(&text)), text.as_bytes());
}

/// A stream whose messages are rewritten.
fn streamed(pieces: &[&[u8]]) -> Vec<u8> {
    let mut rewriter = Rewriter::default();
    let shout = |message: &[u8]| message.contains(&b'a').then(|| message.to_ascii_uppercase());
    let mut passed = Vec::new();
    for piece in pieces {
        passed.extend_from_slice(&rewriter.advance(&Bytes::copy_from_slice(piece), shout));
    }
    passed.extend_from_slice(&rewriter.rest());
    passed
}
