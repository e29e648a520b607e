//! `/v1/events`: what has happened lately, and what happens.

use super::error;
use crate::answer::{Answer, Broke};
use crate::events::{Events, Told};
use crate::headers::Headers;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    body::{Body, Frame},
    header::{self, HeaderValue},
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast::error::RecvError, mpsc};

/// Who listens at once: a few dashboards and scripts. Each costs a task and a connection.
pub(super) const LISTENERS_MAX: usize = 64;
/// Proxies take a silent connection for dead after a minute or so.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
/// Events that wait for a listener's connection; more wait in the events' own queue, and then are missed.
const AHEAD_MAX: usize = 16;

pub(super) fn listen(events: &Events, room: &Arc<Semaphore>, headers: &Headers) -> Answer {
    let Ok(place) = room.clone().try_acquire_owned() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, &format!("{LISTENERS_MAX} listen already"));
    };
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (last, mut live) = events.listen(last_id);
    let (said, to_say) = mpsc::channel(AHEAD_MAX);
    tokio::spawn(async move {
        // So that whoever waits for the answer's beginning has it.
        let _ = said.send(Bytes::from_static(b": events of this cluster\n\n")).await;
        for told in last {
            if said.send(written(&told)).await.is_err() {
                return;
            }
        }
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(KEEP_ALIVE_EVERY, live.recv()) => next,
                () = said.closed() => return,
            };
            let text = match next {
                Ok(Ok(told)) => written(&told),
                Ok(Err(RecvError::Lagged(missed))) => {
                    format!("event: missed\ndata: {{\"kind\":\"missed\",\"missed\":{missed}}}\n\n").into()
                }
                Ok(Err(RecvError::Closed)) => return,
                Err(_) => Bytes::from_static(b": still there\n\n"),
            };
            if said.send(text).await.is_err() {
                return;
            }
        }
    });
    let mut answer = Answer::new(Feed { to_say, _place: place }.boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn written(told: &Told) -> Bytes {
    format!("id: {}\nevent: {}\ndata: {}\n\n", told.id, told.kind, told.text).into()
}

/// The body of an answer that goes on for as long as somebody reads it.
struct Feed {
    to_say: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Body for Feed {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        self.to_say.poll_recv(cx).map(|text| text.map(|text| Ok(Frame::data(text))))
    }
}
