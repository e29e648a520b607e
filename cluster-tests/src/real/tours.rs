//! Sessions of real SDK clients that go through what a real server can do: every answer is checked, and whatever the
//! server says or asks by itself has to come. Called by the test that tries every server with every client over
//! every transport.
//!
//! A tour is data; the drivers in `cluster-tests/clients` (`tour.mjs`, `tour.py`) take it as a line of JSON.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{install, places, process};

/// A tour takes 0.1 to 5 s, and its requests wait 30 s each for an answer. A driver that hangs beyond this is killed.
const DEADLINE: Duration = Duration::from_secs(240);

/// The client that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guest {
    TypeScriptV1,
    TypeScriptV2,
    PythonV1,
    PythonV2,
}

impl Guest {
    pub const ALL: [Guest; 4] = [Guest::TypeScriptV1, Guest::TypeScriptV2, Guest::PythonV1, Guest::PythonV2];

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Guest::TypeScriptV1 => "TypeScript 1.32",
            Guest::TypeScriptV2 => "TypeScript 2.4",
            Guest::PythonV1 => "Python 1.30",
            Guest::PythonV2 => "Python 2.3",
        }
    }

    /// Goes through the tours one after the other. Fails where the driver itself does, not where a tour does.
    pub async fn take(self, tours: &[Tour]) -> anyhow::Result<Vec<Outcome>> {
        let mut command = self.driver().await?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        process::die_with_parent(&mut command);
        let mut child = command.spawn().with_context(|| format!("starting the driver of {self:?}"))?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        for tour in tours {
            // A few KiB in all: a pipe holds them, whether they are read yet or not.
            stdin.write_all(format!("{}\n", serde_json::to_string(tour)?).as_bytes()).await?;
        }
        drop(stdin);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output())
            .await
            .with_context(|| format!("the driver of {self:?} has not ended within {DEADLINE:?}"))??;
        let said = String::from_utf8_lossy(&output.stdout);
        let outcomes: Result<Vec<Outcome>, _> = said.lines().map(serde_json::from_str).collect();
        let outcomes = outcomes.with_context(|| format!("the driver of {self:?} said {said}"))?;
        ensure!(outcomes.len() == tours.len(), "{self:?}: {} of {} tours", outcomes.len(), tours.len());
        Ok(outcomes)
    }

    async fn driver(self) -> anyhow::Result<Command> {
        let typescript = async |version| {
            let mut node = Command::new("node");
            node.arg(install::npm("typescript").await?.dir.join("tour.mjs")).arg(version);
            anyhow::Ok(node)
        };
        let python = async |set| {
            let mut python = Command::new(install::python(set).await?);
            python.arg(places::client_sources().join("python").join("tour.py"));
            anyhow::Ok(python)
        };
        match self {
            Guest::TypeScriptV1 => typescript("v1").await,
            Guest::TypeScriptV2 => typescript("v2").await,
            Guest::PythonV1 => python("python").await,
            Guest::PythonV2 => python("python-v2").await,
        }
    }
}

/// How a client reaches a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    Stdio,
    StreamableHttp,
    Sse,
}

/// Where to: a command for stdio, a URL else.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    Command(Vec<String>),
    Url(String),
}

/// One session.
#[derive(Debug, Clone, Serialize)]
pub struct Tour {
    pub name: String,
    pub transport: Transport,
    #[serde(flatten)]
    pub target: Target,
    /// Who fills in the server's forms.
    person: String,
    /// What the client says that its root is.
    root: String,
    steps: Vec<Value>,
}

impl Tour {
    /// A session with `server`, told from all others by `serial` in what it writes and says.
    pub fn new(server: Server, transport: Transport, target: Target, serial: usize, places: &Places) -> Tour {
        let (person, root) = (format!("Guest {serial}"), format!("file:///roots/{serial}"));
        let steps = server.steps(serial, &person, &root, places);
        Tour { name: server.name().to_owned(), transport, target, person, root, steps }
    }
}

/// How a tour ended.
#[derive(Debug, Clone, Deserialize)]
pub struct Outcome {
    pub name: String,
    pub ms: u64,
    pub error: Option<String>,
}

/// What the servers are shown.
#[derive(Debug, Clone)]
pub struct Places {
    /// The folder that the file server may use.
    pub folder: std::path::PathBuf,
    /// A page for the browser.
    pub page: String,
}

/// A server and what it keeps for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// The reference server: requests to the client, progress, logs.
    Everything,
    /// A graph in memory and in a file.
    Memory,
    /// A folder.
    Filesystem,
    /// A history of thoughts.
    SequentialThinking,
    /// Our own on the framework FastMCP: a notebook.
    FastMcp,
    /// A browser.
    Playwright,
}

