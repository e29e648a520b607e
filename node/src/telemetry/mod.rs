//! What a node says of itself: [`logging`] on stderr, [`metrics`] that `/metrics` shows, and spans of sampled
//! requests for a collector.
//!
//! [`listed`] is the list of all metrics, [`requests`] and [`peers`] count what happens most often without
//! looking names up, [`process`] is what the system knows of this process, and [`text`] the formats.
//! [`traceparent`] reads the header that a trace is known by, [`traces`] makes spans, and [`otlp`] sends them.

mod deaths;
mod listed;
mod logging;
mod metrics;
mod otlp;
mod peers;
mod process;
mod requests;
mod text;
mod traceparent;
mod traces;

pub(crate) use logging::{LogFormat, start_logging};
pub(crate) use metrics::{
    ErrorLabels, EventLabels, Metrics, OutcomeLabels, PhaseLabels, RouteLabels, SecretLabels,
    SecretUseLabels, StateLabels, StrangerLabels, TakeoverLabels, WhyLabels,
};
pub(crate) use otlp::{Outbox, WAITING_MAX, export};
pub(crate) use peers::Forwarded;
pub(crate) use requests::{ANSWERED, Requests, Way};
pub(crate) use text::Format;
pub(crate) use traceparent::TRACEPARENT;
pub(crate) use traces::{Kind, trace_id};
