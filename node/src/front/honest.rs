//! Keeps an answer honest. Real clients die of a reset and of a 5xx on a POST that waits for an
//! answer, and wait for ever on a stream that ends without one; so whatever breaks on the way, who
//! waits gets a JSON-RPC error that says so.

use super::events::{Events, Kind};
use super::read::WithoutSession;
use super::reattach::{Attached, JourneyAgain};
use super::standing::Stands;
use super::watch::{Of, Watch};
use super::{Front, respond};
use crate::answer::{Answer, BodyStream, Broke, Head, resumed, whole};
use crate::ask::{Ask, Errand, Payload};
use crate::journey::NoAnswer;
use crate::mcp::{self, Calls, modern};
use bytes::BytesMut;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, StatusCode, body::Body, header};
use proto::core::route::Hop;
use proto::wire::{Nature, Reason, Refusal};

/// An answer up to this size is held until it is whole, so that one that breaks in the middle can
/// be replaced; and an event up to this size, for the same reason. Most answers are below 1 KiB.
pub(super) const HELD_LEN_MAX: usize = 64 * 1024;
/// Error codes by which a 2026-07-28 server shows that it is one (that revision's section on errors).
const MODERN_ERRORS: [i64; 3] = [-32020, -32021, -32022];

/// An answer that is lost this often is not asked for again.
pub(super) const LOSSES_MAX: usize = 3;

/// What can be passed on of an answer.
enum Kept {
    Answer(Answer),
    Events(Head, BodyStream),
    /// Its owner was lost before it was whole, and the client has nothing of it.
    Lost,
}

impl Front {
    /// What the client gets of the answer to its request.
    pub(super) async fn keep(
        &self,
        mut answer: Answer,
        ask: Ask,
        calls: &Calls,
        without_session: WithoutSession,
    ) -> Result<Answer, NoAnswer> {
        for _ in 0..LOSSES_MAX {
            match self.keep_once(answer, &ask, calls, without_session).await? {
                Kept::Answer(answer) => return Ok(answer),
                Kept::Events(mut head, body) => {
                    if matches!(calls, Calls::None) && head.status == StatusCode::OK {
                        head.extensions.insert(Stands);
                    }
                    return Ok(Answer::from_parts(head, self.attach(body, ask, calls.clone())));
                }
                // Nothing of it was passed on: asked again, its owner says it again.
                Kept::Lost => answer = Box::pin(self.journey.run(&ask, Hop::Entry)).await?,
            }
        }
        Err(NoAnswer::Refused(Refusal::perhaps_run(Reason::OwnerBroke)))
    }

    async fn keep_once(
        &self,
        answer: Answer,
        ask: &Ask,
        calls: &Calls,
        without_session: WithoutSession,
    ) -> Result<Kept, NoAnswer> {
        let status = answer.status();
        match without_session {
            WithoutSession::Discover if !is_about_the_caller(status) && !status.is_success() => {
                return Ok(Kept::Answer(Box::pin(discovered(answer, ask, calls)).await));
            }
            WithoutSession::Unknown if matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) => {
                return Ok(Kept::Answer(respond::no_session(calls)));
            }
            WithoutSession::Fine | WithoutSession::Discover | WithoutSession::Unknown => {}
        }
        let waited_for = !matches!(calls, Calls::None);
        if waited_for && (status.is_server_error() || status == StatusCode::CONFLICT) {
            let reason = Reason::UpstreamStatus(status.as_u16());
            return Err(NoAnswer::Refused(Refusal::perhaps_run(reason)));
        }
        // Another service's events may be compressed, and are its own affair then.
        let is_read = mcp::is_event_stream(answer.headers())
            && !answer.headers().contains_key(header::CONTENT_ENCODING);
        if is_read && (waited_for || ask.method == Method::GET) {
            let (mut head, body) = answer.into_parts();
            // The length may change by an error event.
            head.headers.remove(header::CONTENT_LENGTH);
            return Ok(Kept::Events(head, body));
        }
        match waited_for {
            true => hold(answer, ask).await,
            false => Ok(Kept::Answer(answer)),
        }
    }

    /// The stream of events that the client gets of the answer to `ask`.
    fn attach(&self, body: BodyStream, ask: Ask, calls: Calls) -> BodyStream {
        let speaks = ask.route.speaks_mcp();
        let kind = match &calls {
            Calls::None => Kind::Own,
            Calls::One(_) | Calls::Many(_) if ask.nature == Nature::Listens => Kind::Subscription,
            Calls::One(_) | Calls::Many(_) if mcp::is_modern(&ask.headers) => Kind::ModernAnswer,
            Calls::One(_) | Calls::Many(_) => Kind::Answer,
        };
        let of = match kind {
            Kind::Own | Kind::Subscription => Of::Own { turn: self.leaving.turn(), speaks },
            Kind::Answer | Kind::ModernAnswer => Of::Call,
        };
        let watch = Watch::new(&self.leaving, of);
        let again = JourneyAgain::of(&self.journey, ask);
        Attached::new(body, Events::new(kind, calls), again, watch, &self.metrics).boxed_unsync()
    }
}

/// A refusal of the caller rather than of the method: the client has to see it.
fn is_about_the_caller(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS)
}

/// An upstream that refuses `server/discover` speaks sessions only, unless it says otherwise.
async fn discovered(answer: Answer, ask: &Ask, calls: &Calls) -> Answer {
    let (head, body) = answer.into_parts();
    let Ok(body) = Limited::new(body, HELD_LEN_MAX).collect().await else {
        return respond::method_not_found(calls);
    };
    let body = body.to_bytes();
    let error = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let code = error.and_then(|error| error["error"]["code"].as_i64());
    let is_modern = |code: i64| match &ask.body {
        // No server that knows the method would say so of a complete request.
        Payload::Whole(asked) if code == mcp::INVALID_PARAMS => !modern::is_complete(asked),
        Payload::Whole(_) | Payload::Passing(_) => MODERN_ERRORS.contains(&code),
    };
    if code.is_some_and(is_modern) {
        Answer::from_parts(head, whole(body))
    } else {
        respond::method_not_found(calls)
    }
}

/// Waits for the whole answer, or for as much as is held, before its head is sent.
async fn hold(answer: Answer, ask: &Ask) -> Result<Kept, NoAnswer> {
    let (head, mut body) = answer.into_parts();
    let mut held = BytesMut::new();
    while held.len() <= HELD_LEN_MAX {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                // All of it at once, as mostly: it need not be copied.
                Ok(bytes) if held.is_empty() && body.is_end_stream() => {
                    return Ok(Kept::Answer(Answer::from_parts(head, whole(bytes))));
                }
                Ok(bytes) => held.extend_from_slice(&bytes),
                Err(_) => {}
            },
            Some(Err(Broke::Hop | Broke::Moved)) if matches!(ask.errand, Errand::Session(_)) => {
                return Ok(Kept::Lost);
            }
            Some(Err(broke)) => {
                return Err(NoAnswer::Refused(Refusal::perhaps_run(reason(broke))));
            }
            None => return Ok(Kept::Answer(Answer::from_parts(head, whole(held.freeze())))),
        }
    }
    Ok(Kept::Answer(Answer::from_parts(head, resumed(held.freeze(), body))))
}

pub(super) fn reason(broke: Broke) -> Reason {
    match broke {
        Broke::Upstream | Broke::Client | Broke::Answer => Reason::UpstreamBroke,
        Broke::Hop | Broke::Moved | Broke::Displaced => Reason::OwnerBroke,
    }
}
