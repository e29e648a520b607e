use super::super::stream::Text;
use super::kept::{AWAITED_LEN_MAX, FORGOTTEN_MAX, KEPT_LEN_MAX, STALLED_TIME_MAX};
use super::*;
use crate::mcp;
use serde_json::json;

/// A session's streams, and what a client and a server would do with them.
struct World {
    streams: Streams,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut streams = Streams::new(0xab, now);
        streams.negotiated("2025-11-25");
        Self { streams, now }
    }

    /// A call on a stream of its own.
    fn call(&mut self, id: &str, token: Option<&str>, form: Form) -> (StreamNo, Reader) {
        let seat = self.streams.begin(form, self.now);
        self.streams.call(seat.0, raw(id), token.map(|token| Id::of(raw(token)))).expect("a new call");
        self.streams.begun(seat.0, self.now);
        seat
    }

    fn hear(&mut self, message: &str) {
        let message = Bytes::copy_from_slice(message.as_bytes());
        self.streams.hear(&Rpc::read(&message).expect("JSON-RPC"), message.clone(), self.now);
    }

    fn respond(&mut self, id: &str) {
        self.hear(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
    }

    fn listen(&mut self, last_event: Option<&str>) -> (StreamNo, Reader) {
        match self.streams.listen(last_event.map(str::as_bytes), self.now) {
            Listening::Stream(no, reader) => (no, reader),
            other @ (Listening::Over | Listening::Lost(_)) => panic!("{other:?}"),
        }
    }

    /// What a reader gets until there is nothing more; the last word says why not.
    fn read(&mut self, (no, reader): (StreamNo, Reader)) -> Vec<String> {
        let mut read = Vec::new();
        loop {
            match self.streams.take(no, reader, self.now) {
                Next::Event(Text::Whole(event)) => read.push(data(&event)),
                Next::Event(Text::Parts { message, .. }) => read.push(format!("{} bytes", message.len())),
                last @ (Next::Nothing | Next::End | Next::Broken) => {
                    read.push(format!("{last:?}"));
                    return read;
                }
            }
        }
    }

    /// The weights as they would be summed up anew.
    fn weighs_right(&self) -> bool {
        let weights = self.streams.streams.values().map(Stream::weight);
        let sum = weights.fold(Weight::default(), |sum, weight| Weight {
            awaited: sum.awaited + weight.awaited,
            kept: sum.kept + weight.kept,
        });
        sum == self.streams.weight
    }

    fn refused(&mut self) -> Vec<String> {
        self.streams.take_effects().refuse.iter().map(|id| id.get().to_owned()).collect()
    }
}

fn raw(json: &str) -> &RawValue {
    serde_json::from_str(json).expect("JSON")
}

fn data(event: &Bytes) -> String {
    let text = std::str::from_utf8(event).expect("text");
    text.split_once("data: ").map_or(text, |(_, data)| data).trim().to_owned()
}

const LOG: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"x"}}"#;
const TOOLS: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

fn asks(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#)
}

fn progress(token: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
    )
}

#[test]
fn one_message_goes_to_exactly_one_stream() {
    /// Which of these is there when the message comes.
    #[derive(Clone, Copy)]
    struct There {
        own_was_read: bool,
        /// Calls with ids 1, 2, ... and tokens "a", "b", ...
        calls: &'static [(&'static str, Form, bool)],
    }
    const E: Form = Form::Events;
    let nothing = There { own_was_read: false, calls: &[] };
    let listens = There { own_was_read: true, calls: &[] };
    let one = There { own_was_read: true, calls: &[("1", E, true)] };
    let one_as_json = There { own_was_read: true, calls: &[("1", Form::Json, true)] };
    let one_of_each = There { own_was_read: true, calls: &[("1", E, true), ("2", Form::Json, true)] };
    let two = There { own_was_read: true, calls: &[("1", E, true), ("2", E, true)] };
    let two_unheard = There { own_was_read: false, calls: &[("1", E, true), ("2", E, true)] };
    let one_left = There { own_was_read: true, calls: &[("1", E, false), ("2", E, true)] };
    let gone = There { own_was_read: true, calls: &[("1", E, false)] };
    let gone_unheard = There { own_was_read: false, calls: &[("1", E, false)] };
    for (at, (there, message, expected)) in [
        (nothing, LOG.to_owned(), 0),
        (listens, LOG.to_owned(), 0),
        (one, LOG.to_owned(), 1),
        (one, asks("1"), 1),
        (one, TOOLS.to_owned(), 0),
        (
            one,
            r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#.into(),
            0,
        ),
        (one_as_json, LOG.to_owned(), 0),
        (one_as_json, progress("\"t1\""), 0),
        (one_of_each, LOG.to_owned(), 1),
        (two, LOG.to_owned(), 0),
        (two, asks("\"x\""), 0),
        (two, progress("\"t1\""), 1),
        (two, progress("\"t2\""), 2),
        (two, progress("\"t3\""), 0),
        (two_unheard, asks("1"), 2),
        (two_unheard, TOOLS.to_owned(), 0),
        (one_left, LOG.to_owned(), 2),
        (one_left, progress("\"t1\""), 1),
        (gone, LOG.to_owned(), 0),
        (gone_unheard, LOG.to_owned(), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut world = World::new();
        if there.own_was_read {
            world.listen(None);
        }
        for (id, form, is_read) in there.calls {
            let (no, reader) = world.call(id, Some(&format!("\"t{id}\"")), *form);
            if !is_read {
                world.streams.detach(no, reader);
            }
        }
        world.hear(&message);
        let got: Vec<_> =
            world.streams.streams.values().filter(|it| it.unread_cost() > 0).map(Stream::no).collect();
        assert_eq!(got, [StreamNo(expected)], "case {at}: {message}");
        assert!(world.weighs_right());
    }
}

