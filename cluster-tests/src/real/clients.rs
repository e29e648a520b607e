//! Runs the SDK drivers of `cluster-tests/clients` and reads what they report.
//! Called by tests; the drivers' own heads say what they check.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::{Child, Command};

use super::{install, places, process};

/// Which SDK drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    PythonV1,
    TypeScriptV1,
}

impl Sdk {
    pub const ALL: [Sdk; 2] = [Sdk::PythonV1, Sdk::TypeScriptV1];
}

/// Which transport a driver speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    StreamableHttp,
    /// HTTP+SSE (2024-11-05); the URLs are those of its streams.
    HttpSse,
}

/// What every call of a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The session-keyed counter of our own servers: each call must give exactly the next integer.
    Count,
    /// server-everything: echoes and sums, and once per session everything else that a session can do.
    Everything,
    /// server-everything, echoes and sums only.
    Echo,
}

/// One run of a driver.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Each request of a session goes to the next of these.
    pub urls: Vec<String>,
    pub sessions: usize,
    /// Per session, one after the other.
    pub calls: usize,
    /// Sessions side by side.
    pub concurrency: usize,
    pub tool: Tool,
    pub transport: Transport,
    /// Between the calls of a session.
    pub pace: Duration,
    /// A file with the token that each request shows, read for each anew.
    pub token_file: Option<PathBuf>,
    /// Beyond it the driver is killed and the run has failed.
    pub deadline: Duration,
}

impl Drive {
    /// Four sessions side by side with 25 calls each, as fast as they go.
    pub fn new(urls: Vec<String>, tool: Tool) -> Drive {
        let deadline = Duration::from_secs(120);
        let transport = Transport::StreamableHttp;
        Drive {
            urls,
            sessions: 4,
            calls: 25,
            concurrency: 4,
            tool,
            transport,
            pace: Duration::ZERO,
            token_file: None,
            deadline,
        }
    }

    /// Runs it. Fails where the driver reports nothing; what it reports is for the caller to judge.
    pub async fn run(&self, sdk: Sdk) -> anyhow::Result<Report> {
        let mut command = self.command(sdk).await?;
        command.stdin(Stdio::null());
        self.begin(sdk, command)?.report().await
    }

    /// The same over TLS, with certificates of this authority (a PEM file).
    pub async fn run_trusting(&self, sdk: Sdk, authority: &Path) -> anyhow::Result<Report> {
        let mut command = self.command(sdk).await?;
        command.env("SSL_CERT_FILE", authority).env("NODE_EXTRA_CA_CERTS", authority).stdin(Stdio::null());
        self.begin(sdk, command)?.report().await
    }

    /// Starts one whose sessions call on, all side by side, until `Running::finish`. `calls` says nothing then.
    pub async fn start(&self, sdk: Sdk) -> anyhow::Result<Running> {
        anyhow::ensure!(
            self.concurrency == self.sessions,
            "sessions that never end can't wait for their turn"
        );
        let mut command = self.command(sdk).await?;
        command.arg("--until-eof").stdin(Stdio::piped());
        self.begin(sdk, command)
    }

    fn begin(&self, sdk: Sdk, mut command: Command) -> anyhow::Result<Running> {
        // Into a file: nobody reads before the end, and a full pipe would stop the driver.
        let log = places::scratch("driver")?.join("stderr.log");
        command.stdout(Stdio::piped()).stderr(File::create(&log).context("creating the driver's log")?);
        process::die_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("starting the driver {sdk:?}"))?;
        Ok(Running { sdk, child, log, deadline: self.deadline })
    }

    async fn command(&self, sdk: Sdk) -> anyhow::Result<Command> {
        let mut command = match sdk {
            Sdk::PythonV1 => {
                let mut python = Command::new(install::python("python").await?);
                python.arg(places::client_sources().join("python").join("drive.py"));
                python
            }
            Sdk::TypeScriptV1 => {
                let mut node = Command::new("node");
                node.arg(install::npm("typescript").await?.dir.join("drive.mjs"));
                node
            }
        };
        let label = match sdk {
            Sdk::PythonV1 => "py",
            Sdk::TypeScriptV1 => "ts",
        };
        command.args(["--url", &self.urls.join(","), "--label", label]);
        command.args(["--sessions", &self.sessions.to_string(), "--calls", &self.calls.to_string()]);
        command.args(["--concurrency", &self.concurrency.to_string()]);
        command.args(["--pace-ms", &self.pace.as_millis().to_string()]);
        if let Some(file) = &self.token_file {
            command.arg("--token-file").arg(file);
        }
        command.args(match self.transport {
            Transport::StreamableHttp => ["--transport", "streamable"],
            Transport::HttpSse => ["--transport", "sse"],
        });
        command.args(match self.tool {
            Tool::Count => ["--tool", "count"].as_slice(),
            Tool::Everything => ["--tool", "echo"].as_slice(),
            Tool::Echo => ["--tool", "echo", "--brief"].as_slice(),
        });
        Ok(command)
    }
}

