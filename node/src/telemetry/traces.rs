//! Spans: what this node did for a request that is traced, from when to when. The request's headers carry the
//! trace from the client through both nodes to the upstream; each span puts itself in as the parent of what
//! follows, so that the spans of one request are one tree.
//!
//! A trace that the client began is sampled as it says. Only the entry node begins one itself, for a share of
//! all other requests; what comes to another node without a trace stays without. Switched off, all of it is
//! one look at an `Option` per place.

use super::otlp::Outbox;
use super::traceparent::{Context, TRACEPARENT, TRACESTATE};
use crate::headers::Headers;
use hyper::{StatusCode, header::HeaderValue};
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    borrow::Cow,
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime},
};

/// What role this node had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was asked.
    Server,
    /// It asked.
    Client,
}

/// Where spans come from: nowhere, or into an outbox.
#[derive(Debug, Default)]
pub(crate) struct Traces(Option<On>);

#[derive(Debug)]
struct On {
    outbox: Outbox,
    /// Of 2^32 requests without a trace, as many begin one.
    sampled: u64,
    /// Where the dice begin; each roll is the next number, mixed.
    rolls: AtomicU64,
}

/// A span that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(super) context: Context,
    pub(super) parent: Option<u64>,
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
    pub(super) started: SystemTime,
    pub(super) ended: SystemTime,
    pub(super) attributes: Vec<(&'static str, Attribute)>,
    pub(super) failed: bool,
}

#[derive(Debug)]
pub(super) enum Attribute {
    Text(Cow<'static, str>),
    Number(u16),
}

/// A span that goes on until it is dropped. In a box, since hardly any request has one.
#[derive(Debug)]
pub(crate) struct Span(Box<Open>);

#[derive(Debug)]
struct Open {
    outbox: Outbox,
    began: Instant,
    finished: Option<Finished>,
}

impl Traces {
    /// Spans go to `outbox`; `share` of the requests that no trace comes with begin one.
    pub(crate) fn into(outbox: Outbox, share: f64) -> Self {
        // Both bounds were checked where it is written: 0 to 1.
        let sampled = (share * (1_u64 << 32) as f64) as u64;
        let first: [u8; 8] = entropy();
        Self(Some(On { outbox, sampled, rolls: AtomicU64::new(u64::from_le_bytes(first)) }))
    }

    /// A client's request has come; what follows is its child.
    pub(crate) fn enter(&self, headers: &mut Headers, method: &hyper::Method) -> Option<Span> {
        let on = self.0.as_ref()?;
        let given = Context::of(headers.get_all(TRACEPARENT));
        if given.is_none() {
            // What says nothing valid is not passed on, and what came beside it means nothing (W3C, 4.3).
            headers.remove(TRACEPARENT);
            headers.remove(TRACESTATE);
        }
        let context = match given {
            Some(given) if given.is_sampled() => given,
            None if on.rolls_sampled() => Context::begin(u128::from_le_bytes(entropy()).max(1), 0),
            Some(_) | None => return None,
        };
        let name = method.to_string();
        let span = on.open(context, given.map(|given| given.span), name.into(), Kind::Server);
        span.put_into(headers);
        Some(span)
    }

    /// Something is done for a request, if that is traced: `lines` are its [`TRACEPARENT`].
    pub(crate) fn child<'a>(
        &self,
        lines: impl Iterator<Item = &'a HeaderValue>,
        kind: Kind,
        name: &'static str,
    ) -> Option<Span> {
        let on = self.0.as_ref()?;
        let context = Context::of(lines).filter(|context| context.is_sampled())?;
        Some(on.open(context, Some(context.span), name.into(), kind))
    }
}

impl On {
    fn open(&self, context: Context, parent: Option<u64>, name: Cow<'static, str>, kind: Kind) -> Span {
        let (began, started) = (Instant::now(), SystemTime::now());
        let context = context.at(u64::from_le_bytes(entropy()).max(1));
        let attributes = Vec::new();
        let ended = started;
        let finished = Finished { context, parent, name, kind, started, ended, attributes, failed: false };
        Span(Box::new(Open { outbox: self.outbox.clone(), began, finished: Some(finished) }))
    }

