//! The clock that leases are counted by. Not `std::time::Instant`, which stands still while the
//! machine sleeps: a node that wakes up must know that its lease is long over.

use proto::wire::Ms;

/// Milliseconds since the machine started, sleep included.
#[expect(unsafe_code, reason = "clock_gettime has no safe wrapper in the standard library")]
pub(crate) fn now() -> Ms {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call gets a valid pointer to a timespec on this stack.
    unsafe { libc::clock_gettime(CLOCK, &mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

#[cfg(target_os = "linux")]
const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
/// macOS counts sleep in this one.
#[cfg(not(target_os = "linux"))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
