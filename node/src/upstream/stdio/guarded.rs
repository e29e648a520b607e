//! The node's side of the guardian: starts it, asks it for children, and hears from their wardens.

use super::guardian::{Order, Report, hand_over};
use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as Socket,
    },
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, pipe},
    },
    process::Command,
};

/// What the program is told to be a guardian.
#[cfg(not(test))]
const ARGUMENTS: [&str; 1] = ["guardian"];
/// The tests' program has no commands, but it runs a test that is named.
#[cfg(test)]
const ARGUMENTS: [&str; 5] = [
    "upstream::stdio::guardian::tests::the_guardian_itself",
    "--exact",
    "--ignored",
    "--nocapture",
    "--test-threads=1",
];

/// A guardian forks within a millisecond and starts itself in ten; a machine that has no time for that in
/// 10 s has none for a child.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The process that forks this node's children. It ends when this is dropped and they have ended.
#[derive(Debug)]
pub(super) struct Guardian {
    socket: UnixStream,
}

impl Guardian {
    pub(super) fn start() -> io::Result<Self> {
        let (ours, theirs) = Socket::pair()?;
        ours.set_nonblocking(true)?;
        // Not by its name: that may be another version by now, or gone.
        let mut process = Command::new("/proc/self/exe")
            .arg0("ringway")
            .args(ARGUMENTS)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let socket = UnixStream::from_std(ours)?;
        tokio::spawn(async move {
            match process.wait().await {
                Ok(status) if status.success() => {}
                Ok(status) => tracing::error!(%status, "the guardian of the child processes has ended"),
                Err(error) => tracing::error!(%error, "the guardian of the child processes is lost"),
            }
        });
        Ok(Self { socket })
    }

    /// Whether it can't be asked for more.
    pub(super) fn is_gone(&self) -> bool {
        // It says nothing, so there is something to read only at the end.
        !matches!(self.socket.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// A child, started.
    ///
    /// # Errors
    /// The child's own, or `ConnectionAborted` if the guardian is gone.
    pub(super) async fn start_child(&self, order: &[u8]) -> io::Result<Guarded> {
        let (control, wardens_control) = Socket::pair()?;
        let (stdin, childs_stdin) = io::pipe().map(|(reader, writer)| (writer, reader))?;
        let (stdout, childs_stdout) = io::pipe()?;
        let (stderr, childs_stderr) = io::pipe()?;
        {
            let what =
                [wardens_control.as_fd(), childs_stdin.as_fd(), childs_stdout.as_fd(), childs_stderr.as_fd()];
            let hand_over = || hand_over(self.socket.as_fd(), what);
            let handed_over = self.socket.async_io(Interest::WRITABLE, hand_over).await;
            handed_over.map_err(|_| io::ErrorKind::ConnectionAborted)?;
        }
        // Ours must not keep the warden's and the child's ends open.
        drop((wardens_control, childs_stdin, childs_stdout, childs_stderr));
        control.set_nonblocking(true)?;
        let (reports, hold) = UnixStream::from_std(control)?.into_split();
        let mut guarded = Guarded {
            pid: 0,
            stdin: pipe::Sender::from_owned_fd(stdin.into())?,
            stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
            stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
            hold,
            reports: Reports(reports),
        };
        let answered = tokio::time::timeout(ANSWER_TIME, guarded.begin(order)).await;
        answered.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the guardian does not answer"))??;
        Ok(guarded)
    }
}

/// A child with its warden.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) pid: i32,
    pub(super) stdin: pipe::Sender,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
    /// To drop it tells the warden that the session has ended.
    pub(super) hold: OwnedWriteHalf,
    pub(super) reports: Reports,
}

impl Guarded {
    async fn begin(&mut self, order: &[u8]) -> io::Result<()> {
        let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
        if self.hold.write_all(order).await.is_err() {
            return Err(aborted);
        }
        match self.reports.next().await {
            Some(Report::Started(pid)) => {
                self.pid = pid;
                Ok(())
            }
            Some(Report::Failed(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Report::Ended(_)) | None => Err(aborted),
        }
    }
}

/// What a warden tells of its child.
#[derive(Debug)]
pub(super) struct Reports(OwnedReadHalf);

impl Reports {
    /// How the child has ended; none if its warden has gone before it.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        match self.next().await? {
            Report::Ended(status) => Some(status),
            Report::Started(_) | Report::Failed(_) => None,
        }
    }

    /// Returns when nothing is left below the warden.
    pub(super) async fn finished(mut self) {
        while self.next().await.is_some() {}
    }

    async fn next(&mut self) -> Option<Report> {
        let mut report = [0; Report::LEN];
        self.0.read_exact(&mut report).await.ok()?;
        Report::from_bytes(report)
    }
}

impl Order {
    /// As `command` says, under the session's `name`.
    pub(super) fn of(command: &crate::config::ChildCommand, name: &str) -> Self {
        let mut env = command.env.clone();
        env.insert(super::SESSION_MARK.to_owned(), name.to_owned());
        Self {
            program: command.program.clone(),
            arguments: command.arguments.clone(),
            env,
            open_files: crate::open_files::at_start(),
        }
    }
}
