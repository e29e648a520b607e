//! Waiting for conditions. Nothing in `real` sleeps for luck: a test waits until something is so, and where it
//! never becomes so, it fails and names what it was waiting for. Called by everything here and by the tests.

use std::time::Duration;

use tokio::time::Instant;

/// Between two looks: short beside what is waited for (gossip, processes), long beside the cost of a look.
const PAUSE: Duration = Duration::from_millis(25);

/// Waits until `condition` holds; panics with `what` where it does not within `deadline`.
pub async fn wait_until(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    wait_for(what, deadline, async || {
        anyhow::ensure!(condition().await, "it is not so");
        Ok(())
    })
    .await;
}

/// Waits until `look` gives a value; panics with `what` and the last look's reason where it does not within `deadline`.
pub async fn wait_for<T>(what: &str, deadline: Duration, look: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
    match try_wait_for(what, deadline, look).await {
        Ok(value) => value,
        Err(error) => panic!("{error:#}"),
    }
}

/// The same with an error instead of a panic, for whoever has more to say about it.
pub async fn try_wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    let mut last = anyhow::anyhow!("the first look did not end");
    loop {
        // A look that hangs must not outlive the deadline either.
        match tokio::time::timeout_at(end, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => last = reason,
            Err(_) => {}
        }
        if Instant::now() >= end {
            return Err(last.context(format!("waited {deadline:?} in vain until {what}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_becomes_true_ends_the_wait() {
        let mut looks = 0;
        wait_until("the third look", Duration::from_secs(10), async || {
            looks += 1;
            looks == 3
        })
        .await;
    }

    #[tokio::test]
    async fn a_wait_in_vain_says_what_it_waited_for_and_why_not() {
        let look = async || -> anyhow::Result<()> { anyhow::bail!("it rains") };
        let error =
            try_wait_for("the sun shines", Duration::from_millis(60), look).await.expect_err("it rains");
        let said = format!("{error:#}");
        assert!(said.contains("the sun shines") && said.contains("it rains"), "{said}");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlive_the_deadline() {
        let look = async || std::future::pending::<anyhow::Result<()>>().await;
        assert!(try_wait_for("never", Duration::from_millis(60), look).await.is_err());
    }
}