#[test]
fn ids_and_tokens_are_told_apart_by_type() {
    let mut world = World::new();
    let number = world.call("1", Some("1"), Form::Events);
    let text = world.call("\"1\"", Some("\"1\""), Form::Events);
    world.hear(&progress("\"1\""));
    world.respond("1");
    assert_eq!(world.read(number), [r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "End"]);
    assert_eq!(world.read(text), [progress("\"1\""), "Nothing".into()]);
    assert_eq!(world.streams.call(text.0, raw("\"1\""), None), Err(NoCall::InProgress));
    assert_eq!(world.streams.call(text.0, raw("1"), None), Ok(()), "it was answered");
}

#[test]
fn a_stream_ends_with_the_last_answer_of_its_batch() {
    let mut world = World::new();
    let seat = world.streams.begin(Form::Events, world.now);
    world.streams.call(seat.0, raw("1"), None).expect("a call");
    world.respond("1"); // before the other was sent
    world.streams.call(seat.0, raw("2"), None).expect("a call");
    world.streams.begun(seat.0, world.now);
    assert_eq!(world.read(seat).last().map(String::as_str), Some("Nothing"));
    world.respond("2");
    world.respond("2");
    assert_eq!(world.read(seat).len(), 2, "the answer and the end");
}

#[test]
fn the_server_takes_back_its_request_on_the_stream_that_carried_it() {
    let mut world = World::new();
    world.listen(None);
    let first = world.call("1", None, Form::Events);
    world.hear(&asks("7"));
    let second = world.call("2", None, Form::Events);
    let cancels = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
    world.hear(cancels);
    assert_eq!(world.read(first), [asks("7"), cancels.into(), "Nothing".into()]);
    assert_eq!(world.read(second), ["Nothing"]);
    assert!(!world.streams.answers(raw("7")), "it does not wait for that any more");
}

#[test]
fn an_answer_is_passed_on_once_and_only_to_who_asked() {
    let mut world = World::new();
    world.hear(&asks("7"));
    assert!(!world.streams.answers(raw("\"7\"")));
    assert!(world.streams.answers(raw("7")));
    assert!(!world.streams.answers(raw("7")));
}

#[test]
fn a_queue_that_is_full_loses_notifications_but_no_request() {
    let mut world = World::new();
    let long =
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":"{}"}}"#, "x".repeat(400_000));
    world.hear(&asks("1"));
    for _ in 0..5 {
        world.hear(&long);
    }
    world.hear(&asks("2"));
    assert!(world.weighs_right() && world.streams.weight.kept <= QUEUE_LEN_MAX);
    assert!(world.refused().is_empty());
    let own = world.listen(None);
    let held = format!("{} bytes", long.len());
    assert_eq!(world.read(own), [asks("1"), held.clone(), held, asks("2"), "Nothing".into()]);
    world.streams.detach(own.0, own.1);

    let too_long =
        format!(r#"{{"jsonrpc":"2.0","id":3,"method":"a","params":"{}"}}"#, "x".repeat(QUEUE_LEN_MAX));
    world.hear(&too_long);
    assert_eq!(world.refused(), ["3"]);
    let request =
        |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"a","params":"{}"}}"#, "x".repeat(400_000));
    (4..8).for_each(|id| world.hear(&request(id)));
    assert_eq!(world.refused(), ["6", "7"], "requests are not dropped for one another");
    assert!(!world.streams.answers(raw("6")) && world.streams.answers(raw("4")));
}

