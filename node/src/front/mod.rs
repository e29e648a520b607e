//! The mouth for clients: HTTP/1.1 and HTTP/2 on one address. [`read`] makes an ask of a request,
//! [`respond`] writes every status and error that is Ringway's own, [`honest`] keeps an answer
//! honest when what it comes from breaks, and [`reattach`] an event stream open when its owner does.
//! [`http_sse`] serves clients of the transport before Streamable HTTP.

mod events;
mod honest;
mod http_sse;
mod origin;
mod read;
mod reattach;
mod respond;
mod serve;
mod standing;
mod upgrade;
mod watch;

pub(crate) use serve::{Listener, bind};

use crate::answer::{Answer, holding};
use crate::config::{Endpoint, Route};
use crate::journey::{HOPS, Journey, NoAnswer};
use crate::leaving::Leaving;
use crate::telemetry::{HopLabels, Metrics, RequestLabels};
use hyper::{
    Request, StatusCode, Version,
    body::Incoming,
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
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) leaving: Arc<Leaving>,
    /// What goes on after its request has been answered, for a drain to wait for: connections that have
    /// left HTTP, and messages of old clients.
    pub(crate) lasting: TaskTracker,
}

impl Front {
    /// One request of a client, to the head of its answer.
    pub(crate) async fn answer(&self, from: IpAddr, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        self.leaving.note_request();
        let version = request.version();
        let route = self.routes.iter().find(|route| read::is_for(route, request.uri().path()));
        let origin = request.headers().get(header::ORIGIN).cloned();
        let is_foreign = !origin::is_allowed(request.headers(), &self.allowed_origins);
        // Another service speaks to browsers for itself.
        let is_mcp = route.is_some_and(|route| route.speaks_mcp());
        let (mut answer, outcome) = match route {
            None => (respond::refused(Refused::NoRoute), "bad_request"),
            Some(_) if is_foreign => (respond::refused(Refused::ForeignOrigin), "bad_request"),
            Some(route) => match self.read(route, from, request).await {
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
        let hops = if answer.headers().get(HOPS).is_some_and(|hops| hops == "1") { "1" } else { "0" };
        let labels = RequestLabels {
            route: route.map_or_else(String::new, |route| route.path.clone()),
            outcome,
            hops,
        };
        self.metrics.requests.get_or_create(&labels).inc();
        self.metrics
            .request_seconds
            .get_or_create(&HopLabels { hops })
            .observe(started.elapsed().as_secs_f64());
        let open = Open::new(self.metrics.clone());
        answer.map(|body| holding(body, open))
    }

    async fn run(&self, reading: Reading) -> (Answer, &'static str) {
        let endpoint = reading.ask.endpoint();
        if endpoint == Endpoint::Messages {
            return self.post(reading).await;
        }
        let Reading { ask, calls, without_session, client } = reading;
        let answering = async {
            if endpoint == Endpoint::Sse {
                return self.listen(ask).await;
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
            Ok(answer) => (self.switch(answer, client), "answered"),
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
            Refused::NoRoute
            | Refused::ForeignOrigin
            | Refused::Method(_)
            | Refused::TooLarge { .. }
            | Refused::Unread
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
