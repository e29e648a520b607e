//! The same formats read the simple way, as a whole, to compare with.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use std::fmt;

/// An object's keys and values in their order, also those that are there twice.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    pub(super) fn of(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The value of a key, if it is there once and not `null`.
    pub(super) fn get(&self, key: &str) -> Option<&RawValue> {
        let mut values = self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| &**value);
        values.next().filter(|value| value.get() != "null").filter(|_| values.next().is_none())
    }

    pub(super) fn has_twice(&self, key: &str) -> bool {
        self.0.iter().filter(|(name, _)| name == key).count() > 1
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}

/// What JSON says when all of it is read, or why it can't be.
pub(super) enum Full {
    Json(Value),
    /// It is JSON, and its reader's limits are in the way: depth, the size of a number, halves of
    /// surrogate pairs. What is skipped by a gateway is not tried by these.
    Beyond,
    NotJson,
}

pub(super) fn full(json: &[u8]) -> Full {
    let Ok(text) = std::str::from_utf8(json) else { return Full::NotJson };
    let error = match serde_json::from_str(text) {
        Ok(value) => return Full::Json(value),
        Err(error) => error.to_string(),
    };
    let beyond = ["recursion limit", "number out of range", "surrogate", "hex escape"];
    if beyond.iter().any(|what| error.contains(what)) { Full::Beyond } else { Full::NotJson }
}

/// An event by the letter of WHATWG HTML, 9.2.6, with the id that its own lines name.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Event {
    pub(super) name: Option<Vec<u8>>,
    pub(super) id: Option<Vec<u8>>,
    /// Without the line breaks of empty data lines before it, which are white space to JSON.
    pub(super) data: Vec<u8>,
}

/// The events of a stream that are whole.
pub(super) fn events(text: &[u8]) -> Vec<Event> {
    let (mut events, mut event) = (Vec::new(), Event::default());
    let mut rest = text;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = &rest[..end];
        let len = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + len..];
        if line.is_empty() {
            let mut whole = std::mem::take(&mut event);
            whole.data.pop(); // the last line's
            let from = whole.data.iter().position(|byte| *byte != b'\n').unwrap_or(whole.data.len());
            whole.data.drain(..from);
            events.push(whole);
            continue;
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
        match field {
            b"data" => event.data.extend([&value[..], b"\n"].concat()),
            b"event" => event.name = Some(value),
            b"id" => event.id = Some(value),
            _ => {}
        }
    }
    events
}
