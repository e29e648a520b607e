//! What goes on to somebody else with other headers than it came with.

use super::Headers;
use hyper::header::{HeaderName, HeaderValue};

/// What is mostly set on the way to an upstream: its session, and its host.
const SET: usize = 2;

/// Headers with a few changes. The list that they came in stays as it is, and need not be cloned for them.
#[derive(Clone, Debug)]
pub(crate) struct Changed<'a> {
    /// Of that list, what has not been changed.
    kept: Vec<(&'a HeaderName, &'a HeaderValue)>,
    set: Headers,
}

impl<'a> Changed<'a> {
    /// Not changed yet.
    pub(crate) fn of(headers: &'a Headers) -> Self {
        Self { kept: headers.iter().collect(), set: Headers::with_capacity(SET) }
    }

    /// The first of that name.
    pub(crate) fn get<N>(&self, name: N) -> Option<&HeaderValue>
    where
        HeaderName: PartialEq<N>,
    {
        self.iter().find(|(one, _)| **one == name).map(|(_, value)| value)
    }

    pub(crate) fn get_all<N>(&self, name: N) -> impl Iterator<Item = &HeaderValue>
    where
        HeaderName: PartialEq<N>,
    {
        self.iter().filter(move |(one, _)| **one == name).map(|(_, value)| value)
    }

    /// Instead of all of that name.
    #[inline]
    pub(crate) fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.keep_none(&name);
        self.set.insert(name, value);
    }

    /// Removes all of that name.
    #[inline]
    pub(crate) fn remove(&mut self, name: HeaderName) {
        self.keep_none(&name);
        self.set.remove(name);
    }

    #[inline]
    fn keep_none(&mut self, name: &HeaderName) {
        // Mostly there is none, or one.
        if self.kept.iter().any(|(one, _)| *one == name) {
            self.kept.retain(|(one, _)| *one != name);
        }
    }

    /// What has not been changed, in its order, and then what was set.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.kept.iter().copied().chain(self.set.iter())
    }

    /// A list of their own.
    pub(crate) fn whole(&self) -> Headers {
        self.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}
