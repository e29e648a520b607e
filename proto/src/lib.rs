//! Ringway's messages and decisions, as values.
//!
//! Three floors, each knowing only those below it: [`id`] names things, [`wire`] says how nodes talk
//! about them, [`core`] decides. Nothing here awaits, reads a clock, rolls dice, does IO or logs:
//! time, entropy and order come in as arguments, so every decision can be replayed.

pub mod core;
pub mod id;
pub mod wire;
