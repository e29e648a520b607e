//! Ringway tested with real parts.

pub mod bench;
pub mod chaos;
mod dice;
pub mod fixture;
pub mod forge;
pub mod real;
pub mod sim;
