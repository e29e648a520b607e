//! The pictures of the README, taken anew by
//! `cargo test -p cluster-tests --test real -- --ignored pictures_for_the_readme`.

use cluster_tests::real::browser::{Browser, Looks};
use cluster_tests::real::mcp::Session;
use cluster_tests::real::places;
use cluster_tests::real::wait::wait_for;

use super::super::prepare::{Parts, counting_cluster};
use super::{SHOWN_IN, page_is_current, page_says};

const CLIENTS: [&str; 6] =
    ["claude-code", "cursor-vscode", "Visual Studio Code", "librechat", "mcp-inspector", "goose"];
/// Each picture is part of every clone.
const PICTURE_LEN_MAX: u64 = 250 * 1_000;

/// Five nodes with sessions, one of which has just died; one of its sessions is looked up.
#[tokio::test]
#[ignore = "writes docs/*.png"]
async fn pictures_for_the_readme() {
    let mut browser = Browser::start().await.unwrap();
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(5, 2).await;
    let (urls, mut sessions, mut streams) = (cluster.urls(), Vec::new(), Vec::new());
    for at in 0..30 {
        let session = Session::open_named(&urls[at % 5], CLIENTS[at % CLIENTS.len()]).await.unwrap();
        for call in 1..=(1 + at as u64 % 5) {
            session.count(&urls[(at + call as usize) % 5], call).await.unwrap();
        }
        if at % 3 == 0 {
            streams.push(session.listen(&urls[at % 5]).await.unwrap());
        }
        sessions.push(session);
    }
    let mut of_c = Vec::new();
    for session in &sessions {
        if cluster.owner("a", &session.id).await.unwrap() == "c" {
            of_c.push(session);
        }
    }
    cluster.kill("c").await.unwrap();
    let url = cluster.url("a");
    for session in &of_c {
        wait_for("the session goes on", SHOWN_IN, async || {
            let answer = session
                .post(&url, &cluster_tests::real::mcp::call(99, "count", serde_json::json!({})))
                .await?;
            anyhow::ensure!(answer.reply()?.get("result").is_some(), "{}", answer.text());
            Ok(())
        })
        .await;
    }
    let docs = places::workspace().join("docs");
    std::fs::create_dir_all(&docs).unwrap();
    let mut lens = Vec::new();
    let desk = Looks { height: 900, ..Looks::DESK };
    let phone = Looks { height: 1400, scale: 1, ..Looks::PHONE };
    for (name, looks) in [("light", desk), ("dark", Looks { dark: true, ..desk }), ("phone", phone)] {
        browser.open(&cluster.node("a").admin_url("/"), looks).await.unwrap();
        page_is_current(&mut browser, &cluster, "a").await;
        browser.fill("#look", &of_c[0].id).await.unwrap();
        browser.press("Enter").await.unwrap();
        page_says(&mut browser, "#why", "c").await;
        browser.value("document.activeElement.blur(), scrollTo(0, 0)").await.unwrap();
        let path = docs.join(format!("dashboard-{name}.png"));
        browser.screenshot(&path).await.unwrap();
        lens.push((name, std::fs::metadata(&path).unwrap().len()));
    }
    assert!(lens.iter().all(|(_, len)| *len < PICTURE_LEN_MAX), "{lens:?}");
}
