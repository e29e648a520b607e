//! What the allocator is told, so that the memory of many streams goes back to the system when they have closed.
//! Called by [`super::node`].

use nix::sys::prctl;
use std::time::Duration;

/// Longer than mimalloc lets freed memory wait for its next use (`purge_delay`, 1 s).
const PAUSE: Duration = Duration::from_secs(2);

/// Pages stay small: one of 2 MiB is filled up again by the kernel, behind the allocator's back, after a part of it
/// was given back. Where the system has no such call, memory stays high after a peak.
pub(super) fn keep_pages_small() {
    let _ = prctl::set_thp_disable(true);
}

/// Gives back what nobody has used for a while: pages that all threads have let go of, and those of the thread that it
/// runs on. By itself mimalloc does so when more is freed, which at a node without traffic may be never.
pub(super) async fn give_back() {
    loop {
        tokio::time::sleep(PAUSE).await;
        collect();
    }
}

#[expect(unsafe_code, reason = "mimalloc's own functions are C")]
fn collect() {
    // SAFETY: it may be called at any time by any thread, and touches nothing that is in use.
    unsafe { libmimalloc_sys::mi_collect(false) }
}
