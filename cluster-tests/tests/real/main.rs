//! Ringway as processes: clusters, upstreams and SDK clients on this machine. One program for all of these
//! tests, so that they are linked once.
//!
//! What needs Node.js, Python or a registry and can't have it says `LEFT OUT` and passes, unless
//! `RINGWAY_REQUIRE_CLIENTS=1`.

#![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed

mod admin;
mod bad_input;
mod bare;
mod cli;
mod conformance;
mod drain;
mod get_streams;
mod http_sse;
mod http_sse_servers;
mod join;
mod large_answers;
mod lost_and_found;
mod modern;
mod orphans;
mod plain_routes;
mod prepare;
mod sdk_clients;
mod sessions;
mod standing_streams;
mod stdio;
mod stdio_limits;
mod stdio_loss;
mod stdio_streams;
mod stranger;
mod streams;
mod takeover;
mod transports;
mod upgrades;
mod upstreams;
