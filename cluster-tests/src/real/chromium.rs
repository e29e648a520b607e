//! A browser for the server that drives one, and for `browser`: Debian's Chromium, which is installed where it is
//! missing and that is possible. Called by the tests that need it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::install::{self, Missing};
use super::places;

const PROGRAM: &str = "/usr/bin/chromium";

/// What a browser tries by itself goes nowhere on a machine without a network, and is not what is tested.
pub(super) const FLAGS: [&str; 7] = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// Some 100 MB of packages; it took 40 s.
const INSTALL_DEADLINE: Duration = Duration::from_secs(300);

/// The command of an MCP server over stdio with a browser of its own. Fails with `Missing` where there is none.
pub async fn playwright_stdio() -> anyhow::Result<Vec<String>> {
    let (npm, browser) = (install::npm("typescript").await?, chromium().await?);
    let launch =
        json!({"headless": true, "executablePath": browser, "args": FLAGS, "chromiumSandbox": false});
    let config = json!({"browser": {"browserName": "chromium", "isolated": true, "launchOptions": launch}});
    let dir = places::scratch("playwright")?;
    let path = dir.join("config.json");
    std::fs::write(&path, config.to_string())?;
    let script = npm.module("@playwright/mcp/cli.js");
    let words = ["node".into(), script, "--config".into(), path, "--output-dir".into(), dir];
    Ok(words.iter().map(|word: &PathBuf| word.to_string_lossy().into_owned()).collect())
}

/// The browser itself.
pub(super) async fn chromium() -> anyhow::Result<PathBuf> {
    static FOUND: OnceCell<PathBuf> = OnceCell::const_new();
    FOUND.get_or_try_init(find_or_install).await.cloned()
}

async fn find_or_install() -> anyhow::Result<PathBuf> {
    if !Path::new(PROGRAM).is_file() {
        for words in [&["update", "-q"][..], &["install", "-q", "-y", "--no-install-recommends", "chromium"]]
        {
            apt(words).await?;
        }
    }
    Ok(PROGRAM.into())
}

async fn apt(words: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(INSTALL_DEADLINE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => bail!(Missing::new(format!("{PROGRAM} is missing, and so is apt-get ({error})"))),
        Err(_) => bail!(Missing::new(format!("{PROGRAM} is not installed within {INSTALL_DEADLINE:?}"))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(Missing::new(format!("{PROGRAM} could not be installed: apt-get {words:?}: {}", said.trim())));
    }
    Ok(())
}
