//! From what is written to what is meant.

use super::{
    Affinity, BODY_LEN_MAX_DEFAULT, Config, Flags, Route, UpstreamUrl,
    written::{At, Mistakes, Table},
};
use proto::core::route::OnLoss;
use proto::id::{ClusterSecret, DEVELOPMENT_SECRET, NodeName, RouteId};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const NODE_KEYS: [&str; 9] =
    ["name", "listen", "peer", "advertise", "admin", "seeds", "secret_file", "allowed_origins", "route"];
const ROUTE_KEYS: [&str; 7] =
    ["path", "upstream", "affinity", "on_loss", "idle_timeout", "max_sessions", "max_body_bytes"];

/// Python's and this project's default: long enough for a person at lunch.
const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// As many as the Python SDK's server allows; at 2 KiB each they cost 20 MiB.
const SESSIONS_MAX_DEFAULT: usize = 10_000;

/// Reads the configuration of a node; `file` is the path and text of the TOML file, if there is one.
///
/// # Errors
/// With every mistake found, in the order of the file.
pub(crate) fn load(file: Option<(&Path, &str)>, flags: Flags) -> Result<Config, Mistakes> {
    let mut mistakes = Mistakes::default();
    let m = &mut mistakes;
    let mut table = Table::parse(file.map_or("", |(_, text)| text), m);
    if !m.0.is_empty() {
        return Err(mistakes); // what else there is to say would be guessed from broken syntax
    }

    let mut setting = |flag: Option<String>, key: &'static str, m: &mut Mistakes| {
        let written = table.string(key, m);
        flag.map(|value| At { value, line: None }).or(written)
    };
    let name = setting(flags.name, "name", m);
    let listen = setting(flags.listen, "listen", m);
    let peer = setting(flags.peer, "peer", m);
    let advertise = setting(flags.advertise, "advertise", m);
    let admin = setting(flags.admin, "admin", m);
    let secret_file =
        setting(flags.secret_file.map(|path| path.to_string_lossy().into_owned()), "secret_file", m);
    let seeds = table.strings("seeds", m).map(|seeds| seeds.value).unwrap_or_default();
    let allowed_origins = table.strings("allowed_origins", m).map(|list| list.value).unwrap_or_default();
    let mut routes: Vec<_> = table
        .tables("route", "a route", m)
        .into_iter()
        .filter_map(|at| route(at.value, at.line, m))
        .collect();
    table.finish(&NODE_KEYS, m);

    if !flags.command.is_empty() {
        m.add(None, STDIO);
    }
    if !flags.upstreams.is_empty() {
        let listed = flags.upstreams.into_iter().map(|value| At { value, line: None }).collect();
        routes.retain(|route: &Route| route.path != "/mcp");
        routes.push(mcp_route("/mcp".into(), upstreams(listed, m)));
    }
    for (at, route) in routes.iter().enumerate() {
        if routes[..at].iter().any(|earlier| earlier.path == route.path) {
            m.add(None, format!("two routes have the path {:?}", route.path));
        }
    }

    let name = name.unwrap_or_else(|| At { value: host_name(), line: None });
    let name = name.value.parse::<NodeName>().map_err(|error| m.add(name.line, error.to_string())).ok();
    let listen = address("listen", listen, "127.0.0.1:8080", m);
    let peer = address("peer", peer, "127.0.0.1:7400", m);
    let admin = address("admin", admin, "127.0.0.1:9400", m);
    let advertised = advertise.map(|at| address("advertise", Some(at), "", m));
    if let Some(peer) = peer
        && peer.ip().is_unspecified()
        && advertised.is_none()
    {
        m.add(
            None,
            format!("peer is {peer}, which nobody can dial: set advertise to this host's own address"),
        );
    }
    if let Some(Some(advertise)) = advertised
        && advertise.ip().is_unspecified()
    {
        m.add(None, format!("advertise is {advertise}, which nobody can dial: name this host's own address"));
    }
    let seeds: Vec<String> = seeds
        .into_iter()
        .chain(flags.seeds.into_iter().map(|value| At { value, line: None }))
        .filter_map(|seed| match host_and_port(&seed.value) {
            true => Some(seed.value),
            false => {
                m.add(seed.line, format!("seed {:?} is not HOST:PORT", seed.value));
                None
            }
        })
        .collect();
    let exposed = [listen, peer, admin, advertised.flatten()]
        .into_iter()
        .flatten()
        .find(|addr| !addr.ip().is_loopback());
    let secrets = secrets(secret_file, file.map(|(path, _)| path), exposed, m);

    match (name, listen, peer, admin, secrets) {
        (Some(name), Some(listen), Some(peer), Some(admin), Some(secrets)) if mistakes.0.is_empty() => {
            Ok(Config {
                name,
                listen,
                peer,
                advertise: advertised.flatten(),
                admin,
                seeds,
                secrets,
                routes: routes.into_iter().map(Arc::new).collect(),
                allowed_origins: allowed_origins.into_iter().map(|origin| origin.value).collect(),
            })
        }
        _ => {
            mistakes.0.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
            Err(mistakes)
        }
    }
}

