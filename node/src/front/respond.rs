//! Every status code and JSON-RPC error that clients get from Ringway itself (CONTRACT, "What
//! clients get"). What the client reads is one thing, what the log says another.

use super::read::Refused;
use crate::answer::{Answer, whole};
use crate::headers::JSON;
use crate::journey::NoAnswer;
use crate::mcp::{
    Calls, INVALID_REQUEST, METHOD_NOT_FOUND, NOT_SERVED, NotRpc, PARSE_ERROR, SESSION_NOT_FOUND, error_body,
};
use crate::telemetry::{Metrics, WhyLabels};
use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use proto::wire::{GoneWhy, Limit, NotHere, Reason, Refusal};
use serde_json::json;

/// A request that was refused before anybody was asked.
pub(super) fn refused(refused: Refused) -> Answer {
    let nobody = Calls::None;
    match refused {
        Refused::NoRoute => plain(StatusCode::NOT_FOUND, "no route has this path\n"),
        Refused::ForeignOrigin => json_rpc(
            StatusCode::FORBIDDEN,
            &nobody,
            INVALID_REQUEST,
            "Forbidden: this Origin is not in allowed_origins",
        ),
        Refused::Method(allowed) => {
            let mut answer =
                json_rpc(StatusCode::METHOD_NOT_ALLOWED, &nobody, INVALID_REQUEST, "Method not allowed");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            answer
        }
        Refused::Preflight(answer) => *answer,
        Refused::TooLarge { len_max } => {
            let message = format!("Request body is larger than {len_max} bytes");
            json_rpc(StatusCode::PAYLOAD_TOO_LARGE, &nobody, INVALID_REQUEST, &message)
        }
        Refused::SlowBody(time) => {
            let message = format!("The request's body did not come whole within {time:?} (body_timeout)");
            json_rpc(StatusCode::REQUEST_TIMEOUT, &nobody, INVALID_REQUEST, &message)
        }
        Refused::LongTarget => {
            let message = "The request's target (path and query) is longer than 16 KiB";
            json_rpc(StatusCode::URI_TOO_LONG, &nobody, INVALID_REQUEST, message)
        }
        Refused::LongHead => {
            let message = "The request's headers are longer than 64 KiB together";
            json_rpc(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &nobody, INVALID_REQUEST, message)
        }
        Refused::Unread => plain(StatusCode::BAD_REQUEST, "the request ended early\n"),
        Refused::NotRpc(NotRpc::NotJson(error)) => {
            json_rpc(StatusCode::BAD_REQUEST, &nobody, PARSE_ERROR, &format!("Parse error: {error}"))
        }
        Refused::NotRpc(NotRpc::Invalid(what)) => {
            json_rpc(StatusCode::BAD_REQUEST, &nobody, INVALID_REQUEST, &format!("Invalid request: {what}"))
        }
        Refused::NoSession(calls) => no_session(&calls),
        Refused::NoSessionId(calls) => {
            let message = "Bad Request: the parameter sessionId is missing (the endpoint event names it)";
            json_rpc(StatusCode::BAD_REQUEST, &calls, INVALID_REQUEST, message)
        }
        Refused::Gone(_, calls) => session_not_found(&calls),
        Refused::Denied(why, challenge) => {
            let mut answer =
                json_rpc(StatusCode::UNAUTHORIZED, &nobody, INVALID_REQUEST, &format!("Unauthorized: {why}"));
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, *challenge);
            answer
        }
        Refused::Undelivered(reason, calls) => undelivered(&calls, reason, false),
    }
}

