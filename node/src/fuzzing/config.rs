//! A node's file: whatever stands there, it is a configuration that makes sense or a list of mistakes.

use crate::config::{Config, Endpoint, Flags, Route, Upstream, load};
use std::{collections::BTreeSet, path::Path};
use toml::Value;

pub(super) const TOKENS: &[&str] = &[
    "[[route]]\n",
    "path = \"/mcp\"\n",
    "upstream = \"http://127.0.0.1:3001/mcp\"\n",
    "command = [\"cat\"]\n",
    " = ",
    "name = \"a\"\n",
    "listen = \"127.0.0.1:8080\"\n",
    "peer = \"0.0.0.0:7400\"\n",
    "advertise = \"127.0.0.1:7400\"\n",
    "seeds = [\"a:1\", \"b:2\"]\n",
    "idle_timeout = \"30m\"\n",
    "affinity = { header = \"x\" }\n",
    "affinity = \"none\"\n",
    "protocol = \"http\"\n",
    "transport = \"sse\"\n",
    "env = { A = \"b\" }\n",
    "on_loss = \"expire\"\n",
    "max_sessions = 1\n",
    "[",
    "]",
    "\"\"\"",
    "\\u00e4",
    "ä",
    "'",
    "# ",
    "\n",
    "true",
    "{",
    "}",
];

pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Nothing on this machine is to be read: a name of a file is looked for in a folder that is not there.
    let is_readable = toml::from_str::<toml::Table>(text).is_ok_and(|table| names_a_file("", &table.into()));
    if is_readable {
        return;
    }
    match load(Some((Path::new("/nowhere-at-all/ringway.toml"), text)), Flags::default()) {
        Ok(config) => makes_sense(&config),
        Err(mistakes) => {
            assert!(!mistakes.0.is_empty(), "refused without a reason");
            let lines = text.lines().count().max(1) + 1; // an error may be at the end of the text
            for mistake in &mistakes.0 {
                assert!(!mistake.what.trim().is_empty(), "a mistake says what it is");
                assert!(mistake.line.is_none_or(|line| (1..=lines).contains(&line)), "{mistake:?}");
            }
            let mut lines: Vec<_> = mistakes.0.iter().filter_map(|mistake| mistake.line).collect();
            lines.dedup();
            assert!(lines.is_sorted() || toml::from_str::<toml::Table>(text).is_err(), "in the file's order");
        }
    }
}

/// Whether any setting is of the form of an absolute path, but for those that never name a file.
fn names_a_file(key: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => text.starts_with('/') && !matches!(key, "path" | "upstream" | "command"),
        Value::Array(items) => items.iter().any(|item| names_a_file(key, item)),
        Value::Table(table) => table.iter().any(|(key, value)| names_a_file(key, value)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => false,
    }
}

fn makes_sense(config: &Config) {
    assert!(!config.secrets.is_empty(), "a cluster has a secret");
    let dialled = config.advertise.unwrap_or(config.peer);
    assert!(!dialled.ip().is_unspecified(), "nobody can dial {dialled}");
    for seed in &config.seeds {
        assert!(seed.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()), "{seed}");
    }
    let ids: BTreeSet<_> = config.routes.iter().map(|route| route.id).collect();
    assert_eq!(ids.len(), config.routes.len(), "routes are told apart");
    for route in &config.routes {
        is_whole(route);
        let same = config.routes.iter().filter(|other| other.path == route.path);
        assert_eq!(same.count(), 1, "a path belongs to one route");
        for below in [Endpoint::Sse, Endpoint::Messages] {
            let of_another = config.routes.iter().any(|other| route.endpoint(&other.path) == Some(below));
            assert!(!of_another, "{} is an old client's", route.path);
        }
    }
}

fn is_whole(route: &Route) {
    assert!(!route.upstreams.is_empty(), "{} has something that serves it", route.path);
    assert!(route.path.parse::<hyper::Uri>().is_ok_and(|uri| uri.path() == route.path), "{:?}", route.path);
    assert!(route.speaks_mcp() || !route.upstreams.iter().any(Upstream::is_bridged));
    for upstream in &route.upstreams {
        let (Upstream::Http(url) | Upstream::HttpSse(url)) = upstream else { continue };
        let port =
            url.address().rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        assert!(port.is_some_and(|(host, port)| !host.is_empty() && port > 0), "{}", url.address());
        for asked in [route.path.clone(), format!("{}?x=1", route.path)] {
            let target = url.target(&route.path, &asked);
            assert!(target.parse::<hyper::http::uri::PathAndQuery>().is_ok(), "{target:?}");
        }
    }
}
