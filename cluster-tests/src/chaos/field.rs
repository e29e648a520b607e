//! The cluster, its MCP servers and its links: built, and damaged and mended by faults. Called by `mod`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::links::Links;
use super::options::Upstreams;
use super::scene::Scene;
use super::schedule::{Fault, FaultKind};
use super::targets::Target;
use super::timeline::Phase;
use crate::real::cluster::{Cluster, Plan};
use crate::real::upstream::Upstream;
use crate::real::{binaries, places, upstream};

/// Replicas that live on: more than one, so that a session has to come back to its own.
const REPLICAS: usize = 3;

/// The ports of the README, where every node has addresses of its own. On loopback any free ones are taken.
const LISTEN: u16 = 8080;
const PEER: u16 = 7400;
const ADMIN: u16 = 9400;
const LOCAL_UPSTREAM: u16 = 3001;

/// A node that is asked to leave finishes what is in progress first, for up to 30 s.
const LEAVE_DEADLINE: Duration = Duration::from_secs(30);
const LEAVE_GRACE: Duration = Duration::from_secs(15);

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Field {
    scene: Arc<Scene>,
    cluster: Cluster,
    links: Option<Links>,
    /// Those that live on.
    _replicas: Vec<Upstream>,
    /// One per node, where they die with it.
    local: BTreeMap<String, Upstream>,
    has_local: bool,
    busy: Option<Busy>,
}

impl Field {
    /// Starts everything, and waits until the nodes know each other.
    pub(super) async fn build(
        scene: Arc<Scene>,
        names: &[String],
        links: Option<Links>,
        upstreams: Upstreams,
    ) -> anyhow::Result<Field> {
        let has_local = upstreams == Upstreams::Local;
        let mut replicas = Vec::new();
        if !has_local {
            let here =
                links.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |links| links.here().to_string());
            let address = format!("{here}:0");
            replicas = Upstream::several(REPLICAS, || Upstream::fixture_at(&[], &address)).await?;
        }
        let secret = binaries::run_ringway(&["secret"]).await?;
        ensure!(secret.code == Some(0), "`ringway secret` failed: {}", secret.stderr);
        let file = places::scratch("secret")?.join("cluster.key");
        std::fs::write(&file, secret.stdout).context("writing the secret")?;

