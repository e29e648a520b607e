//! Debian's Prometheus and its promtool, unpacked below the target directory, and a Prometheus that scrapes a
//! cluster. Called by the tests of what `deploy/` holds.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::cluster::Cluster;
use super::http;
use super::install::{self, Missing};
use super::places;
use super::process::{Process, Ready};

const START_DEADLINE: Duration = Duration::from_secs(30);
const TOOL_DEADLINE: Duration = Duration::from_secs(60);

/// Where the package's programs are. Fails with `Missing` where it can't be had or does not run here.
pub async fn programs() -> anyhow::Result<PathBuf> {
    let dir = install::debian("prometheus", "usr/bin/promtool").await?.join("usr/bin");
    let version = Command::new(dir.join("promtool")).arg("--version").stdin(Stdio::null()).output().await;
    match version {
        Ok(output) if output.status.success() => Ok(dir),
        Ok(output) => bail!(Missing::new(format!("promtool does not run here: {}", output.status))),
        Err(error) => bail!(Missing::new(format!("promtool does not run here: {error}"))),
    }
}

/// What a run of promtool said; it must end well.
pub async fn promtool(
    programs: &Path,
    arguments: &[&str],
    dir: &Path,
    input: &str,
) -> anyhow::Result<String> {
    let mut command = Command::new(programs.join("promtool"));
    command
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().context("starting promtool")?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output =
        tokio::time::timeout(TOOL_DEADLINE, child.wait_with_output()).await.context("promtool hangs")??;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "promtool {arguments:?}: {}: {said}", output.status);
    Ok(said)
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    at: SocketAddr,
    _process: Process,
}

impl Prometheus {
    /// Scrapes every node of the cluster each second, under the rules of `alerts`.
    pub async fn watch(programs: &Path, cluster: &Cluster, alerts: &Path) -> anyhow::Result<Prometheus> {
        let dir = places::scratch("prometheus")?;
        let targets: Vec<_> =
            cluster.names().iter().map(|name| format!("\"{}\"", cluster.node(name).admin)).collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{}\"]\nscrape_configs:\n  \
             - job_name: ringway\n    static_configs:\n      - targets: [{}]\n        labels: {{ cluster: test }}\n",
            alerts.display(),
            targets.join(", ")
        );
        std::fs::write(dir.join("prometheus.yml"), config)?;
        let mut command = Command::new(programs.join("prometheus"));
        command.args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.listen-address=127.0.0.1:0",
        ]);
        command.current_dir(&dir);
        let ready = Ready::Stderr("msg=\"Listening on\" address=127.0.0.1:");
        let (process, line) = Process::spawn("prometheus", command, &dir, ready, START_DEADLINE).await?;
        let at = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let at = at.with_context(|| format!("no address: {line}"))?.parse()?;
        Ok(Prometheus { at, _process: process })
    }

    /// What its API answers: `data`.
    pub async fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let answer = http::get(&format!("http://{}/api/v1/{path}", self.at)).await?;
        let mut said = answer.json()?;
        ensure!(said["status"] == "success", "{path}: {said}");
        Ok(said["data"].take())
    }

    /// The samples that an expression has now.
    pub async fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let escape = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        let query: String = expression.bytes().map(escape).collect();
        let data = self.ask(&format!("query?query={query}")).await?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }
}
