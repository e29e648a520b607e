//! A child dies, or the node that it belongs to: what was on its way is answered honestly, and the session goes on
//! with a new child or is gone, as its route says.

use std::time::{Duration, Instant};

use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::marked;
use cluster_tests::real::mcp::{PROTOCOL, Session, call, said};
use cluster_tests::real::route::Route;
use cluster_tests::real::wait::{wait_for, wait_until};
use serde_json::{Value, json};

use super::lost_and_found::{SERVED_AGAIN, other_than};
use super::prepare::{Children, counting_children, counting_children_with};

const SOON: Duration = Duration::from_secs(15);

/// The end of a child is seen when its pipe closes; the rest is for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_call_whose_child_dies_fails_at_once_and_says_that_it_may_have_run() {
    let Children { cluster, .. } = counting_children(3).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    assert_eq!(session.count(&cluster.url("b"), 1).await.unwrap(), 1);
    let child = child_of(&cluster, &session).await;
    let calls = [(json!(7), "a"), (json!("7"), "b"), (json!(8), "c")].map(|(id, node)| {
        let (session, url) = (session.clone(), cluster.url(node));
        tokio::spawn(async move {
            let slow = call(id.clone(), "slow", json!({"ms": 600_000}));
            let mut stream = session.post_stream(&url, &slow).await.unwrap();
            assert_eq!(stream.status, 200);
            let primed = stream.event(SOON).await.unwrap().expect("the stream ends");
            assert!(primed.data.trim().is_empty(), "{primed:?}");
            let reply = stream.message(SOON).await.unwrap().expect("the stream ends without an answer");
            assert_eq!((&reply["id"], &reply["error"]["code"]), (&id, &json!(-31001)), "{reply}");
            assert_eq!(reply["error"]["data"]["mayHaveRun"], true, "{reply}");
            assert_eq!(stream.event(SOON).await.unwrap(), None);
        })
    });
    in_progress(&cluster, calls.len()).await;
    let killed = Instant::now();
    kill(child);
    for call in calls {
        call.await.unwrap();
    }
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
    // Its state is gone with it; the session goes on.
    for (number, url) in (1..).zip(cluster.urls()) {
        assert_eq!(session.count(&url, number).await.unwrap(), number);
    }
    assert_ne!(child_of(&cluster, &session).await, child);
}

#[tokio::test]
async fn a_child_that_dies_between_two_calls_is_replaced_and_streams_stand_again() {
    let Children { cluster, mark } = counting_children(3).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let mut stream = session.listen(&cluster.url("b")).await.unwrap();
    for round in 1..=3u64 {
        kill(child_of(&cluster, &session).await);
        is_gone(&cluster, &mark).await;
        assert_eq!(session.count(&cluster.url("c"), round).await.unwrap(), 1);
        let announce = call(10 + round, "announce", json!({"n": round, "after_ms": 300}));
        let reply = session.post(&cluster.url("a"), &announce).await.unwrap().reply().unwrap();
        assert_eq!(said(&reply), Some("To be announced"), "{reply}");
        // The client's stream stays, or ends cleanly and is opened again, as clients do.
        loop {
            match stream.message(SOON).await.unwrap() {
                Some(message) if message["params"]["data"]["announced"] == round => break,
                // What else a new child has to be told of: that its lists may be others.
                Some(message) => assert!(message["method"].is_string(), "{message}"),
                None => stream = session.listen(&cluster.url("b")).await.unwrap(),
            }
        }
    }
    assert_eq!(marked::all(&mark).len(), 1);
}

#[tokio::test]
async fn a_session_whose_child_died_is_gone_where_the_route_says_so() {
    let Children { cluster, mark } = counting_children_with(3, |route| route.text("on_loss", "expire")).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    assert_eq!(session.count(&cluster.url("b"), 1).await.unwrap(), 1);
    kill(child_of(&cluster, &session).await);
    wait_until("the child is gone", SOON, async || marked::all(&mark).is_empty()).await;
    for url in cluster.urls() {
        // Until its node has heard of the death a call is sent to the dead, and says so.
        let asking = async || {
            let answer = session.post(&url, &call(2, "count", json!({}))).await?;
            let error = &answer.reply()?["error"];
            assert!([-32001, -31001].map(Value::from).contains(&error["code"]), "{}", answer.text());
            anyhow::ensure!(answer.status == 404, "{}", answer.status);
            Ok(())
        };
        wait_for("the session is gone", AT_ONCE, asking).await;
        assert_eq!(session.listen(&url).await.unwrap().status, 404);
    }
    assert_eq!(marked::all(&mark), []);
}

