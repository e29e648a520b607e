//! Runs the official MCP conformance suite against a URL and counts what passed.
//!
//! Called by tests that compare a gateway with the server behind it: a check that the server passes directly has
//! to pass through the gateway too. Two lines of the suite are installed side by side, with the Node that both
//! need, from `cluster-tests/clients/conformance`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::process::Command;

use super::install::{self, Npm};
use super::places;

/// A suite takes 1 to 2 s. Each request that never gets its answer costs the suite's client 60 s more; with more
/// than two of them there is nothing left to measure.
const DEADLINE: Duration = Duration::from_secs(150);

/// How much of an unreadable output is repeated in the error.
const SHOWN_LINES: usize = 30;

/// What can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Line 0.1.16, `--suite all`: the session era, as most SDKs test themselves.
    V0_1_16All,
    /// Line 0.2.0-alpha.12, `--requirements 2025-11-25`: also DELETE, and the schema of every message.
    V0_2Requirements20251125,
    /// Line 0.2.0-alpha.12, `--requirements 2026-07-28`: the era without sessions.
    V0_2Requirements20260728,
}

impl Suite {
    pub const ALL: [Suite; 3] =
        [Suite::V0_1_16All, Suite::V0_2Requirements20251125, Suite::V0_2Requirements20260728];

    /// The package that brings it, by its alias in `package.json`.
    fn package(self) -> &'static str {
        match self {
            Suite::V0_1_16All => "conformance-0.1",
            Suite::V0_2Requirements20251125 | Suite::V0_2Requirements20260728 => "conformance-0.2",
        }
    }

    fn selection(self) -> [&'static str; 2] {
        match self {
            Suite::V0_1_16All => ["--suite", "all"],
            Suite::V0_2Requirements20251125 => ["--requirements", "2025-11-25"],
            Suite::V0_2Requirements20260728 => ["--requirements", "2026-07-28"],
        }
    }
}

/// What a suite found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Checks passed, as the suite itself counts them.
    pub passed: u32,
    /// Checks failed, as the suite itself counts them.
    pub failed: u32,
    /// The suite's exit code: 0 where all that it scores has passed.
    pub exit: i32,
    /// Every check that has a verdict, in the order of their names.
    pub checks: Vec<Check>,
    /// One folder per scenario with a `checks.json` in it, which says all that was seen.
    pub results: PathBuf,
}

impl Totals {
    /// The failed checks, as `scenario/check: why`.
    pub fn failures(&self) -> Vec<String> {
        self.with(Verdict::Failed)
    }

    /// The checks warned of (a SHOULD that isn't met; counted neither as passed nor as failed).
    pub fn warnings(&self) -> Vec<String> {
        self.with(Verdict::Warned)
    }

    /// The checks that passed in `direct` and don't pass here: what the way between has cost.
    pub fn lost_from(&self, direct: &Totals) -> Vec<String> {
        let here = self.passes();
        direct.passes().difference(&here).map(|(scenario, check)| format!("{scenario}/{check}")).collect()
    }

    /// Whether a scenario was run and nothing in it failed.
    pub fn passes_all_of(&self, scenario: &str) -> bool {
        let mut checks = self.checks.iter().filter(|check| check.scenario == scenario).peekable();
        checks.peek().is_some() && checks.all(|check| check.verdict == Verdict::Passed)
    }

    fn with(&self, verdict: Verdict) -> Vec<String> {
        let wanted = self.checks.iter().filter(|check| check.verdict == verdict);
        wanted.map(|check| format!("{}/{}: {}", check.scenario, check.id, check.why)).collect()
    }

    fn passes(&self) -> BTreeSet<(&str, &str)> {
        let passed = self.checks.iter().filter(|check| check.verdict == Verdict::Passed);
        passed.map(|check| (check.scenario.as_str(), check.id.as_str())).collect()
    }
}

/// One check of one scenario.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    /// The scenario it belongs to, such as `server-sse-polling`.
    pub scenario: String,
    /// Its id within the scenario.
    pub id: String,
    /// What came of it.
    pub verdict: Verdict,
    /// What the suite says about it, where it didn't pass.
    pub why: String,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// A MUST that isn't met.
    Failed,
    /// A SHOULD that isn't met.
    Warned,
}

/// Installs both lines of the suite, once.
pub async fn tooling() -> anyhow::Result<Npm> {
    install::npm("conformance").await
}

/// Runs `suite` against the MCP server at `url`, with what `tooling` installed.
pub async fn run(suite: Suite, url: &str, tooling: &Npm) -> anyhow::Result<Totals> {
    let results = places::scratch("conformance")?;
    let mut command = Command::new(tooling.bin("node"));
    command.arg(tooling.module(suite.package()).join("dist").join("index.js"));
    command.args(["server", "--url", url]).args(suite.selection()).arg("-o").arg(&results);
    // An answer that comes too late ends this child, and no other.
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .with_context(|| {
            format!("{suite:?} against {url}: not done within {DEADLINE:?}; so far: {}", results.display())
        })?
        .with_context(|| format!("starting {suite:?}"))?;
    read(&output, results).with_context(|| format!("{suite:?} against {url}"))
}

