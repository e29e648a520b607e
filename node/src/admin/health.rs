//! What balancers and Prometheus ask.

use super::text;
use crate::answer::Answer;
use crate::headers::Headers;
use crate::journey::Journey;
use crate::telemetry::{Format, StateLabels};
use hyper::StatusCode;
use proto::core::view::Phase;

pub(super) fn readiness(journey: &Journey) -> Answer {
    let unready = |why: &'static str| text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", why);
    match journey.cluster.phase() {
        Phase::Active if journey.cluster.is_leased() => text(StatusCode::OK, "text/plain", "ready\n"),
        Phase::Active => unready("parked: too few of the other nodes answer this one\n"),
        Phase::Joining => unready("joining: no other node has answered yet\n"),
        Phase::Draining | Phase::Dead => unready("draining\n"),
    }
}

/// What is not counted as it happens is looked at when somebody asks.
pub(super) fn metrics(journey: &Journey, asked: &Headers) -> Answer {
    let metrics = &journey.metrics;
    let (live, idle) = journey.sessions.census();
    for (state, count) in [("live", live), ("idle", idle)] {
        let gauge = metrics.sessions.get_or_create(&StateLabels { state }).clone();
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    metrics.children.set(i64::try_from(journey.sessions.children()).unwrap_or(i64::MAX));
    let (now, serves_until) = journey.cluster.lease();
    metrics.set_lease(now, serves_until);
    let format = Format::asked_for(asked);
    text(StatusCode::OK, format.content_type(), metrics.render(format))
}
