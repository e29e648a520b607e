//! Headers as Ringway keeps them, header values that are needed in many places, and headers that are kept or written
//! without hyper.

mod changed;
mod known;

pub(crate) use changed::Changed;
pub(crate) use known::name;

use bytes::BytesMut;
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use std::{fmt, io::Write};

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// What a client of Streamable HTTP takes (2025-03-26, transports, "Sending Messages").
pub(crate) const JSON_OR_EVENTS: HeaderValue =
    HeaderValue::from_static("application/json, text/event-stream");

/// What the client called, and how: the upstream gets a `Host` of its own.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Which node answered, and over how many hops: on every answer that a client gets.
pub(crate) const NODE: HeaderName = HeaderName::from_static("ringway-node");
pub(crate) const HOPS: HeaderName = HeaderName::from_static("ringway-hops");

/// What is added to a message on its way through a node.
const ADDED: usize = 4;

/// The headers of a message, in the order in which they came: a list that is looked through. A message has a dozen
/// of them, and to look through those costs less than to hash one name; whoever reads a head bounds how many there can be
/// (`front::whole` and `front::serve`, `upstream::http::framing`). Where hyper reads or writes, it is made of hyper's map or becomes one.
#[derive(Clone, Default)]
pub(crate) struct Headers(Vec<(HeaderName, HeaderValue)>);

/// A name may be given as any of those that [`HeaderName`] can be compared with; text in any case.
impl Headers {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// For as many as are read, and the few that are added on their way: the list need not grow.
    pub(crate) fn with_room_for(read: usize) -> Self {
        Self::with_capacity(read + ADDED)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The first of that name.
    #[inline]
    pub(crate) fn get<N>(&self, name: N) -> Option<&HeaderValue>
    where
        HeaderName: PartialEq<N>,
    {
        self.0.iter().find(|(one, _)| *one == name).map(|(_, value)| value)
    }

    #[inline]
    pub(crate) fn get_mut<N>(&mut self, name: N) -> Option<&mut HeaderValue>
    where
        HeaderName: PartialEq<N>,
    {
        self.0.iter_mut().find(|(one, _)| *one == name).map(|(_, value)| value)
    }

    #[inline]
    pub(crate) fn get_all<N>(&self, name: N) -> impl DoubleEndedIterator<Item = &HeaderValue>
    where
        HeaderName: PartialEq<N>,
    {
        self.0.iter().filter(move |(one, _)| *one == name).map(|(_, value)| value)
    }

    #[inline]
    pub(crate) fn contains_key<N>(&self, name: N) -> bool
    where
        HeaderName: PartialEq<N>,
    {
        self.get(name).is_some()
    }

    /// Instead of all of that name, of which it gives the first.
    #[inline]
    pub(crate) fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Option<HeaderValue> {
        match self.position(&name) {
            Some(at) => self.replace(at, &name, value),
            None => {
                self.append(name, value);
                None
            }
        }
    }

    fn replace(&mut self, at: usize, name: &HeaderName, value: HeaderValue) -> Option<HeaderValue> {
        let (_, first) = self.0.get_mut(at)?;
        let replaced = std::mem::replace(first, value);
        self.remove_from(at + 1, name);
        Some(replaced)
    }

    /// Unless there is one of that name.
    pub(crate) fn add_missing(&mut self, name: HeaderName, value: HeaderValue) {
        if !self.contains_key(&name) {
            self.append(name, value);
        }
    }

    /// Beside others of that name.
    #[inline]
    pub(crate) fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Removes all of that name, of which it gives the first.
    #[inline]
    pub(crate) fn remove<N>(&mut self, name: N) -> Option<HeaderValue>
    where
        HeaderName: PartialEq<N>,
    {
        let at = self.position(&name)?;
        Some(self.remove_at(at))
    }

    fn remove_at(&mut self, at: usize) -> HeaderValue {
        let (name, first) = self.0.remove(at);
        self.remove_from(at, &name);
        first
    }

    /// Removes all of that name from that place on. Hardly any name comes twice.
    fn remove_from(&mut self, at: usize, name: &HeaderName) {
        if self.0.iter().skip(at).any(|(one, _)| one == name) {
            let mut place = 0;
            self.0.retain(|(one, _)| {
                place += 1;
                place <= at || one != name
            });
        }
    }

    #[inline]
    fn position<N>(&self, name: &N) -> Option<usize>
    where
        HeaderName: PartialEq<N>,
    {
        self.0.iter().position(|(one, _)| one == name)
    }

    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&HeaderName) -> bool) {
        self.0.retain(|(name, _)| stays(name));
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &HeaderValue> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut HeaderValue> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl From<HeaderMap> for Headers {
    fn from(map: HeaderMap) -> Self {
        let mut headers = Self::with_capacity(map.len());
        for (name, value) in map {
            // Further ones of a name come without it.
            let name = name.or_else(|| headers.0.last().map(|(name, _)| name.clone()));
            headers.0.extend(name.map(|name| (name, value)));
        }
        headers
    }
}

impl From<Headers> for HeaderMap {
    fn from(headers: Headers) -> Self {
        let mut map = Self::try_with_capacity(headers.len()).unwrap_or_default();
        for (name, value) in headers.0 {
            // It takes 24,576 names, more than a head can have that is of 64 KiB.
            if map.try_append(name, value).is_err() {
                break;
            }
        }
        map
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Headers {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

/// A copy: what was read is a piece of its buffer, and would keep all 8 KiB of it.
pub(crate) fn copied(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).expect("it was a header's value")
}

/// Copies all values, for as long as the headers live.
pub(crate) fn let_go(headers: &mut Headers) {
    let mut copied = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    for value in headers.values() {
        copied.extend_from_slice(value.as_bytes());
    }
    let mut copied = copied.freeze();
    for value in headers.values_mut() {
        let copy = copied.split_to(value.len());
        *value = HeaderValue::from_maybe_shared(copy).expect("it was a header's value");
    }
}

/// Adds the length of what follows a head to its first lines.
pub(crate) fn write_length(len: usize, head: &mut Vec<u8>) {
    write!(head, "content-length: {len}\r\n").expect("writing to memory can't fail");
}

/// Adds them to the first line of a head, with the empty line after them.
pub(crate) fn write<'a>(
    headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    head: &mut Vec<u8>,
) {
    for (name, value) in headers {
        head.extend_from_slice(name.as_ref());
        // Byte by byte: a copy of two of them is a call.
        head.push(b':');
        head.push(b' ');
        head.extend_from_slice(value.as_bytes());
        head.push(b'\r');
        head.push(b'\n');
    }
    head.extend_from_slice(b"\r\n");
}

/// As the tests say what they expect; those that get headers otherwise look for one.
#[cfg(test)]
impl PartialEq for Headers {
    /// The order is compared only of those of one name.
    fn eq(&self, other: &Self) -> bool {
        HeaderMap::from(self.clone()) == HeaderMap::from(other.clone())
    }
}

#[cfg(test)]
impl<N> std::ops::Index<N> for Headers
where
    HeaderName: PartialEq<N>,
{
    type Output = HeaderValue;

    fn index(&self, name: N) -> &HeaderValue {
        self.get(name).expect("a header of that name")
    }
}

#[cfg(test)]
mod tests;
