//! A cluster of real `ringway node` processes on free ports of this machine.
//! Called by tests: they start one in front of some upstreams, then join, kill, freeze and ask its nodes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::http::{self, Answer};
use super::process::{Process, Ready};
use super::route::Route;
use super::{binaries, metrics, places, wait};

/// A node binds its sockets and says so; anything slower than this hangs.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// Gossip spreads a change among a handful of nodes in a second or two; the rest is for a busy machine.
pub const SETTLE_DEADLINE: Duration = Duration::from_secs(30);

/// What is still in progress at a drain's deadline is ended then, and the process after it.
const END_GRACE: Duration = Duration::from_secs(10);

/// How a cluster's nodes are started.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    nodes: usize,
    arguments: Vec<String>,
    config: Option<String>,
    command: Vec<String>,
    /// What stands before the command of some nodes.
    under: BTreeMap<String, Vec<String>>,
}

impl Plan {
    /// `nodes` nodes, named `a`, `b`, `c` and so on.
    pub fn nodes(nodes: usize) -> Plan {
        Plan { nodes, ..Plan::default() }
    }

    /// In front of these MCP servers (replicas), at `/mcp`.
    pub fn upstreams(mut self, urls: &[String]) -> Plan {
        for url in urls {
            self.arguments.extend(["--upstream".to_owned(), url.clone()]);
        }
        self
    }

    /// In front of an MCP server over stdio, one child process per session, at `/mcp`.
    pub fn command(mut self, command: Vec<String>) -> Plan {
        self.command = command;
        self
    }

    /// With this config file (routes, limits); addresses, name and seeds are given by flags, which win.
    pub fn config(mut self, toml: impl Into<String>) -> Plan {
        self.config = Some(toml.into());
        self
    }

    /// With a config file of these routes.
    pub fn routes(self, routes: &[Route]) -> Plan {
        self.config(routes.iter().map(Route::to_string).collect::<String>())
    }

    /// With further flags of `ringway node`.
    pub fn flags(mut self, flags: &[&str]) -> Plan {
        self.arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// With the node of that name started by another command, such as `nsenter` with a network namespace.
    pub fn under(mut self, name: &str, command: Vec<String>) -> Plan {
        self.under.insert(name.to_owned(), command);
        self
    }

    /// Starts the nodes and waits until all of them know all of them.
    pub async fn start(self) -> anyhow::Result<Cluster> {
        let dir = places::scratch("cluster")?;
        if let Some(config) = &self.config {
            std::fs::write(dir.join("ringway.toml"), config).context("writing the config")?;
        }
        let count = self.nodes;
        let mut cluster = Cluster { plan: self, dir, nodes: BTreeMap::new() };
        for name in ('a'..='z').take(count) {
            cluster.add(&name.to_string(), &[]).await?;
        }
        cluster.settled().await?;
        Ok(cluster)
    }
}

/// One running node.
#[derive(Debug)]
pub struct Node {
    pub process: Process,
    /// For clients.
    pub listen: SocketAddr,
    /// For other nodes (QUIC).
    pub peer: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
}

impl Node {
    fn new(process: Process, ready_line: &str) -> anyhow::Result<Node> {
        let (name, [listen, peer, admin]) = read_ready_line(ready_line)?;
        ensure!(name == process.name(), "the ready line names another node: {ready_line}");
        Ok(Node { process, listen, peer, admin })
    }
    /// The URL of a path that clients use, such as `/mcp`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    /// The URL of a path of the admin endpoint, such as `/v1/members`.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }
}

/// A running cluster; all its processes end when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    dir: PathBuf,
    nodes: BTreeMap<String, Node>,
}

impl Cluster {
    /// `count` nodes in front of these MCP servers, settled.
    pub async fn start(count: usize, upstreams: &[String]) -> anyhow::Result<Cluster> {
        Plan::nodes(count).upstreams(upstreams).start().await
    }

