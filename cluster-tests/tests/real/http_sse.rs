//! Old clients (HTTP+SSE, 2024-11-05): their stream at one node, their messages at any, and their session at a third.

use std::time::Duration;

use cluster_tests::real::clients::{Drive, Tool, Transport};
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http::{self, Answer};
use cluster_tests::real::http_sse::{IN_TIME, OldClient};
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::mcp::{call, said};
use cluster_tests::real::upstream::{self, Upstream};
use cluster_tests::real::wait::wait_for;
use serde_json::{Value, json};

use super::prepare::{Parts, counting_cluster, sdks};

#[tokio::test]
async fn an_old_client_is_served_whichever_node_its_messages_reach() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 2).await;
    let bases = bases(&cluster);
    for base in &bases {
        let mut client = OldClient::open(base).await.unwrap();
        assert!(client.endpoint.starts_with("/mcp/messages?sessionId=rw1."), "{}", client.endpoint);
        assert!(client.stream.header("mcp-session-id").is_none(), "this transport has no such header");
        let owner = owner(&cluster, &client).await;
        assert_eq!(client.stream.header("ringway-node"), Some(owner.as_str()));
        for id in 1..=6 {
            let base = &bases[id as usize % bases.len()];
            assert_eq!(client.count(base, id).await.unwrap(), id);
        }
        let answer = client.post(base, &call(7, "count", json!({}))).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (202, "Accepted"));
        assert_eq!(answer.header("ringway-node"), Some(owner.as_str()));
        assert_eq!(answer.header("ringway-hops"), client.stream.header("ringway-hops"));
        assert_eq!(said(&client.reads(|message| message["id"] == 7).await.unwrap()), Some("7"));
    }
}

#[tokio::test]
async fn what_the_server_asks_and_says_by_itself_reaches_the_stream() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let bases = bases(&cluster);
    let mut client = OldClient::open(&bases[0]).await.unwrap();
    let progress = json!({"name": "test_tool_with_progress", "_meta": {"progressToken": "p"}});
    let request = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": progress});
    client.ask(&bases[1], &request).await.unwrap();
    let is_progress = |message: &&Value| message["method"] == "notifications/progress";
    assert_eq!(client.besides.iter().filter(is_progress).count(), 3, "{:?}", client.besides);

    client.tell(&bases[1], &call(3, "test_sampling", json!({"prompt": "hello"}))).await.unwrap();
    let question = client.reads(|message| message["method"] == "sampling/createMessage").await.unwrap();
    let result = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "hi"}});
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": result});
    client.tell(&bases[2], &answer).await.unwrap();
    let reply = client.reads(|message| message["id"] == 3 && message.get("method").is_none()).await.unwrap();
    assert!(said(&reply).is_some_and(|text| text.contains("hi")), "{reply}");

    announces(&mut client, &bases[1], 4).await;
    // A server may end the stream of an answer and give the rest to whoever comes back for it.
    let reply = client.ask(&bases[0], &call(9, "test_reconnection", json!({}))).await.unwrap();
    assert!(reply["result"]["content"].is_array(), "{reply}");
}

#[tokio::test]
async fn an_old_client_notices_nothing_when_its_sessions_owner_is_killed() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 2).await;
    let (mut client, owner) = owned_elsewhere(&cluster, "a").await;
    assert_eq!(client.count(&base(&cluster, "b"), 1).await.unwrap(), 1);
    // Longer than what its node holds back of an event, and the last that the client hears of this owner.
    let long = json!({"name": "x".repeat(200_000)});
    let reply = client.ask(&base(&cluster, "b"), &call(1, "json_schema_2020_12_tool", long)).await.unwrap();
    assert!(said(&reply).is_some_and(|text| text.len() > 200_000));
    cluster.kill_noticed(&owner).await.unwrap();
    let bases = bases(&cluster);
    for id in 2..=5 {
        assert_eq!(client.count(&bases[id as usize % bases.len()], id).await.unwrap(), id);
    }
    announces(&mut client, &bases[0], 6).await;
    let resumed = [("outcome", "resumed")];
    assert_eq!(cluster.metric("a", "ringway_reattached_total", &resumed).await.unwrap(), 1.0);
}

