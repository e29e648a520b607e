//! `fixture-mcp`: the fixture MCP server. Without arguments it speaks stdio; with `--http ADDR` it listens, and
//! says on stdout, in one line, where.

use std::net::SocketAddr;
use std::process::ExitCode;

use cluster_tests::fixture::{HttpFixture, serve_stdio};

const USAGE: &str = "usage: fixture-mcp [--http ADDR]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => serve_stdio().await,
        ["--http", address] => match address.parse::<SocketAddr>() {
            Ok(address) => serve_http(address).await,
            Err(error) => return misused(&format!("`{address}` is not an address: {error}")),
        },
        _ => return misused("unknown arguments"),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fixture-mcp: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve_http(address: SocketAddr) -> anyhow::Result<()> {
    let fixture = HttpFixture::bind(address).await?;
    println!("fixture-mcp ready {}", fixture.url());
    fixture.run().await
}

fn misused(why: &str) -> ExitCode {
    eprintln!("fixture-mcp: {why}\n{USAGE}");
    ExitCode::from(2)
}
