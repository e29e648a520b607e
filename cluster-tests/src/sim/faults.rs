//! What goes wrong, and when: drawn from the seed.

use super::event::Event;
use super::network::Trouble;
use super::rng::Rng;
use super::world::World;
use proto::core::tenure::Ms;

/// What kind of a world it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// Nodes come and leave in an orderly way, nothing else: no request may fail.
    Calm,
    /// One crash, nothing else.
    OneCrash,
    /// Links that come and go, so that nodes are silent for about as long as makes them suspect.
    Flicker,
    /// Half of what is said about one node after the other is lost, while its witnesses change.
    Duel,
    /// Nodes come, go and are taken for dead while others crash.
    Churn,
    /// Everything.
    Storm,
}

#[derive(Clone, Debug)]
pub(super) enum Fault {
    Crash {
        host: usize,
        back_after: Option<Ms>,
        clock_back: bool,
    },
    CrashTwo {
        hosts: [usize; 2],
        back_after: Ms,
    },
    /// Crashes whoever holds most sessions, right after it has opened one.
    CrashOpening,
    Freeze {
        host: usize,
        time: Ms,
    },
    FreezeOthers {
        host: usize,
        time: Ms,
    },
    Network {
        trouble: Trouble,
        time: Ms,
    },
    Drain {
        host: usize,
    },
    /// Drains one and crashes who is given its sessions.
    DrainAndCrash {
        host: usize,
        other: usize,
        after: Ms,
    },
    Join {
        host: usize,
    },
    FalseDeath {
        host: usize,
        of: usize,
        time: Ms,
    },
    Deaf {
        host: usize,
        time: Ms,
    },
    WallClock {
        host: usize,
        by: i64,
    },
}

impl Fault {
    pub(super) const KINDS: [&str; 12] = [
        "crash",
        "two crashes",
        "crash while opening",
        "freeze",
        "freeze of all others",
        "network",
        "drain",
        "drain and crash",
        "join",
        "false death",
        "deafness",
        "wall clock",
    ];

    pub(super) fn kind(&self) -> usize {
        match self {
            Self::Crash { .. } => 0,
            Self::CrashTwo { .. } => 1,
            Self::CrashOpening => 2,
            Self::Freeze { .. } => 3,
            Self::FreezeOthers { .. } => 4,
            Self::Network { .. } => 5,
            Self::Drain { .. } => 6,
            Self::DrainAndCrash { .. } => 7,
            Self::Join { .. } => 8,
            Self::FalseDeath { .. } => 9,
            Self::Deaf { .. } => 10,
            Self::WallClock { .. } => 11,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) weather: Weather,
    pub(super) nodes: usize,
    /// Hosts without a node at the beginning.
    pub(super) spares: usize,
    pub(super) clients: usize,
    /// All know each other from the start.
    pub(super) at_once: bool,
    /// For how long anything may fail.
    pub(super) safety: Ms,
    pub(super) faults: Vec<(Ms, Fault)>,
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng, seed: u64) -> Self {
        let weather = match seed % 10 {
            0 => Weather::Calm,
            1 => Weather::OneCrash,
            2 => Weather::Flicker,
            3 => Weather::Duel,
            4 | 5 => Weather::Churn,
            _ => Weather::Storm,
        };
        let nodes = [2, 3, 3, 3, 4, 4, 5, 5, 6, 7][rng.index(10)];
        let nodes = if matches!(weather, Weather::Calm | Weather::OneCrash) { nodes.max(3) } else { nodes };
        let spares = rng.index(3).min(super::network::HOSTS_MAX - nodes);
        let mut plan = Self {
            weather,
            nodes,
            spares,
            clients: rng.between(4, 12) as usize,
            at_once: rng.percent(60),
            safety: rng.between(18_000, 34_000),
            faults: Vec::new(),
        };
        plan.schedule(rng);
        plan
    }