/// A driver at work. Dropping it ends it without a report.
#[derive(Debug)]
pub struct Running {
    sdk: Sdk,
    child: Child,
    log: PathBuf,
    deadline: Duration,
}

impl Running {
    /// Tells the sessions to end, and gives what they saw.
    pub async fn finish(mut self) -> anyhow::Result<Report> {
        drop(self.child.stdin.take());
        self.report().await
    }

    async fn report(self) -> anyhow::Result<Report> {
        let Running { sdk, child, log, deadline } = self;
        let output = tokio::time::timeout(deadline, child.wait_with_output())
            .await
            .map_err(|_| anyhow::anyhow!("the driver {sdk:?} has not ended within {deadline:?}"))??;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let line = stdout.lines().rfind(|line| line.starts_with('{'));
        let report = line.and_then(|line| serde_json::from_str(line).ok());
        report.with_context(|| {
            let stderr = std::fs::read_to_string(&log).unwrap_or_default();
            format!("the driver {sdk:?} ended with {} and no report\n{stdout}\n{stderr}", output.status)
        })
    }
}

/// What a driver saw, over all its sessions.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub client: String,
    pub sessions: usize,
    /// Calls that were answered.
    pub calls: usize,
    /// The first few, in words.
    pub errors: Vec<String>,
    pub error_count: usize,
    /// Answers that were not the right ones.
    pub wrong: usize,
    /// Errors that were the gateway's "this call was lost".
    pub lost: usize,
    /// Answers per owning node (`ringway-node`).
    pub nodes: BTreeMap<String, usize>,
    /// Answers per number of hops (`ringway-hops`).
    pub hops: BTreeMap<String, usize>,
    /// Answers per method and status, such as `POST 202`.
    pub statuses: BTreeMap<String, usize>,
    /// How many sessions passed each check that is no call.
    pub checks: BTreeMap<String, usize>,
}

impl Report {
    /// Every check that a driver makes once per session with `Tool::Everything`.
    pub const CHECKS: [&str; 8] =
        ["ping", "tools", "resource", "progress", "sampling", "listening", "roots", "logging"];

    /// Panics where anything went wrong, or nothing was done.
    pub fn assert_no_errors(&self) {
        assert_eq!((self.error_count, self.wrong), (0, 0), "{self:#?}");
        assert!(self.calls > 0, "{self:#?}");
    }

    /// Panics unless every call of `drive` was answered, rightly, and nothing else went wrong.
    pub fn assert_flawless(&self, drive: &Drive) {
        self.assert_no_errors();
        assert_eq!((self.sessions, self.calls), (drive.sessions, drive.sessions * drive.calls), "{self:#?}");
        if drive.tool == Tool::Everything {
            for check in Report::CHECKS {
                assert_eq!(self.checks.get(check), Some(&drive.sessions), "{check}: {self:#?}");
            }
        }
    }

    /// How many HTTP requests were answered, whatever with.
    pub fn answers(&self) -> usize {
        self.statuses.values().sum()
    }

    /// The part of all answers that came over a hop, of those that say how many they took.
    pub fn forwarded_share(&self) -> f64 {
        let all: usize = self.hops.values().sum();
        let forwarded = all - self.hops.get("0").copied().unwrap_or(0);
        forwarded as f64 / all.max(1) as f64
    }
}
