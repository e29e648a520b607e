//! A stream of events as far as the client has got it: passed on event by event, so that it never
//! ends in the middle of one, and never without an answer for whoever waits for one. Where the
//! events come from is [`super::reattach`]'s.

use super::honest::{HELD_LEN_MAX, reason};
use super::respond;
use crate::answer::Broke;
use crate::mcp::{self, Boundary, Calls};
use bytes::{Bytes, BytesMut};
use hyper::header::HeaderValue;

/// The end of a stream of the server's own: the client reconnects after a second.
pub(super) const COME_BACK: Bytes = Bytes::from_static(b"retry: 1000\n\n");

/// What a client makes of a stream that ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The server's own, which nobody waits at for an answer. Its client comes back.
    Own,
    /// The answer to calls. Its client asks for the rest after the last event that has an id.
    Answer,
    /// The same from 2026-07-28 on, where nothing is resumed.
    ModernAnswer,
    /// The answer to `subscriptions/listen`: it never ends by itself, and without a result it ends
    /// abruptly, which is how a client knows that it has to listen anew. An error would be one result
    /// more: rmcp's client takes it for a refusal.
    Subscription,
}

/// The length of the data of an event that passed unread: no other event has as much.
const LONG: usize = usize::MAX;

pub(crate) struct Events {
    kind: Kind,
    /// Who still waits for an answer.
    unanswered: Calls,
    last: LastEvent,
    /// The client has got something.
    has_passed: bool,
    /// The stream has been taken up again, and may begin with an event that the client has.
    taken_up: bool,
    boundary: Boundary,
    /// The beginning of an event whose end has not come yet.
    held: BytesMut,
    /// The beginning of an event too long to be held has been passed on: it can't be taken back.
    committed: bool,
    /// What that event's id is, if it was said first.
    long_id: Option<Vec<u8>>,
    /// Such an event has passed unread: it may have been the answer, and its id is not known.
    unsure: bool,
}

/// The last event with an id that the client got.
#[derive(Default)]
struct LastEvent {
    /// Empty where there was none.
    id: Vec<u8>,
    data_len: usize,
}

/// Where a stream goes on that was cut off.
pub(super) enum GoesOn {
    After(HeaderValue),
    /// Where it began: the client has got nothing of the answer, so its request is sent once more.
    AtTheStart,
    /// After no event in particular: none had an id.
    Anew,
}

impl Events {
    pub(crate) fn new(kind: Kind, calls: Calls) -> Self {
        Self {
            kind,
            unanswered: calls,
            last: LastEvent::default(),
            has_passed: false,
            taken_up: false,
            boundary: Boundary::default(),
            held: BytesMut::new(),
            committed: false,
            long_id: None,
            unsure: false,
        }
    }

    pub(super) fn is_own(&self) -> bool {
        self.kind == Kind::Own
    }

    /// What the client got so far ends with the end of an event.
    pub(super) fn is_between(&self) -> bool {
        !self.committed
    }

    /// What can be passed on now that `chunk` has come.
    pub(crate) fn take(&mut self, chunk: Bytes) -> Option<Bytes> {
        let pass = self.pass(chunk);
        self.has_passed |= pass.is_some();
        pass
    }

    fn pass(&mut self, chunk: Bytes) -> Option<Bytes> {
        let was_committed = self.committed;
        let complete = self.boundary.advance(&chunk);
        let mut whole = if self.held.is_empty() && complete == chunk.len() {
            self.committed = false;
            chunk
        } else {
            let before = self.held.len();
            self.held.extend_from_slice(&chunk);
            let ready = if complete > 0 { before + complete } else { 0 };
            let goes_on = was_committed && complete == 0;
            self.committed = goes_on || self.held.len() - ready > HELD_LEN_MAX;
            self.held.split_to(ready).freeze()
        };
        if !was_committed {
            whole = self.note(whole);
        } else if let Some(id) = self.long_id.take_if(|_| complete > 0) {
            // The event ends here, and what follows it can be read again.
            let end = mcp::events(&whole).next().map_or(0, |event| event.text.len());
            self.last.note(&id, LONG);
            self.unsure = false;
            self.note(whole.slice(end..));
        }
        if self.committed {
            self.unsure = true;
            if !was_committed || complete > 0 {
                // Somebody waits for an answer elsewhere, which may have been this event.
                self.long_id = leading_id(&self.held).filter(|_| self.is_own());
            }
            let mut pass = BytesMut::from(whole);
            pass.unsplit(self.held.split());
            return Some(pass.freeze());
        }
        (!whole.is_empty()).then_some(whole)
    }

