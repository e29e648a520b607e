//! Ringway tested with real parts.

pub mod fixture;
pub mod real;
