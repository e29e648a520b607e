//! The upstream of the benchmark: an MCP server that does as little as one can. A process of its own.
//!
//! A POST without a session id opens a session, any other is answered at once with the same 190 bytes. A GET is a
//! stream that says one thing and then nothing, or the time again and again where it is asked to. It keeps no
//! sessions: what is measured is in front of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::accept;

pub(super) const ANSWER_LEN: usize = 190;
pub(super) const READY: &str = "bench-backend ready ";

/// Asks a stream for the time, every so many milliseconds.
pub(super) const TICK_MS: &str = "x-bench-tick-ms";

const SESSION_ID: &str = "mcp-session-id";
const OPENED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench-backend","version":"1"}}}"#;

/// Serves on a free port and says on stdout, in one line, where.
pub async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the backend")?;
    println!("{READY}http://{}/mcp", listener.local_addr()?);
    let (opened, called) = (Arc::new(AtomicU64::new(0)), Bytes::from(called()));
    accept::forever(listener, move |request| answer(request, opened.clone(), called.clone())).await
}

type Said = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;

async fn answer(
    request: Request<Incoming>,
    opened: Arc<AtomicU64>,
    called: Bytes,
) -> Response<Either<Full<Bytes>, Said>> {
    if request.method() == Method::GET {
        let tick = request.headers().get(TICK_MS).and_then(|value| value.to_str().ok()?.parse().ok());
        return stream(tick.map(Duration::from_millis)).map(Either::Right);
    }
    answer_post(request, opened, called).await.map(Either::Left)
}

async fn answer_post(
    request: Request<Incoming>,
    opened: Arc<AtomicU64>,
    called: Bytes,
) -> Response<Full<Bytes>> {
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

fn stream(tick: Option<Duration>) -> Response<Said> {
    let (events, said) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut number = 0_u64;
        loop {
            let event = format!("id: {number}\ndata: {}\n\n", clock_ns());
            if events.send(Ok(Frame::data(Bytes::from(event)))).await.is_err() {
                return;
            }
            number += 1;
            match tick {
                Some(tick) => tokio::time::sleep(tick).await,
                None => return events.closed().await,
            }
        }
    });
    let mut response = Response::new(StreamBody::new(ReceiverStream::new(said)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// The system's clock in nanoseconds: the one thing that two processes can compare.
pub(super) fn clock_ns() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos()
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
