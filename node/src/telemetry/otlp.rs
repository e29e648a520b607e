//! Sends spans to a collector: OTLP over HTTP, as JSON, in batches.
//!
//! The protocol's JSON form is written here by hand. The OpenTelemetry crates would be ten more (and half a
//! minute of building with what is below them); they count nothing of what they drop and bring no client of their own without another HTTP
//! library, so that only ten fields of JSON would have been left to them.
//!
//! A collector that is slow or gone costs nobody anything: what has no room is dropped and counted.

use super::metrics::WhyLabels;
use super::traces::{Attribute, Finished, Kind};
use crate::config::Collector;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::{counter::Counter, family::Family};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{net::TcpStream, sync::mpsc, time::Instant};

/// Spans that wait to be sent, of some 300 bytes each.
pub(crate) const WAITING_MAX: usize = 4_096;
/// Spans in one request (some 200 KiB of JSON), and how long the first of them waits for the others.
const BATCH_MAX: usize = 512;
const BATCH_TIME: Duration = Duration::from_secs(1);
/// A collector beside the node answers within milliseconds.
const SEND_TIME_MAX: Duration = Duration::from_secs(5);
const ANSWER_LEN_MAX: usize = 64 * 1024;
/// A collector that is gone is spoken of this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Where spans are put, without waiting.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    spans: mpsc::Sender<Finished>,
    pub(super) counts: Arc<Counts>,
}

/// What became of spans.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) sent: Counter,
    pub(super) dropped: Family<WhyLabels, Counter>,
    /// There was no room.
    full: Counter,
    /// The collector did not take them.
    refused: Counter,
}

impl Default for Counts {
    fn default() -> Self {
        let dropped = Family::<WhyLabels, Counter>::default();
        let [full, refused] =
            ["full", "collector"].map(|why| dropped.get_or_create_owned(&WhyLabels { why }));
        Self { sent: Counter::default(), dropped, full, refused }
    }
}

/// The other end of an [`Outbox`].
pub(crate) type Waiting = mpsc::Receiver<Finished>;

impl Outbox {
    pub(crate) fn new(room: usize) -> (Self, Waiting) {
        let (spans, waiting) = mpsc::channel(room);
        (Self { spans, counts: Arc::default() }, waiting)
    }

    pub(super) fn put(&self, span: Finished) {
        if self.spans.try_send(span).is_err() {
            self.counts.full.inc();
        }
    }
}

/// Sends what comes, for as long as anything can come. `node` is who says so.
pub(crate) async fn export(collector: Collector, node: String, outbox: Outbox, mut waiting: Waiting) {
    let counts = outbox.counts.clone();
    drop(outbox);
    let mut complained: Option<Instant> = None;
    loop {
        let Some(batch) = next_batch(&mut waiting).await else { return };
        let count = batch.len() as u64;
        let sent = tokio::time::timeout(SEND_TIME_MAX, send(&collector, &node, &batch)).await;
        match sent.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {SEND_TIME_MAX:?}"))) {
            Ok(()) => drop(counts.sent.inc_by(count)),
            Err(error) => {
                counts.refused.inc_by(count);
                if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                    complained = Some(Instant::now());
                    tracing::warn!(%collector, %error, "the collector takes no spans: they are dropped");
                }
            }
        }
    }
}

async fn next_batch(waiting: &mut Waiting) -> Option<Vec<Finished>> {
    let mut batch = vec![waiting.recv().await?];
    let end = Instant::now() + BATCH_TIME;
    while batch.len() < BATCH_MAX {
        match tokio::time::timeout_at(end, waiting.recv()).await {
            Ok(Some(span)) => batch.push(span),
            Ok(None) | Err(_) => break,
        }
    }
    Some(batch)
}

/// On a connection of its own: one each second at most costs less than one that is kept and found dead.
async fn send(collector: &Collector, node: &str, batch: &[Finished]) -> anyhow::Result<()> {
    let stream = TcpStream::connect(collector.address()).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(collector.target())
        .header(header::HOST, collector.host())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::<Bytes>::from(body(node, batch).to_string()))?;
    let talking = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let said = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect().await;
        let said = said.map_err(|error| anyhow::anyhow!("its answer broke off: {error}"))?.to_bytes();
        anyhow::ensure!(status.is_success(), "it answers {status}");
        let partial: Value = serde_json::from_slice(&said).unwrap_or_default();
        let rejected = &partial["partialSuccess"]["rejectedSpans"];
        let none = rejected.is_null() || rejected == 0 || rejected == "0";
        anyhow::ensure!(none, "it rejects {rejected} of {} spans", batch.len());
        Ok(())
    };
    tokio::pin!(talking);
    tokio::select! {
        biased;
        done = &mut talking => done,
        ended = connection => {
            ended?;
            talking.await
        }
    }
}

