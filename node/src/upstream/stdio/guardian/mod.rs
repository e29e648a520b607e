//! The guardian: a process of the node's own program (`ringway guardian`) that forks the children of
//! stdio servers, so that none of them outlives the node, however that ends.
//!
//! For each session it forks itself into a *warden* ([`warden`]), which starts the child, ends it and
//! all that came of it, and ends itself. The guardian does nothing but that: it stays small and has one
//! thread, so a fork is cheap and whole, and a warden costs the few pages that it writes to.
//!
//! It knows nothing of sessions, and must survive what ends the node: it has a session and a process
//! group of its own (Ctrl-C in a terminal is for the node, which drains) and takes no signal. It ends
//! when the node's end of their socket is closed and the last warden is done. A warden that is killed
//! leaves its descendants to the guardian, which kills them.

mod kin;
mod warden;
mod wire;

pub(super) use wire::{Order, Report, hand_over};

use kin::Deaths;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout},
    sys::{
        prctl,
        signal::{self, SigHandler, Signal},
    },
    unistd::{self, ForkResult, Pid},
};
use std::{
    collections::HashSet,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

/// The process: serves the node that holds the other end of its standard input.
///
/// # Errors
/// If it was not a node that started it, or the system refuses what a guardian needs.
pub(crate) fn run() -> io::Result<()> {
    close_what_was_inherited();
    // Who kills "ringway" by its name shall hit the node, and not who cleans up after it.
    prctl::set_name(c"guardian")?;
    let node = socket_to_node()?;
    unistd::setsid()?;
    let deaths = Deaths::listen()?;
    ignore_nothing()?;
    prctl::set_child_subreaper(true)?;
    Guardian { node: Some(node), deaths, wardens: HashSet::new(), is_alone: true }.serve()
}

/// What the node's own parent left open to it (a build's job server, a harness's pipes) is not for the
/// children, and not for the guardian to hold open.
#[expect(unsafe_code, reason = "close_range(2) has no safe wrapper")]
fn close_what_was_inherited() {
    // SAFETY: this process has opened nothing yet, so no descriptor above stderr belongs to anybody.
    // Before Linux 5.9 there is no such call, and they stay open.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}

/// Standard input, moved to where no child inherits it.
fn socket_to_node() -> io::Result<UnixStream> {
    let node: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    node.local_addr().map_err(|_| io::Error::other("a guardian is started by a node, not by hand"))?;
    unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(node)
}

/// What the node was told to ignore (`nohup`, a shell's `&`) is not for the children to ignore: they
/// would inherit it. The runtime's own choice, SIGPIPE, is undone at each start by the standard library.
#[expect(unsafe_code, reason = "sigaction(2) can install handlers, for which nix can't vouch")]
fn ignore_nothing() -> io::Result<()> {
    use Signal::{SIGBUS, SIGKILL, SIGPIPE, SIGSEGV, SIGSTOP};
    let kept = [SIGBUS, SIGKILL, SIGPIPE, SIGSEGV, SIGSTOP]; // the runtime's, and those that can't be set
    for one in Signal::iterator().filter(|one| !kept.contains(one)) {
        // SAFETY: the default action is no handler, so no code of ours can run in a signal's context.
        unsafe { signal::signal(one, SigHandler::SigDfl) }?;
    }
    Ok(())
}

struct Guardian {
    /// None once the node is gone.
    node: Option<UnixStream>,
    deaths: Deaths,
    wardens: HashSet<Pid>,
    /// Nothing lives below this process.
    is_alone: bool,
}

impl Guardian {
    fn serve(mut self) -> io::Result<()> {
        while self.node.is_some() || !self.is_alone {
            let (asked, died) = self.wait()?;
            if died {
                self.bury();
            }
            if asked && let Some(node) = &self.node {
                match wire::take_over(node)? {
                    Some((control, pipes)) => self.fork_warden(control, pipes)?,
                    None => self.node = None,
                }
            }
        }
        Ok(())
    }

    /// Whether the node has said something, and whether somebody has died.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let mut waiting = vec![PollFd::new(self.deaths.as_fd(), PollFlags::POLLIN)];
        waiting.extend(self.node.as_ref().map(|node| PollFd::new(node.as_fd(), PollFlags::POLLIN)));
        kin::poll(&mut waiting, PollTimeout::NONE)?;
        let is_ready = |at: usize| waiting.get(at).and_then(PollFd::any).unwrap_or(false);
        Ok((is_ready(1), is_ready(0)))
    }

    #[expect(unsafe_code, reason = "fork(2) has no safe wrapper")]
    fn fork_warden(&mut self, control: UnixStream, pipes: [OwnedFd; 3]) -> io::Result<()> {
        // SAFETY: this process has one thread, so the copy has no lock that somebody else held.
        match unsafe { unistd::fork() } {
            Ok(ForkResult::Child) => {
                self.node = None; // it must be closed when the guardian is gone
                let done = warden::run(control, pipes);
                std::process::exit(i32::from(done.is_err()));
            }
            Ok(ForkResult::Parent { child }) => {
                self.wardens.insert(child);
                self.is_alone = false;
                Ok(())
            }
            // The session's control socket is closed without a word, which the node takes for a failure.
            Err(error) => {
                eprintln!("ringway guardian: can't fork: {error}");
                Ok(())
            }
        }
    }

    /// Reaps who has died, and kills what a warden has left that did not end as it should: children of
    /// this process that are no wardens, and then theirs.
    fn bury(&mut self) {
        self.deaths.forget();
        let mut has_heirs = false;
        self.is_alone = !kin::reap(|pid, status| {
            has_heirs |= !self.wardens.remove(&pid) || !status.success();
        });
        if has_heirs && !self.is_alone {
            kin::kill_children_but(&self.wardens);
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::{
        sys::wait::waitpid,
        unistd::{ForkResult, fork},
    };

    /// Not a test: the process that the other tests start as their guardian, in place of the command.
    /// The test harness has a thread more than a guardian may have; a fork leaves that behind.
    #[test]
    #[ignore = "it is started by the tests of stdio"]
    #[expect(unsafe_code, reason = "fork(2) has no safe wrapper")]
    fn the_guardian_itself() {
        // SAFETY: the other thread waits for this one, and holds no lock meanwhile.
        match unsafe { fork() }.expect("a process") {
            ForkResult::Child => std::process::exit(i32::from(super::run().is_err())),
            ForkResult::Parent { child } => {
                waitpid(child, None).expect("its end");
            }
        }
    }
}
