//! What fuzzers call: the parts of this program that read what others wrote, each as a function of
//! bytes that panics where something is not as it has to be. Called by the fuzz crate
//! (`cluster-tests/fuzz`) and by the short run of the same targets in the tests; no part of the program.
//!
//! [`TARGETS`] is the only list: the fuzz crate's programs and the folders of the corpus are checked
//! against it.

mod codec;
mod config;
mod cuts;
mod events;
mod heads;
mod ids;
mod lines;
mod modern;
mod reference;
mod rpc;

pub use codec::codec;
pub use config::config;
pub use events::events;
pub use heads::heads;
pub use ids::{names, seal};
pub use lines::lines;
pub use modern::modern;
pub use rpc::rpc;

/// One of the functions, and what makes inputs that get far into it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Pieces that inputs are made of.
    pub tokens: &'static [&'static str],
    /// Inputs need not be longer: all bounds that matter are below it, or are passed in.
    pub len_max: usize,
}

pub const TARGETS: [Target; 9] = [
    Target { name: "codec", run: codec, tokens: codec::TOKENS, len_max: 1_024 },
    Target { name: "config", run: config, tokens: config::TOKENS, len_max: 1_024 },
    Target { name: "events", run: events, tokens: events::TOKENS, len_max: 1_024 },
    Target { name: "heads", run: heads, tokens: heads::TOKENS, len_max: 1_024 },
    Target { name: "lines", run: lines, tokens: lines::TOKENS, len_max: 512 },
    Target { name: "modern", run: modern, tokens: modern::TOKENS, len_max: 2_048 },
    Target { name: "names", run: names, tokens: ids::TOKENS, len_max: 512 },
    Target { name: "rpc", run: rpc, tokens: rpc::TOKENS, len_max: 2_048 },
    Target { name: "seal", run: seal, tokens: ids::TOKENS, len_max: 512 },
];
