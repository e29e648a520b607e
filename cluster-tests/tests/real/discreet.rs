//! Nothing secret is said: not in logs, however much is logged, nor in metrics or in answers to operators. And what is
//! logged as JSON is easy for machines.

use cluster_tests::real::binaries::run_ringway;
use cluster_tests::real::cluster::Plan;
use cluster_tests::real::http;
use cluster_tests::real::mcp::{POST_HEADERS, PROTOCOL, call, initialize};
use cluster_tests::real::places;
use cluster_tests::real::upstream::Upstream;
use serde_json::{Value, json};

const TOKEN: &str = "b3JkaW5hcnktbG9va2luZy10b2tlbg";

#[tokio::test]
async fn secrets_tokens_and_session_ids_are_in_no_log_metric_or_answer() {
    let secret = run_ringway(&["secret"]).await.unwrap().stdout.trim().to_owned();
    assert!(secret.len() >= 32, "{secret}");
    let file = places::scratch("discreet").unwrap().join("cluster.key");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let upstream = Upstream::fixture().await.unwrap();
    let (file, urls) = (file.to_string_lossy().into_owned(), [upstream.url.clone()]);
    for (format, filter) in [("json", "trace"), ("text", "debug,ringway=trace")] {
        let flags = ["--secret-file", &file, "--log", filter, "--log-format", format];
        let cluster = Plan::nodes(2).upstreams(&urls).flags(&flags).start().await.unwrap();
        let bearer = format!("Bearer {TOKEN}");
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let traceparent = format!("00-{trace}-b7ad6b7169203331-01");
        let open = [("authorization", bearer.as_str()), ("traceparent", traceparent.as_str())];
        let open: Vec<_> = POST_HEADERS.into_iter().chain(open).collect();
        let answer =
            http::request("POST", &cluster.url("a"), &open, initialize(1).to_string()).await.unwrap();
        let session = answer.header("mcp-session-id").unwrap().to_owned();
        let of_session = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", PROTOCOL)];
        let headers: Vec<_> = open.iter().copied().chain(of_session).collect();
        // At both nodes, so that one of them forwards; and under an id that is nearly right.
        for url in cluster.urls() {
            let count = call(2, "count", json!({})).to_string();
            let answer = http::request("POST", &url, &headers, count.clone()).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let forged = [&session[..session.len() - 1], "_"].concat();
            let forged = [("mcp-session-id", forged.as_str()), ("authorization", bearer.as_str())];
            let forged: Vec<_> = POST_HEADERS.into_iter().chain(forged).collect();
            assert_eq!(http::request("POST", &url, &forged, count).await.unwrap().status, 404);
        }
        let gone = http::request("DELETE", &cluster.url("b"), &headers, "").await.unwrap();
        assert_eq!(gone.status, 200, "{}", gone.text());
        let mut said = String::new();
        for name in cluster.names() {
            for path in
                ["/metrics", "/v1/members", "/v1/ring", "/v1/sessions?scope=cluster", "/readyz", "/nowhere"]
            {
                said += &cluster.admin(&name, path).await.unwrap().text();
            }
            let log = cluster.node(&name).process.log();
            assert!(log.contains(trace), "requests are logged with their trace:\n{log}");
            if format == "json" {
                log.lines().for_each(is_flat);
            }
            said += &log;
        }
        // The middle of an id is enough to find it, and its ends are on others too.
        for hidden in [&secret, TOKEN, &session, &session[8..session.len() - 1]] {
            let line = said.lines().find(|line| line.contains(hidden));
            assert_eq!(line, None, "{hidden} was said");
        }
    }
}

/// A line that machines read without knowing more: no object within it, and the three keys that all lines have.
fn is_flat(line: &str) {
    let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let fields = line.as_object().unwrap();
    assert!(fields.values().all(|value| !value.is_object() && !value.is_array()), "{line}");
    assert!(["ts", "level", "msg"].iter().all(|key| fields[*key].is_string()), "{line}");
    assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
    assert!(
        ["trace", "debug", "info", "warn", "error"].iter().any(|level| line["level"] == *level),
        "{line}"
    );
}
