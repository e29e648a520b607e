//! Revision 2026-07-28 as far as a gateway must know it: where a message holds what only one replica
//! of an upstream understands (a task's id, a request's state), and how that is replaced with every
//! other byte left as it was.

mod events;
mod header;
mod meta;
mod spots;

pub(crate) use events::Rewriter;
pub(crate) use header::{decoded, encoded};
pub(crate) use meta::is_complete;
pub(crate) use spots::{About, Request, Spot, rewritten, splice};

use hyper::header::HeaderName;

/// What a request is about: a tool, a resource, a prompt, or a task (SEP-2243, SEP-2663).
pub(crate) const NAME: HeaderName = HeaderName::from_static("mcp-name");
