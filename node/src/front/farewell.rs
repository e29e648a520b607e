//! Last words to clients whose connection HTTP never had, or has no more to do with: short answers in plain text,
//! written without a look at what was asked for.

use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
};

/// A client that does not take its last words in this time goes without.
const TIME_MAX: Duration = Duration::from_secs(1);
/// What its client had to say is read to here, since a connection closed on what is unread is reset, and the
/// answer with it.
const HEARD_LEN_MAX: u64 = 64 * 1024;
/// Connections that are turned away at once; beyond that they are closed without a word.
const AT_ONCE_MAX: usize = 64;
static TURNED_AWAY: Semaphore = Semaphore::const_new(AT_ONCE_MAX);

#[derive(Clone, Copy, Debug)]
pub(super) enum Farewell {
    NodeFull,
    ClientFull,
    NotTls,
    SlowHead,
}

impl Farewell {
    /// Says so, if not too many are being told something already.
    pub(super) async fn say(self, to: impl AsyncRead + AsyncWrite + Unpin) {
        if let Ok(_permit) = TURNED_AWAY.try_acquire() {
            let _ = tokio::time::timeout(TIME_MAX, self.write(to)).await;
        }
    }

    async fn write(self, mut to: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
        to.write_all(self.answer().as_bytes()).await?;
        to.shutdown().await?;
        let mut rest = to.take(HEARD_LEN_MAX);
        let mut heard = [0; 1_024];
        while rest.read(&mut heard).await? > 0 {}
        Ok(())
    }

    fn answer(self) -> String {
        let (status, more, text) = match self {
            Self::NodeFull => (
                "503 Service Unavailable",
                "retry-after: 1\r\n",
                "this node has as many connections as it may have (max_connections)",
            ),
            Self::ClientFull => (
                "429 Too Many Requests",
                "retry-after: 1\r\n",
                "this client has as many connections as it may have (max_connections_per_client)",
            ),
            Self::NotTls => ("400 Bad Request", "", "this port speaks TLS: use https://"),
            Self::SlowHead => {
                ("408 Request Timeout", "", "no whole request head came in time (header_timeout)")
            }
        };
        format!(
            "HTTP/1.1 {status}\r\n{more}content-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}\n",
            text.len() + 1
        )
    }
}