#[test]
fn the_newest_listener_takes_over_what_the_older_one_has_not_got() {
    let mut world = World::new();
    let older = world.listen(None);
    world.hear(TOOLS);
    assert_eq!(world.read(older), [TOOLS, "Nothing"]);
    world.hear(LOG);
    let newer = world.listen(None);
    assert_eq!(world.read(older), ["End"]);
    world.streams.detach(older.0, older.1);
    assert_eq!(world.read(newer), [LOG, "Nothing"]);
    let again = world.listen(Some("ab-0-0"));
    assert_eq!(world.read(again), [TOOLS, LOG, "Nothing"], "after the event that it names");
    for foreign in ["no id of ours", "cd-0-7", "rw1.ab-0-7"] {
        let listener = world.listen(Some(foreign));
        assert_eq!((listener.0, world.read(listener)), (OWN, vec!["Nothing".into()]), "{foreign}");
    }
    assert_eq!(
        world.streams.listen(Some(b"cd-1-0"), world.now),
        Listening::Over,
        "a call of a session before"
    );
}

#[test]
fn a_call_is_resumed_without_disturbing_who_listens() {
    let mut world = World::new();
    let own = world.listen(None);
    let posted = world.call("1", Some("1"), Form::Events);
    assert_eq!(world.streams.prime(posted.0).as_deref(), Some(&b"id: ab-1-0\nretry: 1000\ndata: \n\n"[..]));
    world.hear(&progress("1"));
    world.streams.detach(posted.0, posted.1);
    world.respond("1");
    let resumed = world.listen(Some("ab-1-0"));
    assert_eq!(world.read(resumed).len(), 3, "progress, the answer, the end");
    let once_more = world.listen(Some("ab-1-1"));
    assert_eq!(world.read(resumed), ["End"], "the newest reader wins");
    assert_eq!(world.read(once_more).len(), 2);
    assert_eq!(world.streams.listen(Some(b"ab-1-2"), world.now), Listening::Over);
    assert_eq!(world.streams.listen(Some(b"ab-9-1"), world.now), Listening::Over, "of no stream here");
    assert_eq!(world.read(own), ["Nothing"]);
}

#[test]
fn an_answer_that_is_not_kept_any_more_is_an_error_for_its_call() {
    let mut world = World::new();
    let posted = world.call("\"x\"", None, Form::Events);
    world.respond("\"x\"");
    world.streams.detach(posted.0, posted.1);
    world.now += KEPT_TIME;
    assert_eq!(world.streams.deadline(), Some(world.now));
    world.streams.pass_time(world.now);
    assert_eq!(world.streams.weight, Weight::default());
    let Listening::Lost(events) = world.streams.listen(Some(b"ab-1-0"), world.now) else { panic!("lost") };
    let event = mcp::events(&events).next().expect("an event");
    let error: serde_json::Value = serde_json::from_slice(&event.data).expect("JSON");
    assert_eq!((&error["id"], &error["error"]["data"]["mayHaveRun"]), (&json!("x"), &json!(true)));
    assert_eq!(event.id, Some(&b"ab-1-1"[..]));
    assert_eq!(
        world.streams.listen(Some(b"ab-1-1"), world.now),
        Listening::Over,
        "it does not come back for ever"
    );
    for _ in 0..FORGOTTEN_MAX {
        let (no, reader) = world.call("1", None, Form::Events);
        world.respond("1");
        world.streams.detach(no, reader);
    }
    world.streams.pass_time(world.now + KEPT_TIME);
    assert_eq!(world.streams.listen(Some(b"ab-1-0"), world.now), Listening::Over);
}

#[test]
fn what_was_read_of_the_servers_own_stream_is_not_kept_for_ever() {
    let mut world = World::new();
    let own = world.listen(None);
    world.hear(LOG);
    world.read(own);
    assert!(world.streams.weight.kept > 0);
    world.now += KEPT_TIME;
    assert_eq!(world.streams.deadline(), Some(world.now));
    world.streams.pass_time(world.now);
    assert_eq!((world.streams.weight, world.streams.deadline()), (Weight::default(), None));
}

#[test]
fn a_token_that_is_used_twice_is_the_later_calls() {
    let mut world = World::new();
    world.call("1", Some("7"), Form::Events);
    let later = world.call("2", Some("7"), Form::Events);
    world.respond("1");
    world.hear(&progress("7"));
    assert_eq!(world.read(later), [progress("7"), "Nothing".into()]);
}

