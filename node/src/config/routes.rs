//! From what is written to what is meant: the routes.

use super::{
    Auth, BODY_LEN_MAX_DEFAULT, ChildCommand, Endpoint, Protocol, Route, Upstream, UpstreamUrl, affinity,
    auth::{self, Asked},
    written::{At, Mistakes, Table},
};
use hyper::Uri;
use proto::core::route::OnLoss;
use proto::id::RouteId;
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

const ROUTE_KEYS: [&str; 15] = [
    "path",
    "upstream",
    "transport",
    "command",
    "env",
    "start_timeout",
    "protocol",
    "affinity",
    "on_loss",
    "idle_timeout",
    "max_sessions",
    "max_sessions_per_client",
    "max_body_bytes",
    "trust_annotations",
    "auth",
];

/// Python's and this project's default: long enough for a person at lunch.
const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// As many as the Python SDK's server allows; at 2 KiB each they cost 20 MiB.
const SESSIONS_MAX_DEFAULT: usize = 10_000;

/// A child costs tens of megabytes: 200 of Node's servers at 60 MiB are 12 GiB.
const CHILDREN_MAX_DEFAULT: usize = 200;
/// `npx` may have to fetch the server first; what is installed answers within 2 s.
const START_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// What stands for a route at /mcp: the upstreams of `--upstream`, or the command after `--`.
pub(super) enum Short {
    Upstreams(Vec<At<String>>),
    Command(Vec<String>),
}

/// Every route.
///
/// `auth` is what those ask of their callers that do not say so themselves; files are named relative to `beside`.
pub(super) fn read(
    tables: Vec<At<Table<'_>>>,
    short: Option<Short>,
    (auth, beside): (Option<Asked>, Option<&Path>),
    m: &mut Mistakes,
) -> Vec<Route> {
    let default = auth.and_then(|asked| asked.auth);
    let mut routes: Vec<Route> = Vec::new();
    for at in tables {
        let Some(route) = route(at.value, at.line, (default.as_ref(), beside), m) else { continue };
        // By the id: it is what nodes call a route by.
        if let Some(twin) = routes.iter().find(|earlier| earlier.id == route.id) {
            m.add(at.line, format!("the routes {:?} and {:?} can't be told apart", twin.path, route.path));
        }
        collide(&routes, &route, at.line, m);
        routes.push(route);
    }
    if let Some(short) = short {
        let (line, upstreams) = match short {
            Short::Upstreams(listed) => {
                (listed.first().and_then(|first| first.line), upstreams(listed, Upstream::Http, m))
            }
            Short::Command(words) => (None, child(words, BTreeMap::new(), None).into_iter().collect()),
        };
        let short = Route { auth: default, ..mcp_route("/mcp".into(), upstreams) };
        let before = routes.len();
        routes.retain(|route| route.id != short.id);
        if routes.len() < before && line.is_some() {
            m.add(line, "upstream stands for a route at /mcp, and the file has such a route already");
        }
        collide(&routes, &short, line, m);
        routes.push(short);
    }
    routes
}

/// An MCP route has two paths more, for clients of HTTP+SSE.
fn collide(routes: &[Route], route: &Route, line: Option<usize>, m: &mut Mistakes) {
    let has = |one: &Route, other: &Route| {
        let is_one = matches!(one.endpoint(&other.path), Some(Endpoint::Sse | Endpoint::Messages));
        // "/mcp" and "/mcp/" are two paths with the same ones below.
        let same = one.path != other.path && one.messages_path() == other.messages_path();
        is_one || (same && one.speaks_mcp() && other.speaks_mcp())
    };
    for earlier in routes {
        let (mcp, other) = match (has(earlier, route), has(route, earlier)) {
            (true, _) => (earlier, route),
            (_, true) => (route, earlier),
            (false, false) => continue,
        };
        let (path, taken) = (&mcp.path, mcp.messages_path());
        let below = taken.trim_end_matches("messages");
        let what = format!("the MCP route {path:?} has {below}sse and {taken} too, for clients of HTTP+SSE");
        m.add(line, format!("{what}: the route {:?} can't be told apart from these", other.path));
    }
}

