//! Nodes leave when they are asked to: whoever uses what they have goes on, and notices nothing at the other nodes.

use std::time::{Duration, Instant};

use cluster_tests::real::balancer::Balancer;
use cluster_tests::real::clients::{Drive, Report, Tool};
use cluster_tests::real::cluster::{Cluster, names_in_phase};
use cluster_tests::real::http::{self, Stream};
use cluster_tests::real::mcp::{Session, call, said};
use cluster_tests::real::wait::wait_for;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::lost_and_found::{announce, announced};
use super::prepare::{Parts, counting_cluster, sdks};

/// What is expected to happen within a second; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(15);
/// What a node takes to leave on SIGTERM, at most.
const BY_SIGNAL: Duration = Duration::from_secs(30);
/// Between the deadline and the moment at which this test sees that the process has ended.
const SEEN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_rolling_restart_under_load_is_noticed_by_nobody() {
    let test = "a_rolling_restart_under_load_is_noticed_by_nobody";
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 2).await;
    let balancer = Balancer::start(cluster.listens()).await.unwrap();
    let mut following = balancer.follow(cluster.health());
    let mut drivers = Vec::new();
    for sdk in sdks(test).await {
        let mut drive = Drive::new(vec![balancer.url("/mcp")], Tool::Count);
        (drive.sessions, drive.concurrency, drive.pace) = (8, 8, Duration::from_millis(20));
        drivers.push(drive.start(sdk).await.unwrap());
    }
    if drivers.is_empty() {
        return;
    }
    carries(&cluster, "a").await;
    let (mut reinitialized, mut cut_off) = (0.0, 0.0);
    for name in ["a", "b", "c"] {
        let began = Instant::now();
        reinitialized += begun_anew(&cluster, name).await;
        cut_off += given_up(&cluster, name).await;
        let status = match name {
            "b" => cluster.drain(name, Duration::from_secs(20)).await.unwrap(),
            _ => cluster.terminate(name, BY_SIGNAL + SEEN).await.unwrap(),
        };
        assert_eq!(status.code(), Some(0), "{name}");
        println!("{name} left after {:.1} s", began.elapsed().as_secs_f64());
        cluster.join(name).await.unwrap();
        drop(following);
        following = balancer.follow(cluster.health());
        carries(&cluster, name).await;
    }
    // Before the sessions are ended, and their streams with them.
    for name in cluster.names() {
        reinitialized += begun_anew(&cluster, &name).await;
        cut_off += given_up(&cluster, &name).await;
    }
    for driver in drivers {
        let report = driver.finish().await.unwrap();
        println!("{}", figures(&report));
        report.assert_no_errors();
        assert_eq!(report.sessions, 8);
    }
    assert_eq!(
        (reinitialized, cut_off),
        (0.0, 0.0),
        "sessions began anew, or streams of nodes that stayed ended"
    );
}

