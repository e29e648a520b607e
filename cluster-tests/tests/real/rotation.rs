//! The cluster's secret is replaced while clients are served: in three steps, at each of which the nodes change one
//! after the other. Nobody loses a call, a session, a stream or a child; afterwards the old secret is worth nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_tests::real::binaries::run_ringway;
use cluster_tests::real::clients::{Drive, Running, Sdk, Tool};
use cluster_tests::real::cluster::{Cluster, Plan, names_in_phase};
use cluster_tests::real::http::{self, Stream};
use cluster_tests::real::mcp::{Session, call, said};
use cluster_tests::real::places;
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream::{self, Upstream};
use cluster_tests::real::wait::{wait_for, wait_until};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::lost_and_found::{announce, announced};
use super::prepare::sdks;

/// A file is read again within 2 s; the rest is for a busy machine.
const TAKEN: Duration = Duration::from_secs(30);
/// How long a node keeps a connection that was proved by a secret which it has no more (30 s), and as much again.
const DISTRUSTED: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Secret {
    text: String,
    fingerprint: String,
}

impl Secret {
    async fn new(dir: &Path) -> Secret {
        let made = run_ringway(&["secret"]).await.unwrap();
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        let text = made.stdout.trim().to_owned();
        // As an operator finds it out.
        std::fs::write(dir.join("one.key"), &text).unwrap();
        std::fs::write(dir.join("one.toml"), "secret_file = \"one.key\"").unwrap();
        let check = run_ringway(&["check", dir.join("one.toml").to_str().unwrap()]).await.unwrap();
        let used = check.stdout.split_once("uses ").map(|(_, rest)| rest.split(',').next().unwrap());
        let fingerprint = used.unwrap_or_else(|| panic!("no fingerprint: {check:?}")).to_owned();
        assert_eq!(fingerprint.len(), 8, "{fingerprint}");
        Secret { text, fingerprint }
    }

    /// The part that is random.
    fn body(&self) -> &str {
        self.text.strip_prefix("rwsec1.").unwrap()
    }
}

/// Where each node's secrets stand.
struct Files {
    dir: PathBuf,
}

impl Files {
    fn path(&self, name: &str) -> String {
        self.dir.join(format!("{name}.key")).to_str().unwrap().to_owned()
    }

    /// As tools do that write a file: whole, under another name, and then renamed.
    fn write(&self, name: &str, secrets: &[&Secret]) {
        let text: String = secrets.iter().map(|secret| format!("{}\n", secret.text)).collect();
        self.write_text(name, &text);
    }

    fn write_text(&self, name: &str, text: &str) {
        let (path, next) = (self.path(name), self.dir.join("next"));
        std::fs::write(&next, text).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(next, path).unwrap();
    }
}

/// Gives one node a list of secrets, and waits until it goes by exactly that.
async fn change(cluster: &Cluster, files: &Files, name: &str, secrets: &[&Secret]) {
    files.write(name, secrets);
    wait_for(&format!("{name} has taken its secrets"), TAKEN, async || {
        for (at, secret) in secrets.iter().enumerate() {
            let role = if at == 0 { "used" } else { "accepted" };
            let labels = [("fingerprint", secret.fingerprint.as_str()), ("role", role)];
            anyhow::ensure!(
                cluster.metric(name, "ringway_secrets", &labels).await? == 1.0,
                "not yet {labels:?}"
            );
        }
        let all = cluster.metric(name, "ringway_secrets", &[]).await?;
        anyhow::ensure!(all == secrets.len() as f64, "{all} secrets");
        Ok(())
    })
    .await;
}

/// A session that counts on, at one node after the other, until it is told to stop.
struct Counting {
    session: Session,
    /// Which process has answered: its own child's, where it has one.
    process: String,
    url: String,
    counted: JoinHandle<u64>,
    /// It counts until this is dropped.
    goes_on: watch::Sender<()>,
}

