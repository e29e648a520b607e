//! What a file means, and every mistake with its line.

use super::*;
use crate::config::{Key, Protocol, Upstream};
use proto::core::route::OnLoss;
use std::time::Duration;

fn read(text: &str) -> Result<Config, Mistakes> {
    load(Some((Path::new("node.toml"), text)), Flags::default())
}

fn lines(text: &str) -> Vec<(Option<usize>, String)> {
    let mistakes = read(text).expect_err("mistakes");
    mistakes.0.into_iter().map(|mistake| (mistake.line, mistake.what)).collect()
}

#[test]
fn nothing_written_means_the_defaults() {
    let config = load(None, Flags { name: Some("a".into()), ..Flags::default() }).expect("valid");
    assert_eq!(config.listen, "127.0.0.1:8080".parse().expect("an address"));
    assert_eq!(config.peer, "127.0.0.1:7400".parse().expect("an address"));
    assert_eq!(config.admin, "127.0.0.1:9400".parse().expect("an address"));
    assert_eq!(config.secrets, [DEVELOPMENT_SECRET]);
    assert!(config.routes.is_empty());
}

#[test]
fn a_file_is_read_whole() {
    let config = read(
        r#"
        name = "a"
        seeds = ["10.0.0.2:7400", "ringway-headless:7400"]
        [[route]]
        path = "/mcp"
        upstream = ["http://127.0.0.1:3001/mcp", "http://127.0.0.1:3002/mcp"]
        on_loss = "expire"
        idle_timeout = "90s"
        max_sessions = 7
        [[route]]
        path = "/shell"
        command = ["npx", "-y", "server"]
        env = { LOG = "1" }
        start_timeout = "5s"
        max_sessions_per_client = 3
        [[route]]
        path = "/old"
        upstream = "http://127.0.0.1:4002/sse"
        transport = "sse"
        [[route]]
        path = "/graphql"
        affinity = "none"
        upstream = "http://127.0.0.1:4000/graphql"
        [[route]]
        path = "/jobs"
        affinity = { header = "X-Job-Id" }
        upstream = ["http://127.0.0.1:4001"]
        "#,
    )
    .expect("valid");
    assert_eq!(config.seeds, ["10.0.0.2:7400", "ringway-headless:7400"]);
    let [mcp, shell, old, graphql, jobs] = config.routes.as_slice() else { panic!("five routes") };
    assert_eq!((mcp.upstreams.len(), mcp.on_loss, mcp.sessions_max), (2, OnLoss::Expire, 7));
    assert_eq!(mcp.idle_timeout, Duration::from_secs(90));
    assert_eq!((shell.sessions_max, shell.sessions_per_client_max), (200, 3));
    let [Upstream::Stdio(child)] = shell.upstreams.as_slice() else { panic!("a child") };
    assert_eq!(
        (&*child.program, &*child.arguments),
        ("npx", ["-y".to_owned(), "server".to_owned()].as_slice())
    );
    assert_eq!((&*child.env["LOG"], child.start_timeout), ("1", Duration::from_secs(5)));
    assert!(matches!(old.upstreams.as_slice(), [Upstream::HttpSse(_)]));
    assert_eq!((mcp.protocol, &mcp.key), (Protocol::Mcp, &None));
    assert_eq!((graphql.protocol, &graphql.key), (Protocol::Http, &None));
    let header = Key::Header("x-job-id".parse().expect("a header's name"));
    assert_eq!((jobs.protocol, &jobs.key), (Protocol::Http, &Some(header)));
}

#[test]
fn a_path_that_no_client_can_ask_for_is_a_mistake() {
    for path in ["/a b", "/a?x", "/a#x", "/a`b", "/a\\nb", "/\\u007f", "/ü"] {
        let text = format!("[[route]]\npath = \"{path}\"\nupstream = \"http://127.0.0.1:1\"");
        let found = lines(&text);
        assert!(
            found.len() == 1 && found[0].0 == Some(2) && found[0].1.starts_with("path "),
            "{path}: {found:?}"
        );
    }
}

