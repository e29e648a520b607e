//! Counts the requests of clients. This happens for every one of them, so whatever can be looked up is looked
//! up when the node starts: an answered request costs two atomic additions and a histogram's short lock, and
//! allocates nothing. Requests that come to nothing may cost more.

use super::metrics::{Metrics, RequestLabels, WayLabels};
use crate::config::Route;
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By this node.
    Local,
    /// By another node.
    Forwarded,
    /// By this node or another, after a session's owner was lost: this request waited for it to go on.
    Takeover,
    /// By nobody behind this node.
    Refused,
}

impl Way {
    const ALL: [Self; 4] = [Self::Local, Self::Forwarded, Self::Takeover, Self::Refused];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Forwarded => "forwarded",
            Self::Takeover => "takeover",
            Self::Refused => "refused",
        }
    }
}

/// What an answered request is counted as.
pub(crate) const ANSWERED: &str = "answered";
const HOPS: [&str; 2] = ["0", "1"];

/// The handles of all that is counted for each request.
pub(crate) struct Requests {
    metrics: Arc<Metrics>,
    /// In the order of the configuration: the route's path, and answered requests by hops.
    routes: Vec<(String, [Counter; 2])>,
    seconds: [Histogram; 4],
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Requests(of {} routes)", self.routes.len())
    }
}

impl Metrics {
    /// Requests of clients, all together.
    pub(crate) fn all_requests(&self) -> u64 {
        self.requests_all.load(Ordering::Relaxed)
    }
}

impl Requests {
    pub(crate) fn of(metrics: &Arc<Metrics>, routes: &[Arc<Route>]) -> Self {
        let answered = |route: &Arc<Route>| {
            let count = |hops| {
                let labels = RequestLabels { route: route.path.clone(), outcome: ANSWERED, hops };
                metrics.requests.get_or_create_owned(&labels)
            };
            (route.path.clone(), HOPS.map(count))
        };
        let seconds =
            Way::ALL.map(|way| metrics.request_seconds.get_or_create_owned(&WayLabels { way: way.word() }));
        Self { metrics: metrics.clone(), routes: routes.iter().map(answered).collect(), seconds }
    }

    /// One request, to the route at that place of the configuration.
    pub(crate) fn count(
        &self,
        route: Option<usize>,
        outcome: &'static str,
        was_forwarded: bool,
        way: Way,
        took: Duration,
    ) {
        let (route, hops) = (route.and_then(|at| self.routes.get(at)), usize::from(was_forwarded));
        match route {
            Some((_, answered)) if outcome == ANSWERED => drop(answered[hops].inc()),
            Some(_) | None => {
                let route = route.map(|(path, _)| path.clone()).unwrap_or_default();
                let labels = RequestLabels { route, outcome, hops: HOPS[hops] };
                self.metrics.requests.get_or_create(&labels).inc();
            }
        }
        self.metrics.requests_all.fetch_add(1, Ordering::Relaxed);
        self.seconds[way as usize].observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::tests::route;
    use crate::config::Protocol;

    fn requests() -> (Arc<Metrics>, Requests) {
        let metrics = Arc::new(Metrics::new());
        let requests = Requests::of(&metrics, &[Arc::new(route(Protocol::Mcp, None))]);
        (metrics, requests)
    }

    #[test]
    fn requests_are_told_apart_by_route_outcome_hops_and_way() {
        let (metrics, requests) = requests();
        let took = Duration::from_millis(3);
        requests.count(Some(0), "answered", false, Way::Local, took);
        requests.count(Some(0), "answered", true, Way::Forwarded, took);
        requests.count(Some(0), "answered", true, Way::Takeover, took);
        requests.count(Some(0), "gone", false, Way::Refused, took);
        requests.count(None, "bad_request", false, Way::Refused, took);
        let text = metrics.render(crate::telemetry::Format::Plain);
        for line in [
            r#"ringway_requests_total{route="/x",outcome="answered",hops="0"} 1"#,
            r#"ringway_requests_total{route="/x",outcome="answered",hops="1"} 2"#,
            r#"ringway_requests_total{route="/x",outcome="gone",hops="0"} 1"#,
            r#"ringway_requests_total{route="",outcome="bad_request",hops="0"} 1"#,
            r#"ringway_request_seconds_count{way="local"} 1"#,
            r#"ringway_request_seconds_count{way="forwarded"} 1"#,
            r#"ringway_request_seconds_count{way="takeover"} 1"#,
            r#"ringway_request_seconds_count{way="refused"} 2"#,
            r#"ringway_request_seconds_bucket{le="0.004",way="local"} 1"#,
            r#"ringway_request_seconds_bucket{le="0.002",way="local"} 0"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
