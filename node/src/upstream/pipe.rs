//! A conversation with one MCP server in single JSON-RPC messages, whatever carries them.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Both directions of it. To drop `to` is to end the server.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Each one JSON text without line breaks.
    pub(super) to: mpsc::Sender<Bytes>,
    /// It ends when the server has.
    pub(super) from: mpsc::Receiver<Bytes>,
}