impl Counting {
    async fn begin(urls: &[String], at: usize) -> Counting {
        let (session, urls) = (Session::open(&urls[at]).await.unwrap(), urls.to_vec());
        let (goes_on, stopped) = watch::channel(());
        let process = session.call(&urls[at], 1, "whoami", json!({})).await.unwrap();
        let (counting, url) = (session.clone(), urls[at].clone());
        let counted = tokio::spawn(async move {
            for n in 1.. {
                if stopped.has_changed().is_err() {
                    return n - 1;
                }
                let url = &urls[n as usize % urls.len()];
                assert_eq!(counting.count(url, n + 1).await.unwrap(), n, "at {url}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            unreachable!("it does not count that far")
        });
        Counting { session, process, url, counted, goes_on }
    }

    /// Not one call has failed or was counted twice, and the process is the same.
    async fn end(self) {
        drop(self.goes_on);
        let counted = self.counted.await.expect("no call has failed");
        assert!(counted > 20, "{counted} calls only");
        assert_eq!(self.session.count(&self.url, 1).await.unwrap(), counted + 1);
        assert_eq!(self.session.call(&self.url, 2, "whoami", json!({})).await.unwrap(), self.process);
    }
}

/// Clients of every kind at work.
struct Load {
    counting: Vec<Counting>,
    drivers: Vec<Running>,
}

impl Load {
    async fn begin(cluster: &Cluster, sdks: &[Sdk]) -> Load {
        let mut load = Load { counting: Vec::new(), drivers: Vec::new() };
        for path in ["/mcp", "/shell"] {
            let urls: Vec<_> = cluster.names().iter().map(|name| cluster.node(name).url(path)).collect();
            for at in 0..urls.len() {
                load.counting.push(Counting::begin(&urls, at).await);
            }
            for &sdk in sdks {
                let mut drive = Drive::new(urls.clone(), Tool::Count);
                (drive.sessions, drive.concurrency, drive.pace) = (2, 2, Duration::from_millis(50));
                load.drivers.push(drive.start(sdk).await.unwrap());
            }
        }
        load
    }

    async fn end(self) {
        for counting in self.counting {
            counting.end().await;
        }
        for driver in self.drivers {
            driver.finish().await.unwrap().assert_no_errors();
        }
    }
}

/// A stream and a long call of a session, at a node that does not own it.
struct Standing {
    session: Session,
    entry: String,
    stream: Stream,
    call: Stream,
    said: u64,
}

/// Longer than from its beginning, in the second step, until the last connection of the old secret is closed.
const CALL_MS: u64 = 75_000;

impl Standing {
    /// Of a session that `owner` owns.
    async fn new(cluster: &Cluster, owner: &str, entry: &str) -> Standing {
        let entry = cluster.url(entry);
        let session = loop {
            let session = Session::open(&cluster.url(owner)).await.unwrap();
            if cluster.owner(owner, &session.id).await.unwrap() == owner {
                break session;
            }
        };
        let stream = session.listen(&entry).await.unwrap();
        assert_eq!((stream.status, stream.header("ringway-hops")), (200, Some("1")));
        let call = session.post_stream(&entry, &call(7, "slow", json!({"ms": CALL_MS}))).await.unwrap();
        assert_eq!((call.status, call.header("ringway-hops")), (200, Some("1")));
        Standing { session, entry, stream, call, said: 0 }
    }

    /// What the server says is heard, on the stream that has stood since the beginning.
    async fn hears(&mut self) {
        self.said += 1;
        announce(&self.entry, &self.session, self.said).await;
        assert_eq!(announced(&mut self.stream, 1).await, [self.said]);
    }

    async fn gets_its_answer(mut self) {
        let within = Duration::from_millis(CALL_MS);
        let reply = self.call.message(within).await.unwrap().expect("the stream ends without an answer");
        assert_eq!((&reply["id"], said(&reply)), (&json!(7), Some("slept 75000 ms")), "{reply}");
    }
}

/// Nobody was taken for dead, and no session has changed its owner.
async fn assert_nobody_was_missed(cluster: &Cluster) {
    assert_eq!(cluster.metric_of_all("ringway_takeovers_total", &[]).await.unwrap(), 0.0);
    for name in cluster.names() {
        let members = cluster.admin_json(&name, "/v1/members").await.unwrap();
        assert_eq!(names_in_phase(&members, "active"), cluster.names(), "{members}");
        let log = cluster.node(&name).process.log();
        for word in ["proven dead", "reborn", " over ", "can't be used"] {
            assert!(!log.contains(word), "{name} says {word:?}:\n{log}");
        }
        assert!(!log.contains(" ERROR "), "{name}:\n{log}");
    }
}

/// Neither in logs nor in anything that a node answers.
async fn assert_nothing_secret_shows(cluster: &Cluster, secrets: &[&Secret], session: &Session) {
    let lookup = format!("/v1/ring/lookup?session={}", session.id);
    for name in cluster.names() {
        let mut shown = vec![cluster.node(&name).process.log()];
        for path in ["/", "/metrics", "/livez", "/readyz", "/v1/members", "/v1/ring", "/v1/nothing", &lookup]
        {
            shown.push(cluster.admin(&name, path).await.unwrap().text());
        }
        shown.push(http::get(&cluster.url(&name)).await.unwrap().text());
        for (secret, shown) in
            secrets.iter().flat_map(|secret| shown.iter().map(move |shown| (secret, shown)))
        {
            assert!(!shown.contains(secret.body()), "{name} shows a secret: {shown}");
        }
        let used = &secrets[secrets.len() - 1].fingerprint;
        assert!(shown[0].contains(used.as_str()), "no fingerprint in {}", shown[0]);
    }
}

/// No node uses that secret any more, as far as the others can tell.
async fn wait_until_no_node_uses(cluster: &Cluster, secret: &Secret) {
    let labels = [("fingerprint", secret.fingerprint.as_str()), ("by", "node")];
    let uses = async || cluster.metric_of_all("ringway_other_secret_uses_total", &labels).await.unwrap();
    assert!(uses().await > 0.0, "in the second step some nodes are ahead of others");
    wait_until("no node uses the old secret", TAKEN, async || {
        let before = uses().await;
        // Beats come ten times a second, and are counted once.
        tokio::time::sleep(Duration::from_secs(2)).await;
        uses().await == before
    })
    .await;
}

async fn all_names(cluster: &Cluster, name: &str) -> BTreeSet<String> {
    let members = cluster.admin_json(name, "/v1/members").await.unwrap();
    let names = members["members"].as_array().unwrap().iter();
    names.map(|member| member["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_replaced_and_nobody_loses_anything_but_whoever_has_the_old_one() {
    let sdks = sdks("a_secret_is_replaced_and_nobody_loses_anything").await;
    let files = Files { dir: places::scratch("rotation").unwrap() };
    let (old, new) = (Secret::new(&files.dir).await, Secret::new(&files.dir).await);
    let upstreams = Upstream::several(1, Upstream::fixture).await.unwrap();
    let children = Route::command(&upstream::fixture_stdio().await.unwrap()).at("/shell");
    let routes = [Route::upstreams(&upstream::urls(&upstreams)), children];
    let mut cluster = Plan::nodes(0).routes(&routes).start().await.unwrap();
    for name in ["a", "b", "c"] {
        files.write(name, &[&old]);
        cluster.add(name, &["--secret-file", &files.path(name)]).await.unwrap();
    }
    cluster.settled().await.unwrap();
    let load = Load::begin(&cluster, &sdks).await;
    let of_old = Session::open(&cluster.url("b")).await.unwrap();

    for name in ["a", "b", "c"] {
        change(&cluster, &files, name, &[&old, &new]).await;
    }
    change(&cluster, &files, "a", &[&new, &old]).await;
    // What stands now stands on a connection for which one end has shown the old secret and the other the new one.
    let mut standing = Vec::new();
    for entry in ["b", "c"] {
        standing.push(Standing::new(&cluster, "a", entry).await);
    }
    for name in ["b", "c"] {
        change(&cluster, &files, name, &[&new, &old]).await;
        for standing in &mut standing {
            standing.hears().await;
        }
    }
    wait_until_no_node_uses(&cluster, &old).await;
    let by_client = [("fingerprint", old.fingerprint.as_str()), ("by", "client")];
    wait_for("operators see that clients still use it", TAKEN, async || {
        let uses = cluster.metric_of_all("ringway_other_secret_uses_total", &by_client).await?;
        anyhow::ensure!(uses > 0.0, "no ids are counted");
        Ok(())
    })
    .await;
    assert_eq!(of_old.count(&cluster.url("c"), 1).await.unwrap(), 1);
    load.end().await;
    assert_nobody_was_missed(&cluster).await;

    // Now the sessions are the new secret's.
    let load = Load::begin(&cluster, &sdks).await;
    for name in ["a", "b", "c"] {
        change(&cluster, &files, name, &[&new]).await;
        for standing in &mut standing {
            standing.hears().await;
        }
    }
    let resumed = [("outcome", "resumed")];
    wait_for("streams are taken off the connections of the old secret", DISTRUSTED, async || {
        for entry in ["b", "c"] {
            let moved = cluster.metric(entry, "ringway_reattached_total", &resumed).await?;
            anyhow::ensure!(moved >= 1.0, "{entry}: {moved}");
        }
        Ok(())
    })
    .await;
    for standing in &mut standing {
        standing.hears().await;
    }
    for standing in standing {
        standing.gets_its_answer().await;
    }
    load.end().await;
    assert_nobody_was_missed(&cluster).await;

    for url in cluster.urls() {
        let answer = of_old.post(&url, &call(2, "count", json!({}))).await.unwrap();
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert_eq!(answer.json().unwrap()["error"]["code"], -32001, "{}", answer.text());
    }
    let found = cluster.admin_json("a", &format!("/v1/ring/lookup?session={}", of_old.id)).await.unwrap();
    assert!(found["why"].as_str().unwrap().contains("has no more"), "{found}");

    the_old_secret_is_worth_nothing(&mut cluster, &files, &old, &new).await;
    assert_nothing_secret_shows(&cluster, &[&old, &new], &of_old).await;
}

/// A node that has only the old secret never joins, one with the new one does.
async fn the_old_secret_is_worth_nothing(cluster: &mut Cluster, files: &Files, old: &Secret, new: &Secret) {
    files.write("stranger", &[old]);
    let stranger =
        cluster.start_stranger("stranger", &["--secret-file", &files.path("stranger")]).await.unwrap();
    files.write("d", &[new]);
    cluster.add("d", &["--secret-file", &files.path("d")]).await.unwrap();
    // It needs some rounds of gossip to be known to all; the stranger has had them too.
    cluster.settled().await.unwrap();
    for name in cluster.names() {
        assert_eq!(all_names(cluster, &name).await, cluster.names().into_iter().collect(), "{name}");
    }
    let members = http::get(&stranger.admin_url("/v1/members")).await.unwrap().json().unwrap();
    let known = members["members"].as_array().unwrap();
    assert_eq!(known.len(), 1, "the stranger has heard of somebody: {members}");
    wait_for("operators see that somebody has a wrong secret", TAKEN, async || {
        let attempts = cluster.metric_of_all("ringway_strangers_total", &[]).await?;
        anyhow::ensure!(attempts > 0.0, "no attempt is counted");
        let logs: String = cluster.names().iter().map(|name| cluster.node(name).process.log()).collect();
        anyhow::ensure!(logs.contains("none of this cluster's secrets"), "no warning");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_file_that_would_do_harm_is_not_taken_and_the_log_says_why() {
    let files = Files { dir: places::scratch("rotation").unwrap() };
    let (old, new) = (Secret::new(&files.dir).await, Secret::new(&files.dir).await);
    let upstreams = Upstream::several(1, Upstream::fixture).await.unwrap();
    let plan = Plan::nodes(0).upstreams(&upstream::urls(&upstreams));
    let mut cluster = plan.start().await.unwrap();
    files.write("a", &[&old]);
    cluster.add("a", &["--secret-file", &files.path("a")]).await.unwrap();
    cluster.settled().await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let cut = &new.text[..new.text.len() - 2];
    for (n, (text, why)) in (1..).zip([
        (String::new(), "holds no secret"),
        (format!("{}\n{cut}", old.text), "line 2"),
        (new.text.clone(), "no secret in common"),
    ]) {
        files.write_text("a", &text);
        wait_for(why, TAKEN, async || {
            let log = cluster.node("a").process.log();
            anyhow::ensure!(
                log.lines().any(|line| line.contains("is not taken") && line.contains(why)),
                "{log}"
            );
            Ok(())
        })
        .await;
        assert_eq!(session.count(&cluster.url("a"), n).await.unwrap(), n);
        let labels = [("fingerprint", old.fingerprint.as_str()), ("role", "used")];
        assert_eq!(cluster.metric("a", "ringway_secrets", &labels).await.unwrap(), 1.0);
    }
    std::fs::remove_file(files.path("a")).unwrap();
    wait_for("that it is gone is said", TAKEN, async || {
        anyhow::ensure!(cluster.node("a").process.log().contains("can't be read"), "nothing is said");
        Ok(())
    })
    .await;
    // And what is right is taken, whatever was there before; only it should be closed to others.
    std::fs::write(files.path("a"), format!("{}\n{}\n", old.text, new.text)).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(files.path("a"), std::fs::Permissions::from_mode(0o644)).unwrap();
    wait_for("both secrets are taken", TAKEN, async || {
        let all = cluster.metric("a", "ringway_secrets", &[]).await?;
        anyhow::ensure!(all == 2.0, "{all}");
        Ok(())
    })
    .await;
    let log = cluster.node("a").process.log();
    assert!(log.contains("chmod 600"), "{log}");
    for why in ["holds no secret", "line 2", "no secret in common", "can't be read"] {
        assert_eq!(log.matches(why).count(), 1, "{why} is said once: {log}");
    }
    assert!(!log.contains(&cut[10..]) && !log.contains(old.body()), "{log}");
}