/// `ExportTraceServiceRequest` in JSON: ids in hexadecimal digits, 64-bit numbers as strings.
fn body(node: &str, batch: &[Finished]) -> Value {
    let spans: Vec<_> = batch.iter().map(span).collect();
    let resource = [
        ("service.name", "ringway"),
        ("service.instance.id", node),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let resource = resource.map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}));
    let scope = json!({"name": "ringway", "version": env!("CARGO_PKG_VERSION")});
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }]})
}

fn span(span: &Finished) -> Value {
    let attributes = span.attributes.iter().map(|(key, value)| {
        let value = match value {
            Attribute::Text(text) => json!({"stringValue": text}),
            Attribute::Number(number) => json!({"intValue": number.to_string()}),
        };
        json!({"key": key, "value": value})
    });
    let attributes: Vec<_> = attributes.collect();
    json!({
        "traceId": format!("{:032x}", span.context.trace),
        "spanId": format!("{:016x}", span.context.span),
        "parentSpanId": span.parent.map(|parent| format!("{parent:016x}")).unwrap_or_default(),
        "name": span.name,
        // SPAN_KIND_SERVER, SPAN_KIND_CLIENT
        "kind": match span.kind { Kind::Server => 2, Kind::Client => 3 },
        "startTimeUnixNano": nanoseconds(span.started),
        "endTimeUnixNano": nanoseconds(span.ended),
        "attributes": attributes,
        // STATUS_CODE_UNSET, STATUS_CODE_ERROR
        "status": {"code": if span.failed { 2 } else { 0 }},
    })
}

fn nanoseconds(at: SystemTime) -> String {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Headers;
    use crate::telemetry::traces::Traces;
    use hyper::{Method, StatusCode};

    #[test]
    fn a_span_is_written_as_the_protocol_has_it() {
        let (outbox, mut waiting) = Outbox::new(1);
        let traces = Traces::into(outbox, 1.0);
        let mut entry = traces.enter(&mut Headers::new(), &Method::POST).expect("all are sampled");
        entry.rename("POST /mcp".into());
        entry.note("http.route", "/mcp");
        entry.note_status(StatusCode::BAD_GATEWAY);
        drop(entry);
        let body = body("a", &[waiting.try_recv().expect("a span")]);
        let [resource] = body["resourceSpans"].as_array().expect("a list").as_slice() else {
            panic!("{body}")
        };
        assert_eq!(resource["resource"]["attributes"][1]["value"]["stringValue"], "a");
        let span = &resource["scopeSpans"][0]["spans"][0];
        assert_eq!(
            (&span["name"], &span["kind"], &span["status"]["code"]),
            (&json!("POST /mcp"), &json!(2), &json!(2))
        );
        assert_eq!(
            (span["traceId"].as_str().map(str::len), span["spanId"].as_str().map(str::len)),
            (Some(32), Some(16))
        );
        assert_eq!(span["attributes"][1]["value"], json!({"intValue": "502"}));
        let time = |key: &str| {
            span[key].as_str().and_then(|ns| ns.parse::<u64>().ok()).expect("a number as a string")
        };
        assert!(
            time("endTimeUnixNano") >= time("startTimeUnixNano")
                && time("startTimeUnixNano") > 1_700_000_000_000_000_000
        );
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        let (outbox, mut waiting) = Outbox::new(2);
        let (counts, traces) = (outbox.counts.clone(), Traces::into(outbox, 1.0));
        for _ in 0..5 {
            drop(traces.enter(&mut Headers::new(), &Method::GET));
        }
        assert_eq!(counts.full.get(), 3);
        assert!(waiting.try_recv().is_ok() && waiting.try_recv().is_ok() && waiting.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_collector_that_is_not_there_costs_its_spans_and_nothing_else() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", gone.local_addr().expect("bound"));
        drop(gone);
        let (outbox, waiting) = Outbox::new(8);
        let counts = outbox.counts.clone();
        let exporting = export(Collector::parse(&url).expect("a URL"), "a".into(), outbox.clone(), waiting);
        let traces = Traces::into(outbox, 1.0);
        drop(traces.enter(&mut Headers::new(), &Method::GET));
        drop(traces);
        exporting.await;
        assert_eq!((counts.refused.get(), counts.sent.get(), counts.full.get()), (1, 0, 0));
    }
}