fn route(
    mut table: Table<'_>,
    line: Option<usize>,
    (default, beside): (Option<&Arc<Auth>>, Option<&Path>),
    m: &mut Mistakes,
) -> Option<Route> {
    let path = table.string("path", m);
    let urls = table.strings("upstream", m);
    let (protocol, affinity) = (table.string("protocol", m), table.word_or_pair("affinity", m));
    let on_loss = table.string("on_loss", m);
    let idle_timeout = table.string("idle_timeout", m);
    let max_sessions = table.integer("max_sessions", m);
    let max_sessions_per_client = table.integer("max_sessions_per_client", m);
    let max_body_bytes = table.integer("max_body_bytes", m);
    let trust_annotations = table.boolean("trust_annotations", m);
    let transport = table.string("transport", m);
    let command = table.strings("command", m);
    let env = table.pairs("env", m);
    let start_timeout = time("start_timeout", table.string("start_timeout", m), m);
    let asked = auth::read(&mut table, beside, m);
    table.finish(&ROUTE_KEYS, m);

    let kind = match transport.as_ref().map(|at| at.value.as_str()) {
        None | Some("streamable-http") => Upstream::Http,
        Some("sse") => Upstream::HttpSse,
        Some(other) => {
            let known = "neither \"streamable-http\" nor \"sse\"";
            m.add(transport.as_ref().and_then(|at| at.line), format!("transport {other:?} is {known}"));
            Upstream::Http
        }
    };
    let of_command = [
        ("env", env.as_ref().and_then(|at| at.line)),
        ("start_timeout", start_timeout.as_ref().and_then(|at| at.line)),
    ];
    let served_by = match (command, urls) {
        (Some(command), None) => {
            if let Some(transport) = transport {
                m.add(transport.line, "transport is for upstreams; a command speaks stdio");
            }
            let words = command.value.into_iter().map(|at| at.value).collect();
            let env = env.map(|at| at.value).unwrap_or_default();
            let child = child(words, env, start_timeout.map(|at| at.value));
            if child.is_none() {
                m.add(command.line, "command: expected a program and its arguments, found an empty array");
            }
            child.into_iter().collect()
        }
        (command, urls) => {
            if let Some(command) = command {
                m.add(command.line, "the route names both a command and an upstream: write a route for each");
            } else if urls.as_ref().is_none_or(|urls| urls.value.is_empty()) {
                m.add(line, "the route names no upstream and no command");
            }
            for (key, line) in of_command {
                if line.is_some() {
                    m.add(line, format!("{key} is for a command"));
                }
            }
            upstreams(urls.map(|at| at.value).unwrap_or_default(), kind, m)
        }
    };
    let Some(path) = path else {
        m.add(line, "the route has no path");
        return None;
    };
    // As it stands in the first line of a request.
    let is_asked_for = path.value.parse::<Uri>().is_ok_and(|uri| uri.path() == path.value);
    if !path.value.starts_with('/') || !path.value.is_ascii() || !is_asked_for {
        let form = "of the form /name, as clients ask for it: ASCII without spaces, other letters as %C3%A4";
        m.add(path.line, format!("path {:?} is not {form}", path.value));
    }
    let mut route = mcp_route(path.value, served_by);
    (route.protocol, route.key) = affinity::read(protocol, affinity, m);
    if !route.speaks_mcp() && route.upstreams.iter().any(Upstream::is_bridged) {
        m.add(line, "the route's upstream is an MCP server, and its protocol is plain HTTP");
    }
    if let Some(Asked { auth: Some(_), line }) = &asked
        && !route.speaks_mcp()
    {
        m.add(*line, "auth is for MCP routes; another service asks its callers itself");
    }
    route.auth = match asked {
        Some(asked) => asked.auth,
        None => default.filter(|_| route.speaks_mcp()).cloned(),
    };
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
    if let Some(idle) = time("idle_timeout", idle_timeout, m) {
        route.idle_timeout = idle.value;
    }
    route.trust_annotations = trust_annotations.map_or(route.trust_annotations, |at| at.value);
    route.sessions_max = max_sessions.map_or(route.sessions_max, |at| at.value);
    route.sessions_per_client_max = max_sessions_per_client.map_or(route.sessions_max, |at| at.value);
    if let Some(at) = max_body_bytes {
        if !route.speaks_mcp() {
            m.add(at.line, "max_body_bytes is for MCP routes; others pass bodies on as they come");
        }
        route.body_len_max = at.value;
    }
    Some(route)
}

