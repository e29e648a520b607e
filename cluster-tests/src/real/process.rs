//! A child process of a test: started, awaited by its ready line, signalled, and never left behind.
//! Called by `cluster` (nodes), `upstream` (MCP servers), `clients` (drivers) and the benchmark.

use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::wait;

/// Stopping takes a few time slices of the scheduler's.
const FREEZE_DEADLINE: Duration = Duration::from_secs(5);

/// How much of a process's log a failing test shows.
const LOG_LINES_SHOWN: usize = 40;

/// How a process says that it is ready.
#[derive(Debug, Clone, Copy)]
pub enum Ready<'a> {
    /// With a line on stdout that starts so.
    Stdout(&'a str),
    /// With a line on stderr that contains this.
    Stderr(&'a str),
    /// By accepting connections here; for programs of others, which say nothing.
    Listening(SocketAddr),
}

/// A running child. Dropping it kills it (SIGKILL); it also dies with the test program, however that ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: libc::pid_t,
    log: PathBuf,
    stdout: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command`, with its stderr in `<dir>/<name>.log`, and gives its ready line (empty where it has none).
    pub async fn spawn(
        name: &str,
        mut command: Command,
        dir: &Path,
        ready: Ready<'_>,
        deadline: Duration,
    ) -> anyhow::Result<(Process, String)> {
        let log = dir.join(format!("{name}.log"));
        let stderr = log_file(&log)?;
        // A restart under the same name appends: what it says is looked for behind what was said before.
        let from = stderr.metadata()?.len();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        die_with_parent(&mut command);
        let mut child = command.spawn().with_context(|| format!("starting {:?}", command.as_std()))?;
        let pid =
            child.id().context("a child that ended at once")?.try_into().context("a pid beyond its type")?;
        let stdout = Arc::new(Mutex::new(Vec::new()));
        let pipe = child.stdout.take().context("no stdout")?;
        // Reads on until the child ends, since a full pipe would stop it.
        tokio::spawn(collect_lines(pipe, stdout.clone()));
        let mut process = Process { name: name.to_owned(), child, pid, log, stdout };

        let line = wait::try_wait_for(&format!("{name} is ready"), deadline, async || {
            process.ready_line(ready, from)
        })
        .await;
        match line {
            Ok(Some(line)) => Ok((process, line)),
            Ok(None) => bail!("{name} ended before it was ready\n{}", process.log_tail()),
            Err(error) => Err(error.context(process.log_tail())),
        }
    }

    /// The ready line; `None` where there will never be one.
    fn ready_line(&mut self, ready: Ready<'_>, from: u64) -> anyhow::Result<Option<String>> {
        // Asked first: what a child said before it ended is complete only after its end.
        let ended = self.child.try_wait()?.is_some();
        let line = match ready {
            Ready::Stdout(start) => self.stdout().into_iter().find(|line| line.starts_with(start)),
            Ready::Stderr(part) => {
                let log = std::fs::read(&self.log)?;
                let said = log.get(usize::try_from(from)?..).unwrap_or_default();
                String::from_utf8_lossy(said).lines().find(|line| line.contains(part)).map(str::to_owned)
            }
            Ready::Listening(at) => TcpStream::connect(at).ok().map(|_| String::new()),
        };
        match line {
            Some(line) => Ok(Some(line)),
            None if ended => Ok(None),
            None => bail!("it has not said {ready:?}"),
        }
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Every line that it has written on stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything it has written on stderr so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The end of its log, under a heading, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        format!("--- {} (pid {}), last lines of {} ---\n{tail}\n---", self.name, self.pid, self.log.display())
    }

    /// The most memory that it ever held (`VmHWM`) since `forget_peak`, in bytes.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmHWM is no number")?;
        Ok(kib * 1024)
    }

    /// Has the peak begin again at what it holds now, and gives that.
    pub fn forget_peak(&self) -> anyhow::Result<u64> {
        /// "Reset the peak resident set size to the process's current one", proc(5).
        const RESET_PEAK: &str = "5";
        let path = format!("/proc/{}/clear_refs", self.pid);
        std::fs::write(&path, RESET_PEAK).with_context(|| format!("writing {path}"))?;
        self.peak_memory()
    }

    /// Sends a signal. Fails where the process has ended.
    #[allow(unsafe_code)] // kill
    pub fn signal(&self, signal: libc::c_int) -> anyhow::Result<()> {
        // A child that has been waited for has given its pid back, and it may be someone else's by now.
        anyhow::ensure!(self.child.id().is_some(), "{} has ended", self.name);
        // SAFETY: kill takes two numbers and touches no memory; the child has not been waited for, so the pid is its own.
        let answer = unsafe { libc::kill(self.pid, signal) };
        anyhow::ensure!(answer == 0, "signalling {}: {}", self.name, std::io::Error::last_os_error());
        Ok(())
    }

    /// Stops it where it stands; its sockets stay open and silent.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(libc::SIGSTOP)?;
        // One thread takes the signal and stops the others; on a busy machine these may run on meanwhile.
        let end = std::time::Instant::now() + FREEZE_DEADLINE;
        while !self.is_frozen() {
            anyhow::ensure!(std::time::Instant::now() < end, "{} does not stop", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether every thread stands still, as far as the system says.
    fn is_frozen(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid)) else { return true };
        threads.flatten().all(|thread| {
            // The state follows the program's name, which may contain anything but ends at the last parenthesis.
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// Lets it go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(libc::SIGCONT)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub async fn terminate(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        self.wait(deadline).await
    }

    /// Ends it without asking (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(libc::SIGKILL)?;
        self.wait(Duration::from_secs(10)).await
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} has not ended within {deadline:?}\n{}", self.name, self.log_tail()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The child itself is killed by `kill_on_drop`.
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

/// Has the kernel kill the child when the thread that starts it ends, and tokio when the handle is dropped.
///
/// The thread is the test's own or a worker of its runtime, and both end with the test. It must not be one of
/// tokio's threads for blocking calls: those end whenever they have been idle for a while.
#[allow(unsafe_code)] // prctl between fork and exec
pub fn die_with_parent(command: &mut Command) {
    command.kill_on_drop(true);
    let parent = std::process::id();
    let in_child = move || {
        // SAFETY: prctl and getppid are plain system calls on numbers.
        let (answer, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        if answer != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // The parent may have ended before the request was made; then there will be no signal.
        if u32::try_from(now).ok() != Some(parent) {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure makes two async-signal-safe system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(in_child) };
}

fn log_file(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("opening {}", path.display()))
}

async fn collect_lines(pipe: ChildStdout, into: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use std::net::TcpListener;

    use super::super::places;
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn the_ready_line_is_found_behind_other_lines() {
        let dir = places::scratch("ready").unwrap();
        let said = shell("echo first; echo ready port=7; sleep 60");
        let (mut process, line) =
            Process::spawn("child", said, &dir, Ready::Stdout("ready "), SOON).await.unwrap();
        assert_eq!(line, "ready port=7");
        let status = process.terminate(SOON).await.unwrap();
        assert!(!status.success());
        assert!(process.signal(libc::SIGTERM).is_err(), "a signal to a pid that is no longer ours");
    }

    #[tokio::test]
    async fn what_says_nothing_is_ready_when_it_accepts() {
        let dir = places::scratch("listening").unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let spawn =
            async |script| Process::spawn("child", shell(script), &dir, Ready::Listening(at), SOON).await;
        let (_process, line) = spawn("exec sleep 60").await.unwrap();
        assert_eq!(line, "");
        drop(socket);
        let error = spawn("echo no port >&2; exit 3").await.unwrap_err();
        assert!(error.to_string().contains("no port"), "{error:#}");
    }

    #[tokio::test]
    async fn a_child_that_ends_early_fails_with_its_log() {
        let dir = places::scratch("early").unwrap();
        let error =
            Process::spawn("child", shell("echo no port >&2; exit 3"), &dir, Ready::Stderr("ready"), SOON)
                .await
                .unwrap_err();
        assert!(error.to_string().contains("no port"), "{error:#}");
    }

    #[tokio::test]
    async fn a_dropped_child_is_gone() {
        let dir = places::scratch("dropped").unwrap();
        let (process, _) =
            Process::spawn("child", shell("echo up; exec sleep 60"), &dir, Ready::Stdout("up"), SOON)
                .await
                .unwrap();
        let stat = format!("/proc/{}/stat", process.pid());
        process.freeze().unwrap();
        drop(process);
        wait::wait_until("the child is gone", SOON, async || {
            // A zombie has ended too; tokio reaps it when it next looks.
            std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
        })
        .await;
    }
}