#[tokio::test]
async fn a_child_that_is_lost_whenever_its_session_begins_anew_is_not_started_again_and_again() {
    // It serves one subscription; whoever wants that one again, as a session that begins anew, ends it.
    let subscribed = r#"read subscribe
        if [ "$start" -eq 1 ]; then echo '{"jsonrpc":"2.0","id":2,"result":{}}'; fi"#;
    let frail = Frail::new(PROTOCOL, subscribed).await;
    let session = Session::open(&frail.url()).await.unwrap();
    let subscribe =
        json!({"jsonrpc": "2.0", "id": 2, "method": "resources/subscribe", "params": {"uri": "a:b"}});
    let reply = session.post(&frail.url(), &subscribe).await.unwrap().reply().unwrap();
    assert_eq!(reply["result"], json!({}), "{reply}");
    frail.is_gone().await;
    for starts in 2..=3 {
        let reply = session.post(&frail.url(), &call(3, "count", json!({}))).await.unwrap().reply().unwrap();
        assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!(3), &json!(-31001)), "{reply}");
        assert_eq!(reply["error"]["data"]["mayHaveRun"], false, "{reply}");
        assert_eq!(frail.starts(), starts, "one for each request");
    }
}

#[tokio::test]
async fn a_session_that_can_not_begin_anew_leaves_no_child() {
    // A server of another revision than the one that the client knows.
    let stays = r#"if [ "$start" -gt 1 ]; then while read -r message; do :; done; fi"#;
    let frail = Frail::new("2025-06-18", stays).await;
    let session = Session::open(&frail.url()).await.unwrap();
    frail.is_gone().await;
    let answer = session.post(&frail.url(), &call(2, "count", json!({}))).await.unwrap();
    assert_eq!((answer.status, frail.starts()), (404, 2), "{}", answer.text());
    frail.is_gone().await;
}

#[tokio::test]
async fn a_child_that_takes_longer_to_start_than_a_request_waits_is_there_for_the_next_one() {
    let serves = r#"while [ "$start" -gt 1 ] && read -r message; do
        echo '{"jsonrpc":"2.0","id":3,"result":{}}'; done"#;
    // 10 s are what a request waits (CONTRACT).
    let frail = Frail::new(&format!("$(sleep 12; echo {PROTOCOL})"), serves).await;
    let session = Session::open(&frail.url()).await.unwrap();
    frail.is_gone().await;
    let list = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list"});
    let reply = session.post(&frail.url(), &list).await.unwrap().reply().unwrap();
    assert_eq!(reply["error"]["data"]["mayHaveRun"], false, "{reply}");
    let reply = session.post(&frail.url(), &list).await.unwrap().reply().unwrap();
    assert_eq!((&reply["result"], frail.starts()), (&json!({}), 2), "{reply}");
}

/// A server that does not live long, and a node in front of it.
struct Frail {
    cluster: Cluster,
    mark: String,
}

impl Frail {
    /// Whoever starts after the first says that it speaks `version`, a word of the shell's. What it does when its session has begun is
    /// `then`, which may look at `start`: the children of a node are numbered.
    async fn new(version: &str, then: &str) -> Frail {
        let mark = marked::new("frail");
        let script = format!(
            r#"start=${{RINGWAY_SESSION#child-}}
            version={PROTOCOL}; if [ "$start" -gt 1 ]; then version={version}; fi
            read hello
            echo '{{"jsonrpc":"2.0","id":1,"result":{{"protocolVersion":"'$version'","capabilities":{{}},"serverInfo":{{"name":"frail","version":"1"}}}}}}'
            read initialized
            {then}"#
        );
        let command = ["sh".to_owned(), "-c".to_owned(), script];
        let route = Route::command(&command).env(&[(marked::VARIABLE, &mark)]);
        Frail { cluster: Plan::nodes(1).routes(&[route]).start().await.unwrap(), mark }
    }

