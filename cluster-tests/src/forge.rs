//! Session ids that nobody gave out, of every kind that somebody could think of, and whether any is
//! taken for one. Called by the program `forge`, by a test here, and by a test that sends them to nodes.
//!
//! What is made at random could by chance be what it was made of; such a one is left out and not counted.

use crate::dice::Dice;
use data_encoding::BASE64URL_NOPAD;
use proto::id::{
    Birth, ClusterSecret, Incarnation, NodeRef, Nonce, Principal, RouteId, SealKeys, Tag, UpstreamBirth,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PREFIX: &str = "rw1.";
/// Version and key id, and the nonce.
const HEAD_LEN: usize = 1 + 12;
const TAG_LEN: usize = 16;
/// How many are made between two looks at the clock and at the others.
const BATCH: u64 = 1_000;

/// How a false id is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As long as a true one, and nothing but dice.
    Random,
    /// The head of a true one, and dice.
    RandomBehindItsHead,
    /// Up to eight bits of a true one the other way round.
    Flipped,
    /// The beginning of one and the end of another.
    Spliced,
    /// The nonce of one and what another one seals.
    OtherNonce,
    /// What one seals, with the tag of another.
    OtherTag,
    Shorter,
    Longer,
    /// True, of a cluster with another secret.
    OtherSecret,
    /// True, with the name of another key.
    OtherKey,
    /// The same bytes spelled another way: with padding, with bits that are left over at the end.
    OtherSpelling,
    /// Letters of the text changed, also to such as base64 does not have.
    OtherLetters,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Random,
        Self::RandomBehindItsHead,
        Self::Flipped,
        Self::Spliced,
        Self::OtherNonce,
        Self::OtherTag,
        Self::Shorter,
        Self::Longer,
        Self::OtherSecret,
        Self::OtherKey,
        Self::OtherSpelling,
        Self::OtherLetters,
    ];
}

/// Makes false ids of true ones.
#[derive(Debug)]
pub struct Forger {
    dice: Dice,
    genuine: Vec<String>,
    /// Of another secret.
    foreign: SealKeys,
}

impl Forger {
    /// With true ids to make false ones of; there are at least two.
    pub fn new(seed: u64, genuine: Vec<String>) -> Self {
        assert!(genuine.len() > 1, "two are needed where one has parts of another");
        Self { dice: Dice::new(seed), genuine, foreign: keys(99) }
    }

    /// One of that kind; `None` where it would be a true one.
    pub fn forged(&mut self, kind: Kind) -> Option<String> {
        let (text, other) = (self.any().to_owned(), self.any().to_owned());
        let (raw, other) = (bytes_of(&text), bytes_of(&other));
        let forged = match kind {
            Kind::Random => text_of(&self.noise(raw.len())),
            Kind::RandomBehindItsHead => {
                let noise = self.noise(raw.len() - HEAD_LEN);
                text_of(&[&raw[..HEAD_LEN], &noise].concat())
            }
            Kind::Flipped => text_of(&self.flipped(raw)),
            Kind::Spliced => {
                let (at, from) = (self.dice.below(raw.len()), self.dice.below(other.len()));
                text_of(&[&raw[..at], &other[from..]].concat())
            }
            Kind::OtherNonce => text_of(&[&raw[..1], &other[1..HEAD_LEN], &raw[HEAD_LEN..]].concat()),
            Kind::OtherTag => {
                text_of(&[&raw[..raw.len() - TAG_LEN], &other[other.len() - TAG_LEN..]].concat())
            }
            Kind::Shorter => text_of(&raw[..self.dice.below(raw.len())]),
            Kind::Longer => {
                let len = 1 + self.dice.below(64);
                let noise = self.noise(len);
                text_of(&[&raw[..], &noise].concat())
            }
            Kind::OtherSecret => {
                let seed = self.dice.roll();
                sealed(&self.foreign, seed)
            }
            Kind::OtherKey => {
                let mut raw = raw;
                raw[0] ^= 1 + self.dice.below(15) as u8;
                text_of(&raw)
            }
            Kind::OtherSpelling => self.spelled_otherwise(&text),
            Kind::OtherLetters => self.with_other_letters(&text),
        };
        (!self.genuine.contains(&forged)).then_some(forged)
    }

    fn any(&mut self) -> &str {
        let which = self.dice.below(self.genuine.len());
        &self.genuine[which]
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.dice.roll() as u8).collect()
    }

    fn flipped(&mut self, mut raw: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.dice.below(8) {
            let at = self.dice.below(raw.len() * 8);
            raw[at / 8] ^= 1 << (at % 8);
        }
        raw
    }

    fn spelled_otherwise(&mut self, text: &str) -> String {
        let padding = "=".repeat(1 + self.dice.below(3));
        // Where a length leaves bits over in the last letter, they are zero; another letter has the same bytes.
        let left_over = match (text.len() - PREFIX.len()) % 4 {
            2 => 4,
            3 => 2,
            _ => return format!("{text}{padding}"),
        };
        if self.dice.below(2) == 0 {
            return format!("{text}{padding}");
        }
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = text.bytes().next_back().expect("not empty");
        let value = letters.iter().position(|letter| *letter == last).expect("base64url");
        let other = letters[value | (1 + self.dice.below((1 << left_over) - 1))];
        format!("{}{}", &text[..text.len() - 1], char::from(other))
    }

    fn with_other_letters(&mut self, text: &str) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. ~";
        let mut letters = text.as_bytes().to_vec();
        for _ in 0..=self.dice.below(3) {
            let (at, other) = (self.dice.below(letters.len()), self.dice.below(LETTERS.len()));
            letters[at] = LETTERS[other];
        }
        String::from_utf8(letters).expect("ASCII")
    }
}

