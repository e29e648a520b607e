//! stub
mod ledger;
pub mod options;
pub mod schedule;
