//! The clients: MCP sessions, each called through any node, one call that matters at a time. Called by `mod`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::answers;
use super::ledger::{Asked, At, Call, Next, Outcome, Ownership, SessionNo, Wait};
use super::scene::Scene;
use crate::dice::Dice;
use crate::real::http::{self, Answer};
use crate::real::mcp::{self, Session};

/// Sessions opened, and asked at the end, at the same time.
const SIDE_BY_SIDE: usize = 32;

/// Sessions asked at the same time after a fault: all of a small run, and no flood in a large one.
const CHASED: usize = 512;

/// Between two questions to a session that is not served: soon at first, and then like clients that have patience.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// Of so many calls one is followed by the question who owns the session.
const CALLS_PER_LOOK_UP: usize = 50;

/// A session is set aside after so many answers in a row that say that it is gone, over so long a time.
const GONE_ANSWERS: u32 = 5;
const GONE_AFTER: Duration = Duration::from_secs(5);

/// For how long a session is asked at the end, when all is well again.
const LAST_CHANCE: Duration = Duration::from_secs(20);

/// An event takes milliseconds from its server to its client.
const SILENCE: Duration = Duration::from_secs(3);

/// Load is sent in small portions: the timer can't tell shorter times apart.
const TICK: Duration = Duration::from_millis(2);

/// A client with its session.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) no: SessionNo,
    pub(super) session: Session,
    /// Held during each call whose order counts.
    turn: Arc<tokio::sync::Mutex<()>>,
    next_id: AtomicU64,
    is_set_aside: AtomicBool,
    /// Since when, and how often, it has been said to be gone.
    gone: Mutex<Option<(At, u32)>>,
    /// What its stream has brought, where it has one.
    pub(super) events: AtomicU64,
}