    fn schedule(&mut self, rng: &mut Rng) {
        let mut drained = 0;
        let mut spare = self.nodes;
        let last_drain = self.safety.saturating_sub(13_000);
        let mut at = rng.between(2_500, 4_500);
        while at + 500 < self.safety {
            let fault = match self.weather {
                Weather::Calm if at > last_drain => break,
                Weather::Calm => match rng.below(3) {
                    0 if spare < self.nodes + self.spares => Some(Fault::Join { host: spare }),
                    _ if drained + 2 < self.nodes => Some(Fault::Drain { host: drained }),
                    _ => None,
                },
                Weather::OneCrash => {
                    let host = rng.index(self.nodes);
                    let back_after = rng.percent(50).then(|| rng.between(50, 4_000));
                    let opening = rng.percent(50);
                    let crash = Fault::Crash { host, back_after, clock_back: rng.percent(20) };
                    let at = at + rng.below(3_000);
                    self.faults.push((at, if opening { Fault::CrashOpening } else { crash }));
                    break;
                }
                Weather::Flicker => Some(self.flicker(rng)),
                Weather::Duel if rng.percent(12) && spare < self.nodes + self.spares => {
                    Some(Fault::Join { host: spare })
                }
                Weather::Duel => {
                    self.duel(rng, at);
                    None
                }
                Weather::Churn if at < last_drain && rng.percent(35) && drained + 2 < self.nodes => {
                    let other = rng.index(self.nodes);
                    let after = rng.between(10, 1_500);
                    Some(match rng.percent(50) && other != drained {
                        true => Fault::DrainAndCrash { host: drained, other, after },
                        false => Fault::Drain { host: drained },
                    })
                }
                Weather::Churn if rng.percent(30) && spare < self.nodes + self.spares => {
                    Some(Fault::Join { host: spare })
                }
                Weather::Churn => Some(self.churn(rng)),
                Weather::Storm if at < last_drain && rng.percent(8) && drained + 2 < self.nodes => {
                    Some(Fault::Drain { host: drained })
                }
                Weather::Storm if rng.percent(6) && spare < self.nodes + self.spares => {
                    Some(Fault::Join { host: spare })
                }
                Weather::Storm => Some(match rng.below(3) {
                    0 => self.flicker(rng),
                    1 => self.churn(rng),
                    _ => self.storm(rng),
                }),
            };
            match &fault {
                Some(Fault::Drain { .. } | Fault::DrainAndCrash { .. }) => drained += 1,
                Some(Fault::Join { .. }) => spare += 1,
                Some(_) | None => {}
            }
            self.faults.extend(fault.map(|fault| (at, fault)));
            at += match self.weather {
                Weather::Calm => rng.between(1_500, 6_000),
                Weather::OneCrash => self.safety,
                Weather::Duel => rng.between(1_500, 5_000),
                Weather::Flicker | Weather::Churn | Weather::Storm => rng.between(200, 4_500),
            };
        }
    }

    /// One or both directions, between one and some, or two parts of the cluster.
    fn links(&self, rng: &mut Rng) -> Vec<(usize, usize)> {
        let hosts = self.nodes + self.spares;
        let one = rng.index(self.nodes);
        let mut links = Vec::new();
        let side: Vec<bool> = match rng.below(3) {
            0 => (0..hosts).map(|host| host == one).collect(),
            1 => (0..hosts).map(|_| rng.percent(50)).collect(),
            _ => {
                let other = (one + 1 + rng.index(self.nodes - 1)) % self.nodes;
                links.push((one, other));
                if rng.percent(50) {
                    links.push((other, one));
                }
                return links;
            }
        };
        let direction = rng.below(4);
        for from in 0..hosts {
            for to in 0..hosts {
                let crosses = side[from] != side[to];
                if crosses && (direction < 2 || (direction == 2) == side[from]) {
                    links.push((from, to));
                }
            }
        }
        links
    }

    /// One node is silent to the others for about as long as makes them agree on its end, and comes
    /// back among messages that are lost, while some of them crash or are mistaken about others.
    fn duel(&mut self, rng: &mut Rng, at: Ms) {
        let host = rng.index(self.nodes);
        let hosts = 0..self.nodes + self.spares;
        let mut links: Vec<_> = hosts.clone().map(|other| (host, other)).collect();
        if rng.percent(50) {
            links.extend(hosts.map(|other| (other, host)));
        }
        let silent = rng.between(1_300, 2_400);
        let cut = Fault::Network { trouble: Trouble::Cut(links), time: silent };
        let percent = [0, 20, 40, 60][rng.index(4)];
        let loss =
            Fault::Network { trouble: Trouble::Loss { percent }, time: silent + rng.between(200, 1_500) };
        self.faults.extend([(at, cut), (at, loss)]);
        for _ in 0..rng.below(3) {
            let other = (host + 1 + rng.index(self.nodes - 1)) % self.nodes;
            let then = at + rng.below(silent + 500);
            let fault = match rng.below(3) {
                0 => {
                    Fault::Crash { host: other, back_after: Some(rng.between(50, 2_000)), clock_back: false }
                }
                1 => Fault::FalseDeath { host, of: other, time: rng.between(300, 3_000) },
                _ => Fault::FalseDeath { host: other, of: host, time: rng.between(300, 3_000) },
            };
            self.faults.push((then, fault));
        }
    }

    fn flicker(&self, rng: &mut Rng) -> Fault {
        let links = self.links(rng);
        let trouble = match rng.percent(40) {
            true => Trouble::Flip { links, half: rng.between(150, 2_200) },
            false => Trouble::Cut(links),
        };
        Fault::Network { trouble, time: rng.between(800, 6_000) }
    }

    fn churn(&self, rng: &mut Rng) -> Fault {
        let host = rng.index(self.nodes);
        let other = (host + 1 + rng.index(self.nodes - 1)) % self.nodes;
        match rng.below(7) {
            0 | 1 => Fault::Crash {
                host,
                back_after: Some([50, rng.between(50, 6_000)][rng.index(2)]),
                clock_back: rng.percent(30),
            },
            2 => Fault::FalseDeath { host, of: other, time: rng.between(300, 4_000) },
            3 => Fault::Deaf { host, time: rng.between(500, 7_000) },
            4 => Fault::CrashTwo { hosts: [host, other], back_after: rng.between(50, 6_000) },
            5 => Fault::WallClock { host, by: [-3_600_000, 3_600_000][rng.index(2)] },
            _ => self.flicker(rng),
        }
    }

