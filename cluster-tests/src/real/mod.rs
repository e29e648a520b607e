//! Real parts: processes, sockets, SDK clients. What a simulator can't show.
//!
//! `install` brings the clients, `cluster` starts the processes, `http` and `clients` drive them.

pub mod install;
pub mod places;
