//! The dashboard in a real browser: what it shows is what the admin JSON says, while nodes die and come back.

mod figures;
mod pictures;

use std::time::Duration;

use cluster_tests::real::browser::{Browser, Looks};
use cluster_tests::real::cluster::{Cluster, Node, Plan};
use cluster_tests::real::http::{self, Stream};
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::mcp::Session;
use cluster_tests::real::places;
use cluster_tests::real::wait::wait_for;
use serde_json::Value;

use super::prepare::{Parts, counting_cluster};

/// The page asks every 2 s, and every 8 s while nobody answers; what it asks for may take 8 s. The rest is for a busy
/// machine.
const SHOWN_IN: Duration = Duration::from_secs(40);

/// A name that would run if the page took it for HTML.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

async fn browser(test: &str) -> Option<Browser> {
    or_left_out(test, Browser::start().await)
}

/// Sessions opened at every node, each used at every other, so that something is forwarded; some with a stream.
async fn used_sessions(cluster: &Cluster, count: usize) -> (Vec<Session>, Vec<Stream>) {
    let urls = cluster.urls();
    let (mut sessions, mut streams) = (Vec::new(), Vec::new());
    for at in 0..count {
        let name = if at == 0 { HOSTILE } else { "a client" };
        let session = Session::open_named(&urls[at % urls.len()], name).await.unwrap();
        for (call, url) in (1..).zip(&urls) {
            assert_eq!(session.count(url, call).await.unwrap(), call);
        }
        if at % 2 == 0 {
            streams.push(session.listen(&urls[(at + 1) % urls.len()]).await.unwrap());
        }
        sessions.push(session);
    }
    (sessions, streams)
}

/// Waits until everything on the page is what `name` answers now.
async fn page_is_current(browser: &mut Browser, cluster: &Cluster, name: &str) -> Value {
    wait_for("the page shows what the admin JSON says", SHOWN_IN, async || {
        let answers = figures::answers(cluster, name).await?;
        let page = browser.figures().await?;
        figures::own(&page)?;
        figures::fresh(&page, &answers)?;
        Ok(page)
    })
    .await
}

async fn page_says(browser: &mut Browser, selector: &str, words: &str) -> String {
    wait_for(&format!("{selector} says {words:?}"), SHOWN_IN, async || {
        let text = browser.text(selector).await?.unwrap_or_default();
        anyhow::ensure!(text.contains(words), "it says {text:?}");
        Ok(text)
    })
    .await
}

/// What the page must never do.
async fn no_troubles(browser: &mut Browser) {
    assert_eq!(browser.troubles().await.unwrap(), Vec::<String>::new());
}

fn events_of<'a>(page: &'a Value, kind: &str) -> Vec<&'a str> {
    let events = page["events"].as_array().unwrap().iter();
    events.filter(|event| event["kind"] == kind).filter_map(|event| event["of"].as_str()).collect()
}

#[tokio::test]
async fn the_dashboard_shows_every_node_session_and_forward_as_the_json_has_them() {
    let Some(mut browser) = browser("dashboard: figures").await else { return };
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    browser.open(&cluster.node("b").admin_url("/"), Looks::DESK).await.unwrap();
    let (sessions, streams) = used_sessions(&cluster, 6).await;
    let page = page_is_current(&mut browser, &cluster, "b").await;
    assert_eq!(page["members"].as_object().unwrap().len(), 3);
    assert_eq!(page["totals"]["sessions"]["value"], sessions.len().to_string());
    assert_eq!(page["totals"]["streams"]["value"], streams.len().to_string());
    let forwarded: u64 =
        page["forwards"].as_array().unwrap().iter().map(|cell| number(&cell["answered"])).sum();
    // Each session's calls at the two nodes that don't own it.
    assert!(forwarded >= 12, "{forwarded} forwards");
    let clients: Vec<_> =
        page["sessions"].as_array().unwrap().iter().map(|row| &row["client"]["text"]).collect();
    assert!(
        clients.iter().any(|client| client.as_str().is_some_and(|name| name.contains(HOSTILE))),
        "{clients:?}"
    );
    assert_eq!(browser.value("document.querySelectorAll('img[onerror]').length").await.unwrap(), 0);
    assert_eq!(page["others"], 0);
    assert!(browser.text("#seen-by").await.unwrap().is_some_and(|name| name == "b"));
    no_troubles(&mut browser).await;
}