/// Said where a configuration asks for a backend that this version does not have.
const STDIO: &str = "a command (an stdio MCP server) can't be served by this version yet: \
                     start the server with HTTP and name it with upstream";

fn route(mut table: Table<'_>, line: Option<usize>, m: &mut Mistakes) -> Option<Route> {
    let path = table.string("path", m);
    let urls = table.strings("upstream", m);
    let affinity = table.word_or_pair("affinity", m);
    let on_loss = table.string("on_loss", m);
    let idle_timeout = table.string("idle_timeout", m);
    let max_sessions = table.integer("max_sessions", m);
    let max_body_bytes = table.integer("max_body_bytes", m);
    let command = table.line_of_key("command");
    let _ = table.line_of_key("env").filter(|_| command.is_some()); // belongs to the command
    table.finish(&ROUTE_KEYS, m);

    if command.is_some() {
        m.add(command, STDIO);
    } else if urls.is_none() {
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
    route.sessions_max = max_sessions.map_or(route.sessions_max, |at| at.value);
    route.body_len_max = max_body_bytes.map_or(route.body_len_max, |at| at.value);
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
    }
}

fn upstreams(listed: Vec<At<String>>, m: &mut Mistakes) -> Vec<UpstreamUrl> {
    let parse = |at: At<String>| UpstreamUrl::parse(&at.value).map_err(|error| m.add(at.line, error)).ok();
    listed.into_iter().filter_map(parse).collect()
}

fn address(key: &str, written: Option<At<String>>, default: &str, m: &mut Mistakes) -> Option<SocketAddr> {
    let at = written.unwrap_or_else(|| At { value: default.to_owned(), line: None });
    let parsed = at.value.parse();
    if parsed.is_err() {
        m.add(
            at.line,
            format!("{key} {:?} is not an address such as 127.0.0.1:8080 or [::1]:8080", at.value),
        );
    }
    parsed.ok()
}

fn host_and_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// A secret file holds one secret a line; the first is the current one. Its path is relative to the
/// configuration file that names it.
fn secrets(
    file: Option<At<String>>,
    config: Option<&Path>,
    exposed: Option<SocketAddr>,
    m: &mut Mistakes,
) -> Option<Vec<ClusterSecret>> {
    let Some(at) = file else {
        return match exposed {
            None => Some(vec![DEVELOPMENT_SECRET]),
            Some(address) => {
                m.add(
                    None,
                    format!(
                        "{address} is not a loopback address, so this node needs a cluster secret: \
                         run `ringway secret > cluster.key`, copy the file to every node, and name it with \
                         secret_file or --secret-file"
                    ),
                );
                None
            }
        };
    };
    let beside = at.line.and(config).and_then(Path::parent);
    let path = beside.map_or_else(|| PathBuf::from(&at.value), |folder| folder.join(&at.value));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            m.add(at.line, format!("secret_file {}: {error}", path.display()));
            return None;
        }
    };
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let secrets: Result<Vec<ClusterSecret>, _> = lines().map(str::parse).collect();
    match secrets {
        Ok(secrets) if !secrets.is_empty() => Some(secrets),
        Ok(_) => {
            m.add(at.line, format!("secret_file {} holds no secret", path.display()));
            None
        }
        Err(error) => {
            m.add(at.line, format!("secret_file {}: {error}", path.display()));
            None
        }
    }
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

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests;
