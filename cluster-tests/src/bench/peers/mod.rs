//! What Ringway is compared with, each started by the benchmark itself on the core of what is measured, with one
//! thread. Called by `stage`.
//!
//! `product` names them all. `nginx` and `haproxy` write config files for the programs where they are `installed`;
//! `certificates` makes what two of them show each other. A peer is an address that requests go to, and processes whose
//! CPU is counted.

mod certificates;
mod haproxy;
mod installed;
mod nginx;
mod product;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use super::Bench;
use super::backend::ANSWER_LEN;
use super::children::{Child, command_under};
use super::load::{self, Expect, Load};
use super::stage::Ground;
use crate::real::process::{Process, Ready};

pub(super) use certificates::Certificates;
pub(super) use installed::Installed;
pub use product::Product;

/// They read a config file and bind a socket.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// Connections that are kept open to what is behind a proxy: more than any load has, so that none is closed for them.
const KEPT: usize = 64;

/// On which of its sides a proxy speaks mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Neither,
    Clients,
    Upstream,
}

/// What is spoken over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

/// A program that is configured by a file.
#[derive(Debug, Clone, Copy)]
struct Program<'a> {
    name: &'static str,
    path: &'a Path,
    /// Adds what has it read this file and stay in the foreground.
    arguments: fn(&mut Command, &Path),
    config: fn(&Proxy<'_>) -> String,
}

/// One process of it.
#[derive(Debug)]
struct Proxy<'a> {
    listen: SocketAddr,
    upstream: SocketAddr,
    side: Side,
    http: Http,
    certificates: &'a Certificates,
    dir: &'a Path,
}

/// A running product; its own processes end when it is dropped.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) product: Product,
    at: SocketAddr,
    /// One for each connection of a load.
    sessions: Vec<String>,
    /// What answers say of their way.
    hops: Option<&'static str>,
    /// Everybody between the load and the backend.
    pub(super) pids: Vec<libc::pid_t>,
    _processes: Vec<Process>,
}

impl Peer {
    /// `None` where the program is not installed.
    pub(super) async fn start(
        product: Product,
        bench: &Bench,
        ground: &Ground,
    ) -> anyhow::Result<Option<Peer>> {
        let (backend, installed) = (ground.backend.address()?, &bench.installed);
        let nginx = installed.nginx.as_deref().map(|path| Program {
            name: "nginx",
            path,
            arguments: nginx::arguments,
            config: nginx::config,
        });
        let haproxy = installed.haproxy.as_deref().map(|path| Program {
            name: "haproxy",
            path,
            arguments: haproxy::arguments,
            config: haproxy::config,
        });
        let (program, hop) = match product {
            Product::Direct => return Ok(Some(Peer::of(product, backend, Vec::new(), ground))),
            Product::BareHyper => {
                let bare = Child::bare_proxy(&bench.cores.measured(), &ground.backend.url).await?;
                return Ok(Some(Peer::of(product, bare.address()?, vec![bare.process], ground)));
            }
            Product::Ringway => return Ok(Some(Peer::ringway(product, &["a"], &ground.own, "0", ground))),
            Product::RingwayHop => {
                return Ok(Some(Peer::ringway(product, &["a", "b"], &ground.others, "1", ground)));
            }
            Product::Nginx => (nginx, None),
            Product::Haproxy => (haproxy, None),
            Product::NginxHop => (nginx, Some(Http::One)),
            Product::HaproxyHop => (haproxy, Some(Http::One)),
            Product::HaproxyHopH2 => (haproxy, Some(Http::Two)),
        };
        let Some(program) = program else { return Ok(None) };
        let [at, inner] = free_addresses()?;
        let mut processes = Vec::new();
        let places = match hop {
            None => vec![(at, backend, Side::Neither)],
            Some(_) => vec![(inner, backend, Side::Clients), (at, inner, Side::Upstream)],
        };
        for (listen, upstream, side) in places {
            let dir = ground.dir.join(format!("{product:?}-{}", processes.len()));
            let (dir, http) = (dir.as_path(), hop.unwrap_or(Http::One));
            let proxy = Proxy { listen, upstream, side, http, certificates: &ground.certificates, dir };
            processes.push(program.start(&proxy, &bench.cores.measured()).await?);
        }
        Ok(Some(Peer::of(product, at, processes, ground)))
    }

