//! Ringway: a cluster of equal gateway nodes for the Model Context Protocol. The program is [`run`].

mod admin;
mod answer;
mod app;
mod ask;
mod auth;
#[doc(hidden)]
pub mod benching;
mod cli;
mod clock;
mod cluster;
mod config;
mod drain;
mod effects;
mod events;
mod everywhere;
mod front;
#[doc(hidden)]
pub mod fuzzing;
mod gossip;
mod headers;
mod journey;
mod leaving;
mod mcp;
mod meeting;
mod open_files;
mod opened;
mod peer;
mod reading;
mod rotation;
mod sessions;
mod telemetry;
mod tls;
mod upgraded;
mod upstream;
mod watched;

use clap::Parser;
use std::process::ExitCode;

/// The program, with the arguments of this process.
pub fn run() -> ExitCode {
    cli::run(cli::Cli::parse())
}
