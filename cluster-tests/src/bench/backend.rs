//! The upstream of the benchmark: an MCP server that does as little as one can. A process of its own.
//!
//! A POST without a session id opens a session, any other is answered at once with the same 190 bytes, or
//! with as many as it asks for. A GET is a stream that says one thing and then nothing, or the time again and again where it is asked to. It keeps no
//! sessions: what is measured is in front of it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Asks for an answer of so many bytes.
pub(super) const ANSWER_LEN_ASKED: &str = "x-bench-answer-len";

/// No load asks for more; a mistake must not fill the memory.
const ANSWER_LEN_MAX: usize = 64 << 20;

/// Asks a stream for the time, every so many milliseconds.
pub(super) const TICK_MS: &str = "x-bench-tick-ms";

const SESSION_ID: &str = "mcp-session-id";
const OPENED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench-backend","version":"1"}}}"#;

/// Serves on a free port and says on stdout, in one line, where.
pub async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the backend")?;
    println!("{READY}http://{}/mcp", listener.local_addr()?);
    let said = Arc::new(Answers::default());
    accept::forever(listener, move |request| answer(request, said.clone())).await
}

/// What POSTs are answered with, made once for each length.
#[derive(Debug, Default)]
struct Answers {
    opened: AtomicU64,
    called: Mutex<BTreeMap<usize, Bytes>>,
}

impl Answers {
    fn called(&self, len: usize) -> Bytes {
        let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        called.entry(len).or_insert_with(|| Bytes::from(answer_of(len))).clone()
    }
}

type Said = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;

async fn answer(request: Request<Incoming>, said: Arc<Answers>) -> Response<Either<Full<Bytes>, Said>> {
    if request.method() == Method::GET {
        return stream(number(&request, TICK_MS).map(Duration::from_millis)).map(Either::Right);
    }
    answer_post(request, &said).await.map(Either::Left)
}

async fn answer_post(request: Request<Incoming>, said: &Answers) -> Response<Full<Bytes>> {
    let has_session = request.headers().contains_key(SESSION_ID);
    let asked = number(&request, ANSWER_LEN_ASKED).and_then(|len| usize::try_from(len).ok());
    // Read to its end, or the connection could not be used again; piece by piece, since nothing of it is kept.
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let mut response = Response::new(Full::new(if has_session {
        said.called(asked.unwrap_or(ANSWER_LEN).min(ANSWER_LEN_MAX))
    } else {
        Bytes::from_static(OPENED.as_bytes())
    }));
    if !has_session {
        let id = session_id(said.opened.fetch_add(1, Ordering::Relaxed));
        response.headers_mut().insert(SESSION_ID, HeaderValue::from_str(&id).expect("hexadecimal digits"));
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn number(request: &Request<Incoming>, header: &str) -> Option<u64> {
    request.headers().get(header).and_then(|value| value.to_str().ok()?.parse().ok())
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

/// The answer to a call, of this length or of the least that one can have.
fn answer_of(len: usize) -> String {
    let wrap = |text: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#)
    };
    wrap(&"x".repeat(len.saturating_sub(wrap("").len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_json_of_their_length() {
        let called = [ANSWER_LEN, 65_536].map(answer_of);
        assert_eq!([called[0].len(), called[1].len()], [ANSWER_LEN, 65_536]);
        for text in [called[0].as_str(), called[1].as_str(), OPENED] {
            let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(json["id"], 1);
        }
        assert_eq!(session_id(7).len(), 36);
    }
}