fn number(figure: &Value) -> u64 {
    figure["value"].as_str().and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_node_is_seen_to_die_and_to_come_back_and_no_figure_is_ever_wrong() {
    let Some(mut browser) = browser("dashboard: a death").await else { return };
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let (sessions, streams) = used_sessions(&cluster, 8).await;
    browser.open(&cluster.node("b").admin_url("/"), Looks::DESK).await.unwrap();
    let before = page_is_current(&mut browser, &cluster, "b").await;
    assert!(owners(&before).contains(&"a".to_owned()), "nothing is a's: {:?}", owners(&before));
    drop(streams);

    cluster.kill("a").await.unwrap();
    let page =
        watch(&mut browser, "a is dead", |page| page["members"]["a"]["phase"]["value"] == "dead").await;
    assert!(page["members"]["a"]["sessions"]["value"].is_null(), "{page}");
    watch(&mut browser, "the death is told", |page| events_of(page, "died").contains(&"a")).await;
    page_says(&mut browser, "#health", "a is dead").await;
    for (at, session) in sessions.iter().enumerate() {
        let url = &cluster.urls()[at % 2];
        wait_for("the session goes on", SHOWN_IN, async || session.count(url, 4).await).await;
    }
    let page = page_is_current(&mut browser, &cluster, "b").await;
    assert_eq!(owners(&page).len(), sessions.len());
    assert!(!owners(&page).contains(&"a".to_owned()), "{:?}", owners(&page));
    assert!(!page["arcs"].as_array().unwrap().contains(&"a".into()), "the dead are on no ring");
    assert!(!events_of(&page, "takeover").is_empty(), "{}", page["events"]);

    cluster.join("a").await.unwrap();
    watch(&mut browser, "a is back", |page| page["members"]["a"]["phase"]["value"] == "active").await;
    let page = page_is_current(&mut browser, &cluster, "b").await;
    assert!(page["arcs"].as_array().unwrap().contains(&"a".into()));
    page_says(&mut browser, "#health", "All 3 nodes are active").await;
    no_troubles(&mut browser).await;
}

fn owners(page: &Value) -> Vec<String> {
    let rows = page["sessions"].as_array().unwrap().iter();
    rows.filter_map(|row| row["owner"]["value"].as_str().map(str::to_owned)).collect()
}

/// Looks at the page until it shows something; whatever it shows until then has to be what it was told.
async fn watch(browser: &mut Browser, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let page = wait_for(what, SHOWN_IN, async || {
        let page = browser.figures().await?;
        // Not an error of the wait: it would be tried again.
        let wrong = figures::own(&page).err();
        anyhow::ensure!(wrong.is_some() || is_so(&page), "it is not shown");
        Ok((page, wrong))
    })
    .await;
    match page {
        (page, None) => page,
        (page, Some(wrong)) => panic!("{wrong:#}\n{page:#}"),
    }
}

#[tokio::test]
async fn figures_equal_the_json_while_nodes_are_killed_and_started_again_and_again() {
    let Some(mut browser) = browser("dashboard: chaos").await else { return };
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(4, 2).await;
    let (sessions, _streams) = used_sessions(&cluster, 6).await;
    browser.open(&cluster.node("d").admin_url("/"), Looks::DESK).await.unwrap();
    // Before its first answer a page has no figures, which would count as wrong ones.
    page_is_current(&mut browser, &cluster, "d").await;
    let mut call = cluster.urls().len() as u64;
    for name in ["a", "b", "c"] {
        cluster.kill(name).await.unwrap();
        watch(&mut browser, "the death", |page| page["members"][name]["phase"]["value"] == "dead").await;
        call += 1;
        let url = cluster.url("d");
        for session in &sessions {
            let counting = async || session.count(&url, call).await;
            assert_eq!(wait_for("the session goes on", SHOWN_IN, counting).await, call);
            figures::own(&browser.figures().await.unwrap()).unwrap();
        }
        page_is_current(&mut browser, &cluster, "d").await;
        cluster.join(name).await.unwrap();
        watch(&mut browser, "the return", |page| page["members"][name]["phase"]["value"] == "active").await;
        page_is_current(&mut browser, &cluster, "d").await;
    }
    no_troubles(&mut browser).await;
}

#[tokio::test]
async fn an_id_is_looked_up_with_the_keyboard_alone_and_marked_on_the_ring() {
    let Some(mut browser) = browser("dashboard: lookup").await else { return };
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("c")).await.unwrap();
    browser.open(&cluster.node("a").admin_url("/"), Looks::DESK).await.unwrap();
    page_is_current(&mut browser, &cluster, "a").await;
    // The way there: the skip link, the table of nodes with a button per node, the box.
    let mut steps = 0;
    while browser.value("document.activeElement.id").await.unwrap() != "look" {
        browser.press("Tab").await.unwrap();
        let outline = browser.value("getComputedStyle(document.activeElement).outlineStyle").await.unwrap();
        assert_ne!(outline, "none", "the focus can't be seen");
        steps += 1;
        assert!(steps < 12, "the box is not reached");
    }
    browser.keys(&session.id).await.unwrap();
    browser.press("Enter").await.unwrap();
    let path = format!("/v1/ring/lookup?session={}", session.id);
    let found = cluster.admin_json("a", &path).await.unwrap();
    let why = found["why"].as_str().unwrap();
    assert_eq!(page_says(&mut browser, "#why", why).await, why);
    let page = browser.figures().await.unwrap();
    figures::own(&page).unwrap();
    assert_eq!(page["found"]["owner"]["value"], found["owner"]);
    let marked =
        browser.value("Number(document.querySelector('[data-position]').dataset.position)").await.unwrap();
    assert_eq!(marked.as_f64(), found["position"].as_f64());
    assert!((0.0..1.0).contains(&found["position"].as_f64().unwrap()), "{found}");
    let words = browser.value("document.getElementById('ring-words').textContent").await.unwrap();
    assert!(words.as_str().unwrap().contains("shared by 3 nodes: a "), "{words}");

    browser.fill("#look", "rw1.nonsense").await.unwrap();
    browser.press("Enter").await.unwrap();
    page_says(&mut browser, "#why", "not a session id").await;
    browser.click("input[value=key]").await.unwrap();
    browser.fill("#look", "job/1 & more").await.unwrap();
    browser.press("Enter").await.unwrap();
    let found = cluster.admin_json("a", "/v1/ring/lookup?key=job%2F1%20%26%20more").await.unwrap();
    page_says(&mut browser, "#why", found["why"].as_str().unwrap()).await;
    // In the list an id is shortened, which is enough to ask for it.
    browser.click("#sessions button").await.unwrap();
    page_says(&mut browser, "#why", why).await;
    no_troubles(&mut browser).await;
}

