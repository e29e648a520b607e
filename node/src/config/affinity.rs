//! What a route speaks, and what ties its requests to a node.

use super::written::{At, Mistakes, WordOrPair};
use hyper::header::HeaderName;

/// What a route speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Requests with a session belong to its owner, whatever else ties requests here.
    Mcp,
    /// Anything else over HTTP: paths below the route's, bodies that are passed on as they come.
    Http,
}

/// What ties requests that have no session to a node: those with the same key have the same owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Who calls.
    Principal,
    Header(HeaderName),
    Cookie(String),
    Query(String),
}

/// Headers that mirror what the body says (2026-07-28, Streamable HTTP, "Request Metadata").
const MIRRORED: [&str; 2] = ["mcp-name", "mcp-method"];
const MIRRORED_PARAM: &str = "mcp-param-";
const KNOWN: &str =
    "\"none\", { principal = true }, { header = \"...\" }, { cookie = \"...\" } or { query = \"...\" }";

/// How an affinity is written.
enum Affinity {
    None,
    By(Key),
}

pub(super) fn read(
    protocol: Option<At<String>>,
    affinity: Option<At<WordOrPair>>,
    m: &mut Mistakes,
) -> (Protocol, Option<Key>) {
    let line = affinity.as_ref().and_then(|at| at.line);
    let affinity = affinity.and_then(|at| meant(at, m));
    let implied = implied(affinity.as_ref());
    let protocol = match protocol {
        None => implied,
        Some(at) => match at.value.as_str() {
            "mcp" => Protocol::Mcp,
            "http" => Protocol::Http,
            other => {
                m.add(at.line, format!("protocol {other:?} is neither \"mcp\" nor \"http\""));
                implied
            }
        },
    };
    let contradiction = match (protocol, &affinity) {
        (Protocol::Mcp, Some(Affinity::None)) => Some(
            "affinity \"none\" is for routes that are not MCP; an MCP route without affinity keeps its \
             sessions together and nothing else",
        ),
        (Protocol::Http, Some(Affinity::By(Key::Principal))) => {
            Some("{ principal = true } is for MCP routes; write { header = \"Authorization\" }")
        }
        (Protocol::Http, Some(Affinity::By(Key::Header(name)))) if is_mirrored(name) => Some(
            "headers of MCP are for MCP routes: nothing else makes sure that they say what the body says",
        ),
        (Protocol::Mcp, None | Some(Affinity::By(_))) | (Protocol::Http, _) => None,
    };
    if let Some(contradiction) = contradiction {
        m.add(line, contradiction);
    }
    let key = match affinity {
        Some(Affinity::By(key)) => Some(key),
        Some(Affinity::None) | None => None,
    };
    (protocol, key)
}

/// What a route speaks that does not say so.
fn implied(affinity: Option<&Affinity>) -> Protocol {
    match affinity {
        None | Some(Affinity::By(Key::Principal)) => Protocol::Mcp,
        Some(Affinity::By(Key::Header(name))) if is_mirrored(name) => Protocol::Mcp,
        Some(Affinity::None | Affinity::By(Key::Header(_) | Key::Cookie(_) | Key::Query(_))) => {
            Protocol::Http
        }
    }
}

/// Whether a header's value is made from the body, and checked against it by whoever reads the body.
pub(crate) fn is_mirrored(name: &HeaderName) -> bool {
    MIRRORED.contains(&name.as_str()) || name.as_str().starts_with(MIRRORED_PARAM)
}

fn meant(at: At<WordOrPair>, m: &mut Mistakes) -> Option<Affinity> {
    let key = match at.value {
        WordOrPair::Word(word) if word == "none" => return Some(Affinity::None),
        WordOrPair::Flag(kind, true) if kind == "principal" => Key::Principal,
        WordOrPair::Pair(kind, name) if name.is_empty() && (kind == "cookie" || kind == "query") => {
            m.add(at.line, format!("affinity: the {kind} has no name"));
            return None;
        }
        WordOrPair::Pair(kind, name) if kind == "cookie" => Key::Cookie(name),
        WordOrPair::Pair(kind, name) if kind == "query" => Key::Query(name),
        WordOrPair::Pair(kind, name) if kind == "header" => match name.parse() {
            Ok(name) => Key::Header(name),
            Err(_) => {
                m.add(at.line, format!("affinity: {name:?} is not a header's name"));
                return None;
            }
        },
        WordOrPair::Word(other) | WordOrPair::Pair(other, _) | WordOrPair::Flag(other, _) => {
            m.add(at.line, format!("affinity {other:?} is not {KNOWN}"));
            return None;
        }
    };
    Some(Affinity::By(key))
}
