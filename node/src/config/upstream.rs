//! What serves a route, and how it is called.

use super::UpstreamUrl;
use proto::id::UpstreamTag;
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

/// What serves a route.
#[derive(Clone, Debug)]
pub(crate) enum Upstream {
    /// An HTTP service; on an MCP route a server that speaks Streamable HTTP.
    Http(UpstreamUrl),
    /// An MCP server that speaks HTTP+SSE (2024-11-05).
    HttpSse(UpstreamUrl),
    /// An MCP server over stdio: a child process for each session.
    Stdio(Arc<ChildCommand>),
}

/// How a child process is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChildCommand {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    /// Added to the node's own environment.
    pub(crate) env: BTreeMap<String, String>,
    /// What it may take to answer its first message.
    pub(crate) start_timeout: Duration,
}

impl Upstream {
    /// What ids and records call it. A child has no name that would mean something on another node.
    pub(crate) fn name(&self) -> Arc<str> {
        match self {
            Self::Http(url) | Self::HttpSse(url) => url.text().clone(),
            Self::Stdio(_) => "stdio".into(),
        }
    }

    /// What stands for it in the names of its tasks and states.
    pub(crate) fn tag(&self) -> UpstreamTag {
        UpstreamTag::of(&self.name())
    }

    /// Its sessions live in this process, and end with it.
    pub(crate) fn is_bridged(&self) -> bool {
        match self {
            Self::Http(_) => false,
            Self::HttpSse(_) | Self::Stdio(_) => true,
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => url.fmt(f),
            Self::HttpSse(url) => write!(f, "{url} (HTTP+SSE)"),
            // Its arguments may hold what logs must not.
            Self::Stdio(command) => write!(f, "{} (stdio)", command.program),
        }
    }
}