    /// Reads what whole events say, as long as that matters. Gives back those that are to be passed on.
    fn note(&mut self, piece: Bytes) -> Bytes {
        if !self.is_own() && matches!(self.unanswered, Calls::None) {
            return piece;
        }
        let (mut at, mut repeated) = (0, None);
        for event in mcp::events(&piece) {
            let from = at;
            at += event.text.len();
            if self.taken_up && !event.data.is_empty() {
                self.taken_up = false;
                if event.id.is_some_and(|id| self.last.is(id, event.data.len())) {
                    repeated = Some(from..at);
                    continue;
                }
            }
            if let Some(id) = event.id {
                self.last.note(id, event.data.len());
                // Nobody waits for an answer here, so the id was all that was not known.
                self.unsure &= !self.is_own();
            }
            if !self.is_own() && !event.data.is_empty() {
                self.unanswered = std::mem::take(&mut self.unanswered).without(&event.data);
            }
        }
        match repeated {
            None => piece,
            Some(repeated) => Bytes::from([&piece[..repeated.start], &piece[repeated.end..]].concat()),
        }
    }

    /// Where the stream goes on if it is cut off here; nowhere if that would do damage or is of no use.
    pub(super) fn goes_on(&self) -> Option<GoesOn> {
        let is_wanted = self.is_own() || !matches!(self.unanswered, Calls::None);
        if self.committed || self.unsure || !is_wanted {
            return None;
        }
        if self.last.id.is_empty() {
            return match self.is_own() {
                true => Some(GoesOn::Anew),
                false => (!self.has_passed).then_some(GoesOn::AtTheStart),
            };
        }
        HeaderValue::from_bytes(&self.last.id).ok().map(GoesOn::After)
    }

    /// The stream will go on from elsewhere: half an event that is here will come again, whole.
    pub(super) fn rewind(&mut self) {
        self.held.clear();
        self.boundary = Boundary::default();
        self.taken_up = true;
    }

    /// Whether the client can ask for the rest.
    fn resumes(&self) -> bool {
        match self.kind {
            Kind::Own | Kind::Answer => !self.last.id.is_empty(),
            Kind::ModernAnswer | Kind::Subscription => false,
        }
    }

    /// The last thing the client gets of a stream that goes on at another node, if it comes back there.
    pub(super) fn leave(&mut self) -> Option<Result<Bytes, Broke>> {
        let is_wanted = self.is_own() || !matches!(self.unanswered, Calls::None);
        let is_known = !self.unsure && self.resumes();
        match is_wanted {
            false => None,
            // Half an event is nothing to the client: it comes again as a whole.
            _ if self.kind == Kind::Subscription => None,
            true if self.is_own() && self.committed => None,
            true if is_known && !self.committed => {
                Some(Ok([b"id: ", &*self.last.id, b"\n", &*COME_BACK].concat().into()))
            }
            true if self.is_own() => Some(Ok(COME_BACK)),
            true => self.last(Some(Broke::Hop)),
        }
    }

    /// The last thing the client gets of a stream that ended, cleanly or not.
    pub(super) fn last(&mut self, broke: Option<Broke>) -> Option<Result<Bytes, Broke>> {
        let answered = matches!(self.unanswered, Calls::None);
        // The owner lives where the upstream is what broke, so the client can resume at it.
        let resumes = self.resumes() && broke.is_none_or(|broke| broke == Broke::Upstream);
        match broke {
            Some(_) if self.committed => Some(Err(Broke::Answer)),
            Some(_) if self.is_own() => Some(Ok(COME_BACK)),
            Some(_) if self.kind == Kind::Subscription => None,
            None if self.kind == Kind::Subscription => {
                let rest = self.held.split().freeze();
                (!rest.is_empty()).then_some(Ok(rest))
            }
            Some(_) if self.unsure && !answered => Some(Err(Broke::Answer)),
            _ if answered || resumes || self.unsure => {
                let rest = self.held.split().freeze();
                (broke.is_none() && !rest.is_empty()).then_some(Ok(rest))
            }
            None | Some(_) => {
                let why = reason(broke.unwrap_or(Broke::Upstream));
                Some(Ok(mcp::event(&respond::undelivered_body(&self.unanswered, why, true))))
            }
        }
    }
}