fn read(output: &Output, results: PathBuf) -> anyhow::Result<Totals> {
    let said = String::from_utf8_lossy(&output.stdout);
    let Some((passed, failed)) = said.lines().rev().find_map(total) else {
        let warned = String::from_utf8_lossy(&output.stderr);
        let last = [last_lines(&said), last_lines(&warned)].join("\n");
        bail!("no total in its output ({}):\n{last}", output.status);
    };
    let Some(exit) = output.status.code() else { bail!("ended by a signal: {}", output.status) };
    let checks = checks(&results)?;
    Ok(Totals { passed, failed, exit, checks, results })
}

/// Reads `Total: 83 passed, 1 failed`.
fn total(line: &str) -> Option<(u32, u32)> {
    let (passed, failed) = line.trim().strip_prefix("Total: ")?.split_once(" passed, ")?;
    Some((passed.parse().ok()?, failed.strip_suffix(" failed")?.parse().ok()?))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// One entry of a `checks.json`, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    id: String,
    status: String,
    error_message: Option<String>,
}

/// Collects `checks.json` of every scenario.
fn checks(results: &Path) -> anyhow::Result<Vec<Check>> {
    let mut checks = Vec::new();
    for entry in std::fs::read_dir(results).with_context(|| format!("reading {}", results.display()))? {
        let folder = entry?;
        let path = folder.path().join("checks.json");
        // A scenario that couldn't be run leaves its folder empty.
        if !path.is_file() {
            continue;
        }
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let entries: Vec<Entry> =
            serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))?;
        let name = folder.file_name();
        let scenario = scenario(&name.to_string_lossy());
        checks.extend(entries.into_iter().filter_map(|entry| check(&scenario, entry)));
    }
    checks.sort();
    Ok(checks)
}

/// The suite also writes down what it saw (`INFO`) and what it left out (`SKIPPED`): no verdicts.
fn check(scenario: &str, entry: Entry) -> Option<Check> {
    let verdict = match entry.status.as_str() {
        "SUCCESS" => Verdict::Passed,
        "FAILURE" => Verdict::Failed,
        "WARNING" => Verdict::Warned,
        _ => return None,
    };
    let why = entry.error_message.unwrap_or_default();
    Some(Check { scenario: scenario.to_owned(), id: entry.id, verdict, why })
}

/// The scenario in a folder name such as `server-tools-list-2026-11-21T00-20-40-826Z`.
fn scenario(folder: &str) -> String {
    /// As in `-2026-11-21T00-20-40-826Z`.
    const STAMP_LEN: usize = 25;
    let name = folder.strip_prefix("server-").unwrap_or(folder);
    let name = name.len().checked_sub(STAMP_LEN).and_then(|end| name.get(..end)).unwrap_or(name);
    name.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use super::*;
    use crate::fixture::HttpFixture;

    #[test]
    fn totals_are_read_from_the_last_line_that_has_them() {
        assert_eq!(total("Total: 83 passed, 1 failed"), Some((83, 1)));
        assert_eq!(total("✓ ping: 2 passed, 0 failed"), None);
    }

    #[test]
    fn a_folder_names_its_scenario() {
        assert_eq!(scenario("server-tools-list-2026-11-21T00-20-40-826Z"), "tools-list");
        assert_eq!(scenario("server-server-sse-polling-2026-11-21T00-20-40-826Z"), "server-sse-polling");
        assert_eq!(scenario("else"), "else");
    }

    #[test]
    fn a_suite_that_says_no_total_is_repeated() {
        let output = Output {
            status: std::process::ExitStatus::default(),
            stdout: b"Unknown suite\n".to_vec(),
            stderr: Vec::new(),
        };
        let error = read(&output, PathBuf::new()).unwrap_err();
        assert!(error.to_string().contains("Unknown suite"), "{error}");
    }

    #[test]
    fn a_check_is_lost_where_it_passed_directly_only() {
        let check = |id: &str, verdict| Check {
            scenario: "ping".to_owned(),
            id: id.to_owned(),
            verdict,
            why: String::new(),
        };
        let totals = |checks| Totals { passed: 0, failed: 0, exit: 0, checks, results: PathBuf::new() };
        let direct = totals(vec![check("a", Verdict::Passed), check("b", Verdict::Failed)]);
        let gateway = totals(vec![check("a", Verdict::Warned), check("b", Verdict::Failed)]);
        assert_eq!(gateway.lost_from(&direct), ["ping/a"]);
        assert!(direct.lost_from(&gateway).is_empty());
    }

    #[tokio::test]
    async fn the_fixture_alone_passes_every_suite() {
        let tooling = match tooling().await {
            Ok(tooling) => tooling,
            Err(error) => return install::skip_or_fail("conformance of the fixture", &error),
        };
        let fixture = HttpFixture::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = fixture.url();
        let serving = tokio::spawn(fixture.run());
        for (suite, passed) in [
            (Suite::V0_1_16All, 47),
            (Suite::V0_2Requirements20251125, 84),
            // With the extension for tasks, which the suite runs and does not score.
            (Suite::V0_2Requirements20260728, 197),
        ] {
            let totals = run(suite, &url, &tooling).await.unwrap();
            assert_eq!((totals.passed, totals.failed, totals.exit), (passed, 0, 0), "{totals:?}");
            assert!(totals.warnings().is_empty(), "{totals:?}");
        }
        serving.abort();
    }
}
