//! What of a child's stderr comes to the log.

use super::*;
use crate::upstream::stdio::log::{LOG_LINE_LEN_MAX, LOG_LINES_PER_SECOND};
use std::{io::Write, sync::Mutex};
use tracing::{Level, subscriber::DefaultGuard};
use tracing_subscriber::fmt::MakeWriter;

/// What this thread logs, as long as the guard lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn keep() -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber =
            tracing_subscriber::fmt().json().with_max_level(Level::INFO).with_writer(log.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The lines about children.
    fn lines(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().expect("whole").clone()).expect("UTF-8");
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        lines.filter(|line| line["target"] == "ringway::child").collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("whole").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn stderr_goes_to_the_log_with_route_and_session() {
    let (log, _guard) = Log::keep();
    let children = Children::new();
    let (_pipe, name) = start(&children, "echo 'out of order' >&2; exit 7").await;
    all_ended(&children).await;
    let said = |message: &str| log.lines().into_iter().find(|line| line["fields"]["message"] == message);
    let line = said("out of order").expect("the line");
    assert_eq!((&line["fields"]["route"], &line["fields"]["session"]), (&"/shell".into(), &name.into()));
    let end = said("a child has failed").expect("its end");
    assert_eq!(end["fields"]["status"], "exit status: 7");
}

#[tokio::test]
async fn a_child_that_chats_is_cut_short_and_every_line_accounted_for() {
    let (log, _guard) = Log::keep();
    let children = Children::new();
    let (_pipe, _) = start(&children, "seq 1 5000 >&2; head -c 100000 /dev/zero | tr '\\0' x >&2").await;
    all_ended(&children).await;
    let (mut written, mut dropped) = (0, 0);
    for line in log.lines() {
        let (message, more) = (line["fields"]["message"].as_str().expect("text"), &line["fields"]["dropped"]);
        dropped += more.as_u64().unwrap_or(0);
        written += u64::from(message.starts_with(char::is_numeric) || message.ends_with("bytes more)"));
        assert!(message.len() < LOG_LINE_LEN_MAX + 50, "{} bytes", message.len());
    }
    assert!(
        written >= LOG_LINES_PER_SECOND.into() && dropped > 1_000,
        "{written} written, {dropped} dropped"
    );
    assert_eq!(written + dropped, 5_001);
}
