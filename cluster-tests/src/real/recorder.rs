//! A server that answers everything with `{}` and keeps what it was asked: an upstream whose headers a test looks at,
//! or a collector of spans. Called by the tests of traces.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request, whole.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Recorder {
    pub at: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    serving: JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Recorder {
    /// On a free port.
    pub async fn start() -> anyhow::Result<Recorder> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (at, asked) = (listener.local_addr()?, Arc::<Mutex<Vec<Asked>>>::default());
        let serving = tokio::spawn(serve(listener, asked.clone()));
        Ok(Recorder { at, asked, serving })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// Everything so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of every request so far that was an export in OTLP's JSON, each with its node under `node`.
    pub fn spans(&self) -> Vec<Value> {
        let exports = self.asked().into_iter().filter(|asked| asked.path == "/v1/traces");
        let bodies = exports.filter_map(|asked| serde_json::from_slice::<Value>(&asked.body).ok());
        let listed = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut spans = Vec::new();
        for resource in bodies.flat_map(|body| listed(&body["resourceSpans"])) {
            let attributes = listed(&resource["resource"]["attributes"]);
            let node = attributes.iter().find(|attribute| attribute["key"] == "service.instance.id");
            let node = node.map(|attribute| attribute["value"]["stringValue"].clone()).unwrap_or_default();
            for mut span in listed(&resource["scopeSpans"]).iter().flat_map(|scope| listed(&scope["spans"])) {
                span["node"] = node.clone();
                spans.push(span);
            }
        }
        spans
    }
}

async fn serve(listener: TcpListener, asked: Arc<Mutex<Vec<Asked>>>) {
    while let Ok((connection, _)) = listener.accept().await {
        let asked = asked.clone();
        let service = service_fn(move |request| {
            let asked = asked.clone();
            async move { Ok::<_, Infallible>(record(request, &asked).await) }
        });
        // It ends with its connection, or with the test.
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service),
        );
    }
}

async fn record(request: Request<Incoming>, asked: &Mutex<Vec<Asked>>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let one = Asked { path: head.uri.path().to_owned(), headers: head.headers, body };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    let mut answer = Response::new(Full::from("{}"));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
