//! `ringway node`.

use super::{Failure, NodeArgs, memory, runtime};
use crate::app::Node;
use crate::config::{self, Config, Flags};
use crate::telemetry;
use std::{io::Write, path::Path};
use tokio::signal::unix::{SignalKind, signal};

pub(super) fn run(args: NodeArgs) -> Result<(), Failure> {
    memory::keep_pages_small();
    let config = configure(args)?;
    telemetry::start_logging(&config.log, config.log_format)
        .map_err(|error| Failure::Usage(format!("ringway: {error}")))?;
    let runtime = runtime()?;
    let served = runtime.block_on(serve(config));
    // A name that is being resolved must not hold up the exit.
    runtime.shutdown_background();
    served.map_err(Failure::from)
}

fn configure(args: NodeArgs) -> Result<Config, Failure> {
    let file = args.config.as_deref().map(read).transpose()?;
    let flags = Flags {
        name: args.name,
        listen: args.listen,
        peer: args.peer,
        advertise: args.advertise,
        admin: args.admin,
        seeds: args.seeds,
        secret_file: args.secret_file,
        tls_cert: args.tls_cert,
        tls_key: args.tls_key,
        upstreams: args.upstreams,
        command: args.command,
        log: args.log,
        log_format: args.log_format,
        otlp: args.otlp,
    };
    let file = args.config.as_deref().zip(file.as_deref());
    config::load(file, flags)
        .map_err(|mistakes| Failure::Usage(format!("ringway: wrong configuration\n{mistakes}")))
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("ringway: {}: {error}", path.display())))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Before anything is started: a signal that comes early is not lost.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(memory::give_back());
    let node = Node::start(config).await?;
    let mut stdout = std::io::stdout();
    // Who started the node may have stopped reading; that is no reason not to serve.
    let _ = writeln!(stdout, "{}", node.ready_line()).and_then(|()| stdout.flush());
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    node.run(stop).await
}
