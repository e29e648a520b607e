//! The benchmark's own processes: this very program under its other names. Called by `stage`, `peers` and the cases.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use super::{backend, bare_proxy};
use crate::real::places;
use crate::real::process::{Process, Ready};

/// They bind a socket and say so.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A running one; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) process: Process,
    pub(super) url: String,
}

impl Child {
    pub(super) async fn backend() -> anyhow::Result<Child> {
        Child::start("bench-backend", this_program(&[])?, &["backend"], backend::READY).await
    }

    /// With these words before its command.
    pub(super) async fn bare_proxy(under: &[String], upstream: &str) -> anyhow::Result<Child> {
        let arguments = ["bare-proxy", "--upstream", upstream];
        Child::start("bench-bare-proxy", this_program(under)?, &arguments, bare_proxy::READY).await
    }

    /// Where it listens.
    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        let authority = self.url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        Ok(authority.context("a URL without a host")?.parse()?)
    }

    async fn start(
        name: &str,
        mut command: Command,
        arguments: &[&str],
        ready: &str,
    ) -> anyhow::Result<Child> {
        command.args(arguments);
        let dir = places::scratch(name)?;
        let (process, line) =
            Process::spawn(name, command, &dir, Ready::Stdout(ready), START_DEADLINE).await?;
        let url = line.strip_prefix(ready).context("no URL in the ready line")?.to_owned();
        Ok(Child { process, url })
    }
}

fn this_program(under: &[String]) -> anyhow::Result<Command> {
    Ok(command_under(under, &std::env::current_exe()?))
}

/// A program, started by other words, such as those that choose its core.
pub(super) fn command_under(under: &[String], program: &Path) -> Command {
    let Some((first, rest)) = under.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}
