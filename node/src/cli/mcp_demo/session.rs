//! One session of the demo server: its whole state is a counter.

use serde_json::{Value, json};

/// The revision that is answered when the client asks for one that this server does not know.
const LATEST: &str = "2025-11-25";
const KNOWN: [&str; 3] = ["2025-03-26", "2025-06-18", LATEST];

#[derive(Debug, Default)]
pub(super) struct Session {
    count: u64,
}

impl Session {
    /// The answer to a message, if it asks for one.
    pub(super) fn receive(&mut self, message: &[u8]) -> Option<Value> {
        let message: Value = match serde_json::from_slice(message) {
            Ok(message) => message,
            Err(problem) => return Some(error(&Value::Null, -32700, &format!("Parse error: {problem}"))),
        };
        let id = message.get("id").cloned();
        let Some(method) = message["method"].as_str() else {
            // An answer to a question that this server never asks, or no message at all.
            return id.is_none().then(|| error(&Value::Null, -32600, "Invalid request"));
        };
        let id = id?;
        Some(match self.call(method, &message["params"]) {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err((code, what)) => error(&id, code, &what),
        })
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value, (i64, String)> {
        match method {
            "initialize" => {
                let asked = params["protocolVersion"].as_str().unwrap_or_default();
                let version = KNOWN.into_iter().find(|known| *known == asked).unwrap_or(LATEST);
                Ok(json!({
                    "protocolVersion": version,
                    "capabilities": { "tools": {} },
                    "serverInfo": { "name": "ringway mcp-demo", "version": env!("CARGO_PKG_VERSION") },
                    "instructions": "count counts the calls of this session; echo repeats a text.",
                }))
            }
            "ping" => Ok(json!({})),
            "tools/list" => Ok(json!({ "tools": [
                {
                    "name": "count",
                    "description": "Counts the calls of this session: 1, 2, 3 and so on",
                    "inputSchema": { "type": "object" },
                },
                {
                    "name": "echo",
                    "description": "Repeats a text",
                    "inputSchema": {
                        "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"],
                    },
                },
            ] })),
            "tools/call" => self.tool(params),
            other => Err((-32601, format!("Method not found: {other}"))),
        }
    }

    fn tool(&mut self, params: &Value) -> Result<Value, (i64, String)> {
        let text = match params["name"].as_str().unwrap_or_default() {
            "count" => {
                self.count += 1;
                self.count.to_string()
            }
            "echo" => {
                let text = params["arguments"]["text"].as_str();
                text.ok_or((-32602, "echo needs a text".to_owned()))?.to_owned()
            }
            other => return Err((-32602, format!("Unknown tool: {other}"))),
        };
        Ok(json!({ "content": [{ "type": "text", "text": text }] }))
    }
}

fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_and_answers_only_what_asks() {
        let mut session = Session::default();
        let call = br#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"count"}}"#;
        for expected in ["1", "2", "3"] {
            let answer = session.receive(call).expect("an answer");
            assert_eq!(
                (&answer["id"], &answer["result"]["content"][0]["text"]),
                (&json!("x"), &json!(expected))
            );
        }
        assert_eq!(session.receive(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), None);
        assert_eq!(session.receive(b"{").expect("an error")["error"]["code"], -32700);
        let unknown = session.receive(br#"{"jsonrpc":"2.0","id":1,"method":"no"}"#).expect("an error");
        assert_eq!(unknown["error"]["code"], -32601);
    }
}