    /// The running nodes' names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// The running node of that name; panics where there is none, since the test made it or ended it itself.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).unwrap_or_else(|| panic!("no node `{name}` is running"))
    }

    /// Where clients reach the node.
    pub fn listen(&self, name: &str) -> SocketAddr {
        self.node(name).listen
    }

    /// Where clients reach each running node, in the order of their names.
    pub fn listens(&self) -> Vec<SocketAddr> {
        self.nodes.values().map(|node| node.listen).collect()
    }

    /// For a balancer: where clients reach each running node, and where it says whether it is ready.
    pub fn health(&self) -> Vec<(SocketAddr, String)> {
        self.nodes.values().map(|node| (node.listen, node.admin_url("/readyz"))).collect()
    }

    /// The MCP route of one node.
    pub fn url(&self, name: &str) -> String {
        self.node(name).url("/mcp")
    }

    /// The MCP route of every running node, in the order of their names.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.values().map(|node| node.url("/mcp")).collect()
    }

    /// Starts one more node, or one that was ended before, and waits until the cluster has taken it in.
    pub async fn join(&mut self, name: &str) -> anyhow::Result<()> {
        self.add(name, &[]).await?;
        self.settled().await
    }

    /// The same with further flags, and without waiting for the others.
    pub async fn add(&mut self, name: &str, flags: &[&str]) -> anyhow::Result<()> {
        ensure!(!self.nodes.contains_key(name), "a node `{name}` is running already");
        let node = self.launch(name, self.seed(), flags).await?;
        self.nodes.insert(name.to_owned(), node);
        Ok(())
    }

    /// Starts a process with the cluster's plan and further flags, seeded with a running node, and leaves it
    /// outside of what `settled` and `names` look at: for nodes that must not become members.
    pub async fn start_stranger(&self, name: &str, flags: &[&str]) -> anyhow::Result<Node> {
        self.launch(name, self.seed(), flags).await
    }

    /// The same, but it knows of no other node unless the flags say so.
    pub async fn start_alone(&self, name: &str, flags: &[&str]) -> anyhow::Result<Node> {
        self.launch(name, None, flags).await
    }

    /// Ends a node without asking (SIGKILL) and waits until its process is gone, not until others know.
    pub async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.take(name).process.kill().await?;
        Ok(())
    }

    /// The same, and waits until every other node has seen it die: none of them sends it anything from then on. On a
    /// busy machine a call that comes sooner may still be sent to it, and is answered honestly instead of served.
    pub async fn kill_noticed(&mut self, name: &str) -> anyhow::Result<()> {
        let mut node = self.take(name);
        let deaths = async |by: &str| self.metric(by, "ringway_events_total", &[("kind", "died")]).await;
        let mut before = BTreeMap::new();
        for by in self.names() {
            let seen = deaths(&by).await?;
            before.insert(by, seen);
        }
        node.process.kill().await?;
        wait::try_wait_for(&format!("all others see {name} die"), SETTLE_DEADLINE, async || {
            for (by, before) in &before {
                ensure!(deaths(by).await? > *before, "{by} has not seen it");
            }
            Ok(())
        })
        .await
    }

    /// Asks a node to end (SIGTERM: it drains) and waits until it has.
    pub async fn terminate(&mut self, name: &str, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.take(name).process.terminate(deadline).await
    }

    /// Asks a node at its admin endpoint to leave within `deadline`, and waits until it has.
    pub async fn drain(&mut self, name: &str, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.begin_drain(name, deadline).await?;
        self.take(name).process.wait(deadline + END_GRACE).await
    }

    /// The same without the wait.
    pub async fn begin_drain(&self, name: &str, deadline: Duration) -> anyhow::Result<()> {
        let url = self.node(name).admin_url("/v1/drain");
        let body = json!({"deadline_s": deadline.as_secs()}).to_string();
        let answer = http::request("POST", &url, &[("content-type", "application/json")], body).await?;
        ensure!(answer.status == 202, "{name}/v1/drain answered {}: {}", answer.status, answer.text());
        Ok(())
    }

    /// Leaves a running node to the caller, for a test that waits for its end while it does other things.
    pub fn take(&mut self, name: &str) -> Node {
        self.nodes.remove(name).unwrap_or_else(|| panic!("no node `{name}` is running"))
    }

    /// Stops a node where it stands (SIGSTOP): its sockets stay open and silent.
    pub fn freeze(&self, name: &str) -> anyhow::Result<()> {
        self.node(name).process.freeze()
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self, name: &str) -> anyhow::Result<()> {
        self.node(name).process.thaw()
    }

    /// Waits until every running node is ready and all of them see exactly the running ones as active members,
    /// under the same view.
    pub async fn settled(&self) -> anyhow::Result<()> {
        let what = format!("the nodes {:?} know each other", self.names());
        wait::try_wait_for(&what, SETTLE_DEADLINE, async || self.look_settled().await).await
    }

    async fn look_settled(&self) -> anyhow::Result<()> {
        let mut view = None;
        for (name, node) in &self.nodes {
            let ready = http::get(&node.admin_url("/readyz")).await?;
            ensure!(ready.status == 200, "{name} is not ready: {}", ready.text());
            let members = self.admin_json(name, "/v1/members").await?;
            let active = names_in_phase(&members, "active");
            ensure!(active == self.names(), "{name} sees as active {active:?}");
            let seen = members["view"].as_str().map(str::to_owned);
            ensure!(seen.is_some(), "{name} names no view: {members}");
            ensure!(view.is_none() || view == seen, "{name} has the view {seen:?}, another node {view:?}");
            view = seen;
        }
        Ok(())
    }

    /// What a node's admin endpoint answers to `GET path`; anything but 200 with JSON is an error.
    pub async fn admin_json(&self, name: &str, path: &str) -> anyhow::Result<Value> {
        let answer = self.admin(name, path).await?;
        ensure!(answer.status == 200, "{name}{path} answered {}: {}", answer.status, answer.text());
        answer.json()
    }

    /// What a node's admin endpoint answers to `GET path`, whatever it is.
    pub async fn admin(&self, name: &str, path: &str) -> anyhow::Result<Answer> {
        http::get(&self.node(name).admin_url(path)).await
    }

    /// The sum of a node's samples of a metric that carry the given labels.
    pub async fn metric(&self, name: &str, metric: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        let answer = self.admin(name, "/metrics").await?;
        ensure!(answer.status == 200, "{name}/metrics answered {}", answer.status);
        Ok(metrics::sum(&answer.text(), metric, labels))
    }

    /// The same, summed over all running nodes.
    pub async fn metric_of_all(&self, metric: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for name in self.nodes.keys() {
            sum += self.metric(name, metric, labels).await?;
        }
        Ok(sum)
    }

    /// The node that owns a session, as `name` sees it.
    pub async fn owner(&self, name: &str, session: &str) -> anyhow::Result<String> {
        let found = self.admin_json(name, &format!("/v1/ring/lookup?session={session}")).await?;
        Ok(found["owner"].as_str().with_context(|| format!("nobody owns it: {found}"))?.to_owned())
    }

    /// Where a new node asks for the cluster.
    fn seed(&self) -> Option<SocketAddr> {
        self.nodes.values().next().map(|node| node.peer)
    }

    async fn launch(&self, name: &str, seed: Option<SocketAddr>, flags: &[&str]) -> anyhow::Result<Node> {
        let mut words: Vec<OsString> =
            self.plan.under.get(name).into_iter().flatten().map(OsString::from).collect();
        words.push(binaries::ringway().await?.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["node", "--name", name]);
        // A flag given twice is a mistake, so an address that the test chooses comes instead of port 0.
        for flag in ["--listen", "--peer", "--admin"].iter().filter(|flag| !flags.contains(flag)) {
            command.args([flag, "127.0.0.1:0"]);
        }
        if let Some(seed) = seed {
            command.args(["--seed", &seed.to_string()]);
        }
        if self.plan.config.is_some() {
            command.arg("--config").arg(self.dir.join("ringway.toml"));
        }
        command.args(&self.plan.arguments).args(flags);
        if !self.plan.command.is_empty() {
            command.arg("--").args(&self.plan.command);
        }
        let ready = Ready::Stdout("ringway ready ");
        let (process, line) = Process::spawn(name, command, &self.dir, ready, READY_DEADLINE).await?;
        Node::new(process, &line)
    }
}

