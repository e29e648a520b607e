//! MCP servers for a cluster to stand in front of, each a process of its own.
//! Called by tests, which give the URLs to `Cluster`.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use super::process::{Process, Ready};
use super::{binaries, install, places};

/// server-everything took 0.4 s to start on an idle machine; tests start many things at once.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How often a port that somebody else took in the meantime is replaced by another.
const PORT_ATTEMPTS: usize = 5;

/// A running MCP server.
#[derive(Debug)]
pub struct Upstream {
    pub process: Process,
    /// Where it serves MCP over streamable HTTP.
    pub url: String,
}

impl Upstream {
    /// A replica of the protocol's reference server. Fails with `install::Missing` where Node.js is missing.
    pub async fn everything() -> anyhow::Result<Upstream> {
        Upstream::everything_over("streamableHttp", "listening on port ", "/mcp").await
    }

    /// The same over the transport of 2024-11-05.
    pub async fn everything_sse() -> anyhow::Result<Upstream> {
        Upstream::everything_over("sse", "running on port ", "/sse").await
    }

    async fn everything_over(transport: &str, ready: &str, path: &str) -> anyhow::Result<Upstream> {
        let npm = install::npm("typescript").await?;
        let script = npm.module("@modelcontextprotocol/server-everything/dist/index.js");
        at_a_free_port("everything", path, async |port, dir| {
            // It says which port it was told, not which it got: port 0 would stay unknown.
            let mut command = Command::new("node");
            command.arg(&script).arg(transport).env("PORT", port.to_string());
            let ready = format!("{ready}{port}");
            let started =
                Process::spawn("everything", command, dir, Ready::Stderr(&ready), START_DEADLINE).await;
            started.map(|(process, _)| process)
        })
        .await
    }

    /// A server on FastMCP, the framework that most Python servers are written with, and so on the Python SDK.
    pub async fn fastmcp() -> anyhow::Result<Upstream> {
        let command = fastmcp_stdio().await?;
        at_a_free_port("fastmcp", "/mcp", async |port, dir| {
            let mut process = Command::new(&command[0]);
            process.args(&command[1..]).args(["--port", &port.to_string()]);
            let ready = Ready::Stderr("Uvicorn running on");
            let started = Process::spawn("fastmcp", process, dir, ready, START_DEADLINE).await;
            started.map(|(process, _)| process)
        })
        .await
    }

    /// Our own server with the session-keyed counter and the conformance suite's fixtures.
    pub async fn fixture() -> anyhow::Result<Upstream> {
        Upstream::fixture_at(&[], "127.0.0.1:0").await
    }

    /// The same at this address, started by another command where one is named, such as `nsenter` with a namespace.
    pub async fn fixture_at(under: &[String], address: &str) -> anyhow::Result<Upstream> {
        let mut words: Vec<OsString> = under.iter().map(OsString::from).collect();
        words.push(binaries::fixture_mcp().await?.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["--http", address]);
        Upstream::announced("fixture-mcp", command).await
    }

    /// A server on the TypeScript SDK that answers 409 to a second reader of any stream. Fails with
    /// `install::Missing` where Node.js is missing.
    pub async fn strict_typescript() -> anyhow::Result<Upstream> {
        let npm = install::npm("typescript").await?;
        let mut command = Command::new("node");
        command.arg(npm.dir.join("serve.mjs"));
        Upstream::announced("strict-ts", command).await
    }

    /// The same on the Python SDK, for its own stream only. Fails with `install::Missing` where Python is missing.
    pub async fn strict_python() -> anyhow::Result<Upstream> {
        let mut command = Command::new(install::python("python").await?);
        command.arg(places::client_sources().join("python").join("serve.py"));
        Upstream::announced("strict-py", command).await
    }

    /// The demo server that is built into `ringway`.
    pub async fn demo() -> anyhow::Result<Upstream> {
        let mut command = Command::new(binaries::ringway().await?);
        command.args(["mcp-demo", "--http", "127.0.0.1:0"]);
        Upstream::announced("ringway mcp-demo", command).await
    }