#[tokio::test]
async fn streams_at_the_nodes_that_stay_are_open_throughout_and_miss_and_repeat_nothing() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 2).await;
    let mut listening = Vec::new();
    for at in 0..9 {
        let session = Session::open(&cluster.url(["a", "b", "c"][at % 3])).await.unwrap();
        let owner = cluster.owner("b", &session.id).await.unwrap();
        let entry = cluster.url(if owner == "b" { "c" } else { "b" });
        let stream = session.listen(&entry).await.unwrap();
        listening.push((session, entry, stream, owner == "a"));
    }
    let moving = listening.iter().filter(|(.., moves)| *moves).count();
    assert!(moving > 0, "the node that leaves owns nothing");
    let leaving = begin(&mut cluster, "a", Duration::from_secs(10)).await;
    let mut last = 0;
    while last < 5 || !leaving.is_finished() {
        last += 1;
        for (session, entry, ..) in &listening {
            announce(entry, session, last).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(leaving.await.unwrap(), Some(0));
    for (_, _, stream, _) in &mut listening {
        let said: Vec<u64> = (1..=last).collect();
        assert_eq!(announced(stream, said.len()).await, said, "lost, out of order or twice");
    }
    for (session, entry, ..) in &listening {
        announce(entry, session, last + 1).await;
    }
    for (_, _, stream, _) in &mut listening {
        assert_eq!(announced(stream, 1).await, [last + 1]);
    }
    let resumed = cluster.metric_of_all("ringway_reattached_total", &[("outcome", "resumed")]).await.unwrap();
    println!("{} streams, {moving} of them resumed {resumed} times, {last} events each", listening.len());
    assert!(resumed >= moving as f64);
}

#[tokio::test]
async fn calls_under_way_get_their_answers_and_their_sessions_go_on() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = opened_at(&cluster, "a").await;
    let slow = |id: u64, url: String| {
        let session = session.clone();
        tokio::spawn(async move { session.post(&url, &call(id, "slow", json!({"ms": 4_000}))).await })
    };
    // One comes from elsewhere, one from a client of the node that leaves.
    let calls = [slow(7, cluster.url("b")), slow(8, cluster.url("a"))];
    let (there, here) = (cluster.url("b"), cluster.url("a"));
    assert_eq!(session.count(&there, 9).await.unwrap(), 1);
    let began = Instant::now();
    let leaving = begin(&mut cluster, "a", Duration::from_secs(15)).await;
    // It refuses nothing that it owns.
    assert_eq!(session.count(&here, 10).await.unwrap(), 2);
    assert_eq!(session.count(&there, 11).await.unwrap(), 3);
    for (id, answer) in (7..).zip(calls) {
        let reply = answer.await.unwrap().unwrap().reply().unwrap();
        assert_eq!((&reply["id"], said(&reply)), (&json!(id), Some("slept 4000 ms")), "{reply}");
        assert!(!leaving.is_finished());
    }
    assert_eq!(leaving.await.unwrap(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "it waited for nothing: {:?}", began.elapsed());
    for (counted, url) in (4..).zip(cluster.urls()) {
        assert_eq!(session.count(&url, counted + 10).await.unwrap(), counted);
    }
}

#[tokio::test]
async fn a_session_that_is_never_idle_is_given_away_all_the_same() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = opened_at(&cluster, "a").await;
    let (url, started) = (cluster.url("b"), Instant::now());
    // Three calls of 300 ms at any moment, until some time after the node has left.
    let callers: Vec<_> = (0..3u64)
        .map(|caller| {
            let (session, url) = (session.clone(), url.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100 * caller)).await;
                let mut id = 1_000 * caller + 10;
                while started.elapsed() < Duration::from_secs(11) {
                    id += 1;
                    let text = session.call(&url, id, "slow", json!({"ms": 300})).await.unwrap();
                    assert_eq!(text, "slept 300 ms");
                }
                id - 1_000 * caller - 10
            })
        })
        .collect();
    let status = cluster.drain("a", Duration::from_secs(8)).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(7), "it was cut off: {:?}", started.elapsed());
    let mut made = 0;
    for caller in callers {
        made += caller.await.unwrap();
    }
    assert!(made > 60, "{made} calls in 11 s");
    assert_eq!(session.count(&url, 9).await.unwrap(), 1);
}

#[tokio::test]
async fn a_call_that_outlasts_the_drain_goes_on_where_its_client_is_or_where_it_comes_back() {
    const SLEEP_MS: u64 = 9_000;
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = opened_at(&cluster, "a").await;
    let slow = |id| call(id, "slow", json!({"ms": SLEEP_MS}));
    let mut there = session.post_stream(&cluster.url("b"), &slow(7)).await.unwrap();
    let mut here = session.post_stream(&cluster.url("a"), &slow(8)).await.unwrap();
    for stream in [&mut there, &mut here] {
        assert!(stream.event(SOON).await.unwrap().is_some_and(|primed| primed.id.is_some()));
    }
    let began = Instant::now();
    let leaving = begin(&mut cluster, "a", Duration::from_secs(3)).await;
    let last = here.event(SOON).await.unwrap().expect("an event");
    assert!(last.retry.is_some() && last.data.is_empty(), "{last:?}");
    assert!(here.event(SOON).await.unwrap().is_none(), "more than that");
    assert_eq!(leaving.await.unwrap(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3) + SEEN, "{:?}", began.elapsed());

    let mut resumed = resume(&session, &cluster.url("c"), &last.id.unwrap()).await;
    for (id, stream) in [(7, &mut there), (8, &mut resumed)] {
        let reply = stream.message(SOON).await.unwrap().expect("no answer");
        assert_eq!((&reply["id"], said(&reply)), (&json!(id), Some("slept 9000 ms")), "{reply}");
    }
}

