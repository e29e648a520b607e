//! One request to an upstream, in a session that lives here or without any.

use super::event_ids::{self};
use super::readers::Reading;
use super::table::InUse;
use super::{Missing, Sessions};
use crate::answer::{Answer, TookOver, holding, whole};
use crate::ask::{Ask, Errand, Payload};
use crate::config::Upstream;
use crate::headers::Changed;
use crate::mcp::{self, Calls, SESSION_ID};
use crate::upstream::Request;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, StatusCode};
use proto::id::SessionId;
use proto::wire::{GoneWhy, Nature, Reason, Refusal};
use std::sync::Arc;

/// A 400 is read to tell "no such session" from a bad request; SDK servers' texts are below 1 KiB.
const BAD_REQUEST_LEN_MAX: usize = 64 * 1024;

impl Sessions {
    /// One request of a session that lives here.
    pub(crate) async fn exchange(self: &Arc<Self>, ask: &Ask, id: &SessionId) -> Result<Answer, Refusal> {
        if self.table.parks() && is_call(ask) {
            return Err(Refusal::not_run(Reason::Moved)); // in a moment
        }
        let (mut is_renewed, mut is_inherited) = (false, false);
        loop {
            let in_use = self.table.take_up(id.nonce, ask.method == Method::GET);
            let in_use = in_use.ok_or(Refusal::not_run(Reason::Moved))?;
            if ask.sent.may_have_run() && !self.may_run_again(ask, id.nonce) {
                return Err(Refusal::perhaps_run(Reason::OwnerLost));
            }
            let live = in_use.live.clone();
            is_inherited |= live.is_unproven();
            match self.try_exchange(ask, id, in_use).await? {
                Ok(mut answer) => {
                    if is_renewed && is_inherited {
                        self.metrics.taken_over(id.birth.home);
                        answer.extensions_mut().insert(TookOver);
                    }
                    return Ok(answer);
                }
                // What is asked for was in the upstream session that is gone.
                Err(_) if ask.nature == Nature::Resumes => {
                    return Err(Refusal::perhaps_run(Reason::OwnerLost));
                }
                // An upstream that loses what it has just begun would do so for ever.
                Err(_) if is_renewed => return Err(Refusal::not_run(Reason::UpstreamBroke)),
                // Nothing has run.
                Err(missing) => {
                    Box::pin(self.renew(&live, ask, missing)).await?;
                    is_renewed = true;
                }
            }
        }
    }

    /// Says what is missing where the session was inherited and has no upstream session any more.
    async fn try_exchange(
        self: &Arc<Self>,
        ask: &Ask,
        id: &SessionId,
        in_use: InUse,
    ) -> Result<Result<Answer, Missing>, Refusal> {
        let live = in_use.live.clone();
        live.note_protocol(&ask.headers);
        let may_be_forgotten = live.may_be_forgotten();
        let (Some(place), Some(upstream)) = (&live.place, live.upstream()) else {
            return Ok(Err(Missing::Forgotten));
        };
        let mut headers = Changed::of(&ask.headers);
        headers.insert(SESSION_ID, place.session.clone());
        let stream = event_ids::stream(&live, ask, &mut headers)?;
        let mut reading = match ask.method {
            Method::GET => Some(live.readers().admit(stream).ok_or(Refusal::not_run(Reason::Moved))?),
            _ => None,
        };
        let sent = match &mut reading {
            Some(reading) => Box::pin(self.ask_alone(ask, upstream, headers, reading)).await,
            None => self.send_leased(ask, upstream, headers).await,
        };
        let mut answer = match sent {
            Err(Refusal::Undelivered { reason: Reason::UpstreamUnreachable, may_have_run: false })
                if may_be_forgotten =>
            {
                return Ok(Err(Missing::Unreachable));
            }
            answer => answer?,
        };
        if answer.status() == StatusCode::BAD_REQUEST && ask.method == Method::POST {
            answer = Box::pin(self.read_bad_request(answer)).await?;
        }
        if answer.status() == StatusCode::NOT_FOUND {
            match ask.method {
                // A bridge says what it knows.
                Method::GET if live.is_bridged() => return Ok(Err(Missing::Forgotten)),
                Method::GET if may_be_forgotten && !Box::pin(self.is_known(&live, ask)).await? => {
                    return Ok(Err(Missing::Forgotten));
                }
                // A server without such a stream, as far as one can tell; all clients accept a 405.
                Method::GET => *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED,
                _ if may_be_forgotten && ask.method == Method::POST => return Ok(Err(Missing::Forgotten)),
                _ => {
                    self.end(id.nonce, GoneWhy::LostUpstream);
                    return Err(Refusal::Gone(GoneWhy::LostUpstream));
                }
            }
        } else if answer.status().is_success()
            && !reading.as_ref().is_some_and(Reading::is_over)
            && live.confirm()
        {
            self.count_takeover("reattach", "served");
            self.metrics.taken_over(id.birth.home);
            answer.extensions_mut().insert(TookOver);
        }
        if ask.method == Method::DELETE && answer.status().is_success() {
            Box::pin(self.end_everywhere(id.nonce, GoneWhy::Deleted)).await;
            // The Python SDK takes any other success for a failure.
            *answer.status_mut() = StatusCode::OK;
        }
        // In place of however many there are: the upstream's own never shows.
        if answer.headers().contains_key(SESSION_ID)
            && let Some(mine) = ask.headers.get(SESSION_ID)
        {
            answer.headers_mut().insert(SESSION_ID, mine.clone());
        }
        let answer = event_ids::marked(&live, stream, self.learn(ask, id.nonce, answer));
        Ok(Ok(match reading {
            Some(reading) if mcp::is_event_stream(answer.headers()) => {
                answer.map(|body| reading.read(body, in_use))
            }
            Some(_) | None => answer.map(|body| holding(body, in_use)),
        }))
    }

