//! MCP servers over stdio: a child process for each session, and the messages to and from it as a
//! [`Pipe`].
//!
//! No child outlives its session, and none its node, however that ends. A node can't promise that: it
//! may be killed by SIGKILL, its threads come and go (the kernel's "die with your parent" means a
//! parent *thread*), and it knows nothing of processes that a child detaches. So it has a [`guardian`],
//! a process of the same program with one thread, which forks itself for each session into a warden,
//! which forks the child:
//!
//! ```text
//! ringway node ── ringway guardian ─┬─ warden ── child ── what the child starts
//!      │                            └─ warden ── child
//!      └── the child's three pipes; a socket to each warden
//! ```
//!
//! Data passes between node and child directly. The kernel closes the node's end of the socket and of
//! the pipes when the node ends, and that is all that a warden waits for; it makes no difference to it
//! why a session ends. Against one guardian that watches all sessions, this needs no table, no mark by
//! which a session's processes are found (a process may clear its environment, and Chromium overwrites
//! it), and nothing that one session could do to another: what is below a warden is its session's,
//! because the kernel gives whatever loses its parent to the warden. Wardens survive their guardian; a
//! warden that is killed takes its child along (`PR_SET_PDEATHSIG`) and leaves the rest to the guardian.
//!
//! A warden shares the guardian's memory but for the pages that it writes to, about 0.1 MiB (measured); a child
//! takes tens.
//!
//! What is not covered: SIGKILL to the node, the guardian and a warden at once ends the child alone, and
//! what the child has started sees only that its pipes are closed.

mod allowance;
mod child;
mod guarded;
pub(crate) mod guardian;
pub(crate) mod lines;
mod log;

use super::pipe::Pipe;
use crate::config::{ChildCommand, Route};
use guarded::{Guarded, Guardian};
use guardian::Order;
use log::Name;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// The environment variable that says to a child, and to whoever looks for it, which session it serves.
const SESSION_MARK: &str = "RINGWAY_SESSION";
/// To the child. A request may be 4 MiB, so a child that does not read holds at most 32 MiB; who has
/// more to say waits.
const MESSAGES_MAX: usize = 8;
/// From the child. An answer may be 64 MiB, so little is held when the session does not keep up; then
/// the child waits.
const SAID_MAX: usize = 2;

/// The child processes of this node.
#[derive(Debug)]
pub(super) struct Children {
    /// Started with the first child.
    guardian: Mutex<Option<Arc<Guardian>>>,
    running: TaskTracker,
}

impl Children {
    pub(super) fn new() -> Self {
        let running = TaskTracker::new();
        running.close(); // so that [`ended`](Self::ended) can be waited for; it keeps out nobody
        Self { guardian: Mutex::default(), running }
    }

    /// Starts a child for one session. `name` is the session's in the log, and for the child.
    ///
    /// # Errors
    /// If it can't be started, with the program's name.
    pub(super) async fn start(&self, route: &Route, command: &ChildCommand, name: &str) -> io::Result<Pipe> {
        let started = self.start_guarded(command, name).await;
        let child = started.map_err(|error| {
            io::Error::new(error.kind(), format!("can't start {}: {error}", command.program))
        })?;
        let (route, session) = (&route.path, name);
        let (program, pid) = (&command.program, child.pid);
        tracing::info!(target: "ringway::child", route, session, program, pid, "a child has started");
        let (to, messages) = mpsc::channel(MESSAGES_MAX);
        let (said, from) = mpsc::channel(SAID_MAX);
        let name = Name { route: route.clone(), session: session.to_owned() };
        self.running.spawn(child::serve(name, child, messages, said));
        Ok(Pipe { to, from })
    }

    /// How many children there are, those that are ending included.
    pub(super) fn count(&self) -> usize {
        self.running.len()
    }

    /// Returns when there is no child any more.
    pub(super) async fn ended(&self) {
        self.running.wait().await;
    }

    async fn start_guarded(&self, command: &ChildCommand, name: &str) -> io::Result<Guarded> {
        let order = Order::of(command, name).to_bytes()?;
        let guardian = self.guardian()?;
        match guardian.start_child(&order).await {
            // It was killed, or could not fork. If there is a child, it ends with what was dropped here.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                self.dismiss(&guardian);
                self.guardian()?.start_child(&order).await
            }
            started => started,
        }
    }

    /// The guardian, a new one if it has not been started or is gone.
    fn guardian(&self) -> io::Result<Arc<Guardian>> {
        let mut guardian = self.guardian.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guardian) = guardian.as_ref().filter(|guardian| !guardian.is_gone()) {
            return Ok(guardian.clone());
        }
        let started = Guardian::start();
        let started =
            started.map_err(|error| io::Error::new(error.kind(), format!("no guardian: {error}")))?;
        let started = Arc::new(started);
        *guardian = Some(started.clone());
        Ok(started)
    }

    /// Asks that one for no more. If it lives it ends with its last warden.
    fn dismiss(&self, failed: &Arc<Guardian>) {
        let mut guardian = self.guardian.lock().unwrap_or_else(PoisonError::into_inner);
        guardian.take_if(|guardian| Arc::ptr_eq(guardian, failed));
    }
}

#[cfg(test)]
mod tests;
