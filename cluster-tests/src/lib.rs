//! Ringway tested with real parts.

pub mod real;
