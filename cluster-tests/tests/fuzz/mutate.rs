//! Inputs made of others: bytes changed, left out, put in and doubled, pieces of two joined, and the words
//! of a format put where they may hurt. The same seed makes the same inputs.

/// What may be done to an input at once; most often it is one or two things.
const CHANGES_MAX: usize = 6;

pub(crate) struct Mutator<'a> {
    state: u64,
    inputs: &'a [Vec<u8>],
    tokens: &'a [&'a str],
    len_max: usize,
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, inputs: &'a [Vec<u8>], tokens: &'a [&'a str], len_max: usize) -> Self {
        assert!(!inputs.is_empty() && !tokens.is_empty(), "there is something to make inputs of");
        Self { state: seed, inputs, tokens, len_max }
    }

    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.inputs[self.below(self.inputs.len())].clone();
        for _ in 0..=self.below(CHANGES_MAX) {
            self.change(&mut input);
        }
        input.truncate(self.len_max);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let len = self.below(16.min(input.len() - at) + 1);
        match self.below(8) {
            0 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (self.roll() % 8)),
            1 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = self.roll() as u8),
            2 => drop(input.drain(at..at + len)),
            3 => {
                let doubled = input[at..at + len].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, doubled);
            }
            4 => input.insert(at, self.roll() as u8),
            5 => {
                // The end of another one.
                let other = &self.inputs[self.below(self.inputs.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let token = self.tokens[self.below(self.tokens.len())].as_bytes();
                let replaced = if self.below(2) == 0 { at..at + len } else { at..at };
                input.splice(replaced, token.iter().copied());
            }
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.roll() % count as u64) as usize
    }
}
