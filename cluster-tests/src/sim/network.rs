//! What lies between the hosts: loss, delay, reordering, repetition, and links that are cut in one
//! direction or both.

use super::rng::Rng;
use proto::core::tenure::Ms;

pub(super) const HOSTS_MAX: usize = 9;

/// One trouble; several may hold at once, also of the same link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// These directed links carry nothing.
    Cut(Vec<(usize, usize)>),
    /// These carry nothing every other `half` milliseconds.
    Flip {
        links: Vec<(usize, usize)>,
        half: Ms,
    },
    Loss {
        percent: u64,
    },
    /// Everything from and to this host takes 20 times as long.
    Slow(usize),
}

#[derive(Clone, Debug)]
pub(super) struct Network {
    troubles: Vec<Trouble>,
    /// Of 1,000 datagrams so many are late by up to `tail`.
    pub(super) late_permille: u64,
    pub(super) tail: Ms,
    pub(super) twice_permille: u64,
    pub(super) spread: Ms,
}

impl Network {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            troubles: Vec::new(),
            late_permille: [0, 5, 50][rng.index(3)],
            tail: rng.between(50, 3_000),
            twice_permille: [0, 10, 100][rng.index(3)],
            spread: rng.between(0, 12),
        }
    }

    pub(super) fn trouble(&mut self, trouble: Trouble) {
        self.troubles.push(trouble);
    }

    pub(super) fn calm(&mut self, trouble: &Trouble) {
        if let Some(at) = self.troubles.iter().position(|it| it == trouble) {
            self.troubles.remove(at);
        }
    }

    pub(super) fn heal(&mut self) {
        self.troubles.clear();
        (self.late_permille, self.twice_permille) = (0, 0);
    }

    pub(super) fn is_up(&self, from: usize, to: usize, now: Ms) -> bool {
        self.troubles.iter().all(|trouble| match trouble {
            Trouble::Cut(links) => !links.contains(&(from, to)),
            Trouble::Flip { links, half } => (now / half).is_multiple_of(2) || !links.contains(&(from, to)),
            Trouble::Loss { .. } | Trouble::Slow(_) => true,
        })
    }

    pub(super) fn is_up_both_ways(&self, one: usize, other: usize, now: Ms) -> bool {
        self.is_up(one, other, now) && self.is_up(other, one, now)
    }

    /// Whether nothing at all is wrong with what this host says and hears.
    pub(super) fn is_troubled(&self, host: usize) -> bool {
        self.troubles.iter().any(|trouble| match trouble {
            Trouble::Cut(links) | Trouble::Flip { links, .. } => {
                links.iter().any(|(from, to)| *from == host || *to == host)
            }
            Trouble::Loss { .. } => true,
            Trouble::Slow(slow) => *slow == host,
        })
    }

    fn loss(&self) -> u64 {
        let percent = |trouble: &Trouble| match trouble {
            Trouble::Loss { percent } => *percent,
            Trouble::Cut(_) | Trouble::Flip { .. } | Trouble::Slow(_) => 0,
        };
        self.troubles.iter().map(percent).max().unwrap_or(0)
    }

    fn delay(&self, from: usize, to: usize, rng: &mut Rng) -> Ms {
        let slow =
            self.troubles.iter().any(|it| matches!(it, Trouble::Slow(host) if *host == from || *host == to));
        rng.between(1, 1 + self.spread) * if slow { 20 } else { 1 }
    }

    /// When the copies of a datagram arrive; often one, sometimes none or two.
    pub(super) fn datagram(&self, from: usize, to: usize, now: Ms, rng: &mut Rng) -> [Option<Ms>; 2] {
        if !self.is_up(from, to, now) || rng.percent(self.loss()) {
            return [None, None];
        }
        let mut one = |late: u64| {
            let late = if rng.permille(late) { rng.between(0, self.tail) } else { 0 };
            now + self.delay(from, to, rng) + late
        };
        let first = one(self.late_permille);
        let second = one(500);
        [Some(first), rng.permille(self.twice_permille).then_some(second)]
    }

    /// How long a message on a stream takes while the link is up: what is lost is sent again.
    pub(super) fn stream(&self, from: usize, to: usize, rng: &mut Rng) -> Ms {
        let mut delay = self.delay(from, to, rng);
        while rng.percent(self.loss()) && delay < 3_000 {
            delay += rng.between(30, 250);
        }
        if rng.permille(self.late_permille) { delay + rng.between(0, self.tail) } else { delay }
    }
}
