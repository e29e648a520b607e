//! Where messages of 2026-07-28 hold a task's id or a request's state (SEP-2663, SEP-2322).

use crate::mcp::object::{Object, object};
use proto::id::WrapKind;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, ops::Range};

/// A string in a message that may be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) kind: WrapKind,
    /// Where it stands, with its quotes.
    pub(crate) range: Range<usize>,
    /// What it says.
    pub(crate) text: String,
}

/// What the answer to a request may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum About {
    /// Neither a task nor a state.
    #[default]
    Nothing,
    /// A new task, or the state of a request that needs more input.
    Work,
    /// The task that it asks for, whatever the result's type.
    Tasks,
}

/// A request as far as replicas matter.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) about: About,
    /// In the order of the body.
    pub(crate) spots: Vec<Spot>,
}

impl Request {
    /// Whatever is not of the form of a request is about nothing.
    pub(crate) fn read(body: &[u8]) -> Self {
        object::<Call<'_>>(body).map(|call| call.understood(body)).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<Object<Params<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow)]
    request_state: Option<&'a RawValue>,
    #[serde(borrow)]
    notifications: Option<Object<Filter<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter<'a> {
    #[serde(borrow)]
    task_ids: Option<Vec<&'a RawValue>>,
}

impl<'a> Call<'a> {
    fn understood(self, body: &[u8]) -> Request {
        let Object(params) = self.params.unwrap_or_default();
        let (about, found) = match &*self.method {
            "tasks/get" | "tasks/update" | "tasks/cancel" => {
                (About::Tasks, vec![(WrapKind::Task, params.task_id)])
            }
            "subscriptions/listen" => (About::Tasks, listed(params.notifications)),
            "tools/call" | "prompts/get" | "resources/read" => {
                (About::Work, vec![(WrapKind::State, params.request_state)])
            }
            _ => (About::Nothing, Vec::new()),
        };
        Request { about, spots: spots(found, body) }
    }
}

fn listed(filter: Option<Object<Filter<'_>>>) -> Vec<(WrapKind, Option<&RawValue>)> {
    let ids = filter.and_then(|Object(filter)| filter.task_ids).unwrap_or_default();
    ids.into_iter().map(|id| (WrapKind::Task, Some(id))).collect()
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<Object<Params<'a>>>,
    #[serde(borrow)]
    result: Option<Object<Outcome<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'a> {
    #[serde(borrow)]
    result_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow)]
    request_state: Option<&'a RawValue>,
}

/// A message of a server's with every task and state in it replaced by what `name` gives for it;
/// `None` where nothing changes.
pub(crate) fn rewritten(
    json: &[u8],
    about: About,
    name: impl Fn(WrapKind, &str) -> Option<String>,
) -> Option<Vec<u8>> {
    let message: Message<'_> = object(json).ok()?;
    let Object(params) = message.params.unwrap_or_default();
    let found = match (message.method.as_deref(), message.result) {
        (Some("notifications/tasks"), _) => vec![(WrapKind::Task, params.task_id)],
        (Some("notifications/subscriptions/acknowledged"), _) => listed(params.notifications),
        (None, Some(Object(Outcome { result_type, task_id, request_state }))) => match result_type.as_deref()
        {
            Some("task") => vec![(WrapKind::Task, task_id)],
            Some("input_required") => vec![(WrapKind::State, request_state)],
            _ if about == About::Tasks => vec![(WrapKind::Task, task_id)],
            _ => return None,
        },
        _ => return None,
    };
    let replaced = spots(found, json).into_iter();
    let replaced = replaced.filter_map(|spot| Some((spot.range, name(spot.kind, &spot.text)?)));
    splice(json, replaced)
}

/// `text` with each of the ranges, which are in its order, replaced by a string; `None` where there
/// are none.
pub(crate) fn splice(text: &[u8], replaced: impl Iterator<Item = (Range<usize>, String)>) -> Option<Vec<u8>> {
    let mut spliced = Vec::new();
    let mut done = 0;
    for (range, string) in replaced {
        spliced.extend_from_slice(&text[done..range.start]);
        serde_json::to_writer(&mut spliced, &string).expect("a string is JSON, and memory takes it");
        done = range.end;
    }
    if done == 0 {
        return None;
    }
    spliced.extend_from_slice(&text[done..]);
    Some(spliced)
}

/// Those of the values that are strings, in the order of the text that they were borrowed from.
fn spots(found: Vec<(WrapKind, Option<&RawValue>)>, text: &[u8]) -> Vec<Spot> {
    let spot = |(kind, value): (WrapKind, Option<&RawValue>)| {
        let value = value?;
        Some(Spot { kind, range: range_of(value, text), text: serde_json::from_str(value.get()).ok()? })
    };
    found.into_iter().filter_map(spot).collect()
}