/// The names of the members in a phase, sorted, from what `/v1/members` answers.
pub fn names_in_phase(members: &Value, phase: &str) -> Vec<String> {
    let members = members["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut names: Vec<String> = members
        .iter()
        .filter(|member| member["phase"] == phase)
        .filter_map(|member| member["name"].as_str().map(str::to_owned))
        .collect();
    names.sort_unstable();
    names
}

/// Reads `ringway ready name=a listen=ADDR peer=ADDR admin=ADDR`: the name and the addresses, in this order.
fn read_ready_line(line: &str) -> anyhow::Result<(&str, [SocketAddr; 3])> {
    let word = |key: &str| {
        let mut words = line.split_whitespace().filter_map(|word| word.split_once('='));
        let value = words.find(|(name, _)| *name == key).map(|(_, value)| value);
        value.with_context(|| format!("no {key} in the ready line: {line}"))
    };
    let address = |key| word(key)?.parse().with_context(|| format!("{key} is no address: {line}"));
    Ok((word("name")?, [address("listen")?, address("peer")?, address("admin")?]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use super::*;

    #[test]
    fn the_ready_line_says_the_name_and_every_address() {
        let line = "ringway ready name=a listen=127.0.0.1:8080 peer=[::1]:7400 admin=127.0.0.1:9400";
        let (name, addresses) = read_ready_line(line).unwrap();
        assert_eq!(name, "a");
        assert_eq!(addresses.map(|address| address.port()), [8080, 7400, 9400]);
        let error = read_ready_line("ringway ready name=a listen=127.0.0.1:8080").unwrap_err();
        assert!(error.to_string().contains("no peer"), "{error}");
    }

    #[test]
    fn members_are_chosen_by_their_phase() {
        let member = |name: &str, phase: &str| json!({"name": name, "phase": phase});
        let members = json!({"members": [member("b", "active"), member("c", "dead"), member("a", "active")]});
        assert_eq!(names_in_phase(&members, "active"), ["a", "b"]);
        assert_eq!(names_in_phase(&json!({}), "active"), Vec::<String>::new());
    }
}