#[tokio::test]
async fn an_old_clients_call_is_answered_honestly_when_its_owner_dies_and_one_that_reads_is_sent_again() {
    let Parts { mut cluster, upstreams } = counting_cluster(3, 1).await;
    let (mut client, owner) = owned_elsewhere(&cluster, "a").await;
    let entry = cluster.names().into_iter().find(|name| *name != owner && name != "a").unwrap();
    let base = base(&cluster, &entry);
    upstreams[0].process.freeze().unwrap();
    // Each is answered before anybody knows what becomes of it.
    client.tell(&base, &call(7, "count", json!({}))).await.unwrap();
    client.tell(&base, &json!({"jsonrpc": "2.0", "id": 8, "method": "tools/list"})).await.unwrap();
    cluster.kill(&owner).await.unwrap();
    upstreams[0].process.thaw().unwrap();
    let (mut lost, mut listed) = (None, None);
    while lost.is_none() || listed.is_none() {
        let reply = client.reads(|message| message.get("id").is_some()).await.unwrap();
        let slot = if reply["id"] == 7 { &mut lost } else { &mut listed };
        assert!(slot.replace(reply).is_none(), "two replies to one call");
    }
    let lost = lost.unwrap();
    assert_eq!(lost["error"]["code"], -31001, "{lost}");
    assert_eq!(lost["error"]["data"], json!({"reason": "owner_lost", "mayHaveRun": true}));
    assert!(listed.unwrap()["result"]["tools"].is_array());
    // Whether it did run is what nobody knows; but not twice.
    let counted = client.count(&base, 9).await.unwrap();
    assert!((1..=2).contains(&counted), "{counted}");
}

#[tokio::test]
async fn an_old_client_goes_on_when_the_owner_of_its_session_leaves() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 2).await;
    let (mut client, owner) = owned_elsewhere(&cluster, "a").await;
    let entry = base(&cluster, "a");
    client.tell(&entry, &call(1, "slow", json!({"ms": 2_000}))).await.unwrap();
    cluster.begin_drain(&owner, Duration::from_secs(20)).await.unwrap();
    let reply = client.reads(|message| message["id"] == 1).await.unwrap();
    assert_eq!(said(&reply), Some("slept 2000 ms"), "{reply}");
    cluster.take(&owner).process.wait(Duration::from_secs(30)).await.unwrap();
    for id in 1..=3 {
        assert_eq!(client.count(&entry, id).await.unwrap(), id);
    }
    assert_ne!(self::owner(&cluster, &client).await, owner);
    announces(&mut client, &entry, 4).await;
}

