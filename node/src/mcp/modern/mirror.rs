//! Whether a request's headers say what its body says (2026-07-28, Streamable HTTP, "Server
//! Validation"). An upstream over HTTP checks that itself; one over stdio sees no headers.

use super::{NAME, header::said};
use crate::headers::Headers;
use crate::mcp::object::{Object, object};
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{borrow::Cow, collections::BTreeMap};

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const PARAM: &str = "mcp-param-";
/// Parameters with a header of their own that are remembered of one server: each is 100 bytes or so.
const PARAMS_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<Object<Params<'a>>>,
}

/// Whatever is not looked at may be of any form.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(rename = "_meta")]
    meta: Option<Object<Meta>>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<String>,
}

/// What is wrong with a request's headers, for its caller; nothing where the body does not say which
/// revision it is of, which is for the server to refuse. A body that can't be compared (a key twice, a
/// text that is none) is not the server's affair: it may read it all the same, as something else.
pub(crate) fn mismatch(headers: &Headers, body: &[u8], params: &MirroredParams) -> Option<String> {
    let checked = || -> serde_json::Result<Option<String>> {
        let Call { method, params: said } = object(body)?;
        let Some((method, Object(said))) = method.zip(said) else { return Ok(None) };
        compared(headers, &method, &said, params)
    };
    checked().unwrap_or_else(|error| Some(format!("the body can't be compared with the headers: {error}")))
}

fn compared(
    headers: &Headers,
    method: &str,
    said: &Params<'_>,
    params: &MirroredParams,
) -> serde_json::Result<Option<String>> {
    let Some(version) = said.meta.as_ref().and_then(|Object(meta)| meta.version.as_deref()) else {
        return Ok(None);
    };
    let name = match method {
        "tools/call" | "prompts/get" => said.name,
        "resources/read" => said.uri,
        "tasks/get" | "tasks/update" | "tasks/cancel" => said.task_id,
        _ => None,
    };
    let name = name.filter(|raw| raw.get().starts_with('"'));
    let name = name.map(|raw| serde_json::from_str::<String>(raw.get())).transpose()?;
    let mirrored = name.as_ref().filter(|_| method == "tools/call").and_then(|name| params.0.get(name));
    let arguments: Value = match (mirrored, said.arguments) {
        (Some(_), Some(arguments)) => serde_json::from_str(arguments.get())?,
        (None, _) | (_, None) => Value::Null,
    };
    let plain = |header: &HeaderName, value: &str| differs(headers, header, value, |said| said == value);
    Ok(plain(&crate::mcp::PROTOCOL_VERSION, version)
        .or_else(|| plain(&METHOD, method))
        .or_else(|| plain(&NAME, name.as_deref()?))
        .or_else(|| {
            mirrored?.iter().find_map(|(header, path)| param_differs(headers, header, path, &arguments))
        }))
}

fn param_differs(
    headers: &Headers,
    header: &HeaderName,
    path: &[String],
    arguments: &Value,
) -> Option<String> {
    let argument = path.iter().try_fold(arguments, |value, key| value.get(key));
    match argument {
        None | Some(Value::Null) if headers.contains_key(header) => {
            Some(format!("{header} is given, and the body has no such argument"))
        }
        None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => None,
        Some(Value::String(text)) => differs(headers, header, text, |said| said == text),
        Some(Value::Bool(value)) => differs(headers, header, value, |said| said == value.to_string()),
        // 42.0 is 42.
        Some(Value::Number(number)) => differs(headers, header, number, |said| {
            said == number.to_string()
                || said.parse::<f64>().ok().is_some_and(|said| Some(said) == number.as_f64())
        }),
    }
}

fn differs(
    headers: &Headers,
    header: &HeaderName,
    value: impl std::fmt::Display,
    is_same: impl Fn(&str) -> bool,
) -> Option<String> {
    let Some(given) = headers.get(header) else {
        return Some(format!("{header} is missing; the body says {value:.100}"));
    };
    let text = said(given).and_then(|said| String::from_utf8(said.into_owned()).ok());
    match text {
        None => Some(format!("{header} is not encoded as it has to be")),
        Some(text) if is_same(&text) => None,
        Some(_) => Some(format!("{header} is {}, but the body says {value:.100}", shown(given))),
    }
}

fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).chars().take(100).collect()
}

/// The tools' parameters that have a header of their own, as the server has listed them.
#[derive(Debug, Default)]
pub(crate) struct MirroredParams(BTreeMap<String, Vec<(HeaderName, Vec<String>)>>);

#[derive(Deserialize)]
struct Listed {
    result: Object<Tools>,
}

