//! The programs of this workspace, built once per test run in the profile of the run.
//! Called by `cluster` and `upstream`, and by tests of the command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::{places, process};

/// Usually everything is built already; a build from nothing took 90 s on two cores.
const BUILD_DEADLINE: Duration = Duration::from_secs(1200);

/// Commands that ask a node something answer at once; one that hangs is a finding.
const COMMAND_DEADLINE: Duration = Duration::from_secs(20);

static RINGWAY: OnceCell<PathBuf> = OnceCell::const_new();

/// The `ringway` program.
pub async fn ringway() -> anyhow::Result<PathBuf> {
    RINGWAY.get_or_try_init(|| build("ringway")).await.cloned()
}

/// From now on it is this one, which somebody else has built. To be said before it is first wanted.
pub fn use_ringway(program: PathBuf) -> anyhow::Result<()> {
    let program = program.canonicalize().with_context(|| format!("no program {}", program.display()))?;
    RINGWAY.set(program).context("ringway is in use already")
}

/// The MCP server of our own that the conformance suite and the counting clients use.
pub async fn fixture_mcp() -> anyhow::Result<PathBuf> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    BUILT.get_or_try_init(|| build("fixture-mcp")).await.cloned()
}

/// What a command said before it ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a `ringway` command that ends by itself.
pub async fn run_ringway(args: &[&str]) -> anyhow::Result<Said> {
    let mut command = Command::new(ringway().await?);
    command.args(args).stdin(Stdio::null());
    process::die_with_parent(&mut command);
    let output = tokio::time::timeout(COMMAND_DEADLINE, command.output())
        .await
        .map_err(|_| {
            anyhow::anyhow!("`ringway {}` has not ended within {COMMAND_DEADLINE:?}", args.join(" "))
        })?
        .with_context(|| format!("starting `ringway {}`", args.join(" ")))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

async fn build(name: &str) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.arg("build").args(build_arguments(name, &profile())).arg("--target-dir").arg(places::target());
    command.current_dir(places::workspace()).stdin(Stdio::null());
    // What cargo sets for this test program must not reach the build: it would look like another configuration.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("CARGO_PKG_") {
            command.env_remove(variable);
        }
    }
    process::die_with_parent(&mut command);
    let output = tokio::time::timeout(BUILD_DEADLINE, command.output())
        .await
        .map_err(|_| anyhow::anyhow!("building {name} takes longer than {BUILD_DEADLINE:?}"))?
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("building {name} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    executable(&String::from_utf8_lossy(&output.stdout), name)
        .with_context(|| format!("cargo built no {name}"))
}

fn build_arguments(name: &str, profile: &str) -> Vec<String> {
    // Both packages are named whatever is wanted: cargo then settles on one set of features, and compiles
    // what the two share once.
    let mut arguments =
        ["-q", "--message-format=json", "-p", "ringway", "-p", "cluster-tests", "--bin", name]
            .map(str::to_owned)
            .to_vec();
    match profile {
        "debug" => {}
        named => arguments.extend(["--profile".to_owned(), named.to_owned()]),
    }
    arguments
}

/// The profile of this very program, as cargo names its folder: `debug` (the profile `dev`), `release`, ...
fn profile() -> String {
    let running = std::env::current_exe().ok();
    running.as_deref().and_then(profile_of).unwrap_or("debug").to_owned()
}

/// Test programs lie in `<target>/<profile>/deps`, others directly in `<target>/<profile>`.
fn profile_of(exe: &Path) -> Option<&str> {
    let folder = exe.parent()?;
    let folder = if folder.ends_with("deps") { folder.parent()? } else { folder };
    folder.file_name()?.to_str()
}

/// Finds in cargo's JSON messages where it put the program.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_the_folder_that_the_program_lies_in() {
        assert_eq!(profile_of(Path::new("/t/debug/deps/real-1f")), Some("debug"));
        assert_eq!(profile_of(Path::new("/t/release/chaos")), Some("release"));
    }

    #[test]
    fn cargo_says_where_it_put_a_program() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"proto"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"ringway"},"executable":"/t/debug/ringway"}"#,
            "\n",
        );
        assert_eq!(executable(messages, "ringway"), Some(PathBuf::from("/t/debug/ringway")));
        assert_eq!(executable(messages, "proto"), None);
    }
}
