//! The era without sessions: what passes untouched, what finds its way back, what is tied to its caller, and what
//! becomes of subscriptions.

pub(crate) mod bare;

use std::collections::BTreeSet;
use std::time::Duration;

use bare::Bare;
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http::{self, Answer};
use cluster_tests::real::mcp::Session;
use cluster_tests::real::upstream::{self, Upstream};
use cluster_tests::real::wait::wait_for;
use serde_json::{Value, json};

use super::prepare::{Parts, counting_cluster};

const SOON: Duration = Duration::from_secs(15);
const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

/// A request with all that a server of 2026-07-28 asks of one.
fn request(method: &str, mut params: Value) -> Value {
    let able = json!({"elicitation": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}});
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION.1,
        "io.modelcontextprotocol/clientCapabilities": able,
    });
    json!({"jsonrpc": "2.0", "id": "1", "method": method, "params": params})
}

/// What a client sends with it, its own credentials included.
fn headers<'a>(method: &'a str, name: Option<&'a str>, caller: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut headers = vec![
        VERSION,
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-method", method),
        ("authorization", caller),
    ];
    headers.extend(name.map(|name| ("mcp-name", name)));
    headers
}

async fn ask(url: &str, method: &str, params: Value, caller: &str) -> Answer {
    let name = ["name", "taskId", "uri"].iter().find_map(|key| params[key].as_str()).map(str::to_owned);
    let headers = headers(method, name.as_deref(), caller);
    http::request("POST", url, &headers, request(method, params).to_string()).await.unwrap()
}

async fn result(url: &str, method: &str, params: Value) -> Value {
    let answer = ask(url, method, params, "Bearer x").await;
    let reply = answer.reply().unwrap();
    assert!(reply["result"].is_object(), "{}: {reply}", answer.status);
    reply["result"].clone()
}

async fn call(url: &str, tool: &str, arguments: Value) -> Value {
    result(url, "tools/call", json!({"name": tool, "arguments": arguments})).await
}

/// What a task came to, asked for at these nodes in turn.
async fn finished(urls: &[String], task: &str) -> Value {
    let mut turn = urls.iter().cycle();
    wait_for("the task has ended", SOON, async || {
        let seen = result(turn.next().unwrap(), "tasks/get", json!({"taskId": task})).await;
        assert_eq!(seen["taskId"], task, "a task has one name");
        anyhow::ensure!(seen["status"] == "completed", "{seen}");
        Ok(seen["result"].clone())
    })
    .await
}

#[tokio::test]
async fn a_modern_request_passes_a_hop_with_nothing_added_or_lost_and_so_does_its_answer() {
    let upstream = Bare::bind().await;
    let config = format!(
        "[[route]]\npath = \"/mcp\"\nupstream = [\"{}\"]\naffinity = {{ header = \"Mcp-Param-Cart\" }}\n",
        upstream.url("/deep/mcp")
    );
    let cluster = Plan::nodes(2).config(config).start().await.unwrap();
    // White space, escapes and unknown members, as no serializer would write them.
    let body = "{ \"jsonrpc\":\"2.0\" ,\"id\" : 1e0, \"method\":\"tools\\/call\", \"params\":\n{\"name\":\"\\u0078\", \
                \"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"com.example/x\":[1.0,1E2]},\
                \"taskId\":\"rwt1.made-up\",\"requestState\":\"rws1.made-up\"} }";
    let reply = "{\"jsonrpc\":\"2.0\",\"id\":1e0, \"result\":{\"resultType\":\"complete\",\"taskId\":\"7\",\"x\":1.0}}\n";
    let mut hops = BTreeSet::new();
    for url in cluster.urls() {
        let asking = {
            let (url, mut headers) =
                (url.clone(), headers("tools/call", Some("=?base64?eA==?="), "Bearer x"));
            headers.extend([
                ("mcp-param-cart", "7"),
                ("mcp-param-unknown", "=?base64?w6Q=?="),
                ("x-trace", "t"),
            ]);
            tokio::spawn(async move { http::request("POST", &url, &headers, body).await.unwrap() })
        };
        let mut asked = upstream.accept().await;
        assert_eq!(String::from_utf8_lossy(&asked.body), body);
        for (name, value) in [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "=?base64?eA==?="),
            ("mcp-param-cart", "7"),
            ("mcp-param-unknown", "=?base64?w6Q=?="),
            ("x-trace", "t"),
            ("authorization", "Bearer x"),
            ("accept", "application/json, text/event-stream"),
        ] {
            assert_eq!(asked.header(name).as_deref(), Some(value), "{name}");
        }
        assert!(asked.head.starts_with("POST /deep/mcp HTTP/1.1"), "{}", asked.head);
        asked.answer("application/json", reply).await;
        let answer = asking.await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, reply));
        hops.insert(answer.header("ringway-hops").unwrap().to_owned());
    }
    assert_eq!(hops, BTreeSet::from(["0".to_owned(), "1".to_owned()]), "one owner, whoever is asked");
}

