//! A session whose owner is gone goes on here: *reattached* to the same upstream session where that
//! lives on, else *reinitialized* from the record as if its client had connected anew. The client
//! keeps its id.

use super::table::{Live, Place};
use super::{Missing, READ_LEN_MAX, Sessions};
use crate::answer::Answer;
use crate::ask::{Ask, Payload};
use crate::config::{Route, Upstream};
use crate::headers::{self, Changed, Headers, JSON, JSON_OR_EVENTS};
use crate::mcp::{self, LAST_EVENT_ID, PROTOCOL_VERSION, SESSION_ID};
use crate::telemetry::TakeoverLabels;
use crate::upstream::Request;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, StatusCode,
    header::{self, HeaderValue},
};
use proto::core::revival::Found;
use proto::core::ring::Position;
use proto::core::route::OnLoss;
use proto::id::{SessionId, UpstreamBirth};
use proto::wire::{GoneWhy, Item, Reason, Record, Refusal};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// As long as a request may wait for its owner (CONTRACT).
const INITIALIZE_TIME_MAX: Duration = Duration::from_secs(10);
const UNREACHABLE: Result<Arc<Live>, Refusal> =
    Err(Refusal::Undelivered { reason: Reason::UpstreamUnreachable, may_have_run: false });

impl Sessions {
    /// Finds what there is of a session that has become this node's: a copy elsewhere, or what the id
    /// says by itself. Afterwards it lives here.
    pub(crate) async fn revive(self: &Arc<Self>, ask: &Ask, id: &SessionId) -> Result<(), Refusal> {
        let heard = self.recall(&self.peers, id.nonce).await;
        let owner = self.cluster.world().succession.owner(id.birth.home, Position::of_session(id.nonce));
        if owner.node != self.cluster.me() {
            return Ok(()); // not any more
        }
        let record = match heard.conclude(owner.epoch, self.cluster.settled()) {
            Found::Record(record) => record,
            Found::Ended(why) => {
                self.keep_items(owner.node, &[Item::Ended { nonce: id.nonce, why }]);
                return Err(Refusal::Gone(why));
            }
            Found::Nothing | Found::Unsure if id.birth.upstream.is_some() => {
                self.record(&ask.route, id, owner.epoch, &[])
            }
            Found::Nothing => return Err(self.lost("nothing_left")),
            Found::Unsure => return Err(Refusal::not_run(Reason::OwnerUnreachable)),
        };
        let place = self.place(&ask.route, &record);
        self.table.find(owner.node, record, ask.route.clone(), place);
        self.publish_count();
        Ok(())
    }

    /// What is on record of a session, as far as its id and its first request say.
    pub(super) fn record(&self, route: &Route, id: &SessionId, epoch: u32, initialize: &[u8]) -> Record {
        Record {
            nonce: id.nonce,
            birth: id.birth.clone(),
            epoch,
            rev: 0,
            lives: id.birth.upstream.clone(),
            renewals: 0,
            initialize: initialize.into(),
            log_level: None,
            subscriptions: Default::default(),
            repeatable: Arc::default(),
            keep_s: super::keep_s(route),
        }
    }

    /// How an inherited session is served from here: by its record and this node's routes.
    pub(super) fn settle(&self, record: &Record) -> Option<(Arc<Route>, Option<Place>)> {
        let route = self.route(record.birth.route)?;
        Some((route.clone(), self.place(route, record)))
    }

    /// The session's upstream has forgotten it, or is not there: begins another one from the record.
    /// Whoever comes meanwhile waits for the same.
    pub(super) async fn renew(
        self: &Arc<Self>,
        live: &Arc<Live>,
        ask: &Ask,
        missing: Missing,
    ) -> Result<(), Refusal> {
        let renewal = live.renewal.as_ref().filter(|_| live.route.on_loss == OnLoss::Reinitialize);
        let Some(renewal) = renewal else { return Err(self.lose(live)) };
        let renewing = async {
            let mut beginning = renewal.beginning.lock().await;
            // It goes on when nobody waits any more: a child may take longer to start than a request can
            // wait, and would never be there if each started it anew.
            let begun = beginning.get_or_insert_with(|| {
                let (sessions, live, headers) = (self.clone(), live.clone(), ask.headers.clone());
                tokio::spawn(async move {
                    let begun = sessions.reinitialize(&live, headers, missing);
                    tokio::time::timeout(begin_time_max(&live.route), begun).await.unwrap_or(UNREACHABLE)
                })
            });
            let begun = begun.await.unwrap_or(UNREACHABLE);
            *beginning = None;
            begun
        };
        let renewed = renewal.renewed.get_or_try_init(|| renewing);
        match tokio::time::timeout(INITIALIZE_TIME_MAX, renewed).await {
            Ok(renewed) => renewed.map(drop),
            Err(_) => UNREACHABLE.map(drop),
        }
    }

