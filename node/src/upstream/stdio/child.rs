//! One child's session: its lines in and out, and its end.

use super::guarded::{Guarded, Reports};
use super::lines::{Lines, TooLong, message};
use super::log::{Name, Noise, log_stderr};
use bytes::{Buf, Bytes};
use std::{pin::pin, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// An answer may be 64 MiB (a file, in base64); 64 KiB more for what is around it in the message.
const LINE_LEN_MAX: usize = 64 * 1024 * 1024 + 64 * 1024;
/// A child that does not read its input for so long is looked at: is its session still wanted?
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// When all processes of a session are dead its pipes are at their end; unless somebody took one away
/// who does not belong to it, for whom nobody waits.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// What the tasks of one session tell each other.
#[derive(Debug, Default)]
struct Ends {
    /// No more goes to the child: its input is to be closed, and its warden to see to the rest.
    over: CancellationToken,
    /// Nobody waits for what the child may still say.
    unwanted: CancellationToken,
    /// Nothing is left that could say more.
    dead: CancellationToken,
}

/// Carries messages between the child and its pipe until both have ended, and returns when nothing of
/// the child is left.
pub(super) async fn serve(
    name: Name,
    child: Guarded,
    messages: mpsc::Receiver<Bytes>,
    said: mpsc::Sender<Bytes>,
) {
    let Guarded { pid, stdin, stdout, stderr, hold, reports } = child;
    let ends = Ends::default();
    let input = async {
        tokio::select! {
            () = feed(stdin, messages, &ends) => {}
            () = ends.over.cancelled() => {}
        }
        drop(hold);
    };
    let output = async {
        listen(&name, stdout, said, &ends).await;
        ends.over.cancel();
    };
    let mut talk = pin!(async { tokio::join!(input, output, log_stderr(&name, stderr, &ends.dead)) });
    let mut end = pin!(attend(&name, pid, reports, &ends));
    tokio::select! {
        _ = &mut talk => end.await,
        () = &mut end => {
            if timeout(LAST_WORDS_TIME, &mut talk).await.is_err() {
                ends.dead.cancel();
                talk.await;
            }
        }
    }
}

/// Writes what comes, one line each, until no more can come or the child takes no more.
async fn feed(mut stdin: pipe::Sender, mut messages: mpsc::Receiver<Bytes>, ends: &Ends) {
    while let Some(message) = messages.recv().await {
        let mut line = message.chain(&b"\n"[..]);
        loop {
            match timeout(LOOK_AFTER, stdin.write_all_buf(&mut line)).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return, // it has closed its input, most likely by ending
                Err(_) if messages.sender_strong_count() == 0 => return ends.unwanted.cancel(),
                Err(_) => {} // nothing is lost: what is written has left `line`
            }
        }
    }
    ends.unwanted.cancel();
}

/// Passes on what the child says, until it says no more.
async fn listen(name: &Name, mut stdout: pipe::Receiver, said: mpsc::Sender<Bytes>, ends: &Ends) {
    let mut lines = Lines::new(LINE_LEN_MAX);
    let mut voice = Voice { said: Some(said), noise: Noise::new(name) };
    loop {
        loop {
            match lines.next() {
                Ok(Some(line)) => voice.say(line, ends).await,
                Ok(None) => break,
                Err(TooLong) => {
                    let Name { route, session } = name;
                    return tracing::error!(
                        target: "ringway::child", route, session, len_max = LINE_LEN_MAX,
                        "a child's message is too long: it is ended"
                    );
                }
            }
        }
        let read = tokio::select! {
            read = stdout.read_buf(lines.room()) => read,
            () = voice.unheard() => {
                voice.said = None;
                ends.over.cancel();
                continue;
            }
            () = ends.dead.cancelled() => return,
        };
        if !read.is_ok_and(|len| len > 0) {
            break;
        }
    }
    let rest = lines.rest();
    if !rest.is_empty() {
        voice.say(rest, ends).await;
    }
}

/// Where a child's lines go.
struct Voice<'a> {
    /// None when nobody listens any more: the child is still read, so that it can end in good order.
    said: Option<mpsc::Sender<Bytes>>,
    noise: Noise<'a>,
}

impl Voice<'_> {
    async fn say(&mut self, line: Bytes, ends: &Ends) {
        let Some(said) = &self.said else { return };
        let Some(message) = message(line.clone()) else { return self.noise.drop_line(&line).await };
        let is_heard = tokio::select! {
            sent = said.send(message) => sent.is_ok(),
            () = ends.unwanted.cancelled() => false,
        };
        if !is_heard {
            self.said = None;
            ends.over.cancel();
        }
    }

    /// Returns when somebody who listened has ceased to.
    async fn unheard(&self) {
        match &self.said {
            Some(said) => said.closed().await,
            None => std::future::pending().await,
        }
    }
}

/// Waits until nothing of the child is left, and says how it ended.
async fn attend(name: &Name, pid: i32, mut reports: Reports, ends: &Ends) {
    let Name { route, session } = name;
    match reports.ended().await {
        Some(status) if status.success() || ends.unwanted.is_cancelled() => {
            tracing::info!(target: "ringway::child", route, session, pid, %status, "a child has ended");
        }
        Some(status) => {
            tracing::warn!(target: "ringway::child", route, session, pid, %status, "a child has failed");
        }
        None => {
            tracing::error!(
                target: "ringway::child", route, session, pid,
                "a child's warden was killed, and the child with it"
            );
        }
    }
    ends.over.cancel();
    reports.finished().await;
}
