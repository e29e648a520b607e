//! What the client sees of a stream that breaks. Time is tokio's, and passes at once.

mod client;

use super::*;
use crate::config::{Protocol, Route};
use crate::front::honest::HELD_LEN_MAX;
use crate::headers::Headers;
use crate::mcp::Calls;
use client::{Client, End, Met, said};
use hyper::header::{HeaderName, HeaderValue};
use proto::core::route::OnLoss;
use proto::id::RouteId;
use proto::wire::{GoneWhy, Nature};
use std::sync::PoisonError;

const PRIMING: &str = "id: 1\ndata: \n\n";
const ANSWER: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n";
const ERROR: &str = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"error\"";
const COME_BACK: &str = "retry: 1000\n\n";

fn calls() -> Calls {
    mcp::peek(br#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#, false).expect("a request").calls
}

/// The client's view of a stream that nobody can ask for again, and whether it was reset.
async fn seen(chunks: &[&str], calls: Calls, end: Option<Broke>) -> (String, bool) {
    let end = end.map_or(End::Clean, End::Broke);
    Client::of(calls, said(chunks, end), &[]).sees(LONG).await
}

const LOST: End = End::Broke(Broke::Hop);
const UNDELIVERED: Met =
    Met::Refused(Refusal::Undelivered { reason: Reason::OwnerUnreachable, may_have_run: false });
const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_call_that_breaks_before_its_answer_ends_in_an_error() {
    let (text, reset) = seen(&[PRIMING, "data: {\"jsonrpc\":"], calls(), Some(Broke::Hop)).await;
    assert!(!reset);
    assert!(text.starts_with(&format!("{PRIMING}{ERROR}")), "{text}");
    assert!(text.contains("\"mayHaveRun\":true") && text.contains("owner_broke"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_cleanly_without_the_answer_ends_in_an_error_too() {
    let (text, reset) = seen(&["data: {}\n\n"], calls(), None).await;
    assert!(!reset && text.contains("upstream_broke"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_can_resume_at_its_owner_is_left_to_it() {
    for end in [End::Clean, End::Broke(Broke::Upstream)] {
        let again = Met::Stream(&[ANSWER], End::Clean);
        let mut client = Client::of(calls(), said(&[PRIMING], end), &[again]);
        assert_eq!(client.sees(LONG).await, (PRIMING.to_owned(), false));
        assert!(client.asked().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_its_answer_gets_no_second_one() {
    let (head, tail) = ANSWER.split_at(20);
    for chunks in [[ANSWER, ""], [head, tail], [ANSWER, ": ping\n\n"], [PRIMING, ANSWER]] {
        for end in [End::Clean, LOST, End::Broke(Broke::Upstream)] {
            let mut client = Client::of(calls(), said(&chunks, end), &[UNDELIVERED]);
            assert_eq!(client.sees(LONG).await, (chunks.concat(), false));
            assert!(client.asked().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_own_stream_ends_cleanly_with_a_time_to_come_back() {
    let (text, reset) = seen(&["data: 1\n\n"], Calls::None, Some(Broke::Hop)).await;
    assert_eq!((text, reset), (format!("data: 1\n\n{COME_BACK}"), false));
}

#[tokio::test(start_paused = true)]
async fn an_event_too_long_to_be_held_flows_and_can_only_be_reset() {
    let long = format!("data: {}", "x".repeat(HELD_LEN_MAX + 1));
    let mut client = Client::of(calls(), said(&[PRIMING, &long, "yy"], LOST), &[UNDELIVERED]);
    let (text, reset) = client.sees(LONG).await;
    assert_eq!((text.len(), reset), (PRIMING.len() + long.len() + 2, true));
    let mut own = Client::of(Calls::None, said(&[PRIMING, &long], LOST), &[UNDELIVERED]);
    assert!(own.sees(LONG).await.1);
    assert!(client.asked().is_empty() && own.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_too_long_to_be_held_is_not_followed_by_an_error() {
    let answer = format!("data: {{\"id\":7,\"result\":\"{}\"}}", "x".repeat(HELD_LEN_MAX + 1));
    for chunks in
        [[PRIMING, &answer, "\n\n"], ["", &answer, "\n\n: ping\n\n"], ["", "", &format!("{answer}\n\n")]]
    {
        assert_eq!(seen(&chunks, calls(), None).await, (chunks.concat(), false));
    }
    // Whether it was the answer is not known, so an error might be a second one: the reset says enough.
    let (text, reset) = seen(&[&answer, "\n\n"], calls(), Some(Broke::Hop)).await;
    assert_eq!((text, reset), (format!("{answer}\n\n"), true));
    let (_, reset) = seen(&[ANSWER, &answer, "\n\n"], calls(), Some(Broke::Hop)).await;
    assert!(!reset, "the answer had come before");
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_after_the_last_whole_event() {
    let first = said(&["id: 1\ndata: a\n\nid: 2\nda"], LOST);
    let again = Met::Stream(&["id: 2\ndata: b\n\n", "id: 3\ndata: c\n\n"], End::Open);
    let mut client = Client::of(Calls::None, first, &[again]);
    let (text, reset) = client.sees(SHORT).await;
    assert_eq!(text, "id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: c\n\n");
    assert!(!reset && !client.has_ended());
    assert_eq!((client.asked(), client.counted("resumed")), (vec!["1".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_however_often_it_breaks() {
    let again = [
        Met::Stream(&["id: 2\ndata: b\n\n"], LOST),
        Met::Stream(&[], LOST),
        Met::Stream(&["id: 2\ndata: b\n\n", "id: 3\ndata: c\n\n"], LOST),
        Met::Stream(&[], End::Open),
    ];
    let mut client = Client::of(Calls::None, said(&["id: 1\ndata: a\n\n"], LOST), &again);
    let (text, _) = client.sees(SHORT).await;
    assert_eq!(text, "id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: c\n\n");
    assert_eq!(client.asked(), ["1", "2", "2", "3"]);
    assert!(!client.has_ended());
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_ids_goes_on_anew() {
    let again = Met::Stream(&["data: b\n\n"], End::Open);
    let mut client = Client::of(Calls::None, said(&["data: a\n\n"], LOST), &[again]);
    assert_eq!(client.sees(SHORT).await.0, "data: a\n\ndata: b\n\n");
    assert_eq!(client.asked(), [""]);
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_waited_for() {
    let again = [UNDELIVERED, Met::Status(409), Met::Status(503), Met::Stream(&["data: b\n\n"], End::Open)];
    let mut client = Client::of(Calls::None, said(&[PRIMING], LOST), &again);
    assert_eq!(client.sees(SHORT).await.0, format!("{PRIMING}data: b\n\n"));
    let asked = client.asked.lock().unwrap_or_else(PoisonError::into_inner);
    let pauses: Vec<_> = asked.windows(2).map(|two| two[1].1.duration_since(two[0].1)).collect();
    assert_eq!(pauses.iter().map(Duration::as_millis).collect::<Vec<_>>(), [250, 500, 1000]);
}

#[tokio::test(start_paused = true)]
async fn what_will_not_pass_ends_the_stream_at_once() {
    let lost = Refusal::not_run(Reason::OwnerLost);
    for met in [
        Met::Refused(Refusal::Gone(GoneWhy::LostOwner)),
        Met::Refused(lost),
        Met::Status(404),
        Met::Status(405),
        Met::Status(401),
        Met::Status(200),
        Met::Stream(&[], End::Clean),
    ] {
        let since = Instant::now();
        let mut client = Client::of(Calls::None, said(&[PRIMING], LOST), &[met]);
        assert_eq!(client.sees(LONG).await, (format!("{PRIMING}{COME_BACK}"), false));
        assert!(since.elapsed() < PAUSE_MIN && client.has_ended());
        assert_eq!(client.counted("given_up"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_events_to_come_is_given_up_in_the_end() {
    const EVENT: &str = "id: 1\ndata: a\n\n";
    for met in [UNDELIVERED, Met::Nothing, Met::Stream(&[], LOST)] {
        let since = Instant::now();
        let mut client = Client::of(Calls::None, said(&[EVENT], LOST), &[met]);
        let (text, reset) = client.sees(LONG).await;
        assert_eq!((text.replace(": \n\n", ""), reset), (format!("{EVENT}{COME_BACK}"), false));
        assert!(since.elapsed() <= OWN_TIME_MAX && since.elapsed() > OWN_TIME_MAX - PAUSE_MAX * 2);
        assert_eq!(client.counted("given_up"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_between_events_and_only_there() {
    let speaks = Duration::from_secs(40);
    let mut client = Client::of(Calls::None, said(&["data: a\n\ndata:"], End::Open), &[]);
    assert_eq!(client.sees(speaks).await.0, "data: a\n\n: \n\n: \n\n");
    let mut waits = Client::of(Calls::None, said(&["data: a\n\n"], LOST), &[Met::Nothing]);
    assert_eq!(waits.sees(speaks).await.0, "data: a\n\n: \n\n: \n\n");
    let long = format!("data: {}", "x".repeat(HELD_LEN_MAX + 1));
    let mut client = Client::of(Calls::None, said(&[&long], End::Open), &[]);
    assert_eq!(client.sees(speaks).await.0, long);
    let mut client = Client::of(calls(), said(&[PRIMING], End::Open), &[]);
    assert_eq!(client.sees(speaks).await.0, PRIMING);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_ends_its_clients_streams() {
    for (first, again) in [(End::Open, Met::Nothing), (LOST, Met::Nothing), (LOST, UNDELIVERED)] {
        let mut client = Client::of(Calls::None, said(&[PRIMING], first), &[again]);
        assert_eq!(client.sees(Duration::from_secs(3)).await.0, PRIMING);
        client.leaves();
        assert_eq!(client.sees(SHORT).await, (format!("id: 1\n{COME_BACK}"), false));
        assert!(client.has_ended());
    }
    let mut unnumbered = Client::of(Calls::None, said(&["data: a\n\ndata: b"], End::Open), &[]);
    assert_eq!(unnumbered.sees(SHORT).await.0, "data: a\n\n");
    unnumbered.leaves();
    assert_eq!(unnumbered.sees(SHORT).await, (COME_BACK.to_owned(), false));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_outlasts_its_node_goes_on_elsewhere_or_is_told() {
    for (first, said_before, said_last) in [
        (PRIMING, PRIMING, format!("id: 1\n{COME_BACK}")),
        ("id: 1\ndata: \n\ndata: {", PRIMING, format!("id: 1\n{COME_BACK}")),
        ("data: {}\n\n", "data: {}\n\n", ERROR.to_owned()),
        ("", "", ERROR.to_owned()),
    ] {
        let mut client = Client::of(calls(), said(&[first], End::Open), &[]);
        client.leaves();
        assert_eq!(client.sees(SHORT).await, (said_before.to_owned(), false), "before the last moment");
        client.leaving.cut_off();
        let (last, reset) = client.sees(SHORT).await;
        assert!(!reset && last.starts_with(&said_last) && client.has_ended(), "{last}");
    }
    let mut answered = Client::of(calls(), said(&[PRIMING, ANSWER], End::Open), &[]);
    assert_eq!(answered.sees(SHORT).await.0, format!("{PRIMING}{ANSWER}"));
    answered.leaving.cut_off();
    assert_eq!(answered.sees(SHORT).await, (String::new(), false));
}

#[tokio::test(start_paused = true)]
async fn a_call_gets_its_answer_from_the_stream_that_goes_on() {
    let again = [
        UNDELIVERED,
        Met::Status(400),
        Met::Stream(&[], End::Clean),
        Met::Stream(&[PRIMING, "id: 2\ndata: {}\n\n", ANSWER], End::Clean),
    ];
    let mut client = Client::of(calls(), said(&[PRIMING, "id: 2\nda"], LOST), &again);
    let (text, reset) = client.sees(LONG).await;
    assert_eq!((text, reset), (format!("{PRIMING}{PRIMING}id: 2\ndata: {{}}\n\n{ANSWER}"), false));
    assert_eq!((client.asked(), client.counted("resumed")), (vec!["1".to_owned(); 4], 1));
    assert_eq!(client.counted("given_up"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_can_not_go_on_gets_one_error() {
    let gone = Met::Refused(Refusal::Gone(GoneWhy::LostUpstream));
    let cases = [
        (gone, 0),
        (Met::Status(405), 0),
        (Met::Status(400), 5),
        (Met::Stream(&[], End::Clean), 5),
        (Met::Stream(&[], End::Broke(Broke::Upstream)), 5),
        (UNDELIVERED, 5),
        (Met::Nothing, 15),
    ];
    for (met, seconds) in cases {
        let since = Instant::now();
        let mut client = Client::of(calls(), said(&[PRIMING], LOST), &[met]);
        let (text, reset) = client.sees(LONG).await;
        assert!(text.starts_with(&format!("{PRIMING}{ERROR}")), "{text}");
        assert!(text.contains("\"mayHaveRun\":true") && text.contains("owner_broke"), "{text}");
        assert_eq!((text.matches("\"error\"").count(), reset), (1, false), "{text}");
        assert!(since.elapsed() <= Duration::from_secs(seconds) + PAUSE_MIN, "{:?}", since.elapsed());
        assert_eq!((client.counted("resumed"), client.counted("given_up")), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_displaced_client_is_kept_silent_for_a_while_and_comes_back_then() {
    let displaced = End::Broke(Broke::Displaced);
    let mut client = Client::of(Calls::None, said(&[PRIMING, "data: half"], displaced), &[Met::Nothing]);
    assert_eq!(client.sees(SHORT).await, (PRIMING.to_owned(), false));
    assert!(!client.has_ended());
    let (rest, reset) = client.sees(LONG).await;
    assert_eq!((rest.replace(": \n\n", ""), reset), (COME_BACK.to_owned(), false));
    assert!(client.has_ended() && client.asked().is_empty());
    assert_eq!((client.counted("resumed"), client.counted("given_up")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_displaced_is_left_to_the_newer_request() {
    let displaced = End::Broke(Broke::Displaced);
    let mut client = Client::of(calls(), said(&[PRIMING], displaced), &[Met::Nothing]);
    assert_eq!(client.sees(SHORT).await, (PRIMING.to_owned(), false));
    assert!(client.has_ended() && client.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_event_id_is_not_asked_for_again() {
    let mut client = Client::of(calls(), said(&["data: {}\n\n"], LOST), &[Met::Nothing]);
    let (text, _) = client.sees(LONG).await;
    assert!(text.contains("owner_broke") && client.asked().is_empty(), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_ends_the_attempt() {
    let mut client = Client::of(Calls::None, said(&[PRIMING], LOST), &[Met::Nothing]);
    assert_eq!(client.sees(SHORT).await.0, PRIMING);
    let Client { stream, asked, .. } = client;
    assert_eq!(Arc::strong_count(&asked), 2, "the attempt has it");
    drop(stream);
    assert_eq!(Arc::strong_count(&asked), 1);
}

#[test]
fn the_rest_of_an_answer_is_asked_for_by_get() {
    let route = Route {
        id: RouteId::of("/mcp"),
        path: "/mcp".into(),
        protocol: Protocol::Mcp,
        key: None,
        upstreams: Vec::new(),
        on_loss: OnLoss::Expire,
        idle_timeout: LONG,
        sessions_max: 1,
        sessions_per_client_max: 1,
        body_len_max: 1,
        trust_annotations: true,
        auth: None,
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CONTENT_LENGTH, "9"),
        (header::ACCEPT, "application/json, text/event-stream"),
        (header::AUTHORIZATION, "Bearer x"),
        (mcp::SESSION_ID, "rw1.x"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let mut ask = Ask {
        route: Arc::new(route),
        errand: Errand::Anyone,
        nature: Nature::Unsafe,
        uid: 1,
        sent: Sent::default(),
        caller: proto::wire::Caller::Anyone,
        method: Method::POST,
        target: "/mcp".into(),
        headers: Headers::from_iter(headers),
        body: Payload::Whole(Bytes::new()),
    };
    for id in ["1", "2"] {
        ask_for_the_rest(&mut ask, GoesOn::After(HeaderValue::from_static(id)), 2);
        assert_eq!(ask.method, Method::GET);
        assert_eq!(ask.headers[LAST_EVENT_ID], id);
    }
    ask_for_the_rest(&mut ask, GoesOn::Anew, 3);
    let expected = [
        (header::ACCEPT, "text/event-stream"),
        (header::AUTHORIZATION, "Bearer x"),
        (mcp::SESSION_ID, "rw1.x"),
        (LAST_EVENT_ID, "2"),
    ];
    let expected = expected.map(|(name, value)| (name, HeaderValue::from_static(value)));
    assert_eq!(ask.headers, Headers::from_iter(expected));
}

#[test]
fn a_copied_header_is_the_same_header() {
    let mut headers = Headers::new();
    for (name, value) in [("a", "1"), ("b", ""), ("a", "22")] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let before = headers.clone();
    let_go(&mut headers);
    assert_eq!(headers, before);
}
