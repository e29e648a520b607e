//! `ringway check`.

use super::Failure;
use crate::config::{self, Flags};
use proto::id::ClusterSecret;
use std::path::Path;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let text = super::node::read(file)?;
    let shown = file.display();
    match config::load(Some((file, &text)), Flags::default()) {
        Ok(config) => {
            println!("{shown}: valid, {} routes", config.routes.len());
            // The same words as the running node's log and metrics, so that files can be compared with nodes.
            let secrets: Vec<_> = config.secrets.iter().map(ClusterSecret::fingerprint).collect();
            if let (Some(file), Some((used, others))) = (&config.secret_file, secrets.split_first()) {
                let others = if others.is_empty() { "no other".to_owned() } else { others.join(", ") };
                println!("  secrets of {}: uses {used}, accepts {others}", file.display());
                if let Some(exposure) = config::exposure(file) {
                    println!("  {exposure}");
                }
            }
            for route in config.routes {
                let upstreams: Vec<_> = route.upstreams.iter().map(ToString::to_string).collect();
                println!("  {} -> {}", route.path, upstreams.join(", "));
            }
            Ok(())
        }
        Err(mistakes) => Err(Failure::Usage(format!("{shown}: {} wrong\n{mistakes}", mistakes.0.len()))),
    }
}
