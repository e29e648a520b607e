//! Ringway as processes: clusters, upstreams and SDK clients on this machine. One program for all of these
//! tests, so that they are linked once.
//!
//! What needs Node.js, Python or a registry and can't have it says `LEFT OUT` and passes, unless
//! `RINGWAY_REQUIRE_CLIENTS=1`.

#![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed

mod admin;
mod admin_token;
mod bad_input;
mod bare;
mod cli;
mod conformance;
mod dashboard;
mod discreet;
mod drain;
mod end_session;
mod events;
mod forged;
mod get_streams;
mod http_sse;
mod http_sse_servers;
mod https;
mod join;
mod large_answers;
mod limits;
mod lost_and_found;
mod modern;
mod orphans;
mod plain_routes;
mod prepare;
mod principals;
mod promtool;
mod rotation;
mod sdk_clients;
mod sessions;
mod sessions_listing;
mod slow_clients;
mod standing_streams;
mod stdio;
mod stdio_limits;
mod stdio_loss;
mod stdio_streams;
mod storm;
mod stranger;
mod streams;
mod takeover;
mod tls;
mod traces;
mod transports;
mod upgrades;
mod upstreams;
