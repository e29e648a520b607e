//! What a node is told: flags and a TOML file, in two steps. [`written`] reads what stands there and
//! collects every mistake with its line; this file holds what is meant by it.

mod affinity;
mod auth;
mod collector;
mod limits;
mod meaning;
mod routes;
mod secrets;
mod token;
mod upstream;
mod url;
mod written;

pub(crate) use affinity::{Key, Protocol, is_mirrored};
pub(crate) use auth::{Auth, Jwks, Jwt};
pub(crate) use collector::Collector;
pub(crate) use limits::{Limits, NewSessions};
pub(crate) use meaning::load;
pub(crate) use secrets::{exposure, parse as parse_secrets};
pub(crate) use token::admin_token;
pub(crate) use upstream::{ChildCommand, Upstream};
pub(crate) use url::UpstreamUrl;

use crate::telemetry::LogFormat;
use crate::tls::TlsFiles;
use ipnet::IpNet;
use proto::core::route::OnLoss;
use proto::id::{ClusterSecret, NodeName, RouteId};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// A node's configuration, as meant: complete and consistent.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) name: NodeName,
    pub(crate) listen: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// What peers dial, where that is not `peer`.
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    /// `HOST:PORT`, resolved again and again while the seed is not a member.
    pub(crate) seeds: Vec<String>,
    /// The first seals and identifies; all open and are accepted.
    pub(crate) secrets: Vec<ClusterSecret>,
    /// Where they stand; read again when it changes.
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) routes: Vec<Arc<Route>>,
    /// Origins (`https://app.example`) that browsers may call from, besides loopback ones.
    pub(crate) allowed_origins: Vec<String>,
    /// Holds the token that operators have to show, if they have to.
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Clients speak TLS where there is a certificate.
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) limits: Limits,
    pub(crate) new_sessions: NewSessions,
    /// Whose word on who calls is taken.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// In the language of `tracing`'s filters.
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    /// Where spans are sent, if anywhere.
    pub(crate) otlp: Option<Collector>,
    /// Which share of the requests that no trace comes with begins one.
    pub(crate) otlp_sample: f64,
}

/// A path and what serves it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) id: RouteId,
    pub(crate) path: String,
    pub(crate) protocol: Protocol,
    /// What ties requests without a session to a node; without a key any node serves them.
    pub(crate) key: Option<Key>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) on_loss: OnLoss,
    pub(crate) idle_timeout: Duration,
    /// On this node.
    pub(crate) sessions_max: usize,
    /// Of one client, on this node.
    pub(crate) sessions_per_client_max: usize,
    pub(crate) body_len_max: usize,
    /// Tools that say they only read, or may be called twice, are believed.
    pub(crate) trust_annotations: bool,
    /// How callers prove who they are, where they have to.
    pub(crate) auth: Option<Arc<Auth>>,
}

/// One of the paths of an MCP route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Streamable HTTP, at the route's path.
    Mcp,
    /// HTTP+SSE (2024-11-05), at `PATH/sse`: the stream of all that is said to a client.
    Sse,
    /// At `PATH/messages`: where that client says something.
    Messages,
}

impl Route {
    pub(crate) fn speaks_mcp(&self) -> bool {
        self.protocol == Protocol::Mcp
    }

    /// Which endpoint of an MCP route has this path.
    pub(crate) fn endpoint(&self, path: &str) -> Option<Endpoint> {
        match path {
            _ if !self.speaks_mcp() => None,
            _ if path == self.path => Some(Endpoint::Mcp),
            _ => match path.strip_prefix(self.base())? {
                "/sse" => Some(Endpoint::Sse),
                "/messages" => Some(Endpoint::Messages),
                _ => None,
            },
        }
    }

    /// Where a client of HTTP+SSE says something.
    pub(crate) fn messages_path(&self) -> String {
        format!("{}/messages", self.base())
    }

    fn base(&self) -> &str {
        self.path.strip_suffix('/').unwrap_or(&self.path)
    }
}

/// What the command line says; a flag wins over the file.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) name: Option<String>,
    pub(crate) listen: Option<String>,
    pub(crate) peer: Option<String>,
    pub(crate) advertise: Option<String>,
    pub(crate) admin: Option<String>,
    pub(crate) seeds: Vec<String>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) upstreams: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) log: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) otlp: Option<String>,
}

/// Where a cluster's name goes into keys and tags. One secret is one cluster, so the name is fixed.
pub(crate) const CLUSTER: &str = "ringway";

pub(crate) const BODY_LEN_MAX_DEFAULT: usize = 4 * 1024 * 1024;
