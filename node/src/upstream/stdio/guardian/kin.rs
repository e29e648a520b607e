//! What lives below this process: its children, and the descendants that the kernel gave to it because
//! their parents had died.

use nix::{
    errno::Errno,
    poll::{self, PollFd, PollFlags, PollTimeout},
    sys::{
        signal::{self, SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use std::{
    collections::HashSet,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::ExitStatusExt,
    },
    process::ExitStatus,
};

/// Tells that a child has died. From when it exists on, the process takes no other signal that can be
/// refused.
pub(super) struct Deaths(SignalFd);

impl Deaths {
    pub(super) fn listen() -> io::Result<Self> {
        SigSet::all().thread_set_mask()?;
        let mut deaths = SigSet::empty();
        deaths.add(Signal::SIGCHLD);
        Ok(Self(SignalFd::with_flags(&deaths, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Takes note of what it has told: call this before [`reap`], so that no death is missed.
    pub(super) fn forget(&self) {
        while let Ok(Some(_)) = self.0.read_signal() {}
    }

    /// Waits for a death, for as long as `patience`. Whether there was one.
    pub(super) fn wait(&self, patience: PollTimeout) -> io::Result<bool> {
        let died = poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], patience)? > 0;
        self.forget();
        Ok(died)
    }
}

impl AsFd for Deaths {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// poll(2); to be interrupted (a debugger does that) is to have waited in vain.
pub(super) fn poll(waiting: &mut [PollFd<'_>], patience: PollTimeout) -> io::Result<i32> {
    match poll::poll(waiting, patience) {
        Err(Errno::EINTR) => Ok(0),
        waited => Ok(waited?),
    }
}

/// Takes leave of every child that has died. Whether others live.
#[expect(unsafe_code, reason = "nix loses a child that died of a real-time signal, libc does not")]
pub(super) fn reap(mut died: impl FnMut(Pid, ExitStatus)) -> bool {
    loop {
        let mut status = 0;
        // SAFETY: it gets a valid pointer to a number on this stack.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            0 => return true,
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return false, // ECHILD
            pid => died(Pid::from_raw(pid), ExitStatus::from_raw(status)),
        }
    }
}

/// Kills the children of this process, all but those. What is theirs becomes this process's when they
/// have died. A child keeps its number until it is reaped, and nobody does that but this thread, so
/// none but a child is hit.
pub(super) fn kill_children_but(spared: &HashSet<Pid>) {
    for pid in children().filter(|pid| !spared.contains(pid)) {
        // One that runs as another user can't be killed; who calls this goes on as long as it lives.
        let _ = signal::kill(pid, Signal::SIGKILL);
    }
}

fn children() -> impl Iterator<Item = Pid> {
    let own = Pid::this();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = move |pid: &i32| {
        let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        parent(&stat) == Some(own)
    };
    numbers.filter(is_child).map(Pid::from_raw)
}

/// The fourth field of `/proc/PID/stat` (proc(5)). The second is a name in parentheses, which may hold
/// spaces and parentheses itself.
fn parent(stat: &[u8]) -> Option<Pid> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent(b"7 (sh) S 3 7 7 0 -1"), Some(Pid::from_raw(3)));
        assert_eq!(parent(b"7 (a) S 9 (b) x) R 12 7 7 0"), Some(Pid::from_raw(12)));
        assert_eq!(parent(b"7 (\xff\xfe) Z 1 7"), Some(Pid::from_raw(1)));
        assert_eq!(parent(b"7 (sh) S"), None);
        assert_eq!(parent(b""), None);
    }
}
