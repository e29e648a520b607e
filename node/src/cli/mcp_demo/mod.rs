//! `ringway mcp-demo`: a small stateful MCP server to try Ringway with. [`session`] is the server,
//! this file speaks for it over stdio, [`http`] over Streamable HTTP.

mod http;
mod session;

use session::Session;
use std::{
    io::{BufRead, Write},
    net::SocketAddr,
};

pub(super) fn run(at: Option<SocketAddr>) -> anyhow::Result<()> {
    match at {
        Some(at) => {
            tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(http::serve(at))
        }
        None => stdio(),
    }
}

/// One message per line, until the input ends.
fn stdio() -> anyhow::Result<()> {
    let mut session = Session::default();
    let mut stdout = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        if let Some(answer) = session.receive(line.as_bytes()) {
            writeln!(stdout, "{answer}")?;
            stdout.flush()?;
        }
    }
    Ok(())
}