#[tokio::test]
async fn a_task_is_found_from_every_node_and_only_there_is_its_server() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 3).await;
    let urls = cluster.urls();
    let mut processes = BTreeSet::new();
    for (round, url) in urls.iter().cycle().take(9).enumerate() {
        let created =
            call(url, "slow_compute", json!({"seconds": 0, "label": format!("round {round}")})).await;
        assert_eq!(created["resultType"], "task");
        let task = created["taskId"].as_str().unwrap();
        assert!(task.starts_with("rwt1."), "{created}");
        let done = finished(&urls, task).await;
        let said = done["content"][0]["text"].as_str().unwrap();
        assert!(said.starts_with(&format!("round {round} computed by ")), "{said}");
        processes.insert(said.rsplit(' ').next().unwrap().to_owned());
    }
    assert_eq!(processes.len(), 3, "nine calls fall to all three replicas");
    for (from, to) in urls.iter().zip(urls.iter().cycle().skip(1)) {
        let created = call(from, "multi_input", json!({})).await;
        let task = created["taskId"].as_str().unwrap().to_owned();
        let asked = wait_for("the task asks", SOON, async || {
            let seen = result(to, "tasks/get", json!({"taskId": task})).await;
            let asked = seen["inputRequests"].as_object().map_or(0, serde_json::Map::len);
            anyhow::ensure!(asked == 2, "{seen}");
            Ok(seen["inputRequests"].clone())
        })
        .await;
        for key in asked.as_object().unwrap().keys() {
            let answers = json!({key: {"action": "accept", "content": {"confirm": true}}});
            result(to, "tasks/update", json!({"taskId": task, "inputResponses": answers})).await;
        }
        assert!(finished(&urls, &task).await["content"][0]["text"].as_str().unwrap().starts_with("answered"));
        result(to, "tasks/cancel", json!({"taskId": task})).await;
    }
}