fn mcp_route(path: String, upstreams: Vec<Upstream>) -> Route {
    let has_children = upstreams.iter().any(|upstream| matches!(upstream, Upstream::Stdio(_)));
    let sessions_max = if has_children { CHILDREN_MAX_DEFAULT } else { SESSIONS_MAX_DEFAULT };
    Route {
        id: RouteId::of(&path),
        path,
        protocol: Protocol::Mcp,
        key: None,
        upstreams,
        on_loss: OnLoss::Reinitialize,
        idle_timeout: IDLE_TIMEOUT_DEFAULT,
        sessions_max,
        sessions_per_client_max: sessions_max,
        body_len_max: BODY_LEN_MAX_DEFAULT,
        trust_annotations: true,
        auth: None,
    }
}

fn upstreams(listed: Vec<At<String>>, kind: fn(UpstreamUrl) -> Upstream, m: &mut Mistakes) -> Vec<Upstream> {
    let parse = |at: At<String>| UpstreamUrl::parse(&at.value).map_err(|error| m.add(at.line, error)).ok();
    listed.into_iter().filter_map(parse).map(kind).collect()
}

fn child(
    words: Vec<String>,
    env: BTreeMap<String, String>,
    start_timeout: Option<Duration>,
) -> Option<Upstream> {
    let mut words = words.into_iter();
    let (program, start_timeout) = (words.next()?, start_timeout.unwrap_or(START_TIMEOUT_DEFAULT));
    Some(Upstream::Stdio(Arc::new(ChildCommand { program, arguments: words.collect(), env, start_timeout })))
}

/// A time with its unit.
pub(super) fn time(key: &str, written: Option<At<String>>, m: &mut Mistakes) -> Option<At<Duration>> {
    let At { value, line } = written?;
    let time = duration(&value);
    if time.is_none() {
        m.add(line, format!("{key} {value:?} is not a time such as \"90s\", \"30m\" or \"2h\""));
    }
    time.map(|value| At { value, line })
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let amount: u64 = digits.parse().ok().filter(|_| !digits.starts_with('+'))?;
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(amount.checked_mul(unit_ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_is_its_amount_in_its_unit(amount in any::<u64>(), short in 0u64..100_000, at in 0usize..4) {
            let (unit, ms) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)][at];
            prop_assert_eq!(duration(&format!("{short}{unit}")), Some(Duration::from_millis(short * ms)));
            let expected = amount.checked_mul(ms).map(Duration::from_millis);
            prop_assert_eq!(duration(&format!("{amount}{unit}")), expected, "too large is no time");
        }

        #[test]
        fn nothing_else_is_a_time(text in "[0-9]{0,3}[ .+-]?[0-9a-zA-Z]{0,3}") {
            let is_written_so = text.trim_start_matches(|c: char| c.is_ascii_digit());
            let has_amount = text.starts_with(|c: char| c.is_ascii_digit());
            let is_time = has_amount && ["ms", "s", "m", "h"].contains(&is_written_so);
            prop_assert_eq!(duration(&text).is_some(), is_time, "{}", text);
        }
    }
}
