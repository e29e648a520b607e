//! `ringway events`: what has happened to the cluster lately, and what happens, until Ctrl-C.

use super::admin::Admin;
use super::table::{self, painted, word};
use super::{AdminArgs, Failure, runtime};
use crate::mcp;
use anyhow::bail;
use bytes::BytesMut;
use http_body_util::BodyExt;
use serde_json::Value;
use std::time::Duration;

/// An event is some 300 bytes; what has no end in this is none.
const EVENT_LEN_MAX: usize = 64 * 1024;
/// A node says something every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);

pub(super) fn run(args: &AdminArgs) -> Result<(), Failure> {
    let admin = Admin::new(args)?;
    Ok(runtime()?.block_on(async {
        tokio::select! {
            told = tell(&admin, args.json) => told,
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        }
    })?)
}

async fn tell(admin: &Admin, json: bool) -> anyhow::Result<()> {
    let mut body = admin.open("/v1/events", &[]).await?;
    let colours = table::is_coloured();
    let mut read = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_)) | None) => bail!("{} does not tell any more: the node has ended", admin.url()),
            Err(_) => bail!("{} does not tell any more: silent for {SILENCE_MAX:?}", admin.url()),
        };
        read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        while let Some(end) = read.windows(2).position(|pair| pair == b"\n\n") {
            let event = read.split_to(end + 2);
            for event in mcp::events(&event) {
                let Ok(value) = serde_json::from_slice::<Value>(&event.data) else { continue };
                let text = if json { value.to_string() } else { written(&value, colours) };
                if !table::line(&text) {
                    return Ok(()); // nobody reads on
                }
            }
        }
        if read.len() > EVENT_LEN_MAX {
            bail!("{} tells what is no event", admin.url());
        }
    }
}

/// One line: when, who says it, what, and all there is to say of it.
fn written(event: &Value, colours: bool) -> String {
    let (kind, node) = (word(&event["kind"]), word(&event["node"]));
    let gap = 14_usize.saturating_sub(kind.chars().count());
    let kind = if colours { painted(&kind) } else { kind };
    let facts = event.as_object().into_iter().flatten();
    let facts = facts.filter(|(key, _)| !matches!(key.as_str(), "id" | "at" | "node" | "kind"));
    let facts = facts.map(|(key, value)| match value {
        Value::Array(listed) => format!("{key}={}", listed.iter().map(word).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            format!("{key}={}", word(value))
        }
    });
    let facts: Vec<_> = facts.collect();
    let at = event["at"].as_u64().map_or_else(|| "-".to_owned(), time);
    format!("{at}  {node:<12}  {kind}{:gap$}  {}", "", facts.join(" ")).trim_end().to_owned()
}

/// Milliseconds since the Unix epoch, as UTC in the form of RFC 3339.
fn time(ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + Duration::from_millis(ms);
    let date = httpdate::HttpDate::from(at).to_string();
    // `Sun, 06 Nov 1994 08:49:37 GMT`, as RFC 9110 has it: always of this length.
    let word = |from: usize, to: usize| date.get(from..to).unwrap_or_default();
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|month| *month == word(8, 11)).map_or(0, |at| at + 1);
    format!("{}-{month:02}-{}T{}.{:03}Z", word(12, 16), word(5, 7), word(17, 25), ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line_that_says_everything() {
        let event = json!({
            "id": 7, "at": 784_111_777_042_u64, "node": "a", "kind": "verdict", "name": "b", "heirs": ["a", "c"],
        });
        let line = written(&event, false);
        assert_eq!(line, "1994-11-06T08:49:37.042Z  a             verdict         heirs=a,c name=b");
        let coloured = written(&event, true).replace("\u{1b}[33m", "").replace("\u{1b}[0m", "");
        assert_eq!(coloured, line);
        assert!(written(&json!({"kind": "missed", "missed": 3}), false).ends_with("missed=3"));
    }
}