    async fn reinitialize(
        &self,
        live: &Arc<Live>,
        headers: Headers,
        missing: Missing,
    ) -> Result<Arc<Live>, Refusal> {
        let _room = self.renewing.acquire().await;
        let record = self.table.record(live.nonce).ok_or(Refusal::not_run(Reason::Moved))?;
        if record.initialize.is_empty() {
            return Err(match missing {
                Missing::Forgotten => self.lose(live),
                Missing::Unreachable => Refusal::not_run(Reason::UpstreamUnreachable),
            });
        }
        let used = self.used(&live.route);
        let mut refusal = Refusal::not_run(Reason::UpstreamUnreachable);
        for upstream in used.by_load() {
            match self.begin(&live.route, upstream, &record, headers.clone()).await {
                Ok((place, news)) => {
                    let lives = UpstreamBirth {
                        url: live.route.upstreams[upstream].name(),
                        session: place.session.to_str().unwrap_or_default().into(),
                    };
                    let renewed = self.table.renew(live, place, news, |record| {
                        record.lives = Some(lives);
                        record.renewals += 1;
                    });
                    let renewed = renewed.ok_or(Refusal::not_run(Reason::Moved))?;
                    self.count_takeover("reinitialize", "served");
                    tracing::info!(route = live.route.path, "a session was reinitialized");
                    return Ok(renewed);
                }
                Err(Refusal::Gone(_)) => return Err(self.lose(live)),
                Err(why) => refusal = why,
            }
        }
        self.count_takeover("reinitialize", "failed");
        Err(refusal)
    }

