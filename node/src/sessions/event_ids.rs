//! Event ids say which stream of a session they are of: `rw2s.` stands before an upstream's own id on
//! the server's own stream, `rw2c1f.` on that of the answer to call 0x1f. Upstreams' ids are opaque, and
//! nobody has to remember what the next owner reads from the id itself. The first number counts how
//! often the session was reinitialized: upstream sessions before may have used the same ids.
//!
//! A bridge's ids say all that by themselves: it tells its own from others, has one reader for each of
//! its streams, and resumes a lost call as little as it listens for one.

use super::table::Live;
use crate::answer::Answer;
use crate::ask::Ask;
use crate::headers::Changed;
use crate::mcp::{self, IdPrefix, LAST_EVENT_ID};
use http_body_util::BodyExt;
use hyper::{Method, header::HeaderValue};
use proto::wire::{Nature, Reason, Refusal};
use std::{fmt, str::FromStr};

/// One of a session's streams of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The server's own.
    Own,
    /// The answer to the call of that number.
    Call(u64),
}

/// The stream that the answer to a request is or goes on with, `None` where the last event's id does not
/// say. Makes that id the upstream's own.
pub(super) fn stream(live: &Live, ask: &Ask, headers: &mut Changed<'_>) -> Result<Option<Stream>, Refusal> {
    if ask.method != Method::GET {
        headers.remove(LAST_EVENT_ID); // it means nothing there
        return Ok(Some(Stream::Call(ask.uid)));
    }
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(Some(Stream::Own)) };
    if live.is_bridged() {
        return Ok(None);
    }
    let marked = Mark::read(id.as_bytes());
    let stream = marked.map(|(mark, _)| mark.stream);
    let theirs = match marked {
        Some((mark, id)) if mark.renewals == live.renewals => HeaderValue::from_bytes(id).ok(),
        None if live.renewals == 0 => return Ok(None),
        Some(_) | None => None,
    };
    if let Some(theirs) = theirs {
        headers.insert(LAST_EVENT_ID, theirs);
        return Ok(stream);
    }
    if matches!(stream, Some(Stream::Call(_))) || ask.nature == Nature::Resumes {
        // What is asked for was in an upstream session that is gone.
        return Err(Refusal::perhaps_run(Reason::OwnerLost));
    }
    headers.remove(LAST_EVENT_ID);
    Ok(Some(Stream::Own))
}

/// Marks the ids of an answer that is the stream.
pub(super) fn marked(live: &Live, stream: Option<Stream>, answer: Answer) -> Answer {
    let is_to_be = !live.is_bridged() && mcp::is_event_stream(answer.headers());
    let Some(stream) = stream.filter(|_| is_to_be) else { return answer };
    let mark = Mark { renewals: live.renewals, stream };
    let mut prefix = IdPrefix::new(&mark.to_string());
    let mut advance = move |data| prefix.advance(data);
    answer.map(|body| body.map_frame(move |frame| frame.map_data(&mut advance)).boxed_unsync())
}

/// What stands before an upstream's own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) renewals: u32,
    pub(crate) stream: Stream,
}

impl Mark {
    /// The mark before an id, and the id.
    pub(crate) fn read(id: &[u8]) -> Option<(Self, &[u8])> {
        let end = id.iter().position(|byte| *byte == b'.')?;
        let mark: Self = std::str::from_utf8(&id[..end]).ok()?.parse().ok()?;
        let (written, theirs) = id.split_at(end + 1);
        // Numbers have other spellings (`+1`, `01`), which no mark has.
        (mark.to_string().as_bytes() == written).then_some((mark, theirs))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stream {
            Stream::Own => write!(f, "rw{}s.", self.renewals),
            Stream::Call(number) => write!(f, "rw{}c{number:x}.", self.renewals),
        }
    }
}

impl FromStr for Mark {
    type Err = ();

    /// What stands before the dot.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.strip_prefix("rw").ok_or(())?;
        let (renewals, stream) = match text.strip_suffix('s') {
            Some(renewals) => (renewals, Stream::Own),
            None => {
                let (renewals, number) = text.split_once('c').ok_or(())?;
                (renewals, Stream::Call(u64::from_str_radix(number, 16).map_err(drop)?))
            }
        };
        Ok(Self { renewals: renewals.parse().map_err(drop)?, stream })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_which_stream_and_leaves_the_id_as_it_was() {
        for (stream, text) in [
            (Stream::Own, "rw2s.a.b"),
            (Stream::Call(0), "rw2c0.a.b"),
            (Stream::Call(u64::MAX), "rw2cffffffffffffffff.a.b"),
        ] {
            let mark = Mark { renewals: 2, stream };
            assert_eq!(format!("{mark}a.b"), text);
            assert_eq!(Mark::read(text.as_bytes()), Some((mark, b"a.b".as_slice())));
        }
    }

    #[test]
    fn what_is_no_mark_is_an_id() {
        for id in [
            "", ".", "7", "7/3", "rw", "rw1.x", "rws.x", "rw1c.x", "rw1cx.1", "rw1sx.1", "RW1s.1", "rw1s",
            "rw+1s.1", "rw01s.1", "rw1cA.1",
        ] {
            assert_eq!(Mark::read(id.as_bytes()), None, "{id}");
        }
    }
}
