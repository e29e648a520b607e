//! What tools say of themselves: which of them may be called twice.

use super::object::{Object, object};
use super::sse;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Answer {
    result: Option<Object<Listed>>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    tools: Vec<Object<Tool>>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
    #[serde(default)]
    annotations: Object<Annotations>,
}

/// 2025-03-26 and later, `ToolAnnotations`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotations {
    read_only_hint: bool,
    idempotent_hint: bool,
}

/// Of each tool that an answer to `tools/list` names, whether it may be called twice.
pub(crate) fn repeatable_tools(body: &[u8], is_event_stream: bool) -> BTreeMap<String, bool> {
    let listed = |json: &[u8]| object::<Answer>(json).ok()?.result;
    let answer = match is_event_stream {
        false => listed(body),
        true => sse::events(body).find_map(|event| listed(&event.data)),
    };
    let tools = answer.map(|Object(listed)| listed.tools).unwrap_or_default();
    let may = |Annotations { read_only_hint, idempotent_hint }| read_only_hint || idempotent_hint;
    tools.into_iter().map(|Object(tool)| (tool.name, may(tool.annotations.0))).collect()
}

#[derive(Deserialize)]
struct Call {
    method: String,
    params: Option<Object<Params>>,
}

#[derive(Default, Deserialize)]
struct Params {
    name: Option<String>,
    level: Option<String>,
    uri: Option<String>,
}

/// The tool that a request calls.
pub(crate) fn called_tool(body: &[u8]) -> Option<String> {
    let call: Call = object(body).ok()?;
    call.params.filter(|_| call.method == "tools/call")?.0.name
}

/// The level that a `logging/setLevel` sets.
pub(crate) fn level(body: &[u8]) -> Option<String> {
    object::<Call>(body).ok()?.params?.0.level
}

/// The resource that a request is about.
pub(crate) fn uri(body: &[u8]) -> Option<String> {
    object::<Call>(body).ok()?.params?.0.uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_say_what_may_be_called_twice() {
        let json = br#"{"jsonrpc":"2.0","id":1,"result":{"tools":[
            {"name":"read","inputSchema":{},"annotations":{"readOnlyHint":true,"title":"x"}},
            {"name":"put","annotations":{"idempotentHint":true,"readOnlyHint":false}},
            {"name":"plain"},{"name":"append","annotations":{}}]}}"#;
        let expected = [("append", false), ("plain", false), ("put", true), ("read", true)]
            .map(|(name, may)| (name.to_owned(), may));
        assert_eq!(repeatable_tools(json, false), expected.clone().into());
        let line: String = String::from_utf8_lossy(json).replace('\n', "");
        let events = format!("id: 1\ndata: \n\ndata: {line}\n\n");
        assert_eq!(repeatable_tools(events.as_bytes(), true), expected.into());
        assert!(repeatable_tools(b"nonsense", false).is_empty());
    }

    #[test]
    fn a_request_says_what_it_is_about() {
        let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"name":"x"}}}"#;
        assert_eq!(called_tool(call).as_deref(), Some("echo"));
        assert_eq!(called_tool(br#"{"method":"prompts/get","params":{"name":"echo"}}"#), None);
        assert_eq!(
            level(br#"{"method":"logging/setLevel","params":{"level":"debug"}}"#).as_deref(),
            Some("debug")
        );
        assert_eq!(
            uri(br#"{"method":"resources/subscribe","params":{"uri":"a:b"}}"#).as_deref(),
            Some("a:b")
        );
    }
}
