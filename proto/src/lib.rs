//! Messages and decisions.
