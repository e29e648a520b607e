//! A child process of the demo: started, waited for until it is ready, and ended with the demo.

use anyhow::{Context, bail};
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// Binding a few sockets takes milliseconds; asking absent seeds a second.
const READY_TIME: Duration = Duration::from_secs(15);

pub(super) struct Process {
    child: Child,
    /// The words of its ready line.
    ready: Vec<String>,
}

impl Process {
    /// Starts this same program with other arguments and waits for the line `ringway ... ready ...`.
    pub(super) async fn start(args: &[String]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's own path")?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        end_with_parent(&mut command);
        let mut child = command.spawn().with_context(|| format!("start ringway {}", args.join(" ")))?;
        let stdout = child.stdout.take().context("a piped stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        match tokio::time::timeout(READY_TIME, lines.next_line()).await {
            Ok(Ok(Some(line))) => {
                Ok(Self { child, ready: line.split_whitespace().map(str::to_owned).collect() })
            }
            Ok(_) => bail!("ringway {} ended before it was ready", args.join(" ")),
            Err(_) => bail!("ringway {} is not ready after {READY_TIME:?}", args.join(" ")),
        }
    }

    /// The value of `key=value` in the ready line.
    pub(super) fn value(&self, key: &str) -> anyhow::Result<String> {
        let value = self.ready.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.map(str::to_owned).with_context(|| format!("the ready line names no {key}"))
    }

    pub(super) fn last_word(&self) -> anyhow::Result<String> {
        self.ready.last().cloned().context("an empty ready line")
    }

    /// Waits until it ends, which it should not do by itself.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Asks it to end, waits a little, and makes it.
    pub(super) async fn end(mut self, patience: Duration) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            terminate(pid);
        }
        if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

#[expect(unsafe_code, reason = "kill(2) has no safe wrapper in the standard library")]
fn terminate(pid: i32) {
    // SAFETY: kill takes two numbers; the child has not been waited for, so its pid is still its own.
    unsafe { libc::kill(pid, libc::SIGTERM) };
}

/// Has the kernel end the child when this process ends, however it ends.
#[expect(unsafe_code, reason = "prctl(2) has no safe wrapper in the standard library")]
fn end_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command; // Ctrl-C reaches the whole foreground process group there
}