#[tokio::test]
async fn a_stuck_call_is_told_honestly_and_does_not_hold_the_node() {
    let Parts { mut cluster, upstreams } = counting_cluster(3, 1).await;
    let session = opened_at(&cluster, "a").await;
    assert_eq!(session.count(&cluster.url("b"), 2).await.unwrap(), 1);
    // Stopped, the server does not even begin to answer.
    upstreams[0].process.freeze().unwrap();
    let stuck: Vec<_> = (7..=8u64)
        .zip([cluster.url("a"), cluster.url("b")])
        .map(|(id, url)| {
            let session = session.clone();
            tokio::spawn(async move { session.post(&url, &call(id, "count", json!({}))).await })
        })
        .collect();
    wait_for("both are under way", SOON, async || {
        let answered = cluster.metric("a", "ringway_sessions", &[("state", "live")]).await?;
        anyhow::ensure!(answered >= 1.0, "{answered}");
        Ok(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let status = cluster.drain("a", Duration::from_secs(1)).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(1) + SEEN, "{:?}", began.elapsed());
    for (id, answer) in (7..).zip(stuck) {
        let answer = tokio::time::timeout(SOON, answer).await.expect("no answer in time").unwrap().unwrap();
        let reply = answer.reply().unwrap();
        assert_eq!((answer.status, &reply["id"]), (200, &json!(id)), "{reply}");
        assert_eq!(reply["error"]["data"]["mayHaveRun"], json!(true), "{reply}");
    }
    upstreams[0].process.thaw().unwrap();
    let counted = session.count(&cluster.url("c"), 9).await.unwrap();
    assert!((2..=4).contains(&counted), "{counted}");
}

#[tokio::test]
async fn streams_of_clients_at_the_node_that_leaves_end_one_by_one_and_go_on_elsewhere() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let mut listening = Vec::new();
    for _ in 0..8 {
        let session = Session::open(&cluster.url("b")).await.unwrap();
        let mut stream = session.listen(&cluster.url("a")).await.unwrap();
        announce(&cluster.url("b"), &session, 1).await;
        assert_eq!(announced(&mut stream, 1).await, [1]);
        listening.push((session, stream));
    }
    let leaving = begin(&mut cluster, "a", Duration::from_secs(12)).await;
    let leaving = tokio::spawn(async move { (leaving.await.unwrap(), Instant::now()) });
    let reading = listening.into_iter().map(|(session, mut stream)| {
        tokio::spawn(async move {
            let mut last = None;
            while let Some(event) = stream.event(BY_SIGNAL).await.unwrap() {
                last = Some(event);
            }
            (session, last.expect("a last event"), Instant::now())
        })
    });
    let mut ends = Vec::new();
    for reading in reading.collect::<Vec<_>>() {
        let (session, last, at) = reading.await.unwrap();
        assert!(last.retry.is_some() && last.data.is_empty(), "{last:?}");
        announce(&cluster.url("b"), &session, 2).await;
        let mut resumed = resume(&session, &cluster.url("c"), &last.id.expect("an id")).await;
        assert_eq!(announced(&mut resumed, 1).await, [2], "lost, or twice");
        ends.push(at);
    }
    let (code, left) = leaving.await.unwrap();
    assert_eq!(code, Some(0));
    ends.sort_unstable();
    let (first, last) = (ends[0], ends[ends.len() - 1]);
    assert!(last < left, "a stream ended with the process");
    println!("{} streams ended within {:.1} s", ends.len(), (last - first).as_secs_f64());
    assert!(last - first > Duration::from_millis(500), "all at once: {ends:?}");
}

#[tokio::test]
async fn a_node_that_drains_says_so_places_sessions_elsewhere_and_keeps_no_connection() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let (session, busy) = (opened_at(&cluster, "a").await, opened_at(&cluster, "a").await);
    let url = cluster.url("a");
    let mut pooled = tokio::net::TcpStream::connect(cluster.listen("a")).await.unwrap();
    assert!(!ask_ping(&mut pooled, &session).await.contains("connection: close"));
    let slow = tokio::spawn({
        let (busy, url) = (busy.clone(), cluster.url("b"));
        async move { busy.call(&url, 7, "slow", json!({"ms": 3_500})).await }
    });
    cluster.begin_drain("a", Duration::from_secs(20)).await.unwrap();
    wait_for("it says that it drains", SOON, async || {
        let ready = cluster.admin("a", "/readyz").await?;
        anyhow::ensure!(ready.status == 503 && ready.text().contains("draining"), "{}", ready.text());
        let members = cluster.admin_json("b", "/v1/members").await?;
        anyhow::ensure!(names_in_phase(&members, "draining") == ["a"], "{members}");
        Ok(())
    })
    .await;
    assert!(ask_ping(&mut pooled, &session).await.contains("connection: close"));
    assert_eq!(pooled.read(&mut [0; 64]).await.unwrap(), 0, "the connection stays open");
    for counted in 1..=3 {
        assert_eq!(session.count(&url, counted).await.unwrap(), counted, "it owned it");
        let new = Session::open(&url).await.unwrap();
        let owner = cluster.owner("b", &new.id).await.unwrap();
        assert_ne!(owner, "a");
        assert_eq!(new.count(&url, 2).await.unwrap(), 1);
    }
    let mut leaver = cluster.take("a");
    assert_eq!(slow.await.unwrap().unwrap(), "slept 3500 ms");
    assert_eq!(leaver.process.wait(BY_SIGNAL).await.unwrap().code(), Some(0));
    assert_eq!(session.count(&cluster.url("b"), 9).await.unwrap(), 4);
    assert_eq!(busy.count(&cluster.url("c"), 9).await.unwrap(), 1);
}

