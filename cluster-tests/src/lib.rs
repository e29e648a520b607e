//! Ringway tested with real parts.