#[tokio::test]
async fn many_sessions_are_turned_over_page_by_page() {
    let Some(mut browser) = browser("dashboard: pages").await else { return };
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let url = cluster.url("a");
    for _ in 0..30 {
        Session::open(&url).await.unwrap();
    }
    browser.open(&cluster.node("a").admin_url("/"), Looks::DESK).await.unwrap();
    let first = page_is_current(&mut browser, &cluster, "a").await;
    browser.click("#sessions-next").await.unwrap();
    page_says(&mut browser, "#sessions-page", "page 2").await;
    let second = watch(&mut browser, "the rest", |page| {
        page["sessions"].as_array().is_some_and(|rows| rows.len() == 5)
    })
    .await;
    let ids = |page: &Value| -> Vec<String> {
        page["sessions"].as_array().unwrap().iter().map(|row| row["id"]["value"].to_string()).collect()
    };
    assert!(ids(&second).iter().all(|id| !ids(&first).contains(id)));
    assert_eq!(browser.value("document.getElementById('sessions-next').disabled").await.unwrap(), true);
    browser.click("#sessions-back").await.unwrap();
    let again = watch(&mut browser, "the first page", |page| {
        page["sessions"].as_array().is_some_and(|rows| rows.len() == 25)
    })
    .await;
    assert_eq!(ids(&again), ids(&first));
    no_troubles(&mut browser).await;
}

