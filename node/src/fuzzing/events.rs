//! Streams of events: the same events wherever the stream is cut, those that the standard says, and ids
//! that say whose they are.

use super::{cuts::cut, reference};
use crate::mcp::{self, Gather, IdPrefix};
use crate::sessions::event_ids::{Mark, Stream};
use bytes::Bytes;

pub(super) const TOKENS: &[&str] = &[
    "data: ",
    "data:",
    "data",
    "id: ",
    "id:",
    "id",
    "event: ",
    "event: endpoint",
    ": ping",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\r\n\r\n",
    "rw2s.",
    "rw1c1f.",
    "{\"jsonrpc\":\"2.0\"}",
    "retry: 1",
    "\u{feff}",
];

pub fn events(input: &[u8]) {
    let (text, pieces) = cut(input);
    let (whole, split) = (gathered(&[text]), gathered(&pieces));
    assert_eq!(whole, split, "the same events wherever they are cut");
    let expected: Vec<_> = reference::events(text).into_iter().filter(says_something).collect();
    assert_eq!(whole, expected, "the events that the standard says");

    let mark =
        Mark { renewals: u32::from(input.first().copied().unwrap_or_default()), stream: Stream::Call(31) };
    let (marked, cut_and_marked) = (prefixed(&mark, &[text]), prefixed(&mark, &pieces));
    assert_eq!(marked, cut_and_marked, "the same ids wherever they are cut");
    marks_are_all_that_differs(&mark, &whole, &gathered(&[&marked]));
    if let Some((read, theirs)) = Mark::read(text) {
        assert_eq!([read.to_string().as_bytes(), theirs].concat(), text, "a mark has one spelling");
    }
}

fn says_something(event: &reference::Event) -> bool {
    *event != reference::Event::default()
}

fn gathered(pieces: &[&[u8]]) -> Vec<reference::Event> {
    let (mut gather, mut events, mut passed) = (Gather::default(), Vec::new(), 0);
    for piece in pieces {
        let whole = gather.take(piece).expect("far below the bound");
        let mut read = 0;
        for event in mcp::events(&whole) {
            read += event.text.len();
            events.push(reference::Event {
                name: event.name.map(<[u8]>::to_vec),
                id: event.id.map(<[u8]>::to_vec),
                data: event.data.into_owned(),
            });
        }
        assert_eq!(read, whole.len(), "every byte is an event's");
        passed += read;
    }
    assert!(passed <= pieces.iter().map(|piece| piece.len()).sum());
    events.retain(says_something);
    events
}

fn prefixed(mark: &Mark, pieces: &[&[u8]]) -> Vec<u8> {
    let mut prefix = IdPrefix::new(&mark.to_string());
    let mut prefixed = Vec::new();
    for piece in pieces {
        prefixed.extend_from_slice(&prefix.advance(Bytes::copy_from_slice(piece)));
    }
    prefixed
}

fn marks_are_all_that_differs(mark: &Mark, plain: &[reference::Event], marked: &[reference::Event]) {
    assert_eq!(plain.len(), marked.len());
    for (plain, marked) in plain.iter().zip(marked) {
        assert_eq!((&plain.name, &plain.data), (&marked.name, &marked.data));
        let Some(id) = plain.id.as_ref().filter(|id| !id.is_empty()) else {
            assert_eq!(plain.id, marked.id, "an empty id means none");
            continue;
        };
        let read = marked.id.as_deref().and_then(Mark::read);
        assert_eq!(read, Some((*mark, &**id)), "the id leads back to its stream");
    }
}
