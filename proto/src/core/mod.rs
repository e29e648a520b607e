//! Floor 2: decisions, as pure functions over immutable values.

pub mod custody;
pub mod placement;
pub mod revival;
pub mod ring;
pub mod route;
pub mod seeds;
pub mod succession;
pub mod tenure;
pub mod view;
pub mod witness;