    fn of(product: Product, at: SocketAddr, processes: Vec<Process>, ground: &Ground) -> Peer {
        let pids = processes.iter().map(Process::pid).collect();
        // The same requests, byte for byte but for the address, as Ringway gets them.
        Peer { product, at, sessions: ground.own.clone(), hops: None, pids, _processes: processes }
    }

    /// Through the first of these nodes.
    fn ringway(
        product: Product,
        nodes: &[&str],
        sessions: &[String],
        hops: &'static str,
        ground: &Ground,
    ) -> Peer {
        let pids = nodes.iter().map(|name| ground.cluster.node(name).process.pid()).collect();
        let at = ground.cluster.listen(nodes[0]);
        Peer { product, at, sessions: sessions.to_vec(), hops: Some(hops), pids, _processes: Vec::new() }
    }

    /// Where requests to it go.
    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    /// Of two processes, whether clients meet the first.
    pub(super) fn is_outer_first(&self) -> bool {
        self.product == Product::RingwayHop
    }

    /// Small calls.
    pub(super) fn calls(&self) -> Load {
        self.load(ANSWER_LEN, |session| load::call(self.at, session))
    }

    /// Calls with a body of so many bytes, answered with as many.
    pub(super) fn calls_of(&self, len: usize) -> Load {
        self.load(len, |session| load::call_of(self.at, session, len))
    }

    fn load(&self, len: usize, request: impl Fn(&str) -> std::sync::Arc<[u8]>) -> Load {
        let requests = self.sessions.iter().map(|session| request(session)).collect();
        Load { at: self.at, requests, expect: Expect::Called { len, hops: self.hops } }
    }
}

impl Program<'_> {
    async fn start(&self, proxy: &Proxy<'_>, under: &[String]) -> anyhow::Result<Process> {
        std::fs::create_dir_all(proxy.dir)?;
        let config = proxy.dir.join(format!("{}.conf", self.name));
        std::fs::write(&config, (self.config)(proxy))
            .with_context(|| format!("writing {}", config.display()))?;
        let mut command = command_under(under, self.path);
        (self.arguments)(&mut command, &config);
        let ready = Ready::Listening(proxy.listen);
        Ok(Process::spawn(self.name, command, proxy.dir, ready, START_DEADLINE).await?.0)
    }
}

/// Addresses that nobody uses. Until somebody binds one it could be given to another; then its program ends at once,
/// and says why.
fn free_addresses() -> anyhow::Result<[SocketAddr; 2]> {
    let [one, other] = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([one.local_addr()?, other.local_addr()?])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use super::*;
    use crate::real::places;

    /// Every kind of process that configs are written for.
    pub(super) fn with_proxies(check: impl Fn(Proxy<'_>)) {
        let dir = places::scratch("proxies").unwrap();
        let certificates = Certificates::make(&dir).unwrap();
        let [listen, upstream] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        for side in [Side::Neither, Side::Clients, Side::Upstream] {
            for http in [Http::One, Http::Two] {
                check(Proxy { listen, upstream, side, http, certificates: &certificates, dir: &dir });
            }
        }
    }

    /// The programs are the judges of their own config files, where they are installed.
    #[tokio::test]
    async fn programs_accept_what_is_written_for_them() {
        let Installed { nginx, haproxy } = Installed::find();
        with_proxies(|proxy| {
            let judge = |path: &Option<std::path::PathBuf>, text: String, check: &[&str]| {
                let Some(path) = path else { return };
                let file = proxy.dir.join("checked.conf");
                std::fs::write(&file, &text).unwrap();
                let said = std::process::Command::new(path).args(check).arg(&file).output().unwrap();
                let error = String::from_utf8_lossy(&said.stderr);
                assert!(said.status.success(), "{error}\n{text}");
            };
            judge(&nginx, nginx::config(&proxy), &["-e", "stderr", "-t", "-c"]);
            judge(&haproxy, haproxy::config(&proxy), &["-c", "-f"]);
        });
    }
}
