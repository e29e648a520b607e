//! An MCP server over stdio behind a cluster: each session has a child process of its own at one node, and every
//! node takes its requests.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::real::marked;
use cluster_tests::real::mcp::{Session, call, result, said};
use cluster_tests::real::wait::wait_until;
use serde_json::{Value, json};

use super::prepare::{Children, counting_children};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_childs_counter_goes_on_wherever_it_is_asked() {
    let Children { cluster, .. } = counting_children(3).await;
    let session = Session::open(&cluster.url("b")).await.unwrap();
    assert!(session.id.starts_with("rw1."), "{}", session.id);
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let mut names = BTreeSet::new();
    for (number, url) in (1..=9).zip(cluster.urls().iter().cycle()) {
        assert_eq!(session.count(url, number).await.unwrap(), number);
        let answer = session.post(url, &call(number, "whoami", json!({}))).await.unwrap();
        assert_eq!(answer.header("ringway-node"), Some(owner.as_str()));
        names.insert(said(&answer.reply().unwrap()).unwrap().to_owned());
    }
    assert_eq!(names.len(), 1, "one session, several processes: {names:?}");
}

#[tokio::test]
async fn a_hundred_sessions_have_a_hundred_children_until_they_are_ended() {
    const SESSIONS: usize = 100;
    let Children { cluster, mark } = counting_children(3).await;
    let urls = cluster.urls();
    let opening = (0..SESSIONS).map(|number| {
        let urls = urls.clone();
        tokio::spawn(async move {
            let session = Session::open(&urls[number % 3]).await?;
            for expected in 1..=3 {
                let counted = session.count(&urls[(number + expected) % 3], expected as u64).await?;
                anyhow::ensure!(counted == expected as u64, "{expected} expected, got {counted}");
            }
            let process = session.call(&urls[(number + 1) % 3], 9, "whoami", json!({})).await?;
            anyhow::Ok((session, process))
        })
    });
    let (mut sessions, mut processes) = (Vec::new(), BTreeSet::new());
    for opened in opening.collect::<Vec<_>>() {
        let (session, process) = opened.await.unwrap().unwrap();
        sessions.push(session);
        processes.insert(process);
    }
    assert_eq!(processes.len(), SESSIONS, "two sessions share a child");
    assert_eq!(marked::all(&mark).len(), SESSIONS);

    for (number, session) in sessions.iter().enumerate() {
        let ended = session.delete(&urls[(number + 2) % 3]).await.unwrap();
        assert!([200, 204].contains(&ended.status), "{}", ended.status);
        for url in &urls {
            let answer = session.post(url, &call(10, "count", json!({}))).await.unwrap();
            assert_eq!(answer.status, 404, "{}", answer.text());
        }
    }
    wait_until("no child is left", SOON, async || marked::all(&mark).is_empty()).await;
}

#[tokio::test]
async fn what_a_child_asks_is_answered_at_any_node() {
    let Children { cluster, .. } = counting_children(3).await;
    let session = Session::open_as(&cluster.url("a"), json!({"sampling": {}})).await.unwrap();
    for (id, asked, answered) in [(1u64, "a", "b"), (2, "b", "c"), (3, "c", "a")] {
        let prompt = format!("prompt {id}");
        let request = call(id, "test_sampling", json!({"prompt": prompt}));
        let mut stream = session.post_stream(&cluster.url(asked), &request).await.unwrap();
        let question = stream.message(SOON).await.unwrap().expect("the stream ends before the child asks");
        assert_eq!(question["method"], "sampling/createMessage", "{question}");
        assert_eq!(question["params"]["messages"][0]["content"]["text"], prompt, "{question}");
        let sampled = session.post(&cluster.url(answered), &result(&question["id"], sample(&prompt))).await;
        let sampled = sampled.unwrap();
        assert_eq!((sampled.status, sampled.text().as_str()), (202, ""));
        let reply = stream.message(SOON).await.unwrap().expect("the stream ends without the answer");
        assert_eq!((&reply["id"], said(&reply)), (&json!(id), Some(&*format!("LLM response: to {prompt}"))));
        assert!(stream.event(SOON).await.unwrap().is_none(), "something follows the answer");
    }
}

#[tokio::test]
async fn each_of_two_calls_that_ask_at_once_gets_the_answer_to_its_own_question() {
    let Children { cluster, .. } = counting_children(3).await;
    let session = Session::open_as(&cluster.url("a"), json!({"sampling": {}})).await.unwrap();
    // With two calls in progress nothing says whose a question is: it may come on the standalone stream, too.
    let (sender, mut questions) = tokio::sync::mpsc::unbounded_channel();
    let pass_on = |mut stream: cluster_tests::real::http::Stream| {
        let sender = sender.clone();
        tokio::spawn(async move {
            loop {
                let message = stream.message(SOON * 2).await.unwrap().expect("the stream ends");
                if message.get("method").is_none() {
                    return message;
                }
                sender.send(message).unwrap();
            }
        })
    };
    let standing = pass_on(session.listen(&cluster.url("c")).await.unwrap());
    let mut calls = Vec::new();
    for (id, node) in [(7, "a"), (8, "b")] {
        let request = call(id, "test_sampling", json!({"prompt": format!("for {id}")}));
        calls.push((id, pass_on(session.post_stream(&cluster.url(node), &request).await.unwrap())));
    }
    let mut asked = BTreeSet::new();
    for _ in 0..2 {
        let question: Value =
            tokio::time::timeout(SOON, questions.recv()).await.expect("a question is lost").unwrap();
        let prompt = question["params"]["messages"][0]["content"]["text"].as_str().unwrap().to_owned();
        let answer = result(&question["id"], sample(&prompt));
        assert_eq!(session.post(&cluster.url("c"), &answer).await.unwrap().status, 202);
        assert!(asked.insert(prompt), "a question came twice");
    }
    for (id, answer) in calls {
        let reply = answer.await.unwrap();
        let expected = format!("LLM response: to for {id}");
        assert_eq!((&reply["id"], said(&reply)), (&json!(id), Some(expected.as_str())), "{reply}");
    }
    standing.abort();
    assert!(questions.try_recv().is_err(), "a question came twice");
}

