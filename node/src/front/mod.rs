//! The mouth for clients: HTTP/1.1 and HTTP/2 on one address. [`read`] makes an ask of a request,
//! [`respond`] writes every status and error that is Ringway's own, [`honest`] keeps an answer
//! honest when what it comes from breaks, and [`reattach`] an event stream open when its owner does.
//! [`http_sse`] serves clients of the transport before Streamable HTTP.

mod coming;
mod crowd;
pub(crate) mod events;
mod farewell;
mod guard;
mod honest;
mod http_sse;
mod origin;
mod read;
mod reattach;
mod replies;
mod respond;
mod serve;
mod socket;
mod standing;
mod upgrade;
mod watch;
mod whole;

pub(crate) use replies::Replies;
pub(crate) use serve::{Listener, bind};

use crate::answer::{Answer, TookOver, holding};
use crate::auth::Auth;
use crate::config::{Endpoint, Route};
use crate::headers::HOPS;
use crate::journey::{Journey, NoAnswer};
use crate::leaving::Leaving;
use crate::telemetry::{ANSWERED, Metrics, Requests, Way, trace_id};
pub(crate) use coming::{Coming, Request};
pub(crate) use crowd::Arrival;
use hyper::{
    StatusCode, Version,
    header::{self, HeaderValue},
};
use proto::core::route::Hop;
use proto::wire::{Reason, Refusal};
use read::{Reading, Refused};
use std::{net::IpAddr, sync::Arc, time::Instant};
use tokio_util::task::TaskTracker;

/// Serves clients.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) journey: Arc<Journey>,
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) requests: Requests,
    pub(crate) leaving: Arc<Leaving>,
    /// What goes on after its request has been answered, for a drain to wait for: connections that have
    /// left HTTP, and messages of old clients.
    pub(crate) lasting: TaskTracker,
    /// Old clients' messages, and what has passed on their streams.
    pub(crate) replies: Arc<Replies>,
}

impl Front {
    /// One request of a client, to the head of its answer.
    pub(crate) async fn answer(&self, from: IpAddr, arrival: Arrival, mut request: Request) -> Answer {
        let started = Instant::now();
        self.leaving.note_request();
        // Before anything looks at them.
        self.auth.cleanse(&mut request.headers, from);
        let version = request.version;
        let at = self.routes.iter().position(|route| read::is_for(route, request.uri.path()));
        let route = at.map(|at| &self.routes[at]);
        let method = request.method.clone();
        let mut span = self.metrics.traces.enter(&mut request.headers, &method);
        let trace = tracing::enabled!(tracing::Level::DEBUG).then(|| trace_id(&request.headers));
        let origin = request.headers.get(header::ORIGIN).cloned();
        let is_foreign = !origin::is_allowed(&request, &self.allowed_origins, arrival.is_tls());
        // Another service speaks to browsers for itself.
        let document = self.document(&request, (from, &arrival));
        let is_mcp = document.is_some() || route.is_some_and(|route| route.speaks_mcp());
        let (mut answer, outcome) = match (route, document) {
            (Some(_), _) | (_, Some(_)) if is_foreign => {
                (respond::refused(Refused::ForeignOrigin), "bad_request")
            }
            (_, Some(document)) => document,
            (None, None) => (respond::refused(Refused::NoRoute), "bad_request"),
            (Some(route), None) => match self.read(route, from, request, &arrival).await {
                Err(refused) => {
                    let outcome = self.count_refused(&refused);
                    (respond::refused(refused), outcome)
                }
                Ok(reading) => self.run(reading).await,
            },
        };
        if let Some(origin) = origin.filter(|_| is_mcp && !is_foreign) {
            origin::let_read(&mut answer, origin);
        }
        let stays_http = answer.status() != StatusCode::SWITCHING_PROTOCOLS;
        if self.leaving.has_begun() && version <= Version::HTTP_11 && stays_http {
            // A connection that is kept would be closed on a request one day. HTTP/2 says so by itself.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let was_forwarded = answer.headers().get(HOPS).is_some_and(|hops| hops == "1");
        let way = match answer.extensions_mut().remove::<TookOver>() {
            _ if outcome != ANSWERED => Way::Refused,
            Some(TookOver) => Way::Takeover,
            None if was_forwarded => Way::Forwarded,
            None => Way::Local,
        };
        let took = started.elapsed();
        self.requests.count(at, outcome, was_forwarded, way, took);
        let path = || route.map_or("", |route| route.path.as_str());
        if let Some(trace) = trace {
            let (status, ms) = (answer.status().as_u16(), took.as_secs_f64() * 1e3);
            let (way, trace) = (way.word(), trace.unwrap_or_default());
            tracing::debug!(%method, route = path(), status, outcome, way, ms, trace, "request");
        }
        if let Some(span) = &mut span {
            span.rename(format!("{method} {}", path()));
            span.note("http.request.method", method.to_string());
            span.note("http.route", path().to_owned());
            span.note("ringway.way", way.word());
            span.note_status(answer.status());
        }
        let open = Open::new(self.metrics.clone());
        answer.map(|body| holding(body, open))
    }

    async fn run(&self, reading: Reading) -> (Answer, &'static str) {
        let endpoint = reading.ask.endpoint();
        if endpoint == Endpoint::Messages {
            return Box::pin(self.post(reading)).await;
        }
        let Reading { ask, calls, without_session, client } = reading;
        let answering = async {
            if endpoint == Endpoint::Sse {
                return Box::pin(self.listen(ask)).await;
            }
            let answer = self.journey.run(&ask, Hop::Entry).await?;
            self.keep(answer, ask, &calls, without_session).await
        };
        let answered = tokio::select! {
            biased;
            answered = answering => answered,
            // Whoever waits is told, while there is somebody to tell it.
            () = self.leaving.cuts() => Err(NoAnswer::Refused(Refusal::perhaps_run(Reason::OwnerBroke))),
        };
        match answered {
            Ok(answer) => (self.switch(answer, client), ANSWERED),
            Err(no_answer) => respond::no_answer(&no_answer, &calls, &self.metrics),
        }
    }

    fn count_refused(&self, refused: &Refused) -> &'static str {
        match refused {
            Refused::Gone(why, _) => {
                respond::gone(*why, &self.metrics);
                "gone"
            }
            Refused::Preflight(_) => "preflight",
            Refused::Denied(..) => "denied",
            Refused::Undelivered(..) => "undelivered",
            Refused::NoRoute
            | Refused::ForeignOrigin
            | Refused::Method(_)
            | Refused::TooLarge { .. }
            | Refused::Unread
            | Refused::SlowBody(_)
            | Refused::LongTarget
            | Refused::LongHead
            | Refused::NotRpc(_)
            | Refused::NoSession(_)
            | Refused::NoSessionId(_) => "bad_request",
        }
    }
}

/// Counts an answer among the open streams until it is done with.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.streams.inc();
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.streams.dec();
    }
}