#[test]
fn what_is_kept_has_a_bound_and_the_oldest_that_ended_goes_first() {
    let mut world = World::new();
    let answer = |id: usize| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{}"}}"#, "x".repeat(1_000_000));
    let waiting = world.call("100", Some("1"), Form::Events);
    world.hear(&progress("1"));
    let seats: Vec<_> = (1..=6).map(|id| world.call(&id.to_string(), None, Form::Events)).collect();
    for (id, (no, reader)) in (1..=6).zip(&seats) {
        world.streams.detach(*no, *reader);
        world.hear(&answer(id));
        assert!(world.weighs_right() && world.streams.weight.kept <= KEPT_LEN_MAX);
    }
    assert!(matches!(world.streams.listen(Some(b"ab-3-0"), world.now), Listening::Lost(_)));
    let kept = world.listen(Some("ab-4-0"));
    assert_eq!(world.read(kept).len(), 2);
    assert_eq!(world.read(waiting), [progress("1"), "Nothing".into()]);
}

#[test]
fn requests_that_no_reader_came_for_are_refused() {
    let mut world = World::new();
    let (no, reader) = world.call("1", None, Form::Events);
    world.streams.detach(no, reader);
    let request =
        |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"a","params":"{}"}}"#, "x".repeat(1_000_000));
    (1..=5).for_each(|id| world.hear(&request(id)));
    assert_eq!(world.refused(), ["1", "2", "3", "4", "5"]);
    assert!(world.weighs_right());
    world.respond("1");
    let resumed = world.listen(Some("ab-1-0"));
    assert_eq!(world.read(resumed).len(), 2, "the answer and the end");
}

#[test]
fn a_reader_that_takes_nothing_is_cut_off_once_others_wait() {
    let mut world = World::new();
    let slow = world.call("1", Some("1"), Form::Events);
    let quick = world.call("2", None, Form::Events);
    let long = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":1,"x":"{}"}}}}"#,
        "x".repeat(AWAITED_LEN_MAX)
    );
    assert_eq!(world.streams.deadline(), None);
    world.hear(&long);
    assert!(world.streams.is_full());
    let due = world.streams.deadline().expect("a time");
    assert_eq!(due, world.now + STALLED_TIME_MAX);
    world.streams.pass_time(world.now);
    assert!(world.streams.is_full());
    world.now = due;
    world.streams.take_effects();
    world.streams.pass_time(due);
    assert!(!world.streams.is_full() && world.weighs_right());
    assert_eq!(world.streams.take_effects().wake, [slow.1]);
    assert_eq!(world.read(slow), ["End"]);
    world.respond("2");
    assert_eq!(world.read(quick).len(), 2);
    let resumed = world.listen(Some("ab-1-0"));
    assert_eq!(world.read(resumed).len(), 2, "it can resume");
}

#[test]
fn a_cancelled_call_ends_even_if_its_server_says_nothing() {
    let mut world = World::new();
    let silent = world.call("1", None, Form::Events);
    let answered = world.call("2", None, Form::Events);
    world.streams.cancel(Id::of(raw("1")), world.now);
    world.streams.cancel(Id::of(raw("2")), world.now);
    world.streams.cancel(Id::of(raw("3")), world.now); // of nobody
    world.streams.cancel(Id::of(raw("1")), world.now); // once more
    assert_eq!(world.streams.cancelled.len(), 2);
    world.respond("2");
    world.now += CANCELLED_TIME_MAX;
    assert_eq!(world.streams.deadline(), Some(world.now));
    world.streams.pass_time(world.now);
    assert_eq!(
        world.read(silent),
        [r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32800,"message":"Request cancelled"}}"#, "End"]
    );
    assert_eq!(world.read(answered), [r#"{"jsonrpc":"2.0","id":2,"result":{}}"#, "End"]);
    world.respond("1");
    assert!(world.weighs_right());
}

#[test]
fn an_answer_as_json_is_kept_for_nobody() {
    let mut world = World::new();
    let read = world.call("1", None, Form::Json);
    world.respond("1");
    assert_eq!(world.read(read).len(), 2);
    assert_eq!(world.streams.weight, Weight::default());
    let left = world.call("2", None, Form::Json);
    world.streams.detach(left.0, left.1);
    world.respond("2");
    assert_eq!(world.streams.weight, Weight::default());
    assert!(world.streams.in_flight.is_empty());
}

#[test]
fn the_end_of_the_server_breaks_calls_and_ends_the_rest() {
    let mut world = World::new();
    let own = world.listen(None);
    let done = world.call("1", None, Form::Events);
    world.respond("1");
    let waits = world.call("2", Some("2"), Form::Events);
    world.hear(&progress("2"));
    world.hear(TOOLS);
    world.streams.break_off();
    assert_eq!(world.read(own), [TOOLS, "End"]);
    assert_eq!(world.read(done).len(), 2);
    assert_eq!(world.read(waits), [progress("2"), "Broken".into()]);
}

#[test]
fn older_revisions_get_no_events_without_data() {
    for (version, primes) in [("2024-11-05", false), ("2025-06-18", false), ("2025-11-25", true)] {
        let mut world = World::new();
        world.streams.negotiated(version);
        let (no, _) = world.call("1", None, Form::Events);
        assert_eq!(world.streams.prime(no).is_some(), primes, "{version}");
    }
}

#[test]
fn a_session_has_only_so_many_calls_in_progress() {
    let mut world = World::new();
    let seat = world.streams.begin(Form::Events, world.now);
    for id in 0..IN_FLIGHT_MAX {
        world.streams.call(seat.0, raw(&id.to_string()), None).expect("room");
    }
    assert_eq!(world.streams.call(seat.0, raw("\"one more\""), None), Err(NoCall::TooMany));
    for id in 0..=IN_FLIGHT_MAX {
        world.hear(&asks(&id.to_string()));
    }
    assert_eq!(world.refused(), [IN_FLIGHT_MAX.to_string()]);
}

/// Numbers that look random and are the same in every run (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("below a usize")
    }
}