#[derive(Deserialize)]
struct Tools {
    tools: Vec<Object<Tool>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tool {
    name: String,
    #[serde(default)]
    input_schema: Value,
}

impl MirroredParams {
    /// Notes what an answer to `tools/list` says.
    pub(crate) fn learn(&mut self, answer: &[u8]) {
        let Ok(Listed { result: Object(listed) }) = object(answer) else { return };
        for Object(Tool { name, input_schema }) in listed.tools {
            let mut found = Vec::new();
            find(&input_schema, &mut Vec::new(), &mut found);
            self.0.remove(&name);
            let known: usize = self.0.values().map(Vec::len).sum();
            if !found.is_empty() && known + found.len() <= PARAMS_MAX {
                self.0.insert(name, found);
            }
        }
    }
}

/// Annotations count where only `properties` lead to them.
fn find(schema: &Value, path: &mut Vec<String>, found: &mut Vec<(HeaderName, Vec<String>)>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (key, property) in properties {
        path.push(key.clone());
        let header = property.get("x-mcp-header").and_then(Value::as_str);
        let header = header.and_then(|name| format!("{PARAM}{name}").parse::<HeaderName>().ok());
        found.extend(header.map(|header| (header, path.clone())));
        find(property, path, found);
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(listed: &[(&'static str, &'static str)]) -> Headers {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        listed.iter().map(header).collect()
    }

    fn params() -> MirroredParams {
        let mut params = MirroredParams::default();
        params.learn(
            br#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"sql","inputSchema":{"properties":{
                "region":{"type":"string","x-mcp-header":"Region"},
                "at":{"properties":{"count":{"type":"integer","x-mcp-header":"Count"}}},
                "all":{"items":{"properties":{"no":{"x-mcp-header":"No"}}}}}}},{"name":"plain","inputSchema":{}}]}}"#,
        );
        params
    }

    const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");
    const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;

    #[test]
    fn headers_that_say_something_else_are_named() {
        let (call, list) = (("mcp-method", "tools/call"), ("mcp-method", "tools/list"));
        let sql = ("mcp-name", "sql");
        let body =
            |method: &str, params: &str| format!(r#"{{"method":"{method}","params":{{{META}{params}}}}}"#);
        let called =
            |arguments: &str| body("tools/call", &format!(r#","name":"sql","arguments":{arguments}"#));
        for (listed, body, expected) in [
            (vec![VERSION, list], body("tools/list", ""), None),
            (vec![list], body("tools/list", ""), Some("mcp-protocol-version")),
            (
                vec![("mcp-protocol-version", "2025-11-25"), list],
                body("tools/list", ""),
                Some("mcp-protocol-version"),
            ),
            (vec![VERSION], body("tools/list", ""), Some("mcp-method")),
            (vec![VERSION, ("mcp-method", "TOOLS/LIST")], body("tools/list", ""), Some("mcp-method")),
            (vec![VERSION], r#"{"method":"tools/list","params":{}}"#.to_owned(), None),
            (vec![VERSION, call], called("{}"), Some("mcp-name")),
            (vec![VERSION, call, ("mcp-name", "other")], called("{}"), Some("mcp-name")),
            (vec![VERSION, call, ("mcp-name", "=?base64?c3Fs?=")], called("{}"), None),
            (vec![VERSION, call, ("mcp-name", "=?base64?***?=")], called("{}"), Some("mcp-name")),
            (vec![VERSION, call, sql], called(r#"{"region":"eu"}"#), Some("mcp-param-region")),
            (vec![VERSION, call, sql, ("mcp-param-region", "eu")], called(r#"{"region":"eu"}"#), None),
            (
                vec![VERSION, call, sql, ("mcp-param-region", "us")],
                called(r#"{"region":"eu"}"#),
                Some("mcp-param-region"),
            ),
            (vec![VERSION, call, sql], called(r#"{"region":null}"#), None),
            (vec![VERSION, call, sql, ("mcp-param-count", "42.0")], called(r#"{"at":{"count":42}}"#), None),
            (
                vec![VERSION, call, sql, ("mcp-param-count", "41")],
                called(r#"{"at":{"count":42}}"#),
                Some("mcp-param-count"),
            ),
            (vec![VERSION, call, sql, ("mcp-param-other", "x")], called("{}"), None),
            (
                vec![VERSION, ("mcp-method", "tasks/get"), ("mcp-name", "other")],
                body("tasks/get", r#","taskId":"t""#),
                Some("mcp-name"),
            ),
        ] {
            let found = mismatch(&headers(&listed), body.as_bytes(), &params());
            assert_eq!(found.is_some(), expected.is_some(), "{listed:?} {body}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{listed:?}");
        }
    }

    #[test]
    fn a_body_that_others_may_read_as_something_else_is_not_passed_on() {
        let listed = headers(&[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "sql")]);
        let body = |params: &str| format!(r#"{{"method":"tools/call","params":{{{META},{params}}}}}"#);
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for params_said in [
            r#""name":"sql","name":"other""#.to_owned(),
            r#""name":"\ud800""#.to_owned(),
            format!(r#""name":"sql","arguments":{{"region":"eu","x":{deep}}}"#),
        ] {
            let found = mismatch(&listed, body(&params_said).as_bytes(), &params());
            assert!(found.expect(&params_said).contains("can't be compared"), "{params_said}");
        }
        let answer = br#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        assert_eq!(mismatch(&listed, answer, &params()), None);
        let other = br#"{"method":"notifications/x","params":{"name":7}}"#;
        assert_eq!(mismatch(&listed, other, &params()), None);
        let plain = headers(&[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "plain")]);
        let deep = body(&format!(r#""name":"plain","arguments":{deep}"#));
        assert_eq!(mismatch(&plain, deep.as_bytes(), &params()), None, "nothing of it is mirrored");
    }

    #[test]
    fn many_parameters_are_remembered_however_often_they_are_listed() {
        let property = |n: usize| format!(r#""p{n}":{{"x-mcp-header":"P{n}"}}"#);
        let properties = (0..PARAMS_MAX).map(property).collect::<Vec<_>>().join(",");
        let listed = format!(
            r#"{{"result":{{"tools":[{{"name":"sql","inputSchema":{{"properties":{{{properties}}}}}}}]}}}}"#
        );
        let mut params = MirroredParams::default();
        for _ in 0..3 {
            params.learn(listed.as_bytes());
            assert_eq!(params.0["sql"].len(), PARAMS_MAX);
        }
    }

    #[test]
    fn what_a_tool_does_not_mirror_any_more_is_forgotten() {
        let mut params = params();
        assert_eq!(params.0["sql"].len(), 2, "{params:?}");
        params.learn(br#"{"result":{"tools":[{"name":"sql","inputSchema":{"properties":{}}}]}}"#);
        assert!(params.0.is_empty());
    }
}
