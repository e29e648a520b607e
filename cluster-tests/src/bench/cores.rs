//! Which cores everything runs on: what is measured on one of them, load and backend on another.
//!
//! CPU per request depends on what else the machine does: on idle cores a wake-up costs more than the work that it is
//! for, and on busy ones next to nothing. With all that is counted on one core and all else on another, two busy loops
//! beside it changed a figure by a fifth at most, without that by more than half. What is measured is *started* on its
//! core, so that a program that counts cores before it decides on its threads sees the one that it has.

use std::{fmt, io, mem};

use anyhow::Context as _;

/// The cores that this program may use.
#[derive(Clone, Copy)]
pub(super) struct Cores {
    usable: libc::cpu_set_t,
    /// Of load and backend, and of what is measured; `None` where there is only one.
    apart: Option<[usize; 2]>,
}

impl fmt::Debug for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cores").field("apart", &self.apart).finish_non_exhaustive()
    }
}

impl Cores {
    /// All that this process may use now.
    #[allow(unsafe_code)] // a system call, and a plain C struct
    pub(super) fn usable() -> anyhow::Result<Cores> {
        // SAFETY: the set is an array of integers, for which zeroes are a value.
        let mut usable: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the pointer is to a set on this stack, of the size that is named.
        if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut usable) } != 0 {
            return Err(io::Error::last_os_error()).context("asking for the usable cores");
        }
        // SAFETY: every number asked for is below the set's size.
        let is_in = |core: &usize| unsafe { libc::CPU_ISSET(*core, &usable) };
        let mut cores = (0..libc::CPU_SETSIZE as usize).filter(is_in);
        let apart = cores.next().zip(cores.next()).map(<[usize; 2]>::from);
        Ok(Cores { usable, apart })
    }

    pub(super) fn are_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// What stands before a command so that it starts on the core of what is measured (`taskset` is of util-linux,
    /// and of busybox).
    pub(super) fn measured(&self) -> Vec<String> {
        let words = |[_, core]: [usize; 2]| vec!["taskset".to_owned(), "-c".to_owned(), core.to_string()];
        self.apart.map(words).unwrap_or_default()
    }

    /// Moves this program to the core of load and backend, with what it starts from now on, until that is dropped.
    pub(super) fn keep_apart(&self) -> anyhow::Result<Apart> {
        if let Some([others, _]) = self.apart {
            run_on(&only(others))?;
        }
        Ok(Apart { before: self.usable })
    }
}

/// While this lives, this program runs on the core of load and backend.
pub(super) struct Apart {
    before: libc::cpu_set_t,
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Err(error) = run_on(&self.before) {
            super::progress(&format!("this program stays on one core: {error:#}"));
        }
    }
}

#[allow(unsafe_code)] // a macro of libc's over a plain C struct
fn only(core: usize) -> libc::cpu_set_t {
    // SAFETY: zeroes are a value of the set, and the number is one that was in such a set.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(core, &mut set);
        set
    }
}

/// Has every thread of this process run on these cores alone. Threads and processes started later take it over.
#[allow(unsafe_code)] // a system call
fn run_on(cores: &libc::cpu_set_t) -> anyhow::Result<()> {
    for thread in std::fs::read_dir("/proc/self/task")? {
        let thread: libc::pid_t = thread?.file_name().to_string_lossy().parse()?;
        // SAFETY: the pointer is to a set of the size that is named.
        let done = unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), cores) };
        let error = io::Error::last_os_error();
        // A thread that has ended meanwhile needs no cores.
        if done != 0 && error.raw_os_error() != Some(libc::ESRCH) {
            return Err(error).context("choosing cores");
        }
    }
    Ok(())
}
