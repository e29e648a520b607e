//! An operator has this node leave.

use super::{error, json_answer};
use crate::answer::Answer;
use crate::front::Coming;
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc;

/// What a drain may take if nothing else is asked for (CONTRACT).
const DRAIN_S_DEFAULT: u64 = 60;
const DRAIN_S_MAX: u64 = 24 * 3_600;
const DRAIN_BODY_LEN_MAX: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainAsked {
    deadline_s: Option<u64>,
}

/// Begins to drain this node, which ends by itself then.
pub(super) async fn drain(ask_to_drain: &mpsc::Sender<Duration>, body: Coming) -> Answer {
    let Ok(body) = Limited::new(body, DRAIN_BODY_LEN_MAX).collect().await else {
        return error(StatusCode::BAD_REQUEST, "a short JSON object is expected: {\"deadline_s\": 60}");
    };
    let body = body.to_bytes();
    let asked = match body.is_empty() {
        true => Ok(DrainAsked { deadline_s: None }),
        false => serde_json::from_slice::<DrainAsked>(&body),
    };
    match asked.map(|asked| asked.deadline_s.unwrap_or(DRAIN_S_DEFAULT)) {
        Ok(deadline_s) if deadline_s <= DRAIN_S_MAX => {
            // One that is asked for while another goes on changes nothing.
            let _ = ask_to_drain.try_send(Duration::from_secs(deadline_s));
            json_answer(StatusCode::ACCEPTED, &json!({ "draining": true, "deadline_s": deadline_s }))
        }
        Ok(_) => error(StatusCode::BAD_REQUEST, "deadline_s is at most 86400 (a day)"),
        Err(what) => error(StatusCode::BAD_REQUEST, &format!("not {{\"deadline_s\": SECONDS}}: {what}")),
    }
}
