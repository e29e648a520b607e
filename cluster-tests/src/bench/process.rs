//! What the kernel knows of a process: the CPU it has used, the memory it holds, the files it has open.
//! Called by everything that measures a process.

use std::io;
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
