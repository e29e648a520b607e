//! Real parts: processes, sockets, SDK clients. What a simulator can't show.
//!
//! `cluster` and `upstream` start the processes, with the routes that `route` writes. `clients` drives SDKs against
//! them and `tours` takes SDKs through whole servers; `http`, `mcp` and `http_sse` speak by hand, `balancer` stands in
//! front. `install`, `chromium` and `binaries` bring the programs, `conformance` runs the official suites, `wait` waits
//! for conditions, `marked` finds what was left behind, `recorder` keeps what it is asked, `prometheus` scrapes.

pub mod balancer;
pub mod binaries;
pub mod browser;
pub mod chromium;
pub mod clients;
pub mod cluster;
pub mod conformance;
pub mod http;
pub mod http_sse;
pub mod install;
pub mod issuer;
pub mod marked;
pub mod mcp;
pub mod metrics;
pub mod places;
pub mod process;
pub mod prometheus;
pub mod recorder;
pub mod route;
pub mod tours;
pub mod upstream;
pub mod wait;
