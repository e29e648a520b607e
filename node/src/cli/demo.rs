//! `ringway demo`: a local cluster of real processes, and what to try on it.

use super::{DemoArgs, Failure, process::Process, runtime};
use std::time::Duration;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

/// A node without requests in progress drains in about a second.
const END_TIME: Duration = Duration::from_secs(5);

pub(super) fn run(args: &DemoArgs) -> Result<(), Failure> {
    if args.upstream.is_some() && !args.command.is_empty() {
        return Err(Failure::Usage("ringway: name an upstream or a command, not both".to_owned()));
    }
    runtime()?.block_on(show(args)).map_err(Failure::from)
}

async fn show(args: &DemoArgs) -> anyhow::Result<()> {
    // `PR_SET_PDEATHSIG` fires when the starting *thread* ends; this one is the main thread.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut servers = Vec::new();
    let mut nodes: Vec<Process> = Vec::new();
    for at in 0..args.nodes {
        let served_by: Vec<String> = match (&args.upstream, args.command.is_empty()) {
            (Some(url), _) => vec!["--upstream".to_owned(), url.clone()],
            (None, false) => ["--".to_owned()].into_iter().chain(args.command.iter().cloned()).collect(),
            (None, true) => {
                let server =
                    Process::start(&["mcp-demo", "--http", "127.0.0.1:0"].map(str::to_owned)).await?;
                let url = server.last_word()?;
                servers.push(server);
                vec!["--upstream".to_owned(), url]
            }
        };
        let name = char::from(b'a' + at).to_string();
        let any = "127.0.0.1:0";
        let fixed = ["node", "--name", &name, "--listen", any, "--peer", any, "--admin", any];
        let mut flags: Vec<String> = fixed.map(str::to_owned).to_vec();
        flags.extend(["--log".to_owned(), "warn".to_owned()]);
        if let Some(first) = nodes.first() {
            flags.extend(["--seed".to_owned(), first.value("peer")?]);
        }
        flags.extend(served_by); // a command goes last
        nodes.push(Process::start(&flags).await?);
    }
    print_guide(&nodes, args.upstream.is_none() && args.command.is_empty())?;

    let mut processes: Vec<Process> = nodes.into_iter().chain(servers).collect();
    let ended = {
        let any_ends = std::pin::pin!(first_to_end(&mut processes));
        tokio::select! {
            how = any_ends => Some(how),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        }
    };
    let mut ending: JoinSet<()> = processes.into_iter().map(|process| process.end(END_TIME)).collect();
    while ending.join_next().await.is_some() {}
    match ended {
        None => Ok(()),
        Some(how) => anyhow::bail!("a process of the demo ended by itself: {how}"),
    }
}

async fn first_to_end(processes: &mut [Process]) -> String {
    let waiting = processes.iter_mut().map(|process| Box::pin(process.ended()));
    let mut waiting: Vec<_> = waiting.collect();
    std::future::poll_fn(|cx| {
        let ended = waiting.iter_mut().find_map(|one| match one.as_mut().poll(cx) {
            std::task::Poll::Ready(how) => Some(how),
            std::task::Poll::Pending => None,
        });
        ended.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
    })
    .await
}

fn print_guide(nodes: &[Process], is_built_in: bool) -> anyhow::Result<()> {
    let mut endpoints = Vec::new();
    println!("Ringway demo: {} nodes, each in front of its own replica of an MCP server.\n", nodes.len());
    for node in nodes {
        let (name, listen, admin) = (node.value("name")?, node.value("listen")?, node.value("admin")?);
        println!("  node {name}   MCP http://{listen}/mcp   admin http://{admin}");
        endpoints.push((name, format!("http://{listen}/mcp"), format!("http://{admin}")));
    }
    let (first, last) = (&endpoints[0], &endpoints[endpoints.len() - 1]);
    let call = if is_built_in {
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"count","arguments":{}}}"#
    } else {
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#
    };
    println!(
        r#"
Open a session on node {first_name}; its id is kept in $SID:

  SID=$(curl -si {first_url} -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' -d '{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{}},"clientInfo":{{"name":"curl","version":"1"}}}}}}' | tr -d '\r' | awk -F': ' 'tolower($1)=="mcp-session-id"{{print $2}}'); echo $SID

Use it on node {first_name}, then on node {last_name}. The session counts on; the headers ringway-node and
ringway-hops say who owned it, and over how many hops the answer came:

  curl -si {first_url} -H "mcp-session-id: $SID" -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' -d '{call}'

  curl -si {last_url} -H "mcp-session-id: $SID" -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' -d '{call}'

Ask any node who owns it, and why:

  {program} locate $SID --admin {last_admin}
  {program} members --admin {first_admin}
  {program} ring --admin {first_admin}

Ctrl-C ends the demo.
"#,
        first_name = first.0,
        first_url = first.1,
        first_admin = first.2,
        last_name = last.0,
        last_url = last.1,
        last_admin = last.2,
        program = std::env::args().next().unwrap_or_else(|| "ringway".to_owned()),
    );
    Ok(())
}