#[tokio::test]
async fn the_only_node_leaves_at_once_when_nothing_is_in_progress() {
    // Beside others it waits 2 s for clients to stop coming. A busy machine may make one of three that slow, not all.
    const AT_ONCE: Duration = Duration::from_secs(2);
    let mut took = Vec::new();
    while took.len() < 3 && took.iter().all(|took| *took >= AT_ONCE) {
        let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(1, 1).await;
        let session = Session::open(&cluster.url("a")).await.unwrap();
        let stream = session.listen(&cluster.url("a")).await.unwrap();
        drop(stream);
        let began = Instant::now();
        let status = cluster.terminate("a", BY_SIGNAL).await.unwrap();
        assert_eq!(status.code(), Some(0));
        took.push(began.elapsed());
    }
    assert!(took.iter().any(|took| *took < AT_ONCE), "{took:?}");
}

#[tokio::test]
async fn all_nodes_leave_at_once_and_wait_for_nobody() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let mut listening = Vec::new();
    for url in cluster.urls() {
        let session = Session::open(&url).await.unwrap();
        listening.push(session.listen(&url).await.unwrap());
    }
    let began = Instant::now();
    let mut leavers: Vec<_> = cluster.names().iter().map(|name| cluster.take(name)).collect();
    for leaver in &leavers {
        leaver.process.signal(libc::SIGTERM).unwrap();
    }
    for leaver in &mut leavers {
        assert_eq!(leaver.process.wait(BY_SIGNAL).await.unwrap().code(), Some(0));
        println!("left after {:.1} s", began.elapsed().as_secs_f64());
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn nothing_is_lost_where_a_taker_is_killed_in_the_middle_of_a_drain() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(4, 2).await;
    let mut sessions = Vec::new();
    for _ in 0..24 {
        sessions.push(Session::open(&cluster.url("a")).await.unwrap());
    }
    let entry = cluster.url("d");
    for session in &sessions {
        assert_eq!(session.count(&entry, 2).await.unwrap(), 1);
    }
    let leaving = begin(&mut cluster, "a", Duration::from_secs(12)).await;
    // It begins to give them away after 600 ms; some are with the taker by then, others on their way.
    wait_for("some are given away", SOON, async || {
        let owned = cluster.metric("b", "ringway_sessions", &[]).await?;
        anyhow::ensure!(owned >= 1.0, "{owned}");
        Ok(())
    })
    .await;
    cluster.kill_noticed("b").await.unwrap();
    for session in &sessions {
        let counted = tokio::time::timeout(SOON, session.count(&entry, 3)).await.expect("in time").unwrap();
        assert_eq!(counted, 2);
    }
    assert_eq!(leaving.await.unwrap(), Some(0));
    for (counted, url) in (3..).zip(cluster.urls()) {
        for session in &sessions {
            assert_eq!(session.count(&url, counted + 1).await.unwrap(), counted);
        }
    }
}