#[tokio::test]
async fn a_node_that_leaves_stays_until_the_call_that_it_took_of_an_old_client_is_answered() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let (mut client, owner) = owned_elsewhere(&cluster, "a").await;
    let taker = cluster.names().into_iter().find(|name| *name != owner && name != "a").unwrap();
    // Its POST has been answered long before its reply comes; a drain without anything to do takes 3 s.
    client.tell(&base(&cluster, &taker), &call(1, "slow", json!({"ms": 6_000}))).await.unwrap();
    cluster.begin_drain(&taker, Duration::from_secs(30)).await.unwrap();
    let mut leaving = cluster.take(&taker);
    let reply = tokio::select! {
        status = leaving.process.wait(Duration::from_secs(30)) => panic!("it has left: {status:?}"),
        reply = client.reads(|message| message["id"] == 1) => reply.unwrap(),
    };
    assert_eq!(said(&reply), Some("slept 6000 ms"), "{reply}");
    leaving.process.wait(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn an_old_clients_session_begins_anew_when_its_server_died_with_its_node() {
    let mut servers = std::collections::BTreeMap::new();
    let mut cluster = Plan::nodes(0).start().await.unwrap();
    for name in ["a", "b", "c"] {
        let server = Upstream::fixture().await.unwrap();
        cluster.add(name, &["--upstream", &server.url]).await.unwrap();
        servers.insert(name.to_owned(), server);
    }
    cluster.settled().await.unwrap();
    let (mut client, owner) = owned_elsewhere(&cluster, "a").await;
    let entry = base(&cluster, "a");
    assert_eq!(client.count(&entry, 1).await.unwrap(), 1);
    cluster.kill_noticed(&owner).await.unwrap();
    servers.get_mut(&owner).unwrap().process.kill().await.unwrap();
    for counted in 1..=3 {
        assert_eq!(client.count(&entry, 10 + counted).await.unwrap(), counted);
    }
    announces(&mut client, &entry, 20).await;
}

#[tokio::test]
async fn a_session_ends_with_its_old_client() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let (mut client, _) = owned_elsewhere(&cluster, "a").await;
    let url = format!("{}{}", base(&cluster, "b"), client.endpoint);
    assert_eq!(client.count(&base(&cluster, "b"), 1).await.unwrap(), 1);
    drop(client);
    let json = [("content-type", "application/json")];
    wait_for("the session has ended", IN_TIME, async || {
        let answer = http::request("POST", &url, &json, call(2, "count", json!({})).to_string()).await?;
        anyhow::ensure!(answer.status == 404, "{}: {}", answer.status, answer.text());
        let error = json!({"code": -32001, "message": "Session not found"});
        anyhow::ensure!(answer.json()?["error"] == error, "{}", answer.text());
        Ok(())
    })
    .await;
    wait_for("nothing is left of it", IN_TIME, async || {
        let sessions = cluster.metric_of_all("ringway_sessions", &[]).await?;
        let streams = cluster.metric_of_all("ringway_streams", &[]).await?;
        anyhow::ensure!((sessions, streams) == (0.0, 0.0), "{sessions} sessions, {streams} streams");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn old_sdk_clients_notice_nothing_while_every_message_goes_to_another_node() {
    let test = "old_sdk_clients_notice_nothing_while_every_message_goes_to_another_node";
    let Some(upstreams) = or_left_out(test, Upstream::several(3, Upstream::everything).await) else { return };
    let cluster = Cluster::start(3, &upstream::urls(&upstreams)).await.unwrap();
    for sdk in sdks(test).await {
        let drive = old_clients(&cluster, Tool::Everything);
        drive.run(sdk).await.unwrap().assert_flawless(&drive);
    }
}

#[tokio::test]
async fn old_sdk_clients_outlive_the_owners_of_their_sessions() {
    let test = "old_sdk_clients_outlive_the_owners_of_their_sessions";
    let Some(upstreams) = or_left_out(test, Upstream::several(2, Upstream::everything).await) else { return };
    let mut cluster = Cluster::start(3, &upstream::urls(&upstreams)).await.unwrap();
    // Everything comes in at one node, which gives the others their share of the sessions; it is not the one that
    // dies, which no stream of a client could outlive.
    let mut drivers = Vec::new();
    for sdk in sdks(test).await {
        let mut drive = old_clients(&cluster, Tool::Echo);
        drive.urls = vec![drive.urls.remove(1)];
        (drive.sessions, drive.concurrency, drive.pace) = (8, 8, Duration::from_millis(20));
        drivers.push(drive.start(sdk).await.unwrap());
    }
    if drivers.is_empty() {
        return;
    }
    // Python takes its time to start where all tests do at once.
    wait_for(
        "all clients are at work, and some of their sessions at the node that dies",
        3 * IN_TIME,
        async || {
            let sessions = cluster.metric("a", "ringway_sessions", &[]).await?;
            let all = cluster.metric_of_all("ringway_sessions", &[]).await?;
            let requests = cluster.metric_of_all("ringway_requests_total", &[]).await?;
            let at_work = all == 8.0 * drivers.len() as f64 && requests >= 40.0 * drivers.len() as f64;
            anyhow::ensure!(sessions >= 1.0 && at_work, "{sessions} of {all} sessions, {requests} requests");
            Ok(())
        },
    )
    .await;
    cluster.kill("a").await.unwrap();
    let before = cluster.metric_of_all("ringway_requests_total", &[]).await.unwrap();
    wait_for("its streams are attached again, and the clients go on", IN_TIME, async || {
        let resumed = cluster.metric_of_all("ringway_reattached_total", &[("outcome", "resumed")]).await?;
        let since = cluster.metric_of_all("ringway_requests_total", &[]).await? - before;
        anyhow::ensure!(resumed >= 1.0 && since >= 200.0, "{resumed} streams, {since} requests");
        Ok(())
    })
    .await;
    for driver in drivers {
        let report = driver.finish().await.unwrap();
        // What was under way may be lost, and is said to be: one call of each session at most.
        let honest = report.lost <= report.sessions && report.error_count == report.lost;
        assert!(honest && report.wrong == 0 && report.calls > 2 * report.sessions, "{report:#?}");
    }
}

#[tokio::test]
async fn a_server_of_2024_serves_clients_of_both_transports() {
    let test = "a_server_of_2024_serves_clients_of_both_transports";
    let Some(server) = or_left_out(test, Upstream::everything_sse().await) else { return };
    let config = format!("[[route]]\npath = \"/mcp\"\nupstream = \"{}\"\ntransport = \"sse\"\n", server.url);
    let cluster = Plan::nodes(3).config(config).start().await.unwrap();
    for sdk in sdks(test).await {
        for drive in [Drive::new(cluster.urls(), Tool::Everything), old_clients(&cluster, Tool::Everything)] {
            drive.run(sdk).await.unwrap().assert_flawless(&drive);
        }
    }
}

#[tokio::test]
async fn what_is_not_of_the_old_transport_is_told_so() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let base = base(&cluster, "a");
    let client = OldClient::connect(&base).await.unwrap();
    let session = cluster_tests::real::mcp::Session::open(&cluster.url("a")).await.unwrap();
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let json = [("content-type", "application/json")];
    let post = async |path: &str, body: &str| {
        http::request("POST", &format!("{base}{path}"), &json, body.to_owned()).await.unwrap()
    };
    let forged = format!("{}x", client.endpoint);
    let other = format!("/mcp/messages?sessionId={}", session.id);
    for (answer, status, code) in [
        (post("/mcp/messages", &ping).await, 400, -32600),
        (post(&forged, &ping).await, 404, -32001),
        (post("/mcp/messages?sessionId=", &ping).await, 404, -32001),
        (post(&other, &ping).await, 404, -32001),
        (post(&client.endpoint, "{").await, 400, -32700),
        (post("/mcp/sse", &ping).await, 405, -32600),
        (http::get(&format!("{base}{}", client.endpoint)).await.unwrap(), 405, -32600),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.json().unwrap()["error"]["code"], code, "{}", answer.text());
        if status == 405 {
            assert!(matches!(answer.header("allow"), Some("GET" | "POST")), "{:?}", answer.headers);
        }
    }
    let put = http::request("PUT", &format!("{base}{}", client.endpoint), &json, ping.clone()).await.unwrap();
    assert_eq!((put.status, put.header("allow")), (405, Some("POST")), "only nodes may");
    let deeper = http::get(&format!("{base}/mcp/sse/x")).await.unwrap();
    assert_eq!(deeper.status, 404);
}

#[tokio::test]
async fn pages_of_other_sites_may_not_use_the_old_transport_either() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(1, 1).await;
    let base = base(&cluster, "a");
    let client = OldClient::connect(&base).await.unwrap();
    let from = async |method: &str, path: &str, origin: &str| -> Answer {
        let asked = ("access-control-request-method", "POST");
        http::request(method, &format!("{base}{path}"), &[("origin", origin), asked], "").await.unwrap()
    };
    for path in ["/mcp/sse", client.endpoint.as_str()] {
        let foreign = from("OPTIONS", path, "http://elsewhere.example").await;
        assert_eq!(foreign.status, 403, "{path}");
        let own = from("OPTIONS", path, "http://localhost:1234").await;
        let methods = if path == "/mcp/sse" { "GET" } else { "POST" };
        assert_eq!((own.status, own.header("access-control-allow-methods")), (204, Some(methods)));
        assert_eq!(own.header("access-control-allow-origin"), Some("http://localhost:1234"));
    }
    assert_eq!(from("GET", "/mcp/sse", "http://elsewhere.example").await.status, 403);
}

