//! `ringway check`.

use super::Failure;
use crate::config::{self, Flags};
use std::path::Path;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let text = super::node::read(file)?;
    let shown = file.display();
    match config::load(Some((file, &text)), Flags::default()) {
        Ok(config) => {
            println!("{shown}: valid, {} routes", config.routes.len());
            for route in config.routes {
                let upstreams: Vec<_> = route.upstreams.iter().map(ToString::to_string).collect();
                println!("  {} -> {}", route.path, upstreams.join(", "));
            }
            Ok(())
        }
        Err(mistakes) => Err(Failure::Usage(format!("{shown}: {} wrong\n{mistakes}", mistakes.0.len()))),
    }
}
