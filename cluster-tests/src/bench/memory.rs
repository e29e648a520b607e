//! Resident memory, read when it stands still. Called by everything that says what something at rest holds.

use std::time::Duration;

use super::process;
use crate::real::wait;

/// Resident memory stands still when it is the same in this many looks, 100 ms apart.
pub(super) const STILL_LOOKS: u32 = 5;
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
const STILL_DEADLINE: Duration = Duration::from_secs(15);

/// Resident memory once it no longer changes.
pub(super) async fn still(pid: libc::pid_t) -> anyhow::Result<u64> {
    let (mut last, mut looks) = (0, 0);
    wait::try_wait_for("resident memory stands still", STILL_DEADLINE, async || {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = process::resident(pid)?;
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        anyhow::ensure!(looks >= STILL_LOOKS, "it was {now} bytes a moment ago");
        Ok(now)
    })
    .await
}
