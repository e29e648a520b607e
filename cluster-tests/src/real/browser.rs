//! A real browser with one page, for tests of the dashboard: `clients/browser/drive.mjs` does what is asked here and
//! says what it saw. Called by tests, which judge it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{chromium, install, process};

/// Each step of the driver's ends within 20 s; a browser starts within a few seconds on an idle machine.
const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Looks {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
    /// Pixels of the picture per pixel of the page.
    pub scale: u32,
}

impl Looks {
    pub const DESK: Looks = Looks { width: 1280, height: 960, dark: false, scale: 1 };
    pub const NIGHT: Looks = Looks { dark: true, ..Looks::DESK };
    /// The narrowest phone that is still sold.
    pub const PHONE: Looks = Looks { width: 360, height: 780, dark: false, scale: 2 };
}

/// A running browser; it ends when it is dropped.
#[derive(Debug)]
pub struct Browser {
    _child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    /// Fails with `install::Missing` where there is no browser, or no Node.js.
    pub async fn start() -> anyhow::Result<Browser> {
        let (npm, program) = (install::npm("browser").await?, chromium::chromium().await?);
        let mut command = Command::new("node");
        command.arg(npm.dir.join("drive.mjs")).arg(program).args(chromium::FLAGS);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        process::die_with_parent(&mut command);
        let mut child = command.spawn().context("starting the browser's driver")?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Browser { _child: child, stdin, answers: BufReader::new(stdout).lines() })
    }

    /// Opens a page with no memory of any other, in place of the one that was open.
    pub async fn open(&mut self, url: &str, looks: Looks) -> anyhow::Result<()> {
        let scheme = if looks.dark { "dark" } else { "light" };
        let (width, height, scale) = (looks.width, looks.height, looks.scale);
        let size = json!({"url": url, "width": width, "height": height, "scheme": scheme, "scale": scale});
        let status = self.tell("open", size).await?;
        ensure!(status == 200, "{url} answered {status}");
        Ok(())
    }

    /// What every figure on the dashboard is, and the answers from which it was drawn, in one moment.
    pub async fn figures(&mut self) -> anyhow::Result<Value> {
        self.tell("figures", json!({})).await
    }

    /// The value of a JavaScript expression in the page.
    pub async fn value(&mut self, of: &str) -> anyhow::Result<Value> {
        self.tell("value", json!({"of": of})).await
    }

    /// The text of the one element that a selector names; none where it is not shown.
    pub async fn text(&mut self, selector: &str) -> anyhow::Result<Option<String>> {
        let of = format!(
            "(() => {{ const found = document.querySelector({selector:?}); \
             return found && found.checkVisibility() ? found.textContent : null; }})()"
        );
        Ok(self.value(&of).await?.as_str().map(str::to_owned))
    }

    pub async fn fill(&mut self, selector: &str, text: &str) -> anyhow::Result<()> {
        self.tell("fill", json!({"selector": selector, "text": text})).await.map(drop)
    }

    pub async fn click(&mut self, selector: &str) -> anyhow::Result<()> {
        self.tell("click", json!({"selector": selector})).await.map(drop)
    }

    /// Presses one key, such as `Tab`.
    pub async fn press(&mut self, key: &str) -> anyhow::Result<()> {
        self.tell("press", json!({"key": key})).await.map(drop)
    }

    /// Types into whatever has the focus.
    pub async fn keys(&mut self, text: &str) -> anyhow::Result<()> {
        self.tell("keys", json!({"text": text})).await.map(drop)
    }

    /// A picture of what is seen without scrolling.
    pub async fn screenshot(&mut self, path: &std::path::Path) -> anyhow::Result<()> {
        self.tell("screenshot", json!({"path": path, "whole": false})).await.map(drop)
    }

    /// What axe-core finds against WCAG 2.1 A and AA, in words; and how many rules were passed.
    pub async fn axe(&mut self) -> anyhow::Result<(Vec<String>, u64)> {
        let found = self.tell("axe", json!({})).await?;
        Ok((texts(&found["broken"]), found["passed"].as_u64().context("no count")?))
    }

    /// What a page must not do and did since it was opened: errors, foreign requests, breaches of its own policy.
    pub async fn troubles(&mut self) -> anyhow::Result<Vec<String>> {
        Ok(texts(&self.tell("troubles", json!({})).await?))
    }

    async fn tell(&mut self, command: &str, mut more: Value) -> anyhow::Result<Value> {
        more["command"] = command.into();
        let exchange = async {
            self.stdin.write_all(format!("{more}\n").as_bytes()).await?;
            anyhow::Ok(self.answers.next_line().await?)
        };
        let line = match tokio::time::timeout(STEP_DEADLINE, exchange).await {
            Ok(line) => line?.with_context(|| format!("the browser ended at {more}"))?,
            Err(_) => bail!("the browser has not done this within {STEP_DEADLINE:?}: {more}"),
        };
        let mut answer: Value = serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?;
        match answer["error"].as_str() {
            Some(error) => bail!("{more}: {error}"),
            None => Ok(answer["value"].take()),
        }
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}
