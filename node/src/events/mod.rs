//! Changes of the cluster's state as this node sees them. Whoever sees one says `events.tell(Event)`, and that
//! is all: it becomes one line of the log, a count in the metrics, and an event at `/v1/events`, here and,
//! where the other nodes can't see it themselves, there.

mod event;
mod log;

pub(crate) use event::{Event, How};

use crate::telemetry::{EventLabels, Metrics};
use proto::id::NodeName;
use proto::wire::{NEWS_LEN_MAX, News};
use serde_json::{Map, Value};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{broadcast, mpsc};

/// Of which a newcomer hears: the last minutes of a cluster in trouble. 256 x 300 bytes are 75 KiB.
const KEPT_MAX: usize = 256;
/// A listener that is further behind is told how many it has missed.
const BEHIND_MAX: usize = 256;
/// News that wait to be passed on; more are for this node's own listeners only.
const NEWS_MAX: usize = 256;

/// One event, as listeners get it.
#[derive(Debug)]
pub(crate) struct Told {
    /// Grows with each event, also over this process's end.
    pub(crate) id: u64,
    pub(crate) kind: String,
    /// A JSON object in one line.
    pub(crate) text: String,
}

/// What other nodes are to be told.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) at_ms: u64,
    pub(crate) kind: &'static str,
    pub(crate) facts: String,
}

#[derive(Debug)]
pub(crate) struct Events {
    name: NodeName,
    metrics: Arc<Metrics>,
    kept: Mutex<Kept>,
    live: broadcast::Sender<Arc<Told>>,
    news: mpsc::Sender<Passed>,
}

#[derive(Debug)]
struct Kept {
    last: VecDeque<Arc<Told>>,
    next_id: u64,
}

impl Events {
    /// What comes out at the other end has to be passed on to the other nodes.
    pub(crate) fn new(name: NodeName, metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Passed>) {
        let (news, passed) = mpsc::channel(NEWS_MAX);
        // 1,000 events a millisecond are more than a process tells, so the next one begins above the last
        // id of this one; and the numbers stay below 2^53, which is all that JavaScript counts to.
        let kept = Kept { last: VecDeque::new(), next_id: now_ms() * 1_000 };
        let live = broadcast::Sender::new(BEHIND_MAX);
        (Self { name, metrics, kept: Mutex::new(kept), live, news }, passed)
    }

    /// A change that this node has seen.
    pub(crate) fn tell(&self, event: Event) {
        log::line(&event);
        let (kind, facts, at_ms) = (event.kind(), event.facts(), now_ms());
        self.metrics.events.get_or_create(&EventLabels { kind }).inc();
        if !event.is_seen_everywhere() {
            let facts = Value::Object(facts.clone()).to_string();
            // Where more is said than can be passed on, the other nodes miss some.
            let _ = self.news.try_send(Passed { at_ms, kind, facts });
        }
        self.add(&self.name, at_ms, kind, facts);
    }

    /// Another node tells of a change that only it could see.
    pub(crate) fn hear(&self, news: &News<'_>) {
        let is_word = news.kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let is_short = news.facts.len() <= NEWS_LEN_MAX && news.kind.len() <= 64;
        match serde_json::from_str(news.facts) {
            Ok(facts) if is_word && is_short => self.add(&news.by, news.at_ms, news.kind, facts),
            Ok(_) | Err(_) => tracing::debug!(by = %news.by, "news that can't be read"),
        }
    }

    fn add(&self, by: &NodeName, at_ms: u64, kind: &str, facts: Map<String, Value>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let id = kept.next_id;
        kept.next_id += 1;
        let mut object = Map::new();
        object.insert("id".to_owned(), id.into());
        object.insert("at".to_owned(), at_ms.into());
        object.insert("node".to_owned(), by.as_str().into());
        object.insert("kind".to_owned(), kind.into());
        for (key, value) in facts {
            object.entry(key).or_insert(value);
        }
        let told = Arc::new(Told { id, kind: kind.to_owned(), text: Value::Object(object).to_string() });
        if kept.last.len() == KEPT_MAX {
            kept.last.pop_front();
        }
        kept.last.push_back(told.clone());
        // Under the lock, so that whoever begins to listen gets each event once.
        let _ = self.live.send(told);
    }

    /// The kept events after that one, or all, and those to come.
    pub(crate) fn listen(&self, after: Option<u64>) -> (Vec<Arc<Told>>, broadcast::Receiver<Arc<Told>>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // An id that has not been given yet is another node's, or of a clock that was set back.
        let after = after.filter(|after| *after < kept.next_id).unwrap_or(0);
        let last = kept.last.iter().filter(|told| told.id > after).cloned().collect();
        (last, self.live.subscribe())
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> (Events, mpsc::Receiver<Passed>) {
        Events::new("a".parse().expect("a plain name"), Arc::new(Metrics::new()))
    }

    fn active(name: &str) -> Event {
        Event::Active { name: name.parse().expect("a plain name") }
    }

    #[test]
    fn whoever_comes_hears_the_last_ones_and_then_each_once() {
        let (events, _passed) = events();
        for at in 0..KEPT_MAX + 10 {
            events.tell(active(&format!("n{at}")));
        }
        let (last, mut live) = events.listen(None);
        assert_eq!(last.len(), KEPT_MAX);
        assert!(last[0].text.contains("\"n10\"") && last.is_sorted_by(|a, b| a.id < b.id));
        events.tell(active("late"));
        assert!(live.try_recv().expect("it goes on").text.contains("late"));
        assert!(live.try_recv().is_err());
        let (rest, _) = events.listen(Some(last[last.len() - 2].id));
        assert_eq!(rest.len(), 2, "what it had is not said again");
        assert_eq!(events.listen(Some(u64::MAX)).0.len(), KEPT_MAX, "an id of another time says nothing");
    }

    #[test]
    fn only_what_others_can_t_see_is_passed_on_and_it_reads_the_same_there() {
        let (here, mut passed) = events();
        here.tell(active("b"));
        assert!(passed.try_recv().is_err());
        here.tell(Event::Takeover { from: "b".to_owned(), sessions: 7 });
        let news = passed.try_recv().expect("passed on");
        let (there, _passed) = events();
        let by = "c".parse().expect("a plain name");
        there.hear(&News { by, at_ms: news.at_ms, kind: news.kind, facts: &news.facts });
        let (heard, _) = there.listen(None);
        let heard: Value = serde_json::from_str(&heard[0].text).expect("JSON");
        assert_eq!((&heard["node"], &heard["kind"]), (&"c".into(), &"takeover".into()));
        assert_eq!((&heard["from"], &heard["sessions"]), (&"b".into(), &7.into()));
    }

    #[test]
    fn news_can_t_say_who_they_are_of_nor_break_a_stream() {
        let (events, _passed) = events();
        let by: NodeName = "c".parse().expect("a plain name");
        let hear = |kind, facts| events.hear(&News { by: by.clone(), at_ms: 1, kind, facts });
        hear("parked", "{\"node\":\"z\",\"id\":0}");
        hear("two\nlines", "{}");
        hear("parked", "no object");
        let (heard, _) = events.listen(None);
        assert_eq!(heard.len(), 1);
        assert!(heard[0].text.contains("\"node\":\"c\"") && heard[0].id > 0);
    }
}
