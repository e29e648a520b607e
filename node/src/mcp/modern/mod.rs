//! Revision 2026-07-28 as far as a gateway must know it: where a message holds what only one replica
//! of an upstream understands (a task's id, a request's state), and how that is replaced with every
//! other byte left as it was; and for upstreams that are no HTTP servers, what such a server has to
//! check and to keep apart.

mod events;
mod header;
mod meta;
mod mirror;
mod numbers;
mod spots;

pub(crate) use events::Rewriter;
pub(crate) use header::{decoded, encoded};
pub(crate) use meta::is_complete;
pub(crate) use mirror::{MirroredParams, mismatch};
pub(crate) use numbers::{Names, Of, numbered, of, restored};
pub(crate) use spots::{About, Request, Spot, rewritten, splice};

use hyper::header::HeaderName;

/// What a request is about: a tool, a resource, a prompt, or a task (SEP-2243, SEP-2663).
pub(crate) const NAME: HeaderName = HeaderName::from_static("mcp-name");
