//! The commands. Exit codes: 0 done, 1 failed while running, 2 wrong usage or configuration.

mod admin;
mod ask;
mod check;
mod demo;
mod drain;
mod events;
mod mcp_demo;
mod memory;
mod node;
mod process;
mod sessions;
mod table;

use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use crate::telemetry::LogFormat;
use crate::upstream;

/// A cluster of equal gateway nodes for the Model Context Protocol: any node serves any session.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node until SIGTERM or SIGINT
    Node(Box<NodeArgs>),
    /// Run a local cluster to try, with a built-in MCP server
    Demo(DemoArgs),
    /// Run the built-in demo MCP server: stdio, or HTTP when an address is given
    McpDemo {
        /// Serve HTTP at this address instead of stdio
        #[arg(long, value_name = "ADDR")]
        http: Option<SocketAddr>,
    },
    /// Print a new cluster secret
    Secret,
    /// Validate a configuration; every mistake at once, each with its line
    Check {
        /// The configuration, TOML
        file: PathBuf,
    },
    /// Ask a node who the members are
    Members(AdminArgs),
    /// Ask a node for the ring and each node's share of it
    Ring(AdminArgs),
    /// Ask a node who owns a session, and why
    Locate {
        /// The session id, as in the Mcp-Session-Id header or as `ringway sessions` shows it
        id: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List the sessions that a node serves, or the whole cluster
    Sessions(SessionsArgs),
    /// End a session, wherever it is: its client is answered 404 from then on
    End {
        /// The session id, as in the Mcp-Session-Id header or as `ringway sessions` shows it
        id: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Show what has happened to the cluster lately, and what happens, until Ctrl-C
    Events(AdminArgs),
    /// Keep the child processes of the node that has started this
    #[command(hide = true)]
    Guardian,
    /// Have a node leave, and wait until it has: its sessions go to others, its calls finish
    Drain {
        /// Seconds that it may take; what is in progress then is cut off
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=86_400))]
        deadline: u64,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Configuration, TOML; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This node's name, unique in the cluster [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// Where clients connect, HTTP [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where nodes connect, QUIC over UDP and lifelines over TCP [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    peer: Option<String>,
    /// What other nodes dial to reach this one [default: the peer address]
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    /// Where operators connect, HTTP [default: 127.0.0.1:9400]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A node to join; may be given several times, host names are resolved again and again
    #[arg(long = "seed", value_name = "HOST:PORT")]
    seeds: Vec<String>,
    /// File with the cluster secret, as `ringway secret` prints it; read again when it changes
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Certificate chain, PEM: clients speak TLS then; read again when it changes
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// An MCP server for the route /mcp; several are replicas
    #[arg(long = "upstream", value_name = "URL")]
    upstreams: Vec<String>,
    /// What to log, such as ringway=debug,quinn=warn [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How to log [default: text]
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
    /// Collector to send spans of sampled requests to, over OTLP/HTTP (http://127.0.0.1:4318)
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// An stdio MCP server for the route /mcp
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// An MCP server of your own instead of the built-in one
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// An stdio MCP server of your own
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct AdminArgs {
    /// The node's admin address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9400")]
    admin: String,
    /// File with the node's admin token; without it RINGWAY_ADMIN_TOKEN holds the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON for scripts instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Scope {
    /// What the asked node owns
    Node,
    /// What all nodes own
    Cluster,
}

#[derive(Debug, Args)]
struct SessionsArgs {
    /// Whose sessions
    #[arg(long, value_enum, default_value = "node")]
    scope: Scope,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
    /// Go on behind an earlier list, which says where it ended
    #[arg(long, value_name = "NEXT")]
    after: Option<String>,
    /// All there are, however many
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Whole ids, which are as good as the sessions themselves
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Why a command failed.
enum Failure {
    /// Exit 1.
    Running(anyhow::Error),
    /// Exit 2.
    Usage(String),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Running(error)
    }
}

pub(crate) fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Node(args) => node::run(*args),
        Command::Demo(args) => demo::run(&args),
        Command::McpDemo { http } => mcp_demo::run(http).map_err(Failure::from),
        Command::Secret => secret(),
        Command::Check { file } => check::run(&file),
        Command::Members(args) => ask::members(&args),
        Command::Ring(args) => ask::ring(&args),
        Command::Locate { id, admin } => ask::locate(&admin, &id),
        Command::Sessions(args) => sessions::run(&args),
        Command::End { id, admin } => ask::end(&admin, &id),
        Command::Events(args) => events::run(&args),
        Command::Guardian => upstream::run_guardian().map_err(|error| Failure::Running(error.into())),
        Command::Drain { deadline, admin } => drain::run(&admin, deadline),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Running(error)) => {
            eprintln!("ringway: {error:#}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(what)) => {
            eprintln!("{what}");
            ExitCode::from(2)
        }
    }
}

fn secret() -> Result<(), Failure> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 32];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    println!("{}", proto::id::ClusterSecret::from_entropy(bytes).to_text());
    Ok(())
}

/// With one core there is one thread: threads that hand work to each other on it cost a tenth more
/// (docs/performance.md).
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let has_one_core = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut runtime = match has_one_core {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build();
    runtime.map_err(|error| Failure::Running(error.into()))
}
