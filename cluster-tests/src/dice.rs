//! Dice that fall alike on every run from the same seed. Called by `bench` and `chaos`.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `count`, which is small beside 2^64, so that all are as likely. 0 where there is none.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.roll() % (count.max(1) as u64)) as usize
    }

    pub(crate) fn bytes(&mut self) -> [u8; 12] {
        let (first, second) = (self.roll().to_le_bytes(), self.roll().to_le_bytes());
        std::array::from_fn(|at| if at < 8 { first[at] } else { second[at - 8] })
    }
}