#[tokio::test]
async fn a_page_says_that_its_node_is_silent_and_goes_on_when_it_is_back() {
    let Some(mut browser) = browser("dashboard: silence").await else { return };
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let admin = cluster.node("a").admin.to_string();
    browser.open(&cluster.node("a").admin_url("/"), Looks::DESK).await.unwrap();
    page_is_current(&mut browser, &cluster, "a").await;
    cluster.kill("a").await.unwrap();
    let said = page_says(&mut browser, "#silence", "This node does not answer since ").await;
    assert!(said.contains("; trying again"), "{said}");
    cluster.add("a", &["--admin", &admin]).await.unwrap();
    cluster.settled().await.unwrap();
    page_is_current(&mut browser, &cluster, "a").await;
    assert_eq!(browser.text("#silence").await.unwrap(), None, "it is not said any more");
    wait_for("the events go on", SHOWN_IN, async || {
        let text = browser.text("#events-state").await?;
        anyhow::ensure!(text.as_deref() == Some(""), "{text:?}");
        Ok(())
    })
    .await;
    // A browser reports each request that fails, and nothing else may be wrong.
    let others = browser.troubles().await.unwrap();
    let others: Vec<_> = others
        .iter()
        .filter(|text| !text.starts_with("console: Failed to load resource: net::ERR_"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

/// One node with an admin token.
async fn guarded_node(token: &str) -> (Cluster, Node) {
    let file = places::scratch("admin-token").unwrap().join("token");
    std::fs::write(&file, token).unwrap();
    let config = format!("admin_token_file = {:?}\n", file.to_str().unwrap());
    let cluster = Plan::nodes(0).config(config).start().await.unwrap();
    let node = cluster.start_alone("a", &["--upstream", "http://127.0.0.1:9/mcp"]).await.unwrap();
    (cluster, node)
}

#[tokio::test]
async fn the_admin_token_is_asked_for_once_and_kept_in_the_tab() {
    let Some(mut browser) = browser("dashboard: token").await else { return };
    let token = "a-token-of-twenty-four-c";
    let (_cluster, node) = guarded_node(token).await;
    assert_eq!(http::get(&node.admin_url("/v1/members")).await.unwrap().status, 401);
    browser.open(&node.admin_url("/"), Looks::DESK).await.unwrap();
    page_says(&mut browser, "#token-form", "asks for its admin token").await;
    assert_eq!(browser.text("#members").await.unwrap(), None, "nothing is shown without it");
    browser.keys("not the token at all").await.unwrap();
    browser.press("Enter").await.unwrap();
    page_says(&mut browser, "#token-form", "not this node's admin token").await;
    browser.keys(token).await.unwrap();
    browser.press("Enter").await.unwrap();
    page_says(&mut browser, "#members", "active").await;
    assert_eq!(browser.text("#token-form").await.unwrap(), None);
    wait_for("the events are heard", SHOWN_IN, async || {
        let page = browser.figures().await?;
        anyhow::ensure!(!page["events"].as_array().is_some_and(Vec::is_empty), "none");
        Ok(())
    })
    .await;
    assert_eq!(browser.value("localStorage.length + document.cookie.length").await.unwrap(), 0);
    assert_eq!(
        browser.value("document.documentElement.outerHTML.includes('a-token-of')").await.unwrap(),
        false
    );
    // The tab has it: the page asks no more.
    browser.value("location.reload()").await.unwrap();
    page_says(&mut browser, "#members", "active").await;
    let others = browser.troubles().await.unwrap();
    let others: Vec<_> = others.iter().filter(|text| !text.contains("status of 401")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn it_fits_a_phone_by_day_and_night_and_can_be_read_aloud() {
    let Some(mut browser) = browser("dashboard: looks").await else { return };
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let (sessions, _streams) = used_sessions(&cluster, 4).await;
    cluster.kill("c").await.unwrap();
    for looks in [Looks::DESK, Looks::NIGHT, Looks::PHONE, Looks { dark: true, ..Looks::PHONE }] {
        browser.open(&cluster.node("a").admin_url("/"), looks).await.unwrap();
        page_says(&mut browser, "#health", "c is dead").await;
        browser.fill("#look", &sessions[0].id).await.unwrap();
        browser.press("Enter").await.unwrap();
        page_says(&mut browser, "#why", ".").await;
        let width = browser.value("document.documentElement.scrollWidth - innerWidth").await.unwrap();
        assert!(width.as_i64().is_some_and(|over| over <= 0), "{looks:?}: {width} too wide");
        let (broken, passed) = browser.axe().await.unwrap();
        assert!(broken.is_empty(), "{looks:?}: {broken:#?}");
        assert!(passed > 20, "{passed} rules: axe did not look");
        let ground = browser.value("getComputedStyle(document.body).backgroundColor").await.unwrap();
        assert_eq!(ground == "rgb(14, 17, 22)", looks.dark, "{looks:?}: {ground}");
    }
    no_troubles(&mut browser).await;
}

#[tokio::test]
async fn the_page_is_served_under_a_strict_policy() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(1, 1).await;
    for (path, kind) in
        [("/", "text/html"), ("/page/main.js", "text/javascript"), ("/page/page.css", "text/css")]
    {
        let answer = cluster.admin("a", path).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").is_some_and(|found| found.starts_with(kind)), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        let headers = [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-cache"),
            ("x-frame-options", "DENY"),
        ];
        for (name, value) in headers {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
    }
    assert_eq!(cluster.admin("a", "/page/other.js").await.unwrap().status, 404);
}