impl Server {
    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Server::Everything => "everything",
            Server::Memory => "memory",
            Server::Filesystem => "filesystem",
            Server::SequentialThinking => "sequential-thinking",
            Server::FastMcp => "FastMCP",
            Server::Playwright => "playwright",
        }
    }

    fn steps(self, serial: usize, person: &str, root: &str, places: &Places) -> Vec<Value> {
        match self {
            Server::Everything => everything(serial, person, root),
            Server::Memory => memory(serial),
            Server::Filesystem => filesystem(serial, &places.folder),
            Server::SequentialThinking => sequential_thinking(),
            Server::FastMcp => fastmcp(serial),
            Server::Playwright => playwright(&places.page),
        }
    }
}

fn step(tool: &str, given: Value, expect: &[&str]) -> Value {
    json!({"tool": tool, "given": given, "expect": expect})
}

fn everything(serial: usize, person: &str, root: &str) -> Vec<Value> {
    let (message, sum) = (format!("message {serial}"), format!(" is {}.", serial + 1000));
    let mut climb = step("trigger-long-running-operation", json!({"duration": 0.3, "steps": 3}), &[]);
    climb["progress"] = json!(3);
    let mut log = step("toggle-simulated-logging", json!({}), &[]);
    log["log"] = json!(true);
    vec![
        step("echo", json!({"message": message}), &[&message]),
        step("get-sum", json!({"a": serial, "b": 1000}), &[&sum]),
        climb,
        step("trigger-sampling-request", json!({"prompt": message}), &["sampled", &message]),
        step("trigger-elicitation-request", json!({}), &[&format!("Name: {person}")]),
        step("get-roots-list", json!({}), &[root]),
        log,
    ]
}

fn memory(serial: usize) -> Vec<Value> {
    let (one, other) = (format!("one-{serial}"), format!("other-{serial}"));
    let entity = |name: &str| json!({"name": name, "entityType": "thing", "observations": ["was made"]});
    let relation = json!({"from": one, "to": other, "relationType": "knows"});
    let seen = json!({"entityName": one, "contents": ["was seen"]});
    vec![
        step("create_entities", json!({"entities": [entity(&one), entity(&other)]}), &[&one, &other]),
        step("create_relations", json!({"relations": [relation]}), &["knows"]),
        step("add_observations", json!({"observations": [seen]}), &["was seen"]),
        step("read_graph", json!({}), &[&one, &other, "knows", "was made", "was seen"]),
        step("open_nodes", json!({"names": [other]}), &[&other]),
    ]
}

fn filesystem(serial: usize, folder: &Path) -> Vec<Value> {
    let name = format!("file-{serial}.txt");
    let path = folder.join(&name).to_string_lossy().into_owned();
    let content = format!("written by {serial}\n");
    let edits = json!([{"oldText": "written", "newText": "mended"}]);
    vec![
        step("write_file", json!({"path": path, "content": content}), &[]),
        step("edit_file", json!({"path": path, "edits": edits}), &["mended"]),
        step("read_text_file", json!({"path": path}), &[&format!("mended by {serial}")]),
        step("list_directory", json!({"path": folder.to_string_lossy()}), &[&name]),
    ]
}

fn sequential_thinking() -> Vec<Value> {
    let think = |number: u64| {
        let thought = format!("thought {number}");
        let given = json!({"thought": thought, "nextThoughtNeeded": number < 3, "thoughtNumber": number,
            "totalThoughts": 3});
        step("sequentialthinking", given, &[&format!("\"thoughtHistoryLength\": {number}")])
    };
    (1..=3).map(think).collect()
}

fn fastmcp(serial: usize) -> Vec<Value> {
    let line = format!("line of {serial}");
    let mut climb = step("climb", json!({"steps": 3}), &["climbed 3 steps"]);
    climb["progress"] = json!(3);
    vec![
        step("note", json!({"text": line}), &["1"]),
        step("note", json!({"text": "more"}), &["2"]),
        climb,
        step("notebook", json!({}), &[&format!("{line}\nmore")]),
    ]
}

fn playwright(page: &str) -> Vec<Value> {
    let title = json!({"function": "() => document.title"});
    vec![
        step("browser_navigate", json!({"url": page}), &[]),
        step("browser_snapshot", json!({}), &["heading", PAGE_HEADING]),
        step("browser_evaluate", title, &[PAGE_TITLE]),
        step("browser_close", json!({}), &[]),
    ]
}

/// What the page at `Places::page` has to say.
pub const PAGE_TITLE: &str = "A page on loopback";
pub const PAGE_HEADING: &str = "The ring goes round";