#[tokio::test]
async fn a_name_that_nobody_gave_out_is_the_upstreams_to_refuse_and_headers_must_agree_with_bodies() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 2).await;
    let url = cluster.url("a");
    let created = call(&url, "slow_compute", json!({"seconds": 60, "label": "x"})).await;
    let task = created["taskId"].as_str().unwrap();
    let forged = format!("{}x", &task[..task.len() - 1]);
    for unknown in ["786512e2-9e0d-44bd-8f29-789f320fe840", "rwt1.", &forged] {
        let answer = ask(&url, "tasks/get", json!({"taskId": unknown}), "Bearer x").await;
        assert_eq!(answer.reply().unwrap()["error"]["code"], -32602, "{unknown}: {}", answer.text());
    }
    let body = request("tasks/get", json!({"taskId": task})).to_string();
    for name in ["other", forged.as_str()] {
        let headers = headers("tasks/get", Some(name), "Bearer x");
        let answer = http::request("POST", &url, &headers, body.clone()).await.unwrap();
        assert_eq!(
            (answer.status, &answer.reply().unwrap()["error"]["code"]),
            (400, &json!(-32020)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_second_round_goes_to_the_replica_that_sealed_the_first() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 3).await;
    let urls = cluster.urls();
    for (turn, url) in urls.iter().cycle().take(6).enumerate() {
        let mut params = json!({"name": "test_input_required_result_multi_round", "arguments": {}});
        let mut asked = result(url, "tools/call", params.clone()).await;
        for (round, key) in ["step1", "step2"].into_iter().enumerate() {
            assert_eq!(asked["resultType"], "input_required", "{asked}");
            let state = asked["requestState"].as_str().unwrap();
            assert!(state.starts_with("rws1."), "{asked}");
            params["requestState"] = json!(state);
            params["inputResponses"] =
                json!({key: {"action": "accept", "content": {"name": "A", "color": "red"}}});
            asked = result(&urls[(turn + round + 1) % urls.len()], "tools/call", params.clone()).await;
        }
        assert!(asked["content"][0]["text"].as_str().unwrap().contains("state-ok"), "{asked}");
    }
}

#[tokio::test]
async fn a_task_outlives_the_node_that_passed_it_on() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 2).await;
    let mut tasks = Vec::new();
    for name in ["b", "b", "b"] {
        let created = call(&cluster.url(name), "slow_compute", json!({"seconds": 0, "label": "x"})).await;
        tasks.push(created["taskId"].as_str().unwrap().to_owned());
    }
    cluster.kill("b").await.unwrap();
    let left = [cluster.url("a"), cluster.url("c")];
    for task in &tasks {
        finished(&left, task).await;
    }
}

#[tokio::test]
async fn what_no_node_has_an_upstream_for_is_said_to_have_none() {
    let fixtures = Upstream::several(2, Upstream::fixture).await.unwrap();
    let urls = upstream::urls(&fixtures);
    let mut cluster = Cluster::start(2, &urls[..1]).await.unwrap();
    cluster.add("c", &["--upstream", &urls[1]]).await.unwrap();
    cluster.settled().await.unwrap();
    // This node takes its two upstreams in turn, and the others have but one of them.
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let created = call(&cluster.url("c"), "slow_compute", json!({"seconds": 0, "label": "x"})).await;
        tasks.push(created["taskId"].as_str().unwrap().to_owned());
    }
    for task in &tasks {
        finished(&[cluster.url("a"), cluster.url("b")], task).await;
    }
    cluster.kill("c").await.unwrap();
    wait_for("one task is served by whoever has its upstream, and the other by nobody", SOON, async || {
        let mut reasons = BTreeSet::new();
        for task in &tasks {
            let answer = ask(&cluster.url("a"), "tasks/get", json!({"taskId": task}), "Bearer x").await;
            let reply = answer.reply()?;
            assert_eq!(answer.status, 200, "{reply}");
            if reply["error"].is_object() {
                assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!("1"), &json!(-31001)), "{reply}");
                assert_eq!(reply["error"]["data"]["mayHaveRun"], false, "{reply}");
            }
            reasons.insert(reply["error"]["data"]["reason"].as_str().map(str::to_owned));
        }
        anyhow::ensure!(reasons == BTreeSet::from([None, Some("no_upstream".to_owned())]), "{reasons:?}");
        Ok(())
    })
    .await;
}

/// Three nodes and replicas, the modern traffic of each caller tied to one of both.
async fn by_principal() -> Parts {
    let upstreams = Upstream::several(3, Upstream::fixture).await.unwrap();
    let listed = json!(upstream::urls(&upstreams));
    let route =
        format!("[[route]]\npath = \"/mcp\"\nupstream = {listed}\naffinity = {{ principal = true }}\n");
    let cluster = Plan::nodes(3).config(route).start().await.unwrap();
    Parts { cluster, upstreams }
}

