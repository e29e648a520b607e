//! Logs on stderr, and the metrics that `/metrics` shows.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::{fmt, io};
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Begins to log; `filter` is in `tracing`'s own language (`info`, `ringway=debug,quinn=warn`).
pub(crate) fn start_logging(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log {filter:?}: {error}"))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => logs.with_ansi(false).init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) route: String,
    pub(crate) outcome: &'static str,
    pub(crate) hops: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct HopLabels {
    pub(crate) hops: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ForwardLabels {
    pub(crate) peer: String,
    pub(crate) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct PhaseLabels {
    pub(crate) phase: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct StateLabels {
    pub(crate) state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct WhyLabels {
    pub(crate) why: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct TakeoverLabels {
    pub(crate) how: &'static str,
    pub(crate) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    pub(crate) outcome: &'static str,
}

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) request_seconds: Family<HopLabels, Histogram>,
    pub(crate) gone: Family<WhyLabels, Counter>,
    pub(crate) forwards: Family<ForwardLabels, Counter>,
    pub(crate) takeovers: Family<TakeoverLabels, Counter>,
    pub(crate) sessions: Family<StateLabels, Gauge>,
    pub(crate) members: Family<PhaseLabels, Gauge>,
    pub(crate) streams: Gauge,
    pub(crate) children: Gauge,
    pub(crate) reattached: Family<OutcomeLabels, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // 0.25 ms to 8 s in factors of two: from a local call to a patient tool.
        let seconds = || Histogram::new(exponential_buckets(0.000_25, 2.0, 16));
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            gone: Family::default(),
            forwards: Family::default(),
            takeovers: Family::default(),
            sessions: Family::default(),
            members: Family::default(),
            streams: Gauge::default(),
            children: Gauge::default(),
            reattached: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "ringway_requests",
            "Requests by route, outcome and peer hops",
            metrics.requests.clone(),
        );
        registry.register(
            "ringway_request_seconds",
            "Time from the whole request to the head of its answer",
            metrics.request_seconds.clone(),
        );
        registry.register(
            "ringway_session_not_found",
            "404 answers by the reason that clients do not see",
            metrics.gone.clone(),
        );
        registry.register(
            "ringway_forwards",
            "Requests sent to the owning node, by node and outcome",
            metrics.forwards.clone(),
        );
        registry.register(
            "ringway_takeovers",
            "Sessions of nodes that are over, by how they went on here, and whether they did",
            metrics.takeovers.clone(),
        );
        registry.register("ringway_sessions", "Sessions that this node owns", metrics.sessions.clone());
        registry.register("ringway_members", "Members of the cluster by phase", metrics.members.clone());
        registry.register(
            "ringway_streams",
            "Answers that this node is sending to clients",
            metrics.streams.clone(),
        );
        registry.register("ringway_children", "Child processes of stdio servers", metrics.children.clone());
        registry.register(
            "ringway_reattached",
            "Clients' event streams that lost their owner, by what became of them",
            metrics.reattached.clone(),
        );
        metrics
    }

    /// The OpenMetrics text, which Prometheus reads.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory can't fail");
        text
    }
}
