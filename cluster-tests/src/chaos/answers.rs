//! What an answer says about its call. Pure. Called by `load`.

use std::io;

use serde_json::Value;

use super::ledger::{Asked, Outcome};
use crate::real::http::Answer;

/// Ringway's own code for what could not be served (README, "What clients get").
const NOT_SERVED: i64 = -31001;

/// What came of a call with the JSON-RPC id `id`.
pub(super) fn outcome(asked: Asked, id: u64, answer: &Answer) -> Outcome {
    if answer.status == 404 {
        return Outcome::NotFound;
    }
    if answer.status != 200 {
        return Outcome::Strange(format!("HTTP {}", answer.status));
    }
    let Ok(reply) = answer.reply() else {
        return Outcome::Strange("200 without a reply".to_owned());
    };
    if reply["id"] != id {
        return Outcome::Strange("the reply to another request".to_owned());
    }
    let error = &reply["error"];
    if error.is_null() {
        return good(asked, &reply["result"]);
    }
    if error["code"] != NOT_SERVED {
        return Outcome::Strange(format!("JSON-RPC error {}", error["code"]));
    }
    match (error["data"]["reason"].as_str(), error["data"]["mayHaveRun"].as_bool()) {
        (Some(reason), Some(may_have_run)) => Outcome::Honest { reason: reason.to_owned(), may_have_run },
        _ => Outcome::Strange("-31001 without reason and mayHaveRun".to_owned()),
    }
}

fn good(asked: Asked, result: &Value) -> Outcome {
    let text = result["content"][0]["text"].as_str();
    let outcome = match asked {
        Asked::Count => text.and_then(|text| text.parse().ok()).map(Outcome::Counted),
        Asked::WhoAmI => text.map(|text| Outcome::Named(text.to_owned())),
        Asked::Read => result.is_object().then_some(Outcome::Read),
    };
    outcome.unwrap_or_else(|| Outcome::Strange("a result of another kind".to_owned()))
}

/// Whether a request went nowhere, since nobody listened: not a byte of it was sent.
pub(super) fn is_refused(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderMap;
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: &Value) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: body.to_string().into() }
    }

    fn said(text: &str) -> Answer {
        answer(200, &json!({"id": 7, "result": {"content": [{"type": "text", "text": text}]}}))
    }

    fn strange(what: &str) -> Outcome {
        Outcome::Strange(what.to_owned())
    }

    #[test]
    fn results_are_read_as_what_was_asked_for() {
        assert_eq!(outcome(Asked::Count, 7, &said("12")), Outcome::Counted(12));
        assert_eq!(outcome(Asked::WhoAmI, 7, &said("9:1")), Outcome::Named("9:1".to_owned()));
        assert_eq!(outcome(Asked::Read, 7, &answer(200, &json!({"id": 7, "result": {}}))), Outcome::Read);
        assert_eq!(outcome(Asked::Count, 7, &said("twelve")), strange("a result of another kind"));
        assert_eq!(outcome(Asked::Count, 8, &said("12")), strange("the reply to another request"));
    }

    #[test]
    fn errors_are_honest_only_as_the_contract_has_them() {
        let error = |error: Value| answer(200, &json!({"id": 7, "error": error}));
        let honest = error(json!({"code": -31001, "data": {"reason": "owner_lost", "mayHaveRun": true}}));
        let read = Outcome::Honest { reason: "owner_lost".to_owned(), may_have_run: true };
        assert_eq!(outcome(Asked::Count, 7, &honest), read);
        let vague = error(json!({"code": -31001, "data": {"reason": "owner_lost"}}));
        assert_eq!(outcome(Asked::Count, 7, &vague), strange("-31001 without reason and mayHaveRun"));
        assert_eq!(
            outcome(Asked::Count, 7, &error(json!({"code": -32603}))),
            strange("JSON-RPC error -32603")
        );
        assert_eq!(outcome(Asked::Count, 7, &answer(404, &Value::Null)), Outcome::NotFound);
        assert_eq!(outcome(Asked::Count, 7, &answer(502, &Value::Null)), strange("HTTP 502"));
    }
}