#[tokio::test]
async fn one_callers_modern_traffic_has_one_owner_and_sessions_stay_sessions() {
    let Parts { cluster, upstreams: _upstreams } = by_principal().await;
    let mut owners = BTreeSet::new();
    for caller in 0..12 {
        let caller = format!("Bearer {caller}");
        let mut seen = BTreeSet::new();
        for url in cluster.urls() {
            let params = json!({"name": "whoami", "arguments": {}});
            let answer = ask(&url, "tools/call", params, &caller).await;
            let said = answer.reply().unwrap()["result"]["content"][0]["text"].as_str().unwrap().to_owned();
            let process = said.split(':').next().unwrap().to_owned();
            seen.insert((answer.header("ringway-node").unwrap().to_owned(), process));
            let discovered = ask(&url, "server/discover", json!({}), &caller).await;
            assert_eq!(discovered.status, 200);
            assert_eq!(
                discovered.header("ringway-node"),
                answer.header("ringway-node"),
                "all of its traffic"
            );
        }
        assert_eq!(seen.len(), 1, "{seen:?}");
        owners.extend(seen.into_iter().map(|(node, _)| node));
    }
    assert_eq!(owners.len(), 3, "twelve callers fall to all three nodes");
    let session = Session::open(&cluster.url("a")).await.unwrap();
    for (expected, url) in (1..).zip(cluster.urls().iter().cycle().take(6)) {
        assert_eq!(session.count(url, expected).await.unwrap(), expected);
    }
}

