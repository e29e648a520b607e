//! No process of a session outlives it, however the session ends, and whatever the process does against that.

use std::time::{Duration, Instant};

use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::marked::{self, Found};
use cluster_tests::real::mcp::Session;
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream;
use cluster_tests::real::wait::wait_for;

/// A child that is asked to end has a few seconds for it, twice: after its stdin is closed, and after SIGTERM.
const GONE: Duration = Duration::from_secs(25);

/// Beyond the time that `ps` would need on a busy machine.
const GONE_WITH_ITS_NODE: Duration = Duration::from_secs(10);

/// Answers at `/mcp` as a good child does; at `/nasty` the child ignores SIGTERM and the end of its stdin, and so
/// does what it has started in a session of its own, where signals to its group don't come.
struct Household {
    cluster: Cluster,
    /// Of the children.
    mark: String,
    /// Of the node, and of what it starts to look after them.
    node_mark: String,
}

impl Household {
    async fn start(more: impl Fn(Route) -> Route) -> Household {
        let (mark, node_mark) = (marked::new("orphan"), marked::new("node"));
        let fixture = upstream::fixture_stdio().await.unwrap();
        let script = format!(
            "trap '' TERM HUP INT; setsid sh -c \"trap '' TERM HUP INT; while :; do sleep 1; done\" & \
             '{}'; while :; do sleep 1; done",
            fixture[0]
        );
        let nasty = ["sh", "-c", &script].map(str::to_owned);
        let routes = [Route::command(&fixture), Route::command(&nasty).at("/nasty")]
            .map(|route| more(route.env(&[(marked::VARIABLE, &mark)])));
        let variable = format!("{}={node_mark}", marked::VARIABLE);
        let plan = Plan::nodes(1).routes(&routes).under("a", vec!["env".to_owned(), variable]);
        Household { cluster: plan.start().await.unwrap(), mark, node_mark }
    }

    /// Opens and uses so many sessions of each kind.
    async fn open(&self, good: usize, nasty: usize) -> Vec<(String, Session)> {
        let mut sessions = Vec::new();
        for (path, count) in [("/mcp", good), ("/nasty", nasty)] {
            let url = self.cluster.node("a").url(path);
            for _ in 0..count {
                let session = Session::open(&url).await.unwrap();
                assert_eq!(session.count(&url, 1).await.unwrap(), 1);
                sessions.push((url.clone(), session));
            }
        }
        // A good child is one process; a nasty one is a shell, a server, and what it has put into another session.
        assert!(self.alive().len() >= good + 3 * nasty, "{}", marked::table(&self.alive()));
        sessions
    }

    fn alive(&self) -> Vec<Found> {
        marked::all(&self.mark)
    }

    /// Waits until nothing is left of a node that has ended, neither children nor whoever looked after them.
    async fn all_gone_with_the_node(&self, after: &str) {
        self.all_gone(after, GONE_WITH_ITS_NODE).await;
        wait_for(&format!("nobody looks after children after {after}"), GONE_WITH_ITS_NODE, async || {
            let left = marked::all(&self.node_mark);
            anyhow::ensure!(left.is_empty(), "left are\n{}", marked::table(&left));
            Ok(())
        })
        .await;
    }

    /// Waits until no process is left, and says how long that took.
    async fn all_gone(&self, after: &str, deadline: Duration) {
        let began = Instant::now();
        wait_for(&format!("no process is left after {after}"), deadline, async || {
            let alive = self.alive();
            anyhow::ensure!(alive.is_empty(), "left are\n{}", marked::table(&alive));
            Ok(())
        })
        .await;
        println!("after {after} the last process was gone within {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_killed_node_leaves_none_of_its_fifty_children_behind() {
    let mut household = Household::start(|route| route).await;
    household.open(40, 10).await;
    println!("before:\n{}", marked::table(&household.alive()));
    household.cluster.kill("a").await.unwrap();
    household.all_gone_with_the_node("kill -9 of the node").await;
    println!("after:\n{}", marked::table(&household.alive()));
}

#[tokio::test]
async fn a_node_that_leaves_leaves_no_children_behind() {
    let mut household = Household::start(|route| route).await;
    household.open(5, 3).await;
    assert!(household.cluster.drain("a", Duration::from_secs(5)).await.unwrap().success());
    household.all_gone_with_the_node("a drain").await;
}

#[tokio::test]
async fn a_session_that_is_ended_leaves_no_processes_behind() {
    let household = Household::start(|route| route).await;
    for (url, session) in household.open(5, 3).await {
        assert!(session.delete(&url).await.unwrap().status < 300);
    }
    household.all_gone("DELETE", GONE).await;
}

#[tokio::test]
async fn a_session_that_nobody_uses_leaves_no_processes_behind() {
    let household = Household::start(|route| route.text("idle_timeout", "2s")).await;
    household.open(5, 3).await;
    household.all_gone("the idle time-out", GONE).await;
}

#[tokio::test]
async fn a_child_that_dies_leaves_no_processes_behind() {
    let household = Household::start(|route| route).await;
    household.open(2, 3).await;
    let alive = household.alive();
    let is_child = |process: &&Found| !alive.iter().any(|other| other.pid == process.parent);
    let children: Vec<&Found> = alive.iter().filter(is_child).collect();
    assert_eq!(children.len(), 5, "{}", marked::table(&alive));
    children.iter().for_each(|child| kill(child.pid));
    household.all_gone("the death of every child", GONE).await;
}

#[expect(unsafe_code, reason = "kill")]
fn kill(child: libc::pid_t) {
    // SAFETY: kill takes two numbers and touches no memory; the pid was a child's of the test's own node just now.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0, "{}", std::io::Error::last_os_error());
}