#[tokio::test]
async fn progress_comes_with_the_call_that_it_belongs_to() {
    let Children { cluster, .. } = counting_children(3).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let tokens = [json!("one"), json!(1), json!("1")];
    let calls = (10..).zip(&tokens).zip(cluster.urls()).map(|((id, token), url)| {
        let mut request = call(id, "test_tool_with_progress", json!({}));
        request["params"]["_meta"] = json!({"progressToken": token});
        let (session, token) = (session.clone(), token.clone());
        tokio::spawn(async move {
            let answer = session.post(&url, &request).await.unwrap();
            let messages = answer.messages().unwrap();
            let (reply, progress) = messages.split_last().expect("no messages");
            assert_eq!((&reply["id"], said(reply).is_some()), (&json!(id), true), "{messages:?}");
            let progress: Vec<_> = progress
                .iter()
                .map(|m| (&m["params"]["progressToken"], m["params"]["progress"].as_f64()))
                .collect();
            assert_eq!(progress, [0.0, 50.0, 100.0].map(|done| (&token, Some(done))));
        })
    });
    for done in calls.collect::<Vec<_>>() {
        done.await.unwrap();
    }
}

#[tokio::test]
async fn a_call_that_is_cancelled_at_another_node_ends_without_a_result() {
    let Children { cluster, .. } = counting_children(3).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    // The one with the same digits goes on: an id is its type, too.
    let slow = |id: Value, ms: u64| call(id, "slow", json!({"ms": ms}));
    let mut stays = session.post_stream(&cluster.url("a"), &slow(json!("5"), 3_000)).await.unwrap();
    let mut ends = session.post_stream(&cluster.url("b"), &slow(json!(5), 600_000)).await.unwrap();
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}});
    assert_eq!(session.post(&cluster.url("c"), &cancel).await.unwrap().status, 202);
    // No server answers what was cancelled; the stream ends all the same, with an error or with nothing.
    if let Some(reply) = ends.message(SOON).await.unwrap() {
        assert_eq!((&reply["id"], reply["error"].is_object()), (&json!(5), true), "{reply}");
        assert_eq!(ends.message(SOON).await.unwrap(), None);
    }
    let reply = stays.message(SOON).await.unwrap().expect("the other call has been cancelled");
    assert_eq!((&reply["id"], said(&reply)), (&json!("5"), Some("slept 3000 ms")), "{reply}");
    assert_eq!(session.count(&cluster.url("a"), 6).await.unwrap(), 1);
}

#[tokio::test]
async fn request_ids_come_back_with_their_type_also_when_they_look_alike() {
    let Children { cluster, .. } = counting_children(3).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let ids = [json!(1), json!("1"), json!(0), json!("a b\u{e9}\"\\"), json!(9_007_199_254_740_991_u64)];
    // All in progress at once.
    let calls = ids.into_iter().zip(cluster.urls().into_iter().cycle()).map(|(id, url)| {
        let (session, ms) = (session.clone(), 300 + 50 * u64::from(id.is_string()));
        tokio::spawn(async move {
            let reply = session.post(&url, &call(id.clone(), "slow", json!({"ms": ms}))).await.unwrap();
            let reply = reply.reply().unwrap();
            assert_eq!((&reply["id"], said(&reply)), (&id, Some(&*format!("slept {ms} ms"))), "{reply}");
        })
    });
    for done in calls.collect::<Vec<_>>() {
        done.await.unwrap();
    }
}

#[tokio::test]
async fn a_call_goes_on_when_its_client_goes_away() {
    let Children { cluster, .. } = counting_children(2).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let slow = call(2, "slow", json!({"ms": 500}));
    let mut stream = session.post_stream(&cluster.url("b"), &slow).await.unwrap();
    let primed = stream.event(SOON).await.unwrap().expect("the stream ends");
    let (Some(id), true) = (&primed.id, primed.data.trim().is_empty()) else {
        panic!("the first event does not prime the stream: {primed:?}")
    };
    assert!(primed.retry.is_some(), "nothing says when to come back: {primed:?}");
    drop(stream);
    let mut resumed = session.resume(&cluster.url("a"), id).await.unwrap();
    assert_eq!(resumed.status, 200);
    let reply = resumed.message(SOON).await.unwrap().expect("the stream ends without the answer");
    assert_eq!((&reply["id"], said(&reply)), (&json!(2), Some("slept 500 ms")), "{reply}");
}

/// What a client's model says to `prompt`.
fn sample(prompt: &str) -> Value {
    let content = json!({"type": "text", "text": format!("to {prompt}")});
    json!({"role": "assistant", "model": "test", "content": content})
}