#[tokio::test]
async fn a_node_that_left_and_comes_back_under_its_name_steals_nothing() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let before = incarnation(&cluster, "b", "a").await;
    let session = opened_at(&cluster, "a").await;
    assert_eq!(cluster.drain("a", Duration::from_secs(6)).await.unwrap().code(), Some(0));
    let taker = cluster.owner("b", &session.id).await.unwrap();
    cluster.join("a").await.unwrap();
    assert!(incarnation(&cluster, "b", "a").await > before);
    for (counted, url) in (1..).zip(cluster.urls()) {
        assert_eq!(session.count(&url, counted + 1).await.unwrap(), counted);
    }
    wait_for("all agree on the owner", SOON, async || {
        for name in cluster.names() {
            let owner = cluster.owner(&name, &session.id).await?;
            anyhow::ensure!(owner == taker, "{name} says {owner}");
        }
        Ok(())
    })
    .await;
}

/// Asks a node to leave; its exit code comes once it has.
async fn begin(
    cluster: &mut Cluster,
    name: &str,
    deadline: Duration,
) -> tokio::task::JoinHandle<Option<i32>> {
    cluster.begin_drain(name, deadline).await.unwrap();
    let mut leaver = cluster.take(name);
    tokio::spawn(async move { leaver.process.wait(deadline + SEEN).await.unwrap().code() })
}

/// A session that lives on that node.
async fn opened_at(cluster: &Cluster, name: &str) -> Session {
    wait_for("a session lives there", SOON, async || {
        let session = Session::open(&cluster.url(name)).await?;
        let owner = cluster.owner(name, &session.id).await?;
        anyhow::ensure!(owner == name, "this one lives on {owner}");
        Ok(session)
    })
    .await
}

/// Goes on with a stream after an event of it, as a client does that was cut off.
async fn resume(session: &Session, url: &str, after: &str) -> Stream {
    let headers = [
        ("accept", "text/event-stream"),
        ("mcp-session-id", session.id.as_str()),
        ("mcp-protocol-version", session.protocol.as_str()),
        ("last-event-id", after),
    ];
    let stream = http::open_stream("GET", url, &headers, "").await.unwrap();
    assert_eq!(stream.status, 200);
    stream
}

/// One request on a connection that is kept, and the head of its answer in small letters.
async fn ask_ping(connection: &mut tokio::net::TcpStream, session: &Session) -> String {
    let body = json!({"jsonrpc": "2.0", "id": 5, "method": "ping"}).to_string();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-session-id: {}\r\n\
         mcp-protocol-version: {}\r\ncontent-length: {}\r\n\r\n{body}",
        session.id,
        session.protocol,
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    // The answer is a stream of events in chunks, the last of which is empty.
    while !said.ends_with("0\r\n\r\n") {
        let mut buffer = [0; 4_096];
        let len = tokio::time::timeout(SOON, connection.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(len, 0, "it ended early: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..len]));
    }
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    said.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase()
}

async fn carries(cluster: &Cluster, name: &str) {
    wait_for("the node carries requests", 4 * SOON, async || {
        let requests = cluster.metric(name, "ringway_requests_total", &[]).await?;
        anyhow::ensure!(requests > 50.0, "{requests}");
        Ok(())
    })
    .await;
}

async fn begun_anew(cluster: &Cluster, name: &str) -> f64 {
    cluster.metric(name, "ringway_takeovers_total", &[("how", "reinitialize")]).await.unwrap()
}

/// Streams that a node could not keep open for its clients.
async fn given_up(cluster: &Cluster, name: &str) -> f64 {
    cluster.metric(name, "ringway_reattached_total", &[("outcome", "given_up")]).await.unwrap()
}

async fn incarnation(cluster: &Cluster, by: &str, of: &str) -> u64 {
    let members = cluster.admin_json(by, "/v1/members").await.unwrap();
    let listed = members["members"].as_array().unwrap();
    let member = listed.iter().find(|member: &&Value| member["name"] == of).unwrap();
    member["incarnation"].as_u64().unwrap()
}

fn figures(report: &Report) -> String {
    let Report { client, sessions, calls, error_count, wrong, statuses, .. } = report;
    format!("{client}: {sessions} sessions, {calls} calls, {error_count} errors, {wrong} wrong, {statuses:?}")
}