/// The id of an event of which only the beginning is there.
fn leading_id(beginning: &[u8]) -> Option<Vec<u8>> {
    let line = beginning.split(|byte| matches!(byte, b'\n' | b'\r')).next()?;
    let id = line.strip_prefix(b"id:")?;
    // Without the end of the line it would not be whole.
    (line.len() < beginning.len()).then(|| id.strip_prefix(b" ").unwrap_or(id).to_vec())
}

impl LastEvent {
    fn note(&mut self, id: &[u8], data_len: usize) {
        let is_new = self.id != id;
        if is_new {
            self.id.clear();
            self.id.extend_from_slice(id);
        }
        // A stream that is taken up begins with the old id and no data (SEP-1699).
        if is_new || data_len > 0 {
            self.data_len = data_len;
        }
    }

    /// The same event once more: rmcp 3.9 begins with the one that it shall go on after. The length
    /// tells it from the first events of a new upstream session, where ids begin anew.
    fn is(&self, id: &[u8], data_len: usize) -> bool {
        self.id == id && self.data_len == data_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls() -> Calls {
        mcp::peek(br#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#, false).expect("a request").calls
    }

    fn take(events: &mut Events, chunk: &str) -> Option<String> {
        let pass = events.take(Bytes::copy_from_slice(chunk.as_bytes()));
        pass.map(|pass| String::from_utf8(pass.to_vec()).expect("text"))
    }

    fn after(events: &Events) -> Option<String> {
        match events.goes_on()? {
            GoesOn::After(id) => Some(id.to_str().expect("text").to_owned()),
            GoesOn::AtTheStart => Some("the start".to_owned()),
            GoesOn::Anew => Some(String::new()),
        }
    }

    #[test]
    fn events_pass_whole_and_at_once() {
        let mut events = Events::new(Kind::Answer, calls());
        let mut take = |chunk| take(&mut events, chunk);
        assert_eq!(take("data: 1\n\n").as_deref(), Some("data: 1\n\n"));
        assert_eq!(take("data: 2\n\ndata:").as_deref(), Some("data: 2\n\n"));
        assert_eq!(take(" 3\n"), None);
        assert_eq!(take("\n").as_deref(), Some("data: 3\n\n"));
    }

    #[test]
    fn the_id_of_the_last_whole_event_is_remembered() {
        let mut events = Events::new(Kind::Own, Calls::None);
        assert_eq!(after(&events).as_deref(), Some(""));
        for (chunk, last) in [
            ("id: 1\ndata: \n\n", "1"),
            ("id: 2/a\ndata: x\n\ndata: y\n\nid: 3", "2/a"),
            ("\n", "2/a"),
            ("data: x\n\n", "3"),
            ("id\n\nid:\n\n", ""),
        ] {
            take(&mut events, chunk);
            assert_eq!(after(&events).as_deref(), Some(last), "{chunk:?}");
        }
    }

    #[test]
    fn half_an_event_is_dropped_when_the_stream_goes_on_elsewhere() {
        let mut events = Events::new(Kind::Own, Calls::None);
        assert_eq!(
            take(&mut events, "id: 1\ndata: a\n\nid: 2\ndata: b").as_deref(),
            Some("id: 1\ndata: a\n\n")
        );
        events.rewind();
        assert_eq!(take(&mut events, "id: 2\ndata: bb\n\n").as_deref(), Some("id: 2\ndata: bb\n\n"));
    }

    #[test]
    fn the_event_that_was_seen_last_is_not_passed_on_again() {
        let (seen, next) = ("id: 1\ndata: abc\n\n", "id: 2\ndata: abc\n\n");
        let primed = "id: 1\nretry: 5\ndata: \n\n";
        for (resumed, passed) in [
            (format!("{seen}{next}"), next.to_owned()),
            (format!("{primed}{seen}{next}"), format!("{primed}{next}")),
            (format!("{next}{seen}"), format!("{next}{seen}")),
            // The ids of another upstream session have begun anew.
            (format!("id: 1\ndata: ab\n\n{next}"), format!("id: 1\ndata: ab\n\n{next}")),
        ] {
            let mut events = Events::new(Kind::Own, Calls::None);
            take(&mut events, seen);
            events.rewind();
            assert_eq!(take(&mut events, &resumed), Some(passed), "{resumed}");
        }
    }

    #[test]
    fn a_long_event_that_says_its_id_first_leaves_nothing_unsure() {
        let long = format!("id: 2\ndata: {}", "x".repeat(HELD_LEN_MAX + 1));
        for (rest, last) in
            [("\n\n", "2"), ("x\n\nid: 3\ndata: x\n\n", "3"), ("\n\ndata: x\n\nid: 4\nda", "2")]
        {
            let mut events = Events::new(Kind::Own, Calls::None);
            take(&mut events, "id: 1\ndata: x\n\n");
            take(&mut events, &long);
            assert!(after(&events).is_none(), "in the middle of an event");
            take(&mut events, rest);
            assert_eq!(after(&events).as_deref(), Some(last), "{rest:?}");
        }
        let mut events = Events::new(Kind::Answer, calls());
        take(&mut events, &long);
        take(&mut events, "\n\n");
        assert!(after(&events).is_none(), "it may have been the answer");
    }

    #[test]
    fn a_stream_goes_on_only_where_the_client_notices_nothing() {
        let long = format!("data: {}", "x".repeat(HELD_LEN_MAX + 1));
        let mut events = Events::new(Kind::Own, Calls::None);
        take(&mut events, "id: 1\ndata: x\n\n");
        take(&mut events, &long);
        assert!(!events.is_between() && after(&events).is_none(), "in the middle of an event");
        take(&mut events, "\n\n");
        assert!(events.is_between() && after(&events).is_none(), "the id of the long event is not known");
        take(&mut events, "id: 3\ndata: x\n\n");
        assert_eq!(after(&events).as_deref(), Some("3"));

        let mut events = Events::new(Kind::Answer, calls());
        take(&mut events, "data: {}\n\n");
        assert!(after(&events).is_none(), "without an id");
        take(&mut events, "id: 1\ndata: {}\n\n");
        assert_eq!(after(&events).as_deref(), Some("1"));
        take(&mut events, "id: 2\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n");
        assert!(after(&events).is_none(), "answered");
    }

    #[test]
    fn an_answer_that_can_not_be_resumed_ends_in_an_error_even_after_an_id() {
        let event = "id: 1\ndata: {}\n\n";
        for (kind, broke, expected) in [
            (Kind::Answer, Some(Broke::Upstream), None),
            (Kind::Answer, Some(Broke::Hop), Some("mayHaveRun")),
            (Kind::ModernAnswer, Some(Broke::Upstream), Some("mayHaveRun")),
            (Kind::ModernAnswer, None, Some("mayHaveRun")),
        ] {
            let mut events = Events::new(kind, calls());
            take(&mut events, event);
            let last = events.last(broke).map(|last| String::from_utf8(last.expect("an event").to_vec()));
            let last = last.map(|last| last.expect("text"));
            assert_eq!(last.is_some(), expected.is_some(), "{kind:?} {broke:?}: {last:?}");
            assert!(last.unwrap_or_default().contains(expected.unwrap_or_default()), "{kind:?} {broke:?}");
        }
        let mut events = Events::new(Kind::ModernAnswer, calls());
        take(&mut events, event);
        let last = events.leave().expect("an event").expect("whole");
        assert!(String::from_utf8_lossy(&last).contains("mayHaveRun"), "the node leaves");
    }

    #[test]
    fn a_subscription_ends_abruptly_and_at_the_end_of_an_event() {
        for ending in [Events::leave, |events: &mut Events| events.last(Some(Broke::Hop))] {
            let mut events = Events::new(Kind::Subscription, calls());
            take(&mut events, "id: 1\ndata: {}\n\ndata: {");
            assert!(ending(&mut events).is_none());
        }
        let mut events = Events::new(Kind::Subscription, calls());
        let result = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n";
        assert_eq!(take(&mut events, result).as_deref(), Some(result));
        assert!(events.last(None).is_none(), "its graceful end is the upstream's");
    }
}