#[test]
fn the_paths_of_an_mcp_route_belong_to_no_other() {
    let route = |path: &str, more: &str| {
        format!("[[route]]\npath = \"{path}\"\nupstream = \"http://127.0.0.1:1\"\n{more}\n")
    };
    let plain = "affinity = \"none\"";
    for (first, second, is_mistake) in [
        (route("/mcp", ""), route("/mcp/sse", plain), true),
        (route("/mcp/messages", plain), route("/mcp", ""), true),
        (route("/mcp/sse", ""), route("/mcp", ""), true),
        (route("/", ""), route("/sse", plain), true),
        (route("/mcp/", ""), route("/mcp", ""), true),
        (route("/mcp", plain), route("/mcp/sse", plain), false),
        (route("/mcp", ""), route("/mcp/sse/x", ""), false),
        (route("/mcp", ""), route("/", plain), false),
    ] {
        let text = first + &second;
        match is_mistake {
            true => {
                let found = lines(&text);
                assert_eq!(found.len(), 1, "{text}: {found:?}");
                assert!(found[0].0 == Some(5) && found[0].1.contains("HTTP+SSE"), "{text}: {found:?}");
            }
            false => drop(read(&text).expect("no two are the same")),
        }
    }
}

#[test]
fn a_flag_wins_over_the_file() {
    let flags =
        Flags { name: Some("b".into()), upstreams: vec!["http://127.0.0.1:1/x".into()], ..Flags::default() };
    let text = "name = \"a\"\n[[route]]\npath = \"/mcp\"\nupstream = [\"http://127.0.0.1:2/y\"]";
    let config = load(Some((Path::new("node.toml"), text)), flags).expect("valid");
    assert_eq!(config.name.as_str(), "b");
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.routes[0].upstreams[0].to_string(), "http://127.0.0.1:1/x");
}

#[test]
fn all_mistakes_come_at_once_each_with_its_line() {
    let found = lines(
        r#"name = "a b"
listen = "nowhere"
sedes = ["x:1"]
seeds = ["10.0.0.2:7400",
  "10.0.0.2"]
[[route]]
path = "mcp"
upstream = ["ftp://x"]
on_loss = "shrug"
idle_timeout = "soon"
max_sessions = -1
[[route]]
path = "/shell"
command = ["npx"]
env = { LOG = "1" }
start_timeout = "1 day"
[[route]]
upstream = 7
"#,
    );
    let expected = [
        (1, "node name"),
        (2, "listen"),
        (3, "unknown key \"sedes\""),
        (5, "seed \"10.0.0.2\""),
        (7, "path \"mcp\""),
        (8, "http://"),
        (9, "on_loss"),
        (10, "idle_timeout"),
        (11, "max_sessions"),
        (16, "start_timeout"),
        (17, "no upstream"),
        (17, "no path"),
        (18, "upstream: expected an array"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, what), (expected_line, part)) in found.iter().zip(expected) {
        assert_eq!(*line, Some(expected_line), "{what}");
        assert!(what.contains(part), "{what:?} does not name {part:?}");
    }
}

#[test]
fn broken_syntax_is_a_mistake_with_a_line() {
    let found = lines("name = \"a\"\nlisten = = 7\n");
    assert_eq!(found[0].0, Some(2), "{found:?}");
}

#[test]
fn a_public_address_needs_a_secret_and_the_remedy_is_named() {
    for key in ["listen", "peer", "admin"] {
        let found = lines(&format!("name = \"a\"\n{key} = \"192.0.2.1:1\""));
        assert!(found.iter().any(|(_, what)| what.contains("ringway secret")), "{found:?}");
    }
}

#[test]
fn an_address_that_nobody_can_dial_is_refused() {
    let found = lines("name = \"a\"\npeer = \"0.0.0.0:7400\"");
    assert!(found.iter().any(|(_, what)| what.contains("set advertise")), "{found:?}");
}

/// What a route with these lines speaks, and what ties its requests.
fn affinity(written: &str) -> Result<(Protocol, Option<Key>), String> {
    let text =
        format!("name = \"a\"\n[[route]]\npath = \"/x\"\nupstream = \"http://127.0.0.1:1/x\"\n{written}");
    let config = read(&text).map_err(|mistakes| mistakes.to_string())?;
    Ok((config.routes[0].protocol, config.routes[0].key.clone()))
}