/// A request that nobody answered, and the word that its metric goes by.
pub(super) fn no_answer(no_answer: &NoAnswer, calls: &Calls, metrics: &Metrics) -> (Answer, &'static str) {
    match no_answer {
        NoAnswer::Refused(Refusal::Gone(why)) => {
            gone(*why, metrics);
            (session_not_found(calls), "gone")
        }
        NoAnswer::Refused(Refusal::Undelivered { reason, may_have_run }) => {
            tracing::info!(%reason, may_have_run, "a request was not served");
            (undelivered(calls, *reason, *may_have_run), "undelivered")
        }
        // Said to entry nodes only; a client that gets here would have met a bug.
        NoAnswer::NotHere(NotHere { .. }) => {
            (undelivered(calls, Reason::OwnerUnreachable, false), "undelivered")
        }
    }
}

/// What the client does not see of a 404.
pub(super) fn gone(why: GoneWhy, metrics: &Metrics) {
    tracing::info!(%why, "session not found");
    metrics.gone.get_or_create(&WhyLabels { why: why.word() }).inc();
}

/// No session id where one is needed.
pub(super) fn no_session(calls: &Calls) -> Answer {
    let message = "Bad Request: Mcp-Session-Id header is required (send initialize first)";
    json_rpc(StatusCode::BAD_REQUEST, calls, INVALID_REQUEST, message)
}

/// `server/discover` where the upstream speaks sessions only: what makes every client fall back to
/// `initialize`.
pub(super) fn method_not_found(calls: &Calls) -> Answer {
    json_rpc(StatusCode::NOT_FOUND, calls, METHOD_NOT_FOUND, "Method not found")
}

/// A document that anybody may read.
pub(super) fn document(document: &serde_json::Value) -> Answer {
    let mut answer = json(StatusCode::OK, Bytes::from(document.to_string()));
    // A configuration that has changed is noticed within minutes.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    answer
}

/// A message of a client of HTTP+SSE was taken. The text is what the SDKs' own servers say.
pub(super) fn accepted() -> Answer {
    let mut answer = plain(StatusCode::ACCEPTED, "Accepted");
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The body of the error for calls that got no answer.
pub(super) fn undelivered_body(calls: &Calls, reason: Reason, may_have_run: bool) -> Bytes {
    let message = match (reason, may_have_run) {
        (Reason::KeysUnknown, _) => "The issuer of tokens can't be asked for its keys; try again",
        (Reason::OwnerLost, true) => "The node that served this session died; the request may have run",
        (Reason::OwnerLost, false) => "The node that owned this session is gone, and the session with it",
        (Reason::Limited(Limit::NewSessions { .. }), _) => {
            "Too many sessions are being opened at once; this one has not been: try again later"
        }
        (Reason::Limited(Limit::ClientSessions), _) => "This client has as many sessions as it may have",
        (Reason::Limited(_), _) => "There are as many sessions as there may be",
        (_, true) => "The request was lost on its way; it may have run",
        (_, false) => "The request could not be delivered; it has not run",
    };
    let mut data = json!({ "reason": reason.word(), "mayHaveRun": may_have_run });
    if let Reason::UpstreamStatus(status) = reason {
        data["status"] = json!(status);
    }
    if let Reason::Limited(limit) = reason {
        data["limit"] = json!(limit.setting());
        data["scope"] = json!(limit.scope());
        if let Limit::NewSessions { retry_after_ms } = limit {
            data["retryAfterMs"] = json!(retry_after_ms);
        }
    }
    error_body(calls, NOT_SERVED, message, Some(&data))
}

fn undelivered(calls: &Calls, reason: Reason, may_have_run: bool) -> Answer {
    // Clients survive a 200 with an error, and die of a 5xx on a POST that waits for an answer.
    let status = if matches!(calls, Calls::None) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut answer = json(status, undelivered_body(calls, reason, may_have_run));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

fn session_not_found(calls: &Calls) -> Answer {
    json_rpc(StatusCode::NOT_FOUND, calls, SESSION_NOT_FOUND, "Session not found")
}

fn json_rpc(status: StatusCode, calls: &Calls, code: i64, message: &str) -> Answer {
    json(status, error_body(calls, code, message, None))
}

fn json(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Answer::new(whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
    answer
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Answer::new(whole(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}
