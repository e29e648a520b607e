//! What the kernel knows of a process: the CPU it has used, the memory it holds, the cores it may run on.
//! Called by everything that measures a process.

use std::io;
use std::mem;
use std::time::Duration;

use anyhow::Context as _;

/// The CPU time of a process, user and system, all its threads, those included that have ended.
///
/// It is `utime + stime` of `/proc/PID/stat` in nanoseconds instead of ticks of 10 ms: 10 ms over the 4,000
/// requests of a measurement would be 2.5 us each.
#[allow(unsafe_code)] // two system calls on numbers
pub(super) fn cpu_time(pid: libc::pid_t) -> anyhow::Result<Duration> {
    let mut clock = 0;
    // SAFETY: the pointer is to a clock id on this stack.
    let error = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error)).with_context(|| format!("the CPU clock of {pid}"));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a time on this stack.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("the CPU time of {pid}"));
    }
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

/// The sum over several processes.
pub(super) fn cpu_time_of_all(pids: &[libc::pid_t]) -> anyhow::Result<Duration> {
    pids.iter().map(|pid| cpu_time(*pid)).sum()
}

/// Resident memory (`VmRSS`), in bytes.
pub(super) fn resident(pid: libc::pid_t) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is no number")?;
    Ok(kib * 1024)
}

/// How many files (sockets, pipes) a process has open.
pub(super) fn open_files(pid: libc::pid_t) -> anyhow::Result<usize> {
    let folder = format!("/proc/{pid}/fd");
    Ok(std::fs::read_dir(&folder).with_context(|| format!("reading {folder}"))?.count())
}

/// A set of cores.
#[derive(Clone, Copy)]
pub(super) struct Cores(libc::cpu_set_t);

impl Cores {
    /// All that this process may use now.
    #[allow(unsafe_code)] // a system call, and a plain C struct
    pub(super) fn all() -> anyhow::Result<Cores> {
        // SAFETY: the set is an array of integers, for which zeroes are a value.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the pointer is to a set on this stack, of the size that is named.
        if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
            return Err(io::Error::last_os_error()).context("asking for the usable cores");
        }
        Ok(Cores(set))
    }

    /// The first core and the second one, each alone; `None` where there is only one.
    #[allow(unsafe_code)] // libc's macros over a plain C struct
    pub(super) fn first_two(&self) -> Option<[Cores; 2]> {
        // SAFETY: every number asked for is below the set's size.
        let is_in = |core: &usize| unsafe { libc::CPU_ISSET(*core, &self.0) };
        let mut usable = (0..libc::CPU_SETSIZE as usize).filter(is_in);
        let alone = |core| {
            // SAFETY: zeroes are a value of the set, and the number is one that was in such a set.
            unsafe {
                let mut set: libc::cpu_set_t = mem::zeroed();
                libc::CPU_SET(core, &mut set);
                Cores(set)
            }
        };
        Some([alone(usable.next()?), alone(usable.next()?)])
    }

    /// Has every thread of a process run on these cores alone. Threads started later take it from their parents.
    #[allow(unsafe_code)] // a system call
    pub(super) fn hold(&self, pid: libc::pid_t) -> anyhow::Result<()> {
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread: libc::pid_t = thread?.file_name().to_string_lossy().parse()?;
            // SAFETY: the pointer is to a set of the size that is named.
            let done = unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &self.0) };
            let error = io::Error::last_os_error();
            // A thread that has ended meanwhile needs no cores.
            if done != 0 && error.raw_os_error() != Some(libc::ESRCH) {
                return Err(error).with_context(|| format!("choosing cores for {pid}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let me = libc::pid_t::try_from(std::process::id()).expect("a pid");
        let before = cpu_time(me).expect("this process lives");
        let sum: u64 = std::hint::black_box((0..1_000_000u64).map(std::hint::black_box).sum());
        assert!(sum > 0 && cpu_time(me).expect("this process lives") > before);
        assert!(resident(me).expect("this process lives") > 100 * 1024);
    }
}
