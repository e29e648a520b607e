//! Clients that call sessions, and go on when the node that owns them is killed. Called by `takeover`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::load::{self, Client, Expect};

/// Enough for the nodes never to wait for a client.
const CLIENTS: usize = 64;

/// All clients' calls together, before the kill.
const RATE: u32 = 2_000;

/// Before a session is called again that was not served.
const PAUSE: Duration = Duration::from_millis(20);

/// Far beyond every goal: whoever has not been served by then never is.
const DEADLINE: Duration = Duration::from_secs(60);

/// What all clients share.
pub(super) struct Course {
    sessions: Vec<String>,
    /// Where clients go; behind one that is gone, to the next.
    entries: Vec<SocketAddr>,
    victim: SocketAddr,
    killed: OnceLock<Instant>,
    /// Which session is called next: before the kill round and round, afterwards each once.
    next_before: AtomicUsize,
    next: AtomicUsize,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// From the kill to each session's first answer, sorted at the end.
    times: Vec<Duration>,
    /// Calls in progress at the kill that failed.
    pub(super) lost: u64,
    /// Everything else that was not an answer.
    pub(super) errors: u64,
    pub(super) example: Option<String>,
}

/// Clients at work.
pub(super) struct Clients(JoinSet<anyhow::Result<Served>>);

impl Course {
    pub(super) fn new(sessions: Vec<String>, entries: Vec<SocketAddr>, victim: SocketAddr) -> Course {
        let (next_before, next) = Default::default();
        Course { sessions, entries, victim, killed: OnceLock::new(), next_before, next }
    }

    /// Has clients call, at a bounded rate, until somebody says that the node is killed.
    pub(super) async fn start(self: Arc<Course>) -> anyhow::Result<Clients> {
        let (mut clients, begin) = (JoinSet::new(), Instant::now());
        for number in 0..CLIENTS {
            let mut one =
                Caller { course: self.clone(), entry: number, client: None, served: Served::default() };
            one.connect().await?;
            let every = Duration::from_secs(1) * CLIENTS as u32 / RATE;
            let first = begin + every * number as u32 / CLIENTS as u32;
            clients.spawn(async move {
                one.call_before(first, every).await?;
                one.call_all().await?;
                Ok(one.served)
            });
        }
        Ok(Clients(clients))
    }

    /// From now on every session is to be served once, and only calls that were begun before may fail.
    pub(super) fn kill_now(&self) {
        self.killed.get_or_init(Instant::now);
    }
}

impl Clients {
    /// When all sessions have been served.
    pub(super) async fn finish(mut self) -> anyhow::Result<Served> {
        let mut all = Served::default();
        while let Some(one) = self.0.join_next().await {
            let one = one??;
            all.times.extend(one.times);
            all.lost += one.lost;
            all.errors += one.errors;
            all.example = all.example.or(one.example);
        }
        all.times.sort_unstable();
        Ok(all)
    }
}

impl Served {
    /// In seconds.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.times.len() * percent / 100).min(self.times.len().saturating_sub(1));
        self.times.get(at).copied().unwrap_or_default().as_secs_f64()
    }

    pub(super) fn last(&self) -> Duration {
        self.times.last().copied().unwrap_or_default()
    }
}

/// One client, with one connection at a time.
struct Caller {
    course: Arc<Course>,
    entry: usize,
    client: Option<Client>,
    served: Served,
}

impl Caller {
    fn at(&self) -> SocketAddr {
        self.course.entries[self.entry % self.course.entries.len()]
    }

    /// Calls sessions, one each `every`, until the kill.
    async fn call_before(&mut self, first: Instant, every: Duration) -> anyhow::Result<()> {
        let mut due = first;
        while self.course.killed.get().is_none() {
            tokio::time::sleep_until(due).await;
            due += every;
            let at = self.course.next_before.fetch_add(1, Ordering::Relaxed) % self.course.sessions.len();
            if let Err(error) = self.call(at).await {
                if self.course.killed.get().is_none() {
                    return Err(error.context("with everybody alive"));
                }
                self.served.lost += 1;
            }
        }
        Ok(())
    }

    /// Takes one session after the other and calls it until it is served.
    async fn call_all(&mut self) -> anyhow::Result<()> {
        let killed = *self.course.killed.get().context("nobody has been killed")?;
        loop {
            let at = self.course.next.fetch_add(1, Ordering::Relaxed);
            if at >= self.course.sessions.len() {
                return Ok(());
            }
            while let Err(error) = self.call(at).await {
                if self.client.is_none() && self.at() == self.course.victim {
                    // Nobody is there any more; what was on its way when that began has been counted.
                    self.entry += 1;
                    continue;
                }
                self.served.errors += 1;
                if killed.elapsed() > DEADLINE {
                    bail!("not served {DEADLINE:?} after the kill: {error:#}");
                }
                self.served.example.get_or_insert_with(|| format!("{error:#}"));
                tokio::time::sleep(PAUSE).await;
            }
            self.served.times.push(killed.elapsed());
        }
    }

    /// One call. Without a whole answer its connection is given up; a refusal is an error that keeps it.
    async fn call(&mut self, session: usize) -> anyhow::Result<()> {
        let at = self.at();
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(at).await?,
        };
        let request = load::call(at, &self.course.sessions[session]);
        let checked = Expect::CalledAnywhere.check(&client.exchange(&request).await?);
        self.client = Some(client);
        checked
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        self.client = Some(Client::connect(self.at()).await?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_sorted_times() {
        let served = Served { times: (1..=100).map(Duration::from_secs).collect(), ..Served::default() };
        assert_eq!([0, 50, 99, 100].map(|percent| served.percentile(percent)), [1.0, 51.0, 100.0, 100.0]);
        assert_eq!(served.last(), Duration::from_secs(100));
        assert_eq!(Served::default().percentile(99), 0.0);
    }
}