/// Where a value stands in the text that it was borrowed from.
pub(super) fn range_of(value: &RawValue, text: &[u8]) -> Range<usize> {
    let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + value.get().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> Vec<(WrapKind, &str, String)> {
        let spots = Request::read(body.as_bytes()).spots.into_iter();
        spots.map(|spot| (spot.kind, &body[spot.range], spot.text)).collect()
    }

    #[test]
    fn a_request_says_which_task_or_state_it_is_about() {
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            let body = format!(
                r#"{{"id":1,"method":"{method}","params":{{"_meta":{{"taskId":"no"}},"taskId":"t\u0031"}}}}"#
            );
            assert_eq!(found(&body), [(WrapKind::Task, r#""t\u0031""#, "t1".into())]);
            assert_eq!(Request::read(body.as_bytes()).about, About::Tasks);
        }
        let body = r#"{"method":"subscriptions/listen","params":{"notifications":{"taskIds":["a", "b"]}}}"#;
        let expected = [(WrapKind::Task, r#""a""#, "a".into()), (WrapKind::Task, r#""b""#, "b".into())];
        assert_eq!(found(body), expected);
        for method in ["tools/call", "prompts/get", "resources/read"] {
            let body = format!(
                r#"{{"method":"{method}","params":{{"requestState":"s","arguments":{{"requestState":"no","taskId":"no"}},"taskId":"no"}}}}"#
            );
            assert_eq!(found(&body), [(WrapKind::State, r#""s""#, "s".into())]);
            assert_eq!(Request::read(body.as_bytes()).about, About::Work);
        }
        for body in [
            r#"{"method":"tools/list","params":{"requestState":"s"}}"#,
            r#"{"method":"tasks/get","params":{"taskId":7}}"#,
            r#"{"method":"tasks/get","params":["t"]}"#,
            r#"{"method":"tasks/get","params":["t",null,null]}"#,
            r#"{"method":"tasks/get","params":{"taskId":"a","taskId":"b"}}"#,
            r#"{"method":"tasks/get"}"#,
            "[]",
            "",
        ] {
            assert_eq!(found(body), [], "{body}");
        }
    }

    #[test]
    fn an_answer_is_rewritten_where_it_hands_something_out_and_nowhere_else() {
        let name = |kind: WrapKind, text: &str| Some(format!("<{}{text}\">", kind.prefix()));
        for (json, about, expected) in [
            (
                r#"{ "result" : {"resultType":"task", "taskId" : "7","note":"taskId"},  "id":1}"#,
                About::Work,
                Some(
                    r#"{ "result" : {"resultType":"task", "taskId" : "<rwt1.7\">","note":"taskId"},  "id":1}"#,
                ),
            ),
            (
                r#"{"id":1,"result":{"requestState":"s","resultType":"input_required","inputRequests":{"requestState":{}}}}"#,
                About::Work,
                Some(
                    r#"{"id":1,"result":{"requestState":"<rws1.s\">","resultType":"input_required","inputRequests":{"requestState":{}}}}"#,
                ),
            ),
            (
                r#"{"id":1,"result":{"resultType":"complete","taskId":"7","result":{"taskId":"no"}}}"#,
                About::Tasks,
                Some(
                    r#"{"id":1,"result":{"resultType":"complete","taskId":"<rwt1.7\">","result":{"taskId":"no"}}}"#,
                ),
            ),
            (
                r#"{"method":"notifications/tasks","params":{"taskId":"7"}}"#,
                About::Work,
                Some(r#"{"method":"notifications/tasks","params":{"taskId":"<rwt1.7\">"}}"#),
            ),
            (
                r#"{"method":"notifications/subscriptions/acknowledged","params":{"notifications":{"taskIds":["7","8"]}}}"#,
                About::Tasks,
                Some(
                    r#"{"method":"notifications/subscriptions/acknowledged","params":{"notifications":{"taskIds":["<rwt1.7\">","<rwt1.8\">"]}}}"#,
                ),
            ),
            (
                r#"{"id":1,"result":{"resultType":"complete","taskId":"7","requestState":"s"}}"#,
                About::Work,
                None,
            ),
            (r#"{"id":1,"result":{"resultType":"input_required","taskId":"7"}}"#, About::Work, None),
            (r#"{"id":1,"error":{"code":1,"data":{"taskId":"7"}}}"#, About::Tasks, None),
            (r#"{"method":"notifications/progress","params":{"taskId":"7"}}"#, About::Tasks, None),
            ("", About::Tasks, None),
        ] {
            let rewritten = rewritten(json.as_bytes(), about, name);
            assert_eq!(rewritten.as_deref().map(String::from_utf8_lossy).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn what_has_no_other_name_keeps_its_own() {
        let json = br#"{"id":1,"result":{"resultType":"task","taskId":"7"}}"#;
        assert_eq!(rewritten(json, About::Work, |_, _| None), None);
    }
}
