//! The wires between the nodes: a network namespace for each node, so that they can be cut while clients, operators
//! and MCP servers still reach every node. Called by `faults`; `own_network` has made room for it.
//!
//! Each node has two wires. `clients` leads to the clients and servers, `peers` to the other nodes, each through a
//! bridge. So a node is cut off by taking its wire from the bridge, and made mute by telling it wrong hardware
//! addresses of the others: `ip` is enough for both, and nobody is told that a packet is lost. Loss needs `tc`.
//!
//! All of it lies in the network namespace of this process and in those of processes that die with it. There is
//! nothing to remove, however the run ends, and nothing of the machine's own network is touched.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::real::places;
use crate::real::process::{Process, Ready, die_with_parent};

/// Nothing but this run is in its namespaces, so these can't collide with anything.
const CLIENTS: [u8; 3] = [10, 77, 0];
const PEERS: [u8; 3] = [10, 77, 1];
/// The address of this process on the clients' bridge; nodes come from 11 on.
const HERE: u8 = 1;
const FIRST_NODE: u8 = 11;

/// A namespace is there a few milliseconds after it was asked for.
const NAMESPACE_DEADLINE: Duration = Duration::from_secs(10);

/// The share of packets that `lose` drops.
pub(super) const LOSS_PERCENT: u32 = 20;

/// All nodes' wires.
#[derive(Debug)]
pub(super) struct Links {
    nodes: BTreeMap<String, Wired>,
    dropper: Option<Dropper>,
}

/// One node's namespace; it is gone with its process.
#[derive(Debug)]
struct Wired {
    number: u8,
    holder: Process,
}

/// What can drop a share of the packets here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dropper {
    /// The queue discipline made for it.
    Netem,
    /// A classifier that draws a random number for each packet, for kernels without netem.
    Classifier,
}

impl Links {
    /// Namespaces for nodes of these names, all connected. Only in a network namespace of our own.
    pub(super) async fn lay(names: &[String]) -> anyhow::Result<Links> {
        let here = address(CLIENTS, HERE);
        ip(
            &[],
            &format!(
                "link set lo up\nlink add clients type bridge\naddr add {here}/24 dev clients\n\
                 link set clients up\nlink add peers type bridge\nlink set peers up\n"
            ),
        )
        .await?;
        let dir = places::scratch("namespaces")?;
        let mut links = Links { nodes: BTreeMap::new(), dropper: None };
        for (number, name) in (FIRST_NODE..).zip(names) {
            let mut command = Command::new("unshare");
            command.args(["--net", "sh", "-c", "echo made; exec sleep 1000000"]);
            let ready = Ready::Stdout("made");
            let (holder, _) = Process::spawn(name, command, &dir, ready, NAMESPACE_DEADLINE).await?;
            links.nodes.insert(name.clone(), Wired { number, holder });
            links.wire(name).await.with_context(|| format!("wiring {name}"))?;
        }
        for name in names {
            links.introduce(name, mac).await?;
        }
        links.dropper = links.find_dropper().await;
        Ok(links)
    }

    /// Where MCP servers that all nodes reach can listen.
    pub(super) fn here(&self) -> Ipv4Addr {
        address(CLIENTS, HERE)
    }

    /// Where clients and operators reach a node.
    pub(super) fn front(&self, name: &str) -> Ipv4Addr {
        address(CLIENTS, self.number(name))
    }

    /// Where other nodes reach it.
    pub(super) fn peer(&self, name: &str) -> Ipv4Addr {
        address(PEERS, self.number(name))
    }

    /// What has to stand before a command for it to run where the node runs.
    pub(super) fn under(&self, name: &str) -> Vec<String> {
        let pid = self.nodes[name].holder.pid();
        vec!["nsenter".to_owned(), format!("--net=/proc/{pid}/ns/net"), "--".to_owned()]
    }

    pub(super) fn can_lose(&self) -> bool {
        self.dropper.is_some()
    }

    /// No packet passes between the node and the others, either way.
    pub(super) async fn cut(&self, name: &str) -> anyhow::Result<()> {
        ip(&[], &format!("link set p-{name} nomaster\n")).await
    }

    pub(super) async fn mend(&self, name: &str) -> anyhow::Result<()> {
        ip(&[], &format!("link set p-{name} master peers\n")).await
    }

    /// The others don't hear the node, which hears them.
    pub(super) async fn mute(&self, name: &str) -> anyhow::Result<()> {
        self.introduce(name, |_| "02:00:00:00:00:ff".to_owned()).await
    }

    pub(super) async fn unmute(&self, name: &str) -> anyhow::Result<()> {
        self.introduce(name, mac).await
    }