    /// The handshake as the client made it, and what the client has set since. Gives the new session's
    /// place at the upstream, and what the client should ask for again.
    async fn begin(
        &self,
        route: &Route,
        at: usize,
        record: &Record,
        // The caller's own credentials and the like go along.
        mut headers: Headers,
    ) -> Result<(Place, Option<Bytes>), Refusal> {
        let upstream = &route.upstreams[at];
        headers.remove(SESSION_ID);
        headers.remove(LAST_EVENT_ID);
        let negotiated = headers.remove(PROTOCOL_VERSION);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_ENCODING);
        headers.insert(header::ACCEPT, JSON_OR_EVENTS);
        headers.insert(header::CONTENT_TYPE, JSON);
        let answer = self.post(route, upstream, &headers, Bytes::copy_from_slice(&record.initialize)).await?;
        if !answer.status().is_success() {
            return Err(Refusal::not_run(Reason::UpstreamStatus(answer.status().as_u16())));
        }
        let session = answer.headers().get(SESSION_ID).map(headers::copied);
        let session = session.ok_or(Refusal::not_run(Reason::UpstreamInvalid))?;
        // From here on, so that a handshake that fails or is given up leaves no child behind.
        let place = self.place_at(route, at, session);
        let result = read_result(answer).await.ok_or(Refusal::not_run(Reason::UpstreamInvalid))?;
        let version = result["protocolVersion"].as_str().unwrap_or_default();
        if negotiated.as_ref().is_some_and(|negotiated| negotiated != version) {
            return Err(Refusal::Gone(GoneWhy::LostUpstream)); // another server, as far as the client can tell
        }
        headers.insert(SESSION_ID, place.session.clone());
        if let Ok(version) = HeaderValue::from_str(version) {
            headers.insert(PROTOCOL_VERSION, version);
        }
        let mut said = vec![json!({"jsonrpc": "2.0", "method": "notifications/initialized"})];
        said.extend(record.log_level.iter().map(|level| {
            json!({"jsonrpc": "2.0", "id": "ringway", "method": "logging/setLevel", "params": {"level": level}})
        }));
        said.extend(record.subscriptions.iter().map(|uri| {
            json!({"jsonrpc": "2.0", "id": "ringway", "method": "resources/subscribe", "params": {"uri": uri}})
        }));
        for message in said {
            let is_call = message.get("id").is_some();
            let answer = self.post(route, upstream, &headers, message.to_string().into()).await?;
            if is_call {
                // So that it has been carried out before the client's own request is sent.
                let _ = read_result(answer).await;
            }
        }
        Ok((place, news(&result["capabilities"])))
    }

    /// Whether the upstream still knows a session, where its answer to a GET leaves that open.
    pub(super) async fn is_known(&self, live: &Live, ask: &Ask) -> Result<bool, Refusal> {
        let (Some(place), Some(upstream)) = (&live.place, live.upstream()) else { return Ok(false) };
        let mut headers = ask.headers.clone();
        headers.remove(LAST_EVENT_ID);
        headers.insert(SESSION_ID, place.session.clone());
        headers.insert(header::ACCEPT, JSON_OR_EVENTS);
        headers.insert(header::CONTENT_TYPE, JSON);
        let ping = json!({"jsonrpc": "2.0", "id": "ringway", "method": "ping"});
        let answer = self.post(&live.route, upstream, &headers, ping.to_string().into()).await?;
        let answer = self.read_bad_request(answer).await?;
        Ok(answer.status() != StatusCode::NOT_FOUND)
    }

    /// Where a session lives, if that is one of the route's upstreams here.
    pub(super) fn place(&self, route: &Route, record: &Record) -> Option<Place> {
        let lives = record.lives.as_ref()?;
        let upstream = route.upstreams.iter().position(|upstream| *upstream.name() == *lives.url)?;
        let session = HeaderValue::from_str(&lives.session).ok()?;
        Some(self.place_at(route, upstream, session))
    }

    async fn post(
        &self,
        route: &Route,
        upstream: &Upstream,
        headers: &Headers,
        body: Bytes,
    ) -> Result<Answer, Refusal> {
        let request = Request {
            route,
            method: Method::POST,
            target: &route.path,
            headers: Changed::of(headers),
            body: &Payload::Whole(body),
            caller: None,
        };
        self.ask_upstream(upstream, request).await
    }

    fn lose(&self, live: &Live) -> Refusal {
        self.end(live.nonce, GoneWhy::LostUpstream);
        self.lost("lost")
    }

    fn lost(&self, outcome: &'static str) -> Refusal {
        self.count_takeover("reattach", outcome);
        Refusal::Gone(GoneWhy::LostUpstream)
    }

    pub(super) fn count_takeover(&self, how: &'static str, outcome: &'static str) {
        self.metrics.takeovers.get_or_create(&TakeoverLabels { how, outcome }).inc();
    }
}

/// A child has the time that its route gives it to start, and whatever it is, the rest of the handshake
/// has as long as a request waits.
fn begin_time_max(route: &Route) -> Duration {
    let start_times = route.upstreams.iter().map(|upstream| match upstream {
        Upstream::Stdio(command) => command.start_timeout,
        Upstream::Http(_) | Upstream::HttpSse(_) => Duration::ZERO,
    });
    start_times.max().unwrap_or_default().saturating_add(INITIALIZE_TIME_MAX)
}

/// The result in an answer that is JSON, or a stream of events with it.
async fn read_result(answer: Answer) -> Option<Value> {
    let is_event_stream = mcp::is_event_stream(answer.headers());
    let mut body = Limited::new(answer.into_body(), READ_LEN_MAX);
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.ok()?.into_data() else { continue };
        read.extend_from_slice(&bytes);
        if is_event_stream {
            let result = mcp::events(&read).find_map(|event| result_of(&event.data));
            if result.is_some() {
                return result; // a server may keep the stream open
            }
        }
    }
    result_of(&read)
}

fn result_of(json: &[u8]) -> Option<Value> {
    let mut answer: Value = serde_json::from_slice(json).ok()?;
    answer.get_mut("result").map(Value::take)
}

/// Notifications that everything may have changed, of the kinds that the server said it would send.
fn news(capabilities: &Value) -> Option<Bytes> {
    let kinds = ["tools", "prompts", "resources"];
    let announced = kinds.into_iter().filter(|kind| capabilities[kind]["listChanged"] == true);
    let events: Vec<_> = announced
        .map(|kind| json!({"jsonrpc": "2.0", "method": format!("notifications/{kind}/list_changed")}))
        .map(|notification| mcp::event(notification.to_string().as_bytes()))
        .collect();
    (!events.is_empty()).then(|| events.concat().into())
}
