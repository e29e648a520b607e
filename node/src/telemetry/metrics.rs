//! Everything that is counted, and the text that `/metrics` shows. What happens with every request is counted
//! by handles ([`super::requests`], [`super::peers`]); what is rare looks its labels up.

use super::deaths::Deaths;
use super::listed::{self, Type};
use super::otlp::Outbox;
use super::peers::Peers;
use super::process::Process;
use super::text::Format;
use super::traces::Traces;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};
use proto::id::NodeName;
use std::{fmt, sync::atomic::AtomicU64};

/// Declares label sets: which labels, and of which type their values are. Values are words of this program,
/// paths of the configuration and names of members: never anything that a client chooses.
macro_rules! labels {
    ($($set:ident { $($label:ident: $of:ty),+ })+) => { $(
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        pub(crate) struct $set { $(pub(crate) $label: $of),+ }
    )+ };
}

labels! {
    RequestLabels { route: String, outcome: &'static str, hops: &'static str }
    WayLabels { way: &'static str }
    ForwardLabels { peer: String, outcome: &'static str }
    PeerLabels { peer: String }
    PhaseLabels { phase: &'static str }
    StateLabels { state: &'static str }
    WhyLabels { why: &'static str }
    EndedLabels { why: &'static str }
    RouteLabels { route: String }
    ErrorLabels { route: String, reason: &'static str }
    TakeoverLabels { how: &'static str, outcome: &'static str }
    OutcomeLabels { outcome: &'static str }
    MouthLabels { mouth: &'static str }
    EventLabels { kind: &'static str }
    SecretLabels { fingerprint: String, role: &'static str }
    SecretUseLabels { fingerprint: String, by: &'static str }
    StrangerLabels { at: &'static str }
    BuildLabels { version: &'static str, node: String }
}

/// A gauge of seconds.
pub(crate) type Seconds = Gauge<f64, AtomicU64>;
type Histograms<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// Everything that is counted, and where spans go.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) traces: Traces,
    pub(super) requests: Family<RequestLabels, Counter>,
    /// The sum of them, which a family of counters does not give.
    pub(super) requests_all: AtomicU64,
    pub(super) request_seconds: Histograms<WayLabels>,
    pub(crate) gone: Family<WhyLabels, Counter>,
    pub(super) forwards: Family<ForwardLabels, Counter>,
    pub(super) forward_seconds: Histograms<PeerLabels>,
    pub(super) peers: Peers,
    pub(crate) takeovers: Family<TakeoverLabels, Counter>,
    pub(super) takeover_seconds: Histogram,
    pub(super) deaths: Deaths,
    pub(crate) over: Counter,
    pub(crate) reborn: Counter,
    pub(crate) sessions: Family<StateLabels, Gauge>,
    pub(crate) opened: Family<RouteLabels, Counter>,
    pub(crate) open_seconds: Histogram,
    pub(crate) ended: Family<EndedLabels, Counter>,
    pub(crate) members: Family<PhaseLabels, Gauge>,
    pub(crate) streams: Gauge,
    pub(crate) children: Gauge,
    pub(crate) reattached: Family<OutcomeLabels, Counter>,
    pub(crate) upstream_errors: Family<ErrorLabels, Counter>,
    connections: Family<MouthLabels, Counter>,
    pub(crate) events: Family<EventLabels, Counter>,
    pub(crate) secrets: Family<SecretLabels, Gauge>,
    pub(crate) secret_uses: Family<SecretUseLabels, Counter>,
    pub(crate) strangers: Family<StrangerLabels, Counter>,
    pub(crate) lease_held: Gauge,
    pub(crate) lease_remaining: Seconds,
    pub(crate) parked: Seconds,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

/// 0.25 ms to 32 s in factors of two: from a local call to a patient tool, with the 10 s that a request may
/// wait for its owner well inside.
fn fine() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
}

/// 0.25 ms to 16 s in factors of four: there are as many of these as there are nodes.
fn coarse() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 4.0, 9))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            traces: Traces::default(),
            requests: Family::default(),
            requests_all: AtomicU64::new(0),
            request_seconds: Family::new_with_constructor(fine),
            gone: Family::default(),
            forwards: Family::default(),
            forward_seconds: Family::new_with_constructor(coarse),
            peers: Peers::default(),
            takeovers: Family::default(),
            takeover_seconds: fine(),
            deaths: Deaths::default(),
            over: Counter::default(),
            reborn: Counter::default(),
            sessions: Family::default(),
            opened: Family::default(),
            open_seconds: fine(),
            ended: Family::default(),
            members: Family::default(),
            streams: Gauge::default(),
            children: Gauge::default(),
            reattached: Family::default(),
            upstream_errors: Family::default(),
            connections: Family::default(),
            events: Family::default(),
            secrets: Family::default(),
            secret_uses: Family::default(),
            strangers: Family::default(),
            lease_held: Gauge::default(),
            lease_remaining: Seconds::default(),
            parked: Seconds::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        self.add("ringway_requests_total", self.requests.clone());
        self.add("ringway_request_seconds", self.request_seconds.clone());
        self.add("ringway_session_not_found_total", self.gone.clone());
        self.add("ringway_forwards_total", self.forwards.clone());
        self.add("ringway_forward_seconds", self.forward_seconds.clone());
        self.add("ringway_takeovers_total", self.takeovers.clone());
        self.add("ringway_takeover_seconds", self.takeover_seconds.clone());
        self.add("ringway_deaths_total", self.over.clone());
        self.add("ringway_rebirths_total", self.reborn.clone());
        self.add("ringway_sessions", self.sessions.clone());
        self.add("ringway_sessions_opened_total", self.opened.clone());
        self.add("ringway_session_open_seconds", self.open_seconds.clone());
        self.add("ringway_sessions_ended_total", self.ended.clone());
        self.add("ringway_members", self.members.clone());
        self.add("ringway_streams", self.streams.clone());
        self.add("ringway_children", self.children.clone());
        self.add("ringway_reattached_total", self.reattached.clone());
        self.add("ringway_upstream_errors_total", self.upstream_errors.clone());
        self.add("ringway_connections_total", self.connections.clone());
        self.add("ringway_events_total", self.events.clone());
        self.add("ringway_secrets", self.secrets.clone());
        self.add("ringway_other_secret_uses_total", self.secret_uses.clone());
        self.add("ringway_strangers_total", self.strangers.clone());
        self.add("ringway_lease_held", self.lease_held.clone());
        self.add("ringway_lease_remaining_seconds", self.lease_remaining.clone());
        self.add("ringway_parked_seconds", self.parked.clone());
        self.registry.register_collector(Box::new(Process));
    }

    /// Those of a running node: who it is, what its socket has sent and received, and where its spans go with
    /// which share of requests beginning a trace.
    pub(crate) fn of_node(
        name: &NodeName,
        [sent, received]: [Counter; 2],
        traces: Option<(Outbox, f64)>,
    ) -> Self {
        let mut metrics = Self::new();
        let build = Family::<BuildLabels, Gauge>::default();
        let labels = BuildLabels { version: env!("CARGO_PKG_VERSION"), node: name.to_string() };
        build.get_or_create(&labels).set(1);
        metrics.add("ringway_build_info", build);
        metrics.add("ringway_peer_sent_bytes_total", sent);
        metrics.add("ringway_peer_received_bytes_total", received);
        if let Some((outbox, share)) = traces {
            metrics.add("ringway_spans_sent_total", outbox.counts.sent.clone());
            metrics.add("ringway_spans_dropped_total", outbox.counts.dropped.clone());
            metrics.traces = Traces::into(outbox, share);
        }
        metrics
    }

    /// Counts connections that are accepted there.
    pub(crate) fn connections(&self, mouth: &'static str) -> Counter {
        self.connections.get_or_create_owned(&MouthLabels { mouth })
    }

    /// Counts a session among those that have ended, and it is one less.
    pub(crate) fn session_ended(&self, why: &'static str) {
        self.ended.get_or_create(&EndedLabels { why }).inc();
    }

    /// For how long this node may serve, or for how long it has not been allowed to.
    pub(crate) fn set_lease(&self, now_ms: u64, serves_until_ms: u64) {
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e3;
        self.lease_held.set(i64::from(now_ms < serves_until_ms));
        self.lease_remaining.set(seconds(now_ms, serves_until_ms));
        // One that has never been allowed to joins, and has not been parked.
        self.parked.set(if serves_until_ms == 0 { 0.0 } else { seconds(serves_until_ms, now_ms) });
    }

    /// What `/metrics` shows.
    pub(crate) fn render(&self, format: Format) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory can't fail");
        format.write(text)
    }

    fn add(&mut self, name: &'static str, metric: impl Metric) {
        let listed = listed::of(name);
        // The library adds that to counters itself.
        let name =
            if listed.of == Type::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name };
        self.registry.register(name, listed.help, metric);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Requests;
    use crate::telemetry::listed::LISTED;
    use std::{collections::BTreeSet, fmt::Write as _, path::Path, sync::Arc};

    /// A node's metrics, of which each has been seen once: a family without samples is not shown.
    fn whole() -> Arc<Metrics> {
        let name = "a".parse().expect("a plain name");
        let metrics = Metrics::of_node(&name, Default::default(), Some((Outbox::new(1).0, 0.0)));
        let metrics = Arc::new(metrics);
        let route = || "/x".to_owned();
        let route_at = Arc::new(crate::ask::tests::route(crate::config::Protocol::Mcp, None));
        drop(Requests::of(&metrics, &[route_at]));
        metrics.gone.get_or_create(&WhyLabels { why: "forged" }).inc();
        metrics.forwards.get_or_create(&ForwardLabels { peer: "b".into(), outcome: "answered" }).inc();
        metrics.forward_seconds.get_or_create(&PeerLabels { peer: "b".into() }).observe(0.1);
        metrics.takeovers.get_or_create(&TakeoverLabels { how: "reattach", outcome: "served" }).inc();
        metrics.sessions.get_or_create(&StateLabels { state: "live" }).set(1);
        metrics.members.get_or_create(&PhaseLabels { phase: "active" }).set(1);
        metrics.opened.get_or_create(&RouteLabels { route: route() }).inc();
        metrics.session_ended("deleted");
        metrics.reattached.get_or_create(&OutcomeLabels { outcome: "resumed" }).inc();
        metrics.upstream_errors.get_or_create(&ErrorLabels { route: route(), reason: "overloaded" }).inc();
        metrics.connections("clients").inc();
        metrics.events.get_or_create(&EventLabels { kind: "joined" }).inc();
        let fingerprint = || "01234567".to_owned();
        metrics.secrets.get_or_create(&SecretLabels { fingerprint: fingerprint(), role: "used" }).set(1);
        let labels = SecretUseLabels { fingerprint: fingerprint(), by: "client" };
        metrics.secret_uses.get_or_create(&labels).inc();
        metrics.strangers.get_or_create(&StrangerLabels { at: "datagram" }).inc();
        metrics
    }

    #[test]
    fn what_is_shown_is_what_is_listed_and_of_that_type() {
        let text = whole().render(Format::Plain);
        let of = |of| match of {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        let described = |listed: &listed::Listed| {
            let listed::Listed { name, of: kind, help, .. } = listed;
            format!("# HELP {name} {help}.\n# TYPE {name} {}\n", of(*kind))
        };
        for listed in &LISTED {
            assert!(text.contains(&described(listed)), "{}\n{text}", described(listed));
        }
        let shown = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let shown: BTreeSet<_> = shown.collect();
        assert_eq!(shown, LISTED.iter().map(|listed| listed.name).collect::<BTreeSet<_>>());
        assert!(whole().render(Format::OpenMetrics).ends_with("# EOF\n"));
    }

    #[test]
    fn labels_are_those_that_are_listed() {
        let text = whole().render(Format::Plain);
        for listed in &LISTED {
            let samples = text.lines().filter(|line| {
                line.strip_prefix(listed.name).is_some_and(|rest| {
                    rest.starts_with(['{', ' ']) || rest.starts_with("_bucket") || rest.starts_with("_sum")
                })
            });
            let samples: Vec<_> = samples.collect();
            assert!(!samples.is_empty(), "{}: no sample\n{text}", listed.name);
            let expected = listed
                .labels
                .split([',', ';'])
                .map(|label| label.split('=').next().unwrap_or_default().trim());
            let expected: Vec<_> = expected.collect();
            let values = ["local", "forwarded", "takeover", "refused"];
            for sample in samples {
                let labels = sample.split_once('{').map_or("", |(_, rest)| rest);
                let named = labels.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0));
                for label in named.filter(|label| *label != "le") {
                    let known = expected.contains(&label) && !values.contains(&label);
                    assert!(known, "{sample}: {label} is not listed as one of {expected:?}");
                }
            }
        }
    }

    /// Where dashboards, alerts and the list for people are.
    fn deployed(file: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn the_list_for_people_is_the_list() {
        let mut text = String::from(
            "# Metrics\n\nWhat `GET /metrics` on the admin address shows, in Prometheus' text format or in \
             OpenMetrics, as is asked for.\nThis is written by the test that compares it with the program; \
             labels never hold anything that a client chooses.\n\n| name | type | labels | what it is |\n\
             |---|---|---|---|\n",
        );
        for listed::Listed { name, of, labels, help } in &LISTED {
            let of = format!("{of:?}").to_lowercase();
            writeln!(text, "| `{name}` | {of} | {labels} | {help} |").expect("writing to memory can't fail");
        }
        if std::env::var_os("RINGWAY_WRITE_METRICS").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/METRICS.md");
            std::fs::write(path, &text).expect("the folder is there");
        }
        let how = "RINGWAY_WRITE_METRICS=1 cargo test -p ringway the_list_for_people writes it";
        assert!(deployed("METRICS.md") == text, "deploy/METRICS.md is not the list: {how}");
    }

    #[test]
    fn dashboards_and_alerts_ask_for_nothing_that_is_not_there() {
        for file in ["grafana/ringway.json", "prometheus/alerts.yml", "prometheus/alerts_test.yml"] {
            let text = deployed(file);
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let words = text.split(|c| !is_word(c));
            let used: BTreeSet<_> =
                words.filter(|word| word.starts_with("ringway_") || word.starts_with("process_")).collect();
            assert!(used.len() >= 5, "{file}: {used:?}");
            for word in used {
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
                let is = |listed: &listed::Listed| {
                    listed.name == word || (listed.of == Type::Histogram && base == Some(listed.name))
                };
                assert!(LISTED.iter().any(is), "{file} asks for {word}");
            }
        }
    }

    #[test]
    fn a_lease_counts_down_and_what_comes_after_it_up() {
        let metrics = Metrics::new();
        let seen = |now, until| {
            metrics.set_lease(now, until);
            (metrics.lease_held.get(), metrics.lease_remaining.get(), metrics.parked.get())
        };
        assert_eq!(seen(5_000, 0), (0, 0.0, 0.0), "it joins");
        assert_eq!(seen(5_000, 6_200), (1, 1.2, 0.0));
        assert_eq!(seen(9_200, 6_200), (0, 0.0, 3.0));
    }
}