    /// Every node's packets to the others are dropped, some at random.
    pub(super) async fn lose(&self) -> anyhow::Result<()> {
        let dropper = self.dropper.context("nothing here can drop packets at random")?;
        for name in self.nodes.keys() {
            self.drop_some(name, dropper).await?;
        }
        Ok(())
    }

    pub(super) async fn keep(&self) -> anyhow::Result<()> {
        let dropper = self.dropper.context("nothing here can drop packets at random")?;
        for name in self.nodes.keys() {
            self.drop_none(name, dropper).await?;
        }
        Ok(())
    }

    fn number(&self, name: &str) -> u8 {
        self.nodes[name].number
    }

    async fn wire(&self, name: &str) -> anyhow::Result<()> {
        let (pid, number) = (self.nodes[name].holder.pid(), self.number(name));
        let outside = format!(
            "link add c-{name} type veth peer name clients netns {pid}\nlink set c-{name} master clients up\n\
             link add p-{name} type veth peer name peers netns {pid}\nlink set p-{name} master peers up\n"
        );
        ip(&[], &outside).await?;
        let (front, peer, mac) = (address(CLIENTS, number), address(PEERS, number), mac(number));
        let inside = format!(
            "link set lo up\naddr add {front}/24 dev clients\nlink set clients up\n\
             link set peers address {mac}\naddr add {peer}/24 dev peers\nlink set peers up\n"
        );
        ip(&self.under(name), &inside).await
    }

    /// Tells a node the others' hardware addresses. They are never asked for, since a question that nobody answers
    /// would tell the sender what a lost packet does not.
    async fn introduce(&self, name: &str, mac: impl Fn(u8) -> String) -> anyhow::Result<()> {
        let others = self.nodes.iter().filter(|(other, _)| *other != name).map(|(_, other)| other.number);
        let said: String = others
            .map(|other| {
                let (to, mac) = (address(PEERS, other), mac(other));
                format!("neigh replace {to} lladdr {mac} dev peers nud permanent\n")
            })
            .collect();
        ip(&self.under(name), &said).await
    }

    async fn find_dropper(&self) -> Option<Dropper> {
        let name = self.nodes.keys().next()?;
        for dropper in [Dropper::Netem, Dropper::Classifier] {
            let works = self.drop_some(name, dropper).await.is_ok();
            // A part of it may be there even if the whole is not.
            let is_undone = self.drop_none(name, dropper).await.is_ok();
            if works && is_undone {
                return Some(dropper);
            }
        }
        None
    }

    async fn drop_some(&self, name: &str, dropper: Dropper) -> anyhow::Result<()> {
        match dropper {
            Dropper::Netem => {
                self.tc(name, &format!("qdisc add dev peers root netem loss {LOSS_PERCENT}%")).await
            }
            Dropper::Classifier => {
                self.tc(name, "qdisc add dev peers clsact").await?;
                // Load a random word; above the threshold go on (-1), else drop (2).
                let (random, threshold) = (0xffff_f038_u32, u32::MAX / 100 * LOSS_PERCENT);
                let program = format!("4,32 0 0 {random},37 0 1 {threshold},6 0 0 {},6 0 0 2", u32::MAX);
                let mut words = ["filter", "add", "dev", "peers", "egress", "bpf", "da", "bytecode"].to_vec();
                words.push(&program);
                self.tc_words(name, &words).await
            }
        }
    }

    async fn drop_none(&self, name: &str, dropper: Dropper) -> anyhow::Result<()> {
        match dropper {
            Dropper::Netem => self.tc(name, "qdisc del dev peers root").await,
            Dropper::Classifier => self.tc(name, "qdisc del dev peers clsact").await,
        }
    }

    async fn tc(&self, name: &str, line: &str) -> anyhow::Result<()> {
        self.tc_words(name, &line.split(' ').collect::<Vec<_>>()).await
    }

    async fn tc_words(&self, name: &str, words: &[&str]) -> anyhow::Result<()> {
        let under = self.under(name);
        let mut command = Command::new(&under[0]);
        command.args(&under[1..]).arg("tc").args(words);
        fed(command, "").await
    }
}

fn address([a, b, c]: [u8; 3], number: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, number)
}

/// A locally administered hardware address.
fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

/// Carries out lines for `ip`.
async fn ip(under: &[String], lines: &str) -> anyhow::Result<()> {
    let mut words = under.iter().map(String::as_str).chain(["ip", "-batch", "-"]);
    let mut command = Command::new(words.next().unwrap_or("ip"));
    command.args(words);
    fed(command, lines).await.with_context(|| lines.trim().replace('\n', "; "))
}

/// Runs a command to its end with something on its stdin.
async fn fed(mut command: Command, text: &str) -> anyhow::Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    die_with_parent(&mut command);
    let mut child = command.spawn().with_context(|| format!("starting {:?}", command.as_std()))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(text.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {}", command.as_std(), said.trim());
    Ok(())
}
