//! Real parts: processes, sockets, SDK clients. What a simulator can't show.
//!
//! `cluster` and `upstream` start the processes, `clients` drives SDKs against them, `http` and `mcp` speak by
//! hand, `balancer` stands in front; `install` and `binaries` bring the programs, `wait` waits for conditions.

pub mod balancer;
pub mod binaries;
pub mod clients;
pub mod cluster;
pub mod conformance;
pub mod http;
pub mod http_sse;
pub mod install;
pub mod mcp;
pub mod metrics;
pub mod places;
pub mod process;
pub mod upstream;
pub mod wait;