/// Opens a subscription at `url` and reads its acknowledgement.
async fn listen(url: &str, caller: &str) -> http::Stream {
    let body = request("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let headers = headers("subscriptions/listen", None, caller);
    let mut stream = http::open_stream("POST", url, &headers, body.to_string()).await.unwrap();
    let acknowledged = stream.message(SOON).await.unwrap().expect("an acknowledgement");
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    stream
}

#[tokio::test]
async fn a_subscription_hears_what_its_caller_causes_and_ends_without_a_result_when_its_node_dies() {
    let Parts { mut cluster, upstreams: _upstreams } = by_principal().await;
    let owner = ask(&cluster.url("a"), "server/discover", json!({}), "Bearer x").await;
    let owner = owner.header("ringway-node").unwrap().to_owned();
    let others: Vec<_> = cluster.names().into_iter().filter(|name| *name != owner).collect();
    let mut stream = listen(&cluster.url(&others[0]), "Bearer x").await;
    assert_eq!(stream.header("ringway-hops"), Some("1"));
    call(&cluster.url(&others[1]), "test_trigger_tool_change", json!({})).await;
    let changed = stream.message(SOON).await.unwrap().expect("a notification");
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    cluster.kill(&owner).await.unwrap();
    // Every SDK's client takes that for lost and listens anew; an error would be an answer.
    assert!(stream.event(SOON).await.unwrap().is_none());
    listen(&cluster.url(&others[0]), "Bearer x").await;
}

#[tokio::test]
async fn a_node_that_leaves_ends_its_subscriptions_and_not_its_answers() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let mut stream = listen(&cluster.url("a"), "Bearer x").await;
    let slow = tokio::spawn({
        let url = cluster.url("a");
        async move { call(&url, "slow", json!({"ms": 1_000})).await }
    });
    let ended = tokio::spawn(async move { stream.event(SOON).await.unwrap() });
    cluster.drain("a", Duration::from_secs(20)).await.unwrap();
    assert!(ended.await.unwrap().is_none(), "it ends, and without a result");
    assert_eq!(slow.await.unwrap()["content"][0]["text"], "slept 1000 ms");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request_also_over_a_hop_and_before_its_answer_begins() {
    let upstream = Bare::bind().await;
    let config = format!(
        "[[route]]\npath = \"/mcp\"\nupstream = [\"{}\"]\naffinity = {{ principal = true }}\n",
        upstream.url("/mcp")
    );
    let cluster = Plan::nodes(2).config(config).start().await.unwrap();
    for url in cluster.urls() {
        for (method, begins) in [("subscriptions/listen", true), ("tools/call", true), ("tools/call", false)]
        {
            let asking = tokio::spawn({
                let (url, headers) = (url.clone(), headers(method, Some("x"), "Bearer x"));
                let body = request(method, json!({"name": "x", "notifications": {}})).to_string();
                async move { http::open_stream("POST", &url, &headers, body).await.unwrap() }
            });
            let mut asked = upstream.accept().await;
            if begins {
                asked
                    .begin(
                        "text/event-stream",
                        "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n",
                    )
                    .await;
                let mut stream = asking.await.unwrap();
                assert!(stream.message(SOON).await.unwrap().is_some());
                drop(stream);
            } else {
                asking.abort();
            }
            asked.closed(SOON).await;
        }
    }
}

#[tokio::test]
async fn tasks_in_notifications_have_the_names_that_the_client_knows_them_by() {
    let upstream = Bare::bind().await;
    let cluster = Cluster::start(2, &[upstream.url("/mcp")]).await.unwrap();
    let created = tokio::spawn({
        let url = cluster.url("a");
        async move { call(&url, "x", json!({})).await }
    });
    let reply =
        r#"{"jsonrpc":"2.0","id":"1","result":{"resultType":"task","taskId":"ä\n7","status":"working"}}"#;
    upstream.accept().await.answer("application/json", reply).await;
    let task = created.await.unwrap()["taskId"].as_str().unwrap().to_owned();
    let listening = tokio::spawn({
        let (url, task) = (cluster.url("b"), task.clone());
        async move {
            let ids = json!({"taskIds": [task, "foreign"]});
            let body = request("subscriptions/listen", json!({"notifications": ids})).to_string();
            let headers = headers("subscriptions/listen", None, "Bearer x");
            http::open_stream("POST", &url, &headers, body).await.unwrap()
        }
    });
    let mut asked = upstream.accept().await;
    let sent: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(sent["params"]["notifications"]["taskIds"], json!(["ä\n7", "foreign"]));
    let said = json!({"method": "notifications/subscriptions/acknowledged",
        "params": {"notifications": {"taskIds": ["ä\n7", "foreign"]}}});
    // An event that comes in two pieces, the second with the next event.
    let first =
        format!("event: message\ndata: {said}\n\nid: 1\ndata: {{\"method\":\"notifications/tasks\",\"par");
    asked.begin("text/event-stream", &first).await;
    let mut stream = listening.await.unwrap();
    let acknowledged = stream.message(SOON).await.unwrap().unwrap();
    assert_eq!(acknowledged["params"]["notifications"]["taskIds"], json!([task, "foreign"]));
    asked.go_on("ams\":{\"taskId\":\"\\u00e4\\n7\"}}\n\ndata: {\"x\":1.0}\n\n").await;
    assert_eq!(stream.message(SOON).await.unwrap().unwrap()["params"]["taskId"], json!(task));
    assert_eq!(stream.event(SOON).await.unwrap().unwrap().data, "{\"x\":1.0}");
    let got = tokio::spawn({
        let (url, task) = (cluster.url("b"), task.clone());
        async move { result(&url, "tasks/get", json!({"taskId": task})).await }
    });
    let mut asked = upstream.accept().await;
    assert_eq!(
        asked.header("mcp-name").as_deref(),
        Some("=?base64?w6QKNw==?="),
        "what no header carries in clear"
    );
    let reply =
        r#"{"jsonrpc":"2.0","id":"1","result":{"resultType":"complete","taskId":"ä\n7","status":"working"}}"#;
    asked.answer("application/json", reply).await;
    assert_eq!(got.await.unwrap()["taskId"], json!(task));
}