    fn storm(&self, rng: &mut Rng) -> Fault {
        let host = rng.index(self.nodes);
        match rng.below(8) {
            0 | 1 => Fault::Freeze { host, time: rng.between(200, 4_000) },
            2 => Fault::Freeze { host, time: rng.between(1_000, 20_000) },
            3 => Fault::FreezeOthers { host, time: rng.between(300, 4_000) },
            4 => Fault::Network {
                trouble: Trouble::Loss { percent: [5, 20, 40][rng.index(3)] },
                time: rng.between(1_000, 8_000),
            },
            5 => Fault::Network { trouble: Trouble::Slow(host), time: rng.between(1_000, 6_000) },
            6 => Fault::CrashOpening,
            _ => Fault::Crash { host, back_after: None, clock_back: false },
        }
    }
}

impl World {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.counts.faults[fault.kind()] += 1;
        self.tell_all(format_args!("FAULT {fault:?}"));
        match fault {
            Fault::Crash { host, back_after, clock_back } => {
                self.crash(host);
                if let Some(after) = back_after {
                    self.agenda.plan(self.now + after, Event::Start { host, clock_back });
                }
            }
            Fault::CrashTwo { hosts, back_after } => {
                for host in hosts {
                    self.crash(host);
                    let after = self.now + back_after + self.rng.below(500);
                    self.agenda.plan(after, Event::Start { host, clock_back: false });
                }
            }
            Fault::CrashOpening => self.crash_at_next_opening = true,
            Fault::Freeze { host, time } => self.freeze(host, time),
            Fault::FreezeOthers { host, time } => {
                for other in (0..self.hosts.len()).filter(|other| *other != host) {
                    let time = time + self.rng.below(200);
                    self.freeze(other, time);
                }
            }
            Fault::Network { trouble, time } => {
                self.net.trouble(trouble.clone());
                self.agenda.plan(self.now + time, Event::Calm(trouble));
            }
            Fault::Drain { host } => self.start_draining(host),
            Fault::DrainAndCrash { host, other, after } => {
                self.start_draining(host);
                let fault = Fault::Crash { host: other, back_after: None, clock_back: false };
                self.plan.faults.push((self.now + after, fault));
                self.agenda.plan(self.now + after, Event::Fault(self.plan.faults.len() - 1));
            }
            Fault::Join { host } => self.start(host, false),
            Fault::FalseDeath { host, of, time } => {
                let (tag, until) = (self.tag(of), self.now + time);
                if let Some(process) = self.hosts[host].process.as_mut() {
                    process.flap = Some((tag, until));
                }
            }
            Fault::Deaf { host, time } => {
                let until = self.now + time;
                if let Some(process) = self.hosts[host].process.as_mut() {
                    process.deaf_until = until;
                }
            }
            Fault::WallClock { host, by } => self.hosts[host].wall = by,
        }
    }

    fn freeze(&mut self, host: usize, time: Ms) {
        let now = self.now;
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        if process.frozen_since.is_none() {
            process.frozen_since = Some(now);
            self.agenda.plan(now + time, Event::Thaw(host));
        }
    }

    /// What has arrived meanwhile is met with before or after the process looks at its clock.
    pub(super) fn thaw(&mut self, host: usize) {
        let now = self.now;
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        let Some(since) = process.frozen_since.take() else { return };
        process.frozen_total += now - since;
        process.thawed = now;
        let mut inbox = std::mem::take(&mut process.inbox);
        let is_timer = |event: &Event| matches!(event, Event::Tick(_));
        if self.rng.percent(50) {
            inbox.sort_by_key(|event| !is_timer(event));
        }
        if self.rng.percent(30) {
            // A socket's buffer holds only so much.
            let mut room = 40;
            inbox.retain(|event| {
                let note = matches!(event, Event::Note { .. });
                room -= i32::from(note);
                !note || room >= 0
            });
        }
        self.tell(host, format_args!("runs again after {} ms", now - since));
        for event in inbox {
            self.agenda.plan(now, event);
        }
    }

    pub(super) fn heal(&mut self) {
        self.tell_all(format_args!("everything heals"));
        for host in (0..self.hosts.len()).filter(|host| self.net.is_troubled(*host)) {
            self.trouble_ended[host] = self.now;
        }
        self.net.heal();
        self.crash_at_next_opening = false;
        self.clients_rest = true;
        for host in 0..self.hosts.len() {
            self.thaw(host);
            if let Some(process) = self.hosts[host].process.as_mut() {
                (process.flap, process.deaf_until) = (None, 0);
            }
            if host < self.plan.nodes || self.hosts[host].has_started() {
                self.start(host, false);
            }
        }
    }
}
