//! `ringway drain`: asks a node to leave, and shows how far it is until it has left.

use super::ask::fetch;
use super::{Failure, runtime};
use anyhow::{Context, bail};
use hyper::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A node leaves by its deadline; the rest is for a busy machine.
const LATE: Duration = Duration::from_secs(5);

pub(super) fn run(admin: &str, deadline_s: u64, json: bool) -> Result<(), Failure> {
    Ok(runtime()?.block_on(drain(admin, deadline_s, json))?)
}

async fn drain(admin: &str, deadline_s: u64, json: bool) -> anyhow::Result<()> {
    let node = look(admin).await?.with_context(|| format!("{admin} does not say which member it is"))?;
    let (name, incarnation) = (&node["name"], &node["incarnation"]);
    fetch(admin, Method::POST, "/v1/drain", json!({ "deadline_s": deadline_s }).to_string()).await?;
    let began = Instant::now();
    let mut shown = None;
    // Whoever does not answer any more has left. One that is active under another incarnation is what
    // somebody has started in its place.
    while let Ok(found) = look(admin).await {
        let now = found.unwrap_or_default();
        let sessions = now["sessions"].as_u64();
        if now["incarnation"] != *incarnation && matches!(phase(&now), "joining" | "active") {
            break;
        }
        if sessions.is_some() && sessions != shown {
            say(json, &json!({ "name": name, "phase": "draining", "sessions": sessions }));
            shown = sessions;
        }
        if began.elapsed() > Duration::from_secs(deadline_s) + LATE {
            bail!("{} is still there {} s after its deadline", word(name), LATE.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    say(json, &json!({ "name": name, "phase": "left", "seconds": began.elapsed().as_secs_f64() }));
    Ok(())
}

/// What a node says of itself; nothing for a moment while it gives itself up.
async fn look(admin: &str) -> anyhow::Result<Option<Value>> {
    let answer = fetch(admin, Method::GET, "/v1/members", String::new()).await?;
    let mut members = answer["members"].as_array().into_iter().flatten();
    Ok(members.find(|member| member["self"] == true).cloned())
}

/// One line of progress.
fn say(json: bool, progress: &Value) {
    if json {
        return println!("{progress}");
    }
    let name = word(&progress["name"]);
    match (phase(progress), progress["sessions"].as_u64()) {
        ("left", _) => {
            println!("{name} left after {:.1} s", progress["seconds"].as_f64().unwrap_or_default())
        }
        (_, Some(1)) => println!("{name} is draining: 1 session left"),
        (_, sessions) => println!("{name} is draining: {} sessions left", sessions.unwrap_or_default()),
    }
}

fn phase(member: &Value) -> &str {
    word(&member["phase"])
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