fn keys(seed: u8) -> SealKeys {
    SealKeys::new(&[ClusterSecret::from_entropy([seed; 32])], "ringway")
}

/// A true id, different for each number.
fn sealed(keys: &SealKeys, number: u64) -> String {
    let mut dice = Dice::new(number);
    let birth = Birth {
        minted_s: 1_790_000_000 + dice.below(1_000_000) as u32,
        home: NodeRef { tag: Tag(dice.roll() as u32), inc: Incarnation(1_790_000_000_000 + number % 1_000) },
        route: RouteId::of("/mcp"),
        principal: Principal::ANYONE,
        upstream: Some(UpstreamBirth {
            url: "http://127.0.0.1:3001/mcp".into(),
            // Of different lengths, so that texts end in every way that base64 has.
            session: format!("{:032x}", dice.roll())[dice.below(4)..].into(),
        }),
    };
    keys.seal(Nonce(dice.bytes()), &birth).expect("all of it is short")
}

fn bytes_of(text: &str) -> Vec<u8> {
    let body = text.strip_prefix(PREFIX).expect("a true id");
    BASE64URL_NOPAD.decode(body.as_bytes()).expect("a true id")
}

fn text_of(bytes: &[u8]) -> String {
    format!("{PREFIX}{}", BASE64URL_NOPAD.encode(bytes))
}

/// What came of many.
#[derive(Debug)]
pub struct Tried {
    pub count: u64,
    /// Those that opened: none may.
    pub accepted: Vec<String>,
    pub took: Duration,
}

/// Tries at least `count` forged ids on as many threads as there are cores, and says now and then how far
/// it is.
pub fn run(count: u64, seed: u64, said: impl Fn(u64) + Sync) -> Tried {
    let keys = SealKeys::new(&[7, 8].map(|seed| ClusterSecret::from_entropy([seed; 32])), "ringway");
    let older = self::keys(8);
    let genuine: Vec<_> =
        (0..64).map(|number| sealed(if number % 4 == 0 { &older } else { &keys }, number)).collect();
    assert!(genuine.iter().all(|text| keys.open(text).is_ok()), "the true ones open");
    let (started, tried, stop) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
    let workers = thread::available_parallelism().map_or(1, usize::from) as u64;
    let work = |worker: u64| {
        let mut forger = Forger::new(seed ^ (worker << 32), genuine.clone());
        let mut accepted = Vec::new();
        while tried.load(Ordering::Relaxed) < count && !stop.load(Ordering::Relaxed) {
            let mut made = 0;
            for kind in Kind::ALL.into_iter().cycle().take(BATCH as usize) {
                let Some(text) = forger.forged(kind) else { continue };
                made += 1;
                if keys.open(&text).is_ok() {
                    accepted.push(text);
                    stop.store(true, Ordering::Relaxed);
                }
            }
            said(tried.fetch_add(made, Ordering::Relaxed) + made);
        }
        accepted
    };
    let accepted = thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("nothing panics")).collect()
    });
    Tried { count: tried.into_inner(), accepted, took: started.elapsed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_forged_id_opens() {
        let Tried { count, accepted, took } = run(200_000, 1, |_| {});
        println!("{count} forged ids, {took:.1?}");
        assert!(count >= 200_000);
        assert_eq!(accepted, [""; 0]);
    }

    #[test]
    fn every_kind_is_made_and_is_another_text() {
        let genuine: Vec<_> = (0..8).map(|number| sealed(&keys(7), number)).collect();
        let mut forger = Forger::new(1, genuine.clone());
        for kind in Kind::ALL {
            let made: Vec<_> = (0..100).filter_map(|_| forger.forged(kind)).collect();
            assert!(made.len() > 40, "{kind:?}: {}", made.len());
            assert!(made.iter().all(|text| !genuine.contains(text)), "{kind:?}");
        }
    }

    #[test]
    fn a_lenient_reader_would_be_found_by_other_spellings() {
        let mut lenient = data_encoding::Specification::new();
        lenient.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
        lenient.check_trailing_bits = false;
        lenient.ignore.push('=');
        let lenient = lenient.encoding().expect("a specification");
        let genuine: Vec<_> = (0..8).map(|number| sealed(&keys(7), number)).collect();
        let mut forger = Forger::new(1, genuine.clone());
        let read = |text: &str| lenient.decode(&text.as_bytes()[PREFIX.len()..]).ok();
        for _ in 0..100 {
            let Some(text) = forger.forged(Kind::OtherSpelling) else { continue };
            let raw = read(&text).expect("the lenient one reads it");
            assert!(genuine.iter().any(|genuine| bytes_of(genuine) == raw), "{text} has the bytes of none");
        }
    }
}
