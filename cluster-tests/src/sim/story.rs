//! What happened, as lines to be read or as a hash to be compared.

use proto::core::tenure::Ms;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// For speed: nothing is written.
    Silent,
    Hashed,
    Printed,
}

#[derive(Debug)]
pub(super) struct Story {
    telling: Telling,
    hash: u64,
}

impl Story {
    pub(super) fn new(telling: Telling) -> Self {
        Self { telling, hash: 0xcbf2_9ce4_8422_2325 }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// One line: when, where, what.
    pub(super) fn tell(&mut self, now: Ms, place: &dyn fmt::Display, what: fmt::Arguments<'_>) {
        match self.telling {
            Telling::Silent => {}
            Telling::Printed => println!("{:>8.3}  {place:<10}  {what}", now as f64 / 1_000.0),
            Telling::Hashed => {
                // FNV-1a: short, and the same everywhere.
                for byte in format!("{now} {place} {what}").bytes() {
                    self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
            }
        }
    }
}