impl Client {
    pub(super) fn is_set_aside(&self) -> bool {
        self.is_set_aside.load(Ordering::Relaxed)
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// All clients.
#[derive(Debug)]
pub(super) struct Load {
    scene: Arc<Scene>,
    /// All that were ever opened.
    clients: Mutex<BTreeMap<SessionNo, Arc<Client>>>,
    /// Those that are called, without an order.
    in_use: Mutex<Vec<Arc<Client>>>,
    chased: Semaphore,
}

impl Load {
    pub(super) fn new(scene: Arc<Scene>) -> Load {
        let (clients, in_use) = (Mutex::default(), Mutex::default());
        Load { scene, clients, in_use, chased: Semaphore::new(CHASED) }
    }

    /// Opens so many sessions.
    pub(super) async fn open_all(self: &Arc<Self>, count: u32) -> anyhow::Result<Vec<Arc<Client>>> {
        let mut opening = JoinSet::new();
        let mut opened = Vec::new();
        for _ in 0..count {
            if opening.len() >= SIDE_BY_SIDE {
                opened.extend(opening.join_next().await.transpose()?.transpose()?);
            }
            let load = self.clone();
            opening.spawn(async move { load.open().await });
        }
        while let Some(client) = opening.join_next().await {
            opened.push(client??);
        }
        Ok(opened)
    }

    /// Calls random sessions at a rate until it is dropped.
    pub(super) async fn keep_calling(self: Arc<Self>, rate: u32, mut dice: Dice) {
        let mut ticks = tokio::time::interval(TICK);
        let (mut due, mut before) = (0.0, Instant::now());
        loop {
            ticks.tick().await;
            due += before.elapsed().as_secs_f64() * f64::from(rate);
            before = Instant::now();
            while due >= 1.0 {
                due -= 1.0;
                let Some(client) = self.any(&mut dice) else { continue };
                let asked = match dice.below(10) {
                    0 => Asked::WhoAmI,
                    1 | 2 => Asked::Read,
                    _ => Asked::Count,
                };
                // A client that still waits for an answer asks nothing else.
                if let Ok(turn) = client.turn.clone().try_lock_owned() {
                    let (load, looks_up) = (self.clone(), dice.below(CALLS_PER_LOOK_UP) == 0);
                    tokio::spawn(async move {
                        load.ask(&client, asked, &[]).await;
                        drop(turn);
                        if looks_up {
                            load.look_up(&client).await;
                        }
                    });
                }
            }
        }
    }

    /// Asks the sessions that wait for somebody until they are served, through nodes that no fault has taken.
    /// Questions that may be sent again: the calls that count keep their order.
    pub(super) fn chase(self: &Arc<Self>, wait: Wait, without: &[String]) {
        for no in self.scene.ledger().waiting(wait) {
            let Some(client) = self.clients().get(&no).cloned() else { continue };
            let (load, without) = (self.clone(), without.to_vec());
            tokio::spawn(async move {
                let mut pause = AGAIN;
                loop {
                    let Ok(permit) = load.chased.acquire().await else { return };
                    // Somebody else may have served it in the meantime, or the fault may be over.
                    if !load.scene.ledger().is_waiting(wait, no) {
                        return;
                    }
                    load.ask(&client, Asked::Read, &without).await;
                    drop(permit);
                    sleep(pause).await;
                    pause = (pause * 3 / 2).min(AGAIN_MAX);
                }
            });
        }
    }

    /// Asks every session that was ever opened once more, now that all is well. Gives the number of streams that
    /// stay silent although something is to be said on them.
    pub(super) async fn ask_all(self: &Arc<Self>) -> anyhow::Result<u32> {
        let clients: Vec<Arc<Client>> = self.clients().values().cloned().collect();
        let mut asking = JoinSet::new();
        let mut silent = 0;
        for client in clients {
            if asking.len() >= SIDE_BY_SIDE {
                silent += asking.join_next().await.transpose()?.map_or(0, u32::from);
            }
            let load = self.clone();
            asking.spawn(async move { load.ask_a_last_time(&client).await });
        }
        while let Some(is_silent) = asking.join_next().await {
            silent += u32::from(is_silent?);
        }
        Ok(silent)
    }

    /// How many sessions are called at the moment.
    pub(super) fn in_use(&self) -> usize {
        self.called().len()
    }

    fn any(&self, dice: &mut Dice) -> Option<Arc<Client>> {
        let clients = self.called();
        clients.get(dice.below(clients.len())).cloned()
    }

    async fn open(self: &Arc<Self>) -> anyhow::Result<Arc<Client>> {
        let target = self.scene.targets.pick(&[]).context("no node to open a session at")?;
        let session = timeout(self.scene.deadline, Session::open(&target.url()))
            .await
            .with_context(|| format!("no session from {} in time", target.name))??;
        let no = self.scene.ledger().opened();
        let client = Arc::new(Client {
            no,
            session,
            turn: Arc::default(),
            next_id: AtomicU64::new(2),
            is_set_aside: AtomicBool::new(false),
            gone: Mutex::new(None),
            events: AtomicU64::new(0),
        });
        self.clients().insert(no, client.clone());
        self.called().push(client.clone());
        self.look_up(&client).await;
        self.ask(&client, Asked::WhoAmI, &[]).await;
        Ok(client)
    }

    /// One call through any node but these, and what came of it.
    async fn ask(self: &Arc<Self>, client: &Arc<Client>, asked: Asked, without: &[String]) -> Outcome {
        let id = client.next_id();
        let message = message(asked, id);
        let begun = Instant::now();
        loop {
            let left = self.scene.deadline.saturating_sub(begun.elapsed());
            let Some(target) = self.scene.targets.pick(without) else { return Outcome::TimedOut };
            let (url, sent) = (target.url(), self.scene.now());
            let answer = timeout(left, client.session.post(&url, &message)).await;
            let (outcome, answer) = match answer {
                Ok(Ok(answer)) => (answers::outcome(asked, id, &answer), Some(answer)),
                // Nothing was sent: a balancer tries the next node.
                Ok(Err(error)) if answers::is_refused(&error) && !left.is_zero() => {
                    self.scene.targets.refused(&target.name);
                    sleep(TICK).await;
                    continue;
                }
                Ok(Err(_)) => (Outcome::Broken, None),
                Err(_) => (Outcome::TimedOut, None),
            };
            let header = |name| answer.as_ref().and_then(|answer: &Answer| answer.header(name));
            let call = Call {
                session: client.no,
                asked,
                entry: target.name,
                sent,
                done: self.scene.now(),
                owner: header("ringway-node").map(str::to_owned),
                epoch: header("ringway-epoch").and_then(|epoch| epoch.parse().ok()),
                outcome,
            };
            self.scene.timeline().answered(call.sent, call.done, call.outcome.is_good());
            let next = self.scene.ledger().called(&call);
            if next == Next::LookUp {
                self.look_up(client).await;
            }
            self.note_gone(client, &call);
            return call.outcome;
        }
    }

    async fn look_up(&self, client: &Client) {
        let Some(target) = self.scene.targets.pick(&[]) else { return };
        let url = format!("http://{}/v1/ring/lookup?session={}", target.admin, client.session.id);
        let sent = self.scene.now();
        let Ok(Ok(answer)) = timeout(self.scene.deadline, http::get(&url)).await else { return };
        let Ok(found) = answer.json() else { return };
        if let Some(owner) = found["owner"].as_str() {
            let (session, done) = (client.no, self.scene.now());
            let (owner, epoch) = (owner.to_owned(), found["epoch"].as_u64());
            let said = Ownership { session, owner, epoch, sent, done, has_served: false };
            self.scene.ledger().owned(&said);
        }
    }

    /// Sets a session aside that is said to be gone again and again, and opens another one as its client would.
    fn note_gone(self: &Arc<Self>, client: &Arc<Client>, call: &Call) {
        let is_set_aside = {
            let mut gone = client.gone.lock().unwrap_or_else(PoisonError::into_inner);
            if !says_gone(&call.outcome) {
                *gone = None;
                return;
            }
            let (since, answers) = gone.get_or_insert((call.done, 0));
            *answers += 1;
            *answers >= GONE_ANSWERS && call.done.saturating_sub(*since) >= GONE_AFTER
        };
        if is_set_aside && !client.is_set_aside.swap(true, Ordering::Relaxed) {
            self.scene.ledger().lost(client.no, call.outcome.kind());
            self.called().retain(|other| other.no != client.no);
            let load = self.clone();
            tokio::spawn(async move { load.open_another().await });
        }
    }

    /// Boxed, since opening a session calls it, and a call may find it gone.
    fn open_another(self: Arc<Self>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            for _ in 0..GONE_ANSWERS {
                if self.open().await.is_ok() {
                    return;
                }
                sleep(AGAIN).await;
            }
        })
    }