/// SDK clients of HTTP+SSE, each message of which goes to the next node.
fn old_clients(cluster: &Cluster, tool: Tool) -> Drive {
    let urls = cluster.urls().iter().map(|url| format!("{url}/sse")).collect();
    Drive { transport: Transport::HttpSse, ..Drive::new(urls, tool) }
}

/// A client that came in at `entry`, and whose session another node owns.
async fn owned_elsewhere(cluster: &Cluster, entry: &str) -> (OldClient, String) {
    loop {
        let client = OldClient::open(&base(cluster, entry)).await.unwrap();
        let owner = owner(cluster, &client).await;
        if owner != entry {
            return (client, owner);
        }
    }
}

async fn owner(cluster: &Cluster, client: &OldClient) -> String {
    let anybody = cluster.names().remove(0);
    cluster.owner(&anybody, client.session()).await.unwrap()
}

fn base(cluster: &Cluster, name: &str) -> String {
    cluster.node(name).url("")
}

fn bases(cluster: &Cluster) -> Vec<String> {
    cluster.names().iter().map(|name| base(cluster, name)).collect()
}

/// Has the server say a number by itself until it arrives: the first may be said before anybody listens.
async fn announces(client: &mut OldClient, base: &str, id: u64) {
    for attempt in 0..50 {
        let n = id * 100 + attempt;
        client.ask(base, &call(n, "announce", json!({"n": n}))).await.unwrap();
        let is_it = |message: &Value| message["params"]["data"]["announced"].as_u64() == Some(n);
        if client.besides.iter().any(is_it) {
            return;
        }
        if let Ok(Ok(Some(message))) =
            tokio::time::timeout(Duration::from_millis(200), client.stream.message(IN_TIME)).await
        {
            if is_it(&message) {
                return;
            }
            client.besides.push(message);
        }
    }
    panic!("nothing that the server says by itself arrives: {:?}", client.besides);
}
