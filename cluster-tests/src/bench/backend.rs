//! The upstream of the benchmark: an MCP server that does as little as one can. A process of its own.
//!
//! A POST without a session id opens a session, any other is answered at once with the same 190 bytes. It keeps
//! no sessions: what is measured is in front of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use tokio::net::TcpListener;

use super::accept;

pub(super) const ANSWER_LEN: usize = 190;
pub(super) const READY: &str = "bench-backend ready ";

const SESSION_ID: &str = "mcp-session-id";
const OPENED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench-backend","version":"1"}}}"#;

/// Serves on a free port and says on stdout, in one line, where.
pub async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the backend")?;
    println!("{READY}http://{}/mcp", listener.local_addr()?);
    let (opened, called) = (Arc::new(AtomicU64::new(0)), Bytes::from(called()));
    accept::forever(listener, move |request| answer(request, opened.clone(), called.clone())).await
}

async fn answer(request: Request<Incoming>, opened: Arc<AtomicU64>, called: Bytes) -> Response<Full<Bytes>> {
    let has_session = request.headers().contains_key(SESSION_ID);
    // Read to its end, or the connection could not be used again.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(called));
    if !has_session {
        *response.body_mut() = Full::new(Bytes::from_static(OPENED.as_bytes()));
        let id = session_id(opened.fetch_add(1, Ordering::Relaxed));
        response.headers_mut().insert(SESSION_ID, HeaderValue::from_str(&id).expect("hexadecimal digits"));
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// As long as the UUIDs that SDK servers give.
fn session_id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn called() -> String {
    let wrap = |text: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#)
    };
    wrap(&"x".repeat(ANSWER_LEN - wrap("").len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_json_of_their_length() {
        assert_eq!(called().len(), ANSWER_LEN);
        for text in [called().as_str(), OPENED] {
            let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(json["id"], 1);
        }
        assert_eq!(session_id(7).len(), 36);
    }
}
