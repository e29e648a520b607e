//! Which sessions there are, and the end of one.

use super::{error, json_answer, lookup, name_of};
use crate::answer::Answer;
use crate::cluster::seconds_since_epoch;
use crate::everywhere::{self, LISTED_MAX, Page};
use crate::journey::Journey;
use data_encoding::BASE64URL_NOPAD;
use hyper::StatusCode;
use proto::core::{ring::Position, view::Phase};
use proto::id::{NodeRef, Nonce, shortened};
use proto::wire::{EndOutcome, Seen};
use serde_json::{Value, json};
use std::sync::Arc;

const LIMIT_DEFAULT: usize = 100;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    everywhere: bool,
    limit: usize,
    /// The first nonce that may be listed; `None` where nothing is left.
    from: Option<Nonce>,
    full: bool,
}

/// Reads `scope=node|cluster&limit=&after=&full=1`.
pub(super) fn wanted(query: &str) -> Result<Wanted, String> {
    let mut wanted =
        Wanted { everywhere: false, limit: LIMIT_DEFAULT, from: Some(Nonce([0; 12])), full: false };
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*key, &*value) {
            ("scope", "node") => wanted.everywhere = false,
            ("scope", "cluster") => wanted.everywhere = true,
            ("scope", _) => return Err("scope is node or cluster".to_owned()),
            ("limit", limit) => match limit.parse() {
                Ok(limit) if (1..=LISTED_MAX).contains(&limit) => wanted.limit = limit,
                Ok(_) | Err(_) => return Err(format!("limit is a number from 1 to {LISTED_MAX}")),
            },
            ("after", "") => {}
            ("after", after) => {
                let bytes = BASE64URL_NOPAD.decode(after.as_bytes()).ok();
                let after = bytes.and_then(|bytes| bytes.try_into().ok()).map(Nonce);
                wanted.from = after.ok_or("after is the value of next in an answer before")?.next();
            }
            ("full", full @ ("0" | "1")) => wanted.full = full == "1",
            ("full", _) => return Err("full is 0 or 1".to_owned()),
            _ => return Err(format!("unknown key {key:?}; known are scope, limit, after and full")),
        }
    }
    Ok(wanted)
}

pub(super) async fn list(journey: &Arc<Journey>, wanted: &Wanted) -> Value {
    let Some(from) = wanted.from else {
        return json!({ "sessions": [], "next": null, "unreachable": [] });
    };
    let Page { sessions, more, unreachable } = match wanted.everywhere {
        true => everywhere::sessions(journey, from, wanted.limit).await,
        false => everywhere::own_sessions(journey, from, wanted.limit),
    };
    let last = sessions.last().map(|(_, seen)| seen.nonce);
    let next = last.filter(|_| more).map(|nonce| BASE64URL_NOPAD.encode(&nonce.0));
    let rows = sessions.iter().map(|(owner, seen)| row(journey, *owner, seen, wanted.full));
    json!({ "sessions": rows.collect::<Vec<_>>(), "next": next, "unreachable": unreachable })
}

fn row(journey: &Journey, owner: NodeRef, seen: &Seen, full: bool) -> Value {
    // The same text as the client's, or one that opens to the same where the secret has changed since.
    let sealed = journey.cluster.seal().seal(seen.nonce, &seen.birth).unwrap_or_default();
    json!({
        "id": if full { &sealed } else { shortened(&sealed) },
        "route": journey.sessions.path(seen.birth.route),
        "owner": name_of(journey, owner),
        "epoch": seen.epoch,
        "state": if seen.is_idle { "idle" } else { "live" },
        "age_s": seconds_since_epoch().saturating_sub(seen.birth.minted_s),
        "idle_s": seen.idle_s,
        "streams": seen.streams,
        "client": seen.client,
        "protocol": seen.protocol,
    })
}

/// Ends one session, wherever it is.
pub(super) async fn end(journey: &Arc<Journey>, text: &str) -> Answer {
    let id = match lookup::open(journey, text).await {
        Ok(id) => id,
        Err(why) => return error(StatusCode::NOT_FOUND, &why),
    };
    let sealed = journey.cluster.seal().seal(id.nonce, &id.birth).unwrap_or_default();
    match everywhere::end(journey, id.nonce, &id.birth).await {
        Some(EndOutcome::Ended) => {
            json_answer(StatusCode::OK, &json!({ "ended": true, "id": shortened(&sealed) }))
        }
        Some(EndOutcome::Gone(_) | EndOutcome::Elsewhere(None)) => {
            let found = lookup::by_session(journey, &sealed, &id).await;
            error(StatusCode::NOT_FOUND, found["why"].as_str().unwrap_or("it is not there"))
        }
        Some(EndOutcome::Elsewhere(Some(_)) | EndOutcome::Unsettled) => {
            error(StatusCode::SERVICE_UNAVAILABLE, "who owns it is being settled: ask again in a moment")
        }
        None => {
            let world = journey.cluster.world();
            let owner = world.succession.owner(id.birth.home, Position::of_session(id.nonce)).node;
            let is_there = world.view.get(owner).is_some_and(|member| member.phase != Phase::Dead);
            let what = if is_there {
                "does not answer"
            } else {
                "is not there, and nobody has taken over from it yet"
            };
            let what = format!("its owner {} {what}: ask again in a moment", name_of(journey, owner));
            error(StatusCode::SERVICE_UNAVAILABLE, &what)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_sessions_and_a_wrong_one_is_told_what_is_wrong() {
        let plain = wanted("").expect("everything has a default");
        assert_eq!((plain.everywhere, plain.limit, plain.full), (false, LIMIT_DEFAULT, false));
        let after = BASE64URL_NOPAD.encode(&[7; 12]);
        let all = wanted(&format!("scope=cluster&limit=1000&full=1&after={after}")).expect("as in CONTRACT");
        assert_eq!(all.from, Nonce([7; 12]).next());
        assert!(all.everywhere && all.full && all.limit == 1_000);
        let last = BASE64URL_NOPAD.encode(&[255; 12]);
        assert_eq!(wanted(&format!("after={last}")).expect("the last one").from, None);
        for (bad, word) in [
            ("scope=world", "scope"),
            ("limit=0", "1000"),
            ("limit=1001", "1000"),
            ("limit=x", "limit"),
            ("after=%20", "after"),
            ("after=AAAA", "after"),
            ("full=yes", "full"),
            ("page=2", "page"),
        ] {
            let told = wanted(bad).expect_err(bad);
            assert!(told.contains(word), "{bad}: {told}");
        }
    }
}
