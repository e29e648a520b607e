//! Ringway: a cluster of equal gateway nodes for the Model Context Protocol.

mod admin;
mod answer;
mod app;
mod ask;
mod cli;
mod clock;
mod cluster;
mod config;
mod drain;
mod effects;
mod front;
mod gossip;
mod headers;
mod journey;
mod leaving;
mod mcp;
mod meeting;
mod open_files;
mod peer;
mod sessions;
mod telemetry;
mod upgraded;
mod upstream;

use clap::Parser;
use std::process::ExitCode;

/// Allocation is 8 % of what a forwarded request costs with the system's allocator, and glibc gives
/// nothing back after many streams have closed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
