//! What of a child's words goes to the log: its stderr, and what is no message on its stdout.

use super::allowance::{Allowance, Pace};
use super::lines::Cut;
use std::time::Instant;
use tokio::{io::AsyncReadExt, net::unix::pipe};
use tokio_util::sync::CancellationToken;

/// What of a line on stderr goes to the log.
pub(super) const LOG_LINE_LEN_MAX: usize = 8 * 1024;
/// 200 children that all chat come to 20,000 lines a second, which a log can take; one can't flood it.
pub(super) const LOG_LINES_PER_SECOND: u32 = 100;
/// Read for the log, whatever then comes to it. Beyond this the child waits until the second is over, so
/// that one which pours out can't keep the node busy. A hundred of the longest lines are a fifth of it.
const LOG_BYTES_PER_SECOND: usize = 4 * 1024 * 1024;
/// Noise on stdout is a mistake in the server: a few lines show which.
const NOISE_LINES_PER_SECOND: u32 = 5;
/// Enough to recognize a line by.
const NOISE_LEN_MAX: usize = 200;

/// Who is meant in the log.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) route: String,
    pub(super) session: String,
}

/// Writes the child's stderr to the log, until it ends.
pub(super) async fn log_stderr(name: &Name, mut stderr: pipe::Receiver, dead: &CancellationToken) {
    let mut cut = Cut::new(LOG_LINE_LEN_MAX);
    let mut diary = Diary { name, allowance: Allowance::new(LOG_LINES_PER_SECOND, Instant::now()) };
    let mut bytes = vec![0; LOG_LINE_LEN_MAX];
    let mut pace = Pace::new(LOG_BYTES_PER_SECOND, Instant::now());
    loop {
        let due = diary.allowance.account_due();
        let read = tokio::select! {
            read = stderr.read(&mut bytes) => read,
            () = sleep_if(due), if due.is_some() => {
                diary.account();
                continue;
            }
            () = dead.cancelled() => break,
        };
        let Some(len) = read.ok().filter(|len| *len > 0) else { break };
        cut.push(&bytes[..len], |line| diary.write(&line));
        sleep_if(pace.spend(len, Instant::now())).await;
    }
    cut.finish(|line| diary.write(&line));
    diary.account();
}

struct Diary<'a> {
    name: &'a Name,
    allowance: Allowance,
}

impl Diary<'_> {
    fn write(&mut self, line: &str) {
        let Name { route, session } = self.name;
        if self.allowance.take(Instant::now()) {
            self.account();
            tracing::info!(target: "ringway::child", route, session, "{line}");
        }
    }

    fn account(&mut self) {
        let Name { route, session } = self.name;
        if let Some(dropped) = self.allowance.account() {
            tracing::warn!(
                target: "ringway::child", route, session, dropped,
                "a child logs too much: lines were dropped"
            );
        }
    }
}

/// Lines on stdout that are no messages.
pub(super) struct Noise<'a> {
    name: &'a Name,
    allowance: Allowance,
    pace: Pace,
}

impl<'a> Noise<'a> {
    pub(super) fn new(name: &'a Name) -> Self {
        let now = Instant::now();
        let allowance = Allowance::new(NOISE_LINES_PER_SECOND, now);
        Self { name, allowance, pace: Pace::new(LOG_BYTES_PER_SECOND, now) }
    }

    /// Says that it is dropped. Returns when the next line may be read.
    pub(super) async fn drop_line(&mut self, line: &[u8]) {
        let (now, Name { route, session }) = (Instant::now(), self.name);
        if self.allowance.take(now) {
            let earlier = self.allowance.account().unwrap_or_default();
            let begins = String::from_utf8_lossy(&line[..line.len().min(NOISE_LEN_MAX)]);
            tracing::warn!(
                target: "ringway::child", route, session, %begins, earlier,
                "a line on stdout that is not JSON is dropped"
            );
        }
        sleep_if(self.pace.spend(line.len() + 1, now)).await;
    }
}

async fn sleep_if(until: Option<Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until.into()).await;
    }
}
