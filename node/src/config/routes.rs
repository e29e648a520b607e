//! From what is written to what is meant: the routes.

use super::{
    Affinity, BODY_LEN_MAX_DEFAULT, Route, UpstreamUrl,
    written::{At, Mistakes, Table},
};
use proto::core::route::OnLoss;
use proto::id::RouteId;
use std::time::Duration;

const ROUTE_KEYS: [&str; 8] = [
    "path",
    "upstream",
    "affinity",
    "on_loss",
    "idle_timeout",
    "max_sessions",
    "max_body_bytes",
    "trust_annotations",
];

/// Python's and this project's default: long enough for a person at lunch.
const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// As many as the Python SDK's server allows; at 2 KiB each they cost 20 MiB.
const SESSIONS_MAX_DEFAULT: usize = 10_000;

/// Said where a configuration asks for a backend that this version does not have.
pub(crate) const STDIO: &str = "a command (an stdio MCP server) can't be served by this version yet: \
                     start the server with HTTP and name it with upstream";

/// Every route; `short` lists the upstreams of `--upstream`, which stand for one at /mcp.
pub(super) fn read(tables: Vec<At<Table<'_>>>, short: Vec<At<String>>, m: &mut Mistakes) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for at in tables {
        let Some(route) = route(at.value, at.line, m) else { continue };
        // By the id: it is what nodes call a route by.
        if let Some(twin) = routes.iter().find(|earlier| earlier.id == route.id) {
            m.add(at.line, format!("the routes {:?} and {:?} can't be told apart", twin.path, route.path));
        }
        routes.push(route);
    }
    if let Some(first) = short.first() {
        let line = first.line;
        let short = mcp_route("/mcp".into(), upstreams(short, m));
        let before = routes.len();
        routes.retain(|route| route.id != short.id);
        if routes.len() < before && line.is_some() {
            m.add(line, "upstream stands for a route at /mcp, and the file has such a route already");
        }
        routes.push(short);
    }
    routes
}

fn route(mut table: Table<'_>, line: Option<usize>, m: &mut Mistakes) -> Option<Route> {
    let path = table.string("path", m);
    let urls = table.strings("upstream", m);
    let affinity = table.word_or_pair("affinity", m);
    let on_loss = table.string("on_loss", m);
    let idle_timeout = table.string("idle_timeout", m);
    let max_sessions = table.integer("max_sessions", m);
    let max_body_bytes = table.integer("max_body_bytes", m);
    let trust_annotations = table.boolean("trust_annotations", m);
    let command = table.line_of_key("command");
    let _ = table.line_of_key("env").filter(|_| command.is_some()); // belongs to the command
    table.finish(&ROUTE_KEYS, m);

    if command.is_some() {
        m.add(command, STDIO);
    } else if urls.as_ref().is_none_or(|urls| urls.value.is_empty()) {
        m.add(line, "the route names no upstream");
    }
    let Some(path) = path else {
        m.add(line, "the route has no path");
        return None;
    };
    if !path.value.starts_with('/') || path.value.contains(['?', '#', ' ']) {
        m.add(path.line, format!("path {:?} is not of the form /name", path.value));
    }
    let mut route = mcp_route(path.value, upstreams(urls.map(|at| at.value).unwrap_or_default(), m));
    if let Some(at) = affinity {
        route.affinity = match at.value {
            (word, None) if word == "none" => Affinity::None,
            (kind, Some(name)) if kind == "header" => Affinity::Header(name.to_ascii_lowercase()),
            (kind, Some(name)) if kind == "cookie" => Affinity::Cookie(name),
            (kind, Some(name)) if kind == "query" => Affinity::Query(name),
            (other, _) => {
                let known = "\"none\", { header = \"...\" }, { cookie = \"...\" } or { query = \"...\" }";
                m.add(at.line, format!("affinity {other:?} is not {known}"));
                Affinity::None
            }
        };
    }
    if let Some(at) = on_loss {
        route.on_loss = match at.value.as_str() {
            "reinitialize" => OnLoss::Reinitialize,
            "expire" => OnLoss::Expire,
            other => {
                m.add(at.line, format!("on_loss {other:?} is neither \"reinitialize\" nor \"expire\""));
                OnLoss::Expire
            }
        };
    }
    if let Some(at) = idle_timeout {
        match duration(&at.value) {
            Some(idle) => route.idle_timeout = idle,
            None => m.add(
                at.line,
                format!("idle_timeout {:?} is not a time such as \"90s\", \"30m\" or \"2h\"", at.value),
            ),
        }
    }
    route.trust_annotations = trust_annotations.map_or(route.trust_annotations, |at| at.value);
    route.sessions_max = max_sessions.map_or(route.sessions_max, |at| at.value);
    if let Some(at) = max_body_bytes {
        if route.affinity != Affinity::Session {
            m.add(at.line, "max_body_bytes is for MCP routes; others pass bodies on as they come");
        }
        route.body_len_max = at.value;
    }
    Some(route)
}

fn mcp_route(path: String, upstreams: Vec<UpstreamUrl>) -> Route {
    Route {
        id: RouteId::of(&path),
        path,
        affinity: Affinity::Session,
        upstreams,
        on_loss: OnLoss::Reinitialize,
        idle_timeout: IDLE_TIMEOUT_DEFAULT,
        sessions_max: SESSIONS_MAX_DEFAULT,
        body_len_max: BODY_LEN_MAX_DEFAULT,
        trust_annotations: true,
    }
}

fn upstreams(listed: Vec<At<String>>, m: &mut Mistakes) -> Vec<UpstreamUrl> {
    let parse = |at: At<String>| UpstreamUrl::parse(&at.value).map_err(|error| m.add(at.line, error)).ok();
    listed.into_iter().filter_map(parse).collect()
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let amount: u64 = digits.parse().ok()?;
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(amount.checked_mul(unit_ms)?))
}