    /// A request that needs no session: not MCP, a modern one, or one to an upstream without sessions.
    pub(crate) async fn pass(&self, ask: &Ask) -> Result<Answer, Refusal> {
        let used = self.used(&ask.route);
        let (upstream, mut answer) = match &ask.errand {
            Errand::Pinned(pin) => self.pass_pinned(ask, pin).await?,
            // A key stays with one replica, as long as that answers.
            Errand::Key(position) => {
                self.first_to_answer(ask, used.beginning_with(position.0 as usize)).await?
            }
            Errand::Open | Errand::Session(_) | Errand::Anyone => {
                self.first_to_answer(ask, used.beginning_with(used.next_turn())).await?
            }
        };
        if !ask.route.speaks_mcp() {
            return Ok(answer);
        }
        answer.headers_mut().remove(SESSION_ID); // the upstream's own never shows
        self.wrapped(ask, upstream, answer).await
    }

    /// A request without a session to the first of the route's upstreams that can be reached.
    pub(super) async fn first_to_answer(
        &self,
        ask: &Ask,
        order: impl Iterator<Item = usize>,
    ) -> Result<(usize, Answer), Refusal> {
        let mut headers = Changed::of(&ask.headers);
        if ask.route.speaks_mcp() {
            headers.remove(SESSION_ID); // there is none, or it means nothing to this upstream
        }
        let mut last = Refusal::not_run(Reason::UpstreamUnreachable);
        for upstream in order {
            match self.send(ask, &ask.route.upstreams[upstream], headers.clone()).await {
                Ok(answer) => return Ok((upstream, answer)),
                Err(refusal) if refusal.may_be_tried_again() => last = refusal,
                Err(refusal) => return Err(refusal),
            }
        }
        Err(last)
    }

    /// Of a session: just before it is sent this node looks at its lease, since it may have stood still
    /// for a while.
    pub(super) async fn send_leased(
        &self,
        ask: &Ask,
        upstream: &Upstream,
        headers: Changed<'_>,
    ) -> Result<Answer, Refusal> {
        if !self.cluster.is_leased() {
            return Err(Refusal::not_run(Reason::Moved));
        }
        self.send(ask, upstream, headers).await
    }

    pub(super) async fn send(
        &self,
        ask: &Ask,
        upstream: &Upstream,
        mut headers: Changed<'_>,
    ) -> Result<Answer, Refusal> {
        if ask.route.speaks_mcp() {
            // Answers are read on their way (events, errors), so they come as they are.
            headers.remove(hyper::header::ACCEPT_ENCODING);
        }
        let request = Request {
            route: &ask.route,
            method: ask.method.clone(),
            target: &ask.target,
            headers,
            body: &ask.body,
            caller: ask.comes_as(),
        };
        self.ask_upstream(upstream, request).await
    }

    /// Some servers answer 400 where they mean that they do not know the session.
    pub(super) async fn read_bad_request(&self, answer: Answer) -> Result<Answer, Refusal> {
        let (mut head, body) = answer.into_parts();
        let body = Limited::new(body, BAD_REQUEST_LEN_MAX).collect().await;
        let body = body.map_err(|_| Refusal::perhaps_run(Reason::UpstreamBroke))?.to_bytes();
        let text = String::from_utf8_lossy(&body).to_ascii_lowercase();
        if text.contains("no valid session id") || text.contains("not initialized") {
            head.status = StatusCode::NOT_FOUND;
        }
        Ok(Answer::from_parts(head, whole(body)))
    }
}

/// Whether somebody waits for the answer.
fn is_call(ask: &Ask) -> bool {
    let Payload::Whole(body) = &ask.body else { return false };
    let message = mcp::peek(body, true);
    ask.method == Method::POST && message.is_ok_and(|message| !matches!(message.calls, Calls::None))
}