    async fn ask_a_last_time(self: &Arc<Self>, client: &Arc<Client>) -> bool {
        let _turn = client.turn.clone().lock_owned().await;
        let (end, before) = (Instant::now() + LAST_CHANCE, client.events.load(Ordering::Relaxed));
        let mut gone = 0;
        loop {
            let outcome = self.ask(client, Asked::Count, &[]).await;
            if outcome.is_good() {
                self.scene.ledger().regained(client.no);
                break;
            }
            gone = if says_gone(&outcome) { gone + 1 } else { 0 };
            if gone >= GONE_ANSWERS || Instant::now() >= end {
                self.scene.ledger().lost(client.no, outcome.kind());
                return false;
            }
            sleep(AGAIN).await;
        }
        self.look_up(client).await;
        // The number above has been announced on its stream.
        let has_stream = before > 0 && !client.is_set_aside();
        let silent_until = Instant::now() + SILENCE;
        while has_stream && client.events.load(Ordering::Relaxed) == before {
            if Instant::now() >= silent_until {
                return true;
            }
            sleep(AGAIN).await;
        }
        false
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<SessionNo, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn says_gone(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::NotFound => true,
        Outcome::Honest { reason, .. } => reason == "owner_lost",
        Outcome::Counted(_)
        | Outcome::Named(_)
        | Outcome::Read
        | Outcome::Broken
        | Outcome::TimedOut
        | Outcome::Strange(_) => false,
    }
}

fn message(asked: Asked, id: u64) -> Value {
    match asked {
        Asked::Count => mcp::call(id, "count", json!({})),
        Asked::WhoAmI => mcp::call(id, "whoami", json!({})),
        Asked::Read => {
            let method = if id.is_multiple_of(2) { "tools/list" } else { "ping" };
            json!({"jsonrpc": "2.0", "id": id, "method": method})
        }
    }
}