#[test]
fn whatever_happens_in_whatever_order_the_bounds_hold_and_nothing_is_counted_wrong() {
    for seed in 1..=8 {
        let (mut world, mut dice) = (World::new(), Dice(seed));
        let mut seats: Vec<(StreamNo, Reader)> = Vec::new();
        for step in 0..1_000 {
            let id = dice.below(20).to_string();
            let padding = "x".repeat([0, 300, 20_000, 900_000][dice.below(4)]);
            match dice.below(12) {
                0 | 1 => {
                    let form = if dice.below(4) == 0 { Form::Json } else { Form::Events };
                    let seat = world.streams.begin(form, world.now);
                    let _in_progress = world.streams.call(seat.0, raw(&id), Some(Id::of(raw(&id))));
                    world.streams.begun(seat.0, world.now);
                    seats.push(seat);
                }
                // A session does not listen to its server while it is full.
                2..=6 if world.streams.is_full() => {}
                2 | 3 => world.hear(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{padding}"}}"#)),
                4 => {
                    world.hear(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"a","params":"{padding}"}}"#))
                }
                5 => world.hear(&format!(r#"{{"jsonrpc":"2.0","method":"a","params":"{padding}"}}"#)),
                6 => world.hear(&progress(&id)),
                7 => {
                    let after = format!("ab-{}-{}", dice.below(30), dice.below(4));
                    let after = Some(after.as_bytes()).filter(|_| dice.below(2) == 0);
                    if let Listening::Stream(no, reader) = world.streams.listen(after, world.now) {
                        seats.push((no, reader));
                    }
                }
                8 if !seats.is_empty() => {
                    let (no, reader) = seats.swap_remove(dice.below(seats.len()));
                    world.streams.detach(no, reader);
                }
                9 | 10 if !seats.is_empty() => drop(world.read(seats[dice.below(seats.len())])),
                _ => {
                    world.streams.cancel(Id::of(raw(&id)), world.now);
                    world.now += Duration::from_secs(dice.below(20) as u64);
                    world.streams.pass_time(world.now);
                    assert!(world.streams.deadline().is_none_or(|due| due > world.now), "it is done");
                }
            }
            assert!(world.weighs_right(), "seed {seed}, step {step}");
            let Weight { awaited, kept } = world.streams.weight;
            assert!(kept <= KEPT_LEN_MAX, "seed {seed}, step {step}: {kept}");
            let sum_max = AWAITED_LEN_MAX + KEPT_LEN_MAX + 1_000_000;
            assert!(awaited + kept < sum_max, "seed {seed}, step {step}: {awaited}");
        }
        for (no, reader) in seats {
            world.streams.detach(no, reader);
        }
        world.now += KEPT_TIME;
        world.streams.pass_time(world.now);
        world.now += KEPT_TIME;
        world.streams.pass_time(world.now);
        assert!(world.streams.ended.is_empty(), "seed {seed}: what has ended is forgotten");
    }
}