    /// Starts `count` replicas by one of the functions above.
    pub async fn several<F>(count: usize, start: impl Fn() -> F) -> anyhow::Result<Vec<Upstream>>
    where
        F: Future<Output = anyhow::Result<Upstream>>,
    {
        let mut replicas = Vec::with_capacity(count);
        for _ in 0..count {
            replicas.push(start().await?);
        }
        Ok(replicas)
    }

    /// Where it listens.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        let authority = self.url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        Ok(authority.context("a URL without a host")?.parse()?)
    }

    /// A server whose ready line is `NAME ready URL`.
    async fn announced(name: &str, command: Command) -> anyhow::Result<Upstream> {
        let file = name.replace(' ', "-");
        let dir = places::scratch(&file)?;
        let start = format!("{name} ready ");
        let (process, line) =
            Process::spawn(&file, command, &dir, Ready::Stdout(&start), START_DEADLINE).await?;
        match line.strip_prefix(&start).map(str::trim) {
            Some(url) if url.starts_with("http://") => Ok(Upstream { process, url: url.to_owned() }),
            _ => bail!("no URL in the ready line: {line}"),
        }
    }
}

/// The command that runs our own server over stdio, for routes with a child process per session.
pub async fn fixture_stdio() -> anyhow::Result<Vec<String>> {
    Ok(vec![path_text(&binaries::fixture_mcp().await?)?])
}

/// The URLs of several servers, in their order.
pub fn urls(upstreams: &[Upstream]) -> Vec<String> {
    upstreams.iter().map(|upstream| upstream.url.clone()).collect()
}

/// Starts a server that has to be told its port.
async fn at_a_free_port(
    name: &str,
    path: &str,
    start: impl AsyncFn(u16, &Path) -> anyhow::Result<Process>,
) -> anyhow::Result<Upstream> {
    let dir = places::scratch(name)?;
    let mut last = None;
    for _ in 0..PORT_ATTEMPTS {
        let port = free_port()?;
        match start(port, &dir).await {
            Ok(process) => return Ok(Upstream { process, url: format!("http://127.0.0.1:{port}{path}") }),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no attempt made")?)
}

/// A port that nobody listens on at this moment, on all addresses as some servers insist on those.
fn free_port() -> anyhow::Result<u16> {
    let probe = TcpListener::bind(("0.0.0.0", 0)).context("finding a free port")?;
    Ok(probe.local_addr()?.port())
}

/// The command that runs the reference server over stdio, for routes with a child process per session.
pub async fn everything_stdio() -> anyhow::Result<Vec<String>> {
    let npm = install::npm("typescript").await?;
    let script = npm.module("@modelcontextprotocol/server-everything/dist/index.js");
    Ok(vec!["node".to_owned(), path_text(&script)?, "stdio".to_owned()])
}

/// The command that runs the reference memory server; each process keeps its graph in a file of its own.
pub async fn memory_stdio() -> anyhow::Result<Vec<String>> {
    let npm = install::npm("typescript").await?;
    let script = path_text(&npm.module("@modelcontextprotocol/server-memory/dist/index.js"))?;
    let dir = path_text(&places::scratch("memory")?)?;
    let run = format!("MEMORY_FILE_PATH='{dir}'/$$.json exec node '{script}'");
    Ok(vec!["sh".to_owned(), "-c".to_owned(), run])
}

/// The command that runs the reference file server over one folder.
pub async fn filesystem_stdio(folder: &Path) -> anyhow::Result<Vec<String>> {
    let npm = install::npm("typescript").await?;
    let script = npm.module("@modelcontextprotocol/server-filesystem/dist/index.js");
    Ok(vec!["node".to_owned(), path_text(&script)?, path_text(folder)?])
}

/// The command that runs the reference server for trains of thought.
pub async fn sequential_thinking_stdio() -> anyhow::Result<Vec<String>> {
    let npm = install::npm("typescript").await?;
    let script = npm.module("@modelcontextprotocol/server-sequential-thinking/dist/index.js");
    Ok(vec!["node".to_owned(), path_text(&script)?])
}

/// The command that runs a server on FastMCP over stdio.
pub async fn fastmcp_stdio() -> anyhow::Result<Vec<String>> {
    let interpreter = install::python("python-v2").await?;
    let script = places::client_sources().join("python-v2").join("serve.py");
    Ok(vec![path_text(&interpreter)?, path_text(&script)?])
}

fn path_text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}