#[test]
fn a_route_speaks_what_it_says_or_what_its_affinity_implies() {
    let header = |name: &str| Some(Key::Header(name.parse().expect("a header's name")));
    for (written, protocol, key) in [
        ("", Protocol::Mcp, None),
        ("protocol = \"mcp\"", Protocol::Mcp, None),
        ("protocol = \"http\"", Protocol::Http, None),
        ("affinity = \"none\"", Protocol::Http, None),
        ("affinity = { principal = true }", Protocol::Mcp, Some(Key::Principal)),
        ("affinity = { header = \"Mcp-Param-Cart\" }", Protocol::Mcp, header("mcp-param-cart")),
        ("affinity = { header = \"Mcp-Name\" }", Protocol::Mcp, header("mcp-name")),
        ("affinity = { header = \"X-Tenant\" }", Protocol::Http, header("x-tenant")),
        ("affinity = { header = \"X-Tenant\" }\nprotocol = \"mcp\"", Protocol::Mcp, header("x-tenant")),
        ("affinity = { cookie = \"sid\" }", Protocol::Http, Some(Key::Cookie("sid".into()))),
        ("affinity = { query = \"s\" }\nprotocol = \"mcp\"", Protocol::Mcp, Some(Key::Query("s".into()))),
    ] {
        assert_eq!(affinity(written), Ok((protocol, key)), "{written}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (written, part) in [
        ("protocol = \"grpc\"", "neither \"mcp\" nor \"http\""),
        ("affinity = \"some\"", "affinity \"some\" is not \"none\""),
        ("affinity = { principal = false }", "affinity \"principal\" is not"),
        ("affinity = { principal = \"sub\" }", "affinity \"principal\" is not"),
        ("affinity = { header = \"a b\" }", "not a header's name"),
        ("affinity = { cookie = \"\" }", "the cookie has no name"),
        ("affinity = { query = \"\" }", "the query has no name"),
        ("affinity = \"none\"\nprotocol = \"mcp\"", "not MCP"),
        ("affinity = { principal = true }\nprotocol = \"http\"", "Authorization"),
        ("affinity = { header = \"Mcp-Name\" }\nprotocol = \"http\"", "for MCP routes"),
        ("transport = \"sse\"\nprotocol = \"http\"", "plain HTTP"),
    ] {
        let mistakes = affinity(written).expect_err(written);
        assert!(mistakes.contains(part), "{written}: {mistakes}");
        assert_eq!(mistakes.lines().count(), 1, "{written}: {mistakes}");
    }
}

#[test]
fn limits_are_read_and_mistakes_in_them_named() {
    let config = read(
        "name = \"a\"\nmax_connections = 100\nmax_connections_per_client = 10\nheader_timeout = \"5s\"\n\
         body_timeout = \"20s\"\nsend_timeout = \"2m\"\nmax_sessions = 7\nnew_sessions_per_second = 50",
    )
    .expect("valid");
    let limits = config.limits;
    assert_eq!((limits.connections_max, limits.connections_per_client_max), (100, Some(10)));
    let times = [limits.header_time_max, limits.body_time_max, limits.send_time_max];
    assert_eq!(times, [5, 20, 120].map(Duration::from_secs));
    assert_eq!((config.new_sessions.sessions_max, config.new_sessions.per_second.get()), (Some(7), 50));

    let found = lines(
        "name = \"a\"\nmax_connections = 0\nmax_connections_per_client = \"x\"\nheader_timeout = \"1ms\"\n\
         body_timeout = 60\nsend_timeout = \"2 h\"\nmax_sessions = 0\nnew_sessions_per_second = 0",
    );
    let at: Vec<_> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(at, (2..=8).map(Some).collect::<Vec<_>>(), "{found:#?}");
    for ((_, what), key) in found.iter().zip(limits::LIMIT_KEYS) {
        assert!(what.contains(key), "{what:?} does not name {key}");
    }
}

#[test]
fn a_certificate_needs_its_key_and_files_that_are_there() {
    for (written, line, part) in [
        ("tls = { cert = \"no/such.pem\", key = \"no/such.key\" }", 2, "tls cert no/such.pem: No such file"),
        ("[tls]\ncert = \"no/such.pem\"", 3, "--tls-key"),
        ("[tls]", 2, "tls needs both"),
        ("tls = { cert = 7 }", 2, "a table of strings"),
        ("tls = \"cert.pem\"", 2, "a table of strings"),
    ] {
        let found = lines(&format!("name = \"a\"\n{written}"));
        assert_eq!(found.len(), 1, "{written}: {found:?}");
        assert!(found[0].0 == Some(line) && found[0].1.contains(part), "{written}: {found:?}");
    }
    let found = lines("name = \"a\"\n[tls]\ncret = \"x\"");
    assert!(found.iter().any(|(line, what)| *line == Some(3) && what.contains("\"cret\"")), "{found:?}");
}