    fn url(&self) -> String {
        self.cluster.url("a")
    }

    fn starts(&self) -> usize {
        self.cluster.node("a").process.log().matches("a child has started").count()
    }

    async fn is_gone(&self) {
        is_gone(&self.cluster, &self.mark).await;
    }
}

#[tokio::test]
async fn a_killed_nodes_sessions_go_on_with_new_children_at_the_others() {
    let Children { mut cluster, mark } = counting_children(3).await;
    let mut sessions = Vec::new();
    for name in ["a", "b", "c", "a", "b", "c"] {
        let session = Session::open(&cluster.url(name)).await.unwrap();
        assert_eq!(session.count(&cluster.url("b"), 1).await.unwrap(), 1);
        sessions.push((cluster.owner("b", &session.id).await.unwrap(), session));
    }
    let killed = sessions[0].0.clone();
    let entry = other_than(&cluster, &killed);
    cluster.kill(&killed).await.unwrap();
    for (owner, session) in &sessions {
        // What the child had counted died with it; who did not die counts on.
        let first = if *owner == killed { 1 } else { 2 };
        let counting = async || session.count(&cluster.url(&entry), 2).await;
        assert_eq!(wait_for("somebody serves the session", SERVED_AGAIN, counting).await, first);
        for (number, url) in (first + 1..).zip(cluster.urls()) {
            assert_eq!(session.count(&url, number).await.unwrap(), number);
        }
    }
    wait_until("one child per session", SOON, async || marked::all(&mark).len() == sessions.len()).await;
}

#[tokio::test]
async fn a_drained_nodes_sessions_go_on_elsewhere_and_its_children_are_gone() {
    let Children { mut cluster, mark } = counting_children(3).await;
    let mut sessions = Vec::new();
    for url in cluster.urls().iter().cycle().take(6) {
        let session = Session::open(url).await.unwrap();
        assert_eq!(session.count(url, 1).await.unwrap(), 1);
        sessions.push(session);
    }
    let drained = cluster.owner("b", &sessions[0].id).await.unwrap();
    let mut its_children = Vec::new();
    for session in &sessions {
        if cluster.owner("b", &session.id).await.unwrap() == drained {
            its_children.push(child_of(&cluster, session).await);
        }
    }
    assert!(cluster.drain(&drained, Duration::from_secs(10)).await.unwrap().success());
    wait_for("its children are gone", SOON, async || {
        let alive = marked::all(&mark);
        let left = alive.iter().any(|child| its_children.contains(&child.pid));
        anyhow::ensure!(!left, "{}", marked::table(&alive));
        Ok(())
    })
    .await;
    for session in &sessions {
        let first = session.count(&cluster.urls()[0], 3).await.unwrap();
        assert!([1, 2].contains(&first), "{first}");
        assert_eq!(session.count(&cluster.urls()[1], 4).await.unwrap(), first + 1);
    }
}

/// Waits until there is no child any more and its owner has noticed: what is written to it before may have run.
async fn is_gone(cluster: &Cluster, mark: &str) {
    wait_until("the child is gone", SOON, async || marked::all(mark).is_empty()).await;
    wait_until("its owner knows", SOON, async || {
        cluster.metric_of_all("ringway_children", &[]).await.is_ok_and(|children| children == 0.0)
    })
    .await;
}

/// The process that serves the session now.
async fn child_of(cluster: &Cluster, session: &Session) -> libc::pid_t {
    let name = session.call(&cluster.urls()[0], 99, "whoami", json!({})).await.unwrap();
    name.split(':').next().unwrap().parse().unwrap()
}

#[expect(unsafe_code, reason = "kill")]
fn kill(child: libc::pid_t) {
    // SAFETY: kill takes two numbers and touches no memory; the child answered a moment ago, and its node reaps it.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0, "{}", std::io::Error::last_os_error());
}

/// Waits until so many streams are open.
async fn in_progress(cluster: &Cluster, count: usize) {
    wait_for("the calls are in progress", SOON, async || {
        let open = cluster.metric_of_all("ringway_streams", &[]).await?;
        anyhow::ensure!(open >= count as f64, "{open} streams are open");
        Ok(())
    })
    .await;
}