        let mut plan = Plan::nodes(0).upstreams(&upstream::urls(&replicas));
        plan = plan.flags(&["--secret-file", &file.to_string_lossy()]);
        for name in names {
            if let Some(links) = &links {
                let seed = format!("{}:{PEER}", links.peer(name));
                plan = plan.under(name, links.under(name)).flags(&["--seed", &seed]);
            }
        }
        let cluster = plan.start().await?;
        let (local, busy) = (BTreeMap::new(), None);
        let mut field = Field { scene, cluster, links, _replicas: replicas, local, has_local, busy };
        for name in names {
            field.start(name).await?;
        }
        field.settled().await?;
        Ok(field)
    }

    /// Waits until all nodes know all of them.
    pub(super) async fn settled(&self) -> anyhow::Result<()> {
        self.cluster.settled().await
    }

    /// Lets a fault happen. Those whose nodes leave in an orderly way are over when this returns.
    pub(super) async fn strike(&mut self, fault: &Fault) -> anyhow::Result<()> {
        for name in &fault.nodes {
            ensure!(self.runs(name), "{name} does not run");
            self.strike_node(fault.kind, name).await?;
        }
        match fault.kind {
            FaultKind::Loss => self.links()?.lose().await,
            FaultKind::Busy => {
                self.busy = Some(Busy::start()?);
                Ok(())
            }
            FaultKind::Kill
            | FaultKind::Freeze
            | FaultKind::Partition
            | FaultKind::OneWay
            | FaultKind::Drain
            | FaultKind::Restart => Ok(()),
        }
    }

    /// Undoes it.
    pub(super) async fn mend(&mut self, fault: &Fault) -> anyhow::Result<()> {
        for name in &fault.nodes {
            match fault.kind {
                FaultKind::Freeze => self.cluster.thaw(name)?,
                FaultKind::Partition => self.links()?.mend(name).await?,
                FaultKind::OneWay => self.links()?.unmute(name).await?,
                // One that could not leave is there already.
                FaultKind::Kill | FaultKind::Drain | FaultKind::Restart if !self.runs(name) => {
                    self.start(name).await?;
                }
                FaultKind::Kill
                | FaultKind::Drain
                | FaultKind::Restart
                | FaultKind::Loss
                | FaultKind::Busy => {}
            }
            self.phase(name, Phase::Up);
        }
        if fault.kind == FaultKind::Loss {
            self.links()?.keep().await?;
        }
        self.busy = None;
        Ok(())
    }

    async fn strike_node(&mut self, kind: FaultKind, name: &str) -> anyhow::Result<()> {
        match kind {
            FaultKind::Kill => {
                self.phase(name, Phase::Down);
                self.cluster.kill(name).await?;
                self.end_local(name).await?;
            }
            FaultKind::Freeze => {
                self.phase(name, Phase::Frozen);
                self.cluster.freeze(name)?;
            }
            FaultKind::Partition => {
                self.phase(name, Phase::CutOff);
                self.links()?.cut(name).await?;
            }
            FaultKind::OneWay => {
                self.phase(name, Phase::CutOff);
                self.links()?.mute(name).await?;
            }
            FaultKind::Drain | FaultKind::Restart => {
                self.phase(name, Phase::Draining);
                let status = if kind == FaultKind::Drain {
                    self.cluster.drain(name, LEAVE_DEADLINE).await?
                } else {
                    self.cluster.terminate(name, LEAVE_DEADLINE + LEAVE_GRACE).await?
                };
                self.phase(name, Phase::Down);
                self.end_local(name).await?;
                ensure!(status.success(), "{name} left with {status}");
            }
            FaultKind::Loss | FaultKind::Busy => {}
        }
        Ok(())
    }

    /// Starts a node, with an MCP server of its own where nodes have that.
    async fn start(&mut self, name: &str) -> anyhow::Result<()> {
        let mut flags = Vec::new();
        if let Some(links) = &self.links {
            let (front, peer) = (links.front(name), links.peer(name));
            flags.extend(["--listen".to_owned(), format!("{front}:{LISTEN}")]);
            flags.extend(["--admin".to_owned(), format!("{front}:{ADMIN}")]);
            flags.extend(["--peer".to_owned(), format!("{peer}:{PEER}")]);
        }
        if self.has_local {
            // In a namespace it has the same address on every node, as in the README: the harder case.
            let server = match &self.links {
                Some(links) => {
                    let address = format!("127.0.0.1:{LOCAL_UPSTREAM}");
                    Upstream::fixture_at(&links.under(name), &address).await?
                }
                None => Upstream::fixture().await?,
            };
            flags.extend(["--upstream".to_owned(), server.url.clone()]);
            self.local.insert(name.to_owned(), server);
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.cluster.add(name, &flags).await?;
        let node = self.cluster.node(name);
        self.scene.targets.set(Target::new(name, node.listen, node.admin));
        self.phase(name, Phase::Up);
        Ok(())
    }

    async fn end_local(&mut self, name: &str) -> anyhow::Result<()> {
        if let Some(mut server) = self.local.remove(name) {
            server.process.kill().await?;
        }
        Ok(())
    }

    fn runs(&self, name: &str) -> bool {
        self.cluster.names().iter().any(|running| running == name)
    }

    fn links(&self) -> anyhow::Result<&Links> {
        self.links.as_ref().context("the nodes have no links that could be cut")
    }

    fn phase(&self, name: &str, phase: Phase) {
        self.scene.timeline().phase(name, self.scene.now(), phase);
    }
}

/// One busy loop per core, until it is dropped.
#[derive(Debug)]
struct Busy {
    is_over: Arc<AtomicBool>,
    loops: Vec<JoinHandle<()>>,
}

impl Busy {
    fn start() -> anyhow::Result<Busy> {
        let is_over = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism()?.get();
        let spin = |is_over: Arc<AtomicBool>| {
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        };
        let loops = (0..cores).map(|_| std::thread::spawn(spin(is_over.clone()))).collect();
        Ok(Busy { is_over, loops })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for busy in self.loops.drain(..) {
            // It does nothing that could fail.
            let _ = busy.join();
        }
    }
}