    fn rolls_sampled(&self) -> bool {
        // SplitMix64: the system's dice take 300 ns, for a question that most requests are asked.
        let mut roll = self.rolls.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        roll = (roll ^ (roll >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        roll = (roll ^ (roll >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (roll ^ (roll >> 31)) >> 32 < self.sampled
    }
}

impl Span {
    /// From here on the headers name this span as the parent.
    pub(crate) fn put_into(&self, headers: &mut Headers) {
        if let Some(parent) = self.to_header() {
            headers.insert(TRACEPARENT, parent);
        }
    }

    /// The same, where there is another list of them.
    pub(crate) fn to_header(&self) -> Option<HeaderValue> {
        self.0.finished.as_ref().map(|finished| finished.context.to_header())
    }

    pub(crate) fn rename(&mut self, name: String) {
        if let Some(finished) = &mut self.0.finished {
            finished.name = name.into();
        }
    }

    pub(crate) fn note(&mut self, key: &'static str, value: impl Into<Cow<'static, str>>) {
        if let Some(finished) = &mut self.0.finished {
            finished.attributes.push((key, Attribute::Text(value.into())));
        }
    }

    pub(crate) fn note_status(&mut self, status: StatusCode) {
        if let Some(finished) = &mut self.0.finished {
            finished.attributes.push(("http.response.status_code", Attribute::Number(status.as_u16())));
            finished.failed |= status.is_server_error();
        }
    }

    /// It came to nothing, for this reason.
    pub(crate) fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        self.note("error.type", why);
        if let Some(finished) = &mut self.0.finished {
            finished.failed = true;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(mut finished) = self.finished.take() {
            finished.ended = finished.started + self.began.elapsed();
            self.outbox.put(finished);
        }
    }
}

/// The trace that the headers name, for the log.
pub(crate) fn trace_id(headers: &Headers) -> Option<String> {
    Context::of(headers.get_all(TRACEPARENT)).map(|context| format!("{:032x}", context.trace))
}

fn entropy<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    SystemRandom::new().fill(&mut bytes).expect("the system's random source works after start-up");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Method;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(traceparent: &'static str) -> Headers {
        let mut headers = Headers::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(traceparent));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
        headers
    }

    #[test]
    fn a_trace_goes_on_as_one_tree() {
        let (outbox, mut sent) = Outbox::new(8);
        let traces = Traces::into(outbox, 0.0);
        let mut seen = headers(GIVEN);
        let entry = traces.enter(&mut seen, &Method::POST).expect("sampled by the client");
        let mut hop =
            traces.child(seen.get_all(TRACEPARENT), Kind::Client, "forward").expect("of the same trace");
        let mut over_there = seen.clone();
        hop.put_into(&mut over_there);
        let owner =
            traces.child(over_there.get_all(TRACEPARENT), Kind::Server, "serve").expect("of the same trace");
        hop.fail("owner_lost");
        drop((owner, hop, entry));
        let [owner, hop, entry] = std::array::from_fn(|_| sent.try_recv().expect("three spans"));
        assert_eq!(entry.parent, Some(0xb7ad_6b71_6920_3331));
        assert_eq!(hop.parent, Some(entry.context.span));
        assert_eq!(owner.parent, Some(hop.context.span));
        let client = Context::of(headers(GIVEN).get_all(TRACEPARENT)).expect("valid");
        for span in [&owner, &hop, &entry] {
            assert_eq!(span.context.trace, client.trace);
            assert!(span.ended >= span.started);
        }
        assert!(hop.failed && !entry.failed);
        assert_eq!(over_there[TRACESTATE], "a=1", "it is the client's");
    }

    #[test]
    fn what_the_client_does_not_sample_passes_as_it_is() {
        let traces = Traces::into(Outbox::new(1).0, 1.0);
        let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let mut seen = headers(unsampled);
        assert!(traces.enter(&mut seen, &Method::GET).is_none());
        assert_eq!(seen, headers(unsampled));
        assert!(traces.child(seen.get_all(TRACEPARENT), Kind::Client, "forward").is_none());
    }

    #[test]
    fn an_invalid_trace_is_replaced_by_a_new_one_or_by_none() {
        let mut seen = headers("00-nonsense");
        assert!(Traces::into(Outbox::new(1).0, 0.0).enter(&mut seen, &Method::GET).is_none());
        assert_eq!(seen, Headers::new());
        let mut seen = headers("00-nonsense");
        let span = Traces::into(Outbox::new(1).0, 1.0).enter(&mut seen, &Method::GET).expect("a new trace");
        assert!(
            Context::of(seen.get_all(TRACEPARENT)).is_some_and(Context::is_sampled)
                && !seen.contains_key(TRACESTATE)
        );
        assert_eq!(span.0.finished.as_ref().expect("it goes on").parent, None);
    }

    #[test]
    fn a_node_that_exports_nothing_touches_nothing() {
        for given in [GIVEN, "00-nonsense"] {
            let mut seen = headers(given);
            assert!(Traces::default().enter(&mut seen, &Method::GET).is_none());
            assert!(Traces::default().child(seen.get_all(TRACEPARENT), Kind::Client, "x").is_none());
            assert_eq!(seen, headers(given));
        }
    }

    #[test]
    fn the_share_that_is_asked_for_is_sampled() {
        for (share, least, most) in
            [(0.0, 0, 0), (0.01, 800, 1_200), (0.5, 49_000, 51_000), (1.0, 100_000, 100_000)]
        {
            let traces = Traces::into(Outbox::new(1).0, share);
            let on = traces.0.as_ref().expect("on");
            // Of 100,000 a hundredth is 1,000 with a standard deviation of 31.
            let sampled = (0..100_000).filter(|_| on.rolls_sampled()).count();
            assert!((least..=most).contains(&sampled), "{share}: {sampled}");
        }
    }
}
