//! `ringway drain`: asks a node to leave, and shows how far it is until it has left.

use super::admin::Admin;
use super::table;
use super::{AdminArgs, Failure, runtime};
use anyhow::{Context, bail};
use hyper::Method;
use serde_json::{Value, json};
use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A node leaves by its deadline; the rest is for a busy machine.
const LATE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &AdminArgs, deadline_s: u64) -> Result<(), Failure> {
    let admin = Admin::new(args)?;
    let shown = if args.json {
        Shown::Json
    } else if io::stdout().is_terminal() {
        Shown::InPlace
    } else {
        Shown::Lines
    };
    Ok(runtime()?.block_on(drain(&admin, deadline_s, shown))?)
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Json,
    Lines,
    /// On a terminal: one line that changes.
    InPlace,
}

async fn drain(admin: &Admin, deadline_s: u64, shown: Shown) -> anyhow::Result<()> {
    let node =
        look(admin).await?.with_context(|| format!("{} does not say which member it is", admin.url()))?;
    let (name, incarnation) = (&node["name"], &node["incarnation"]);
    admin.fetch(Method::POST, "/v1/drain", json!({ "deadline_s": deadline_s }).to_string()).await?;
    let began = Instant::now();
    let mut last = None;
    // Whoever does not answer any more has left. One that is active under another incarnation is what
    // somebody has started in its place.
    while let Ok(found) = look(admin).await {
        let now = found.unwrap_or_default();
        let sessions = now["sessions"].as_u64();
        if now["incarnation"] != *incarnation && matches!(phase(&now), "joining" | "active") {
            break;
        }
        if sessions.is_some() && (sessions != last || shown == Shown::InPlace) {
            let elapsed = began.elapsed().as_secs_f64();
            say(shown, &json!({ "name": name, "phase": "draining", "sessions": sessions }), elapsed);
            last = sessions;
        }
        if began.elapsed() > Duration::from_secs(deadline_s) + LATE {
            bail!("{} is still there {} s after its deadline", word(name), LATE.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    say(shown, &json!({ "name": name, "phase": "left", "seconds": seconds }), seconds);
    Ok(())
}

/// What a node says of itself; nothing for a moment while it gives itself up.
async fn look(admin: &Admin) -> anyhow::Result<Option<Value>> {
    let answer = admin.fetch(Method::GET, "/v1/members", String::new()).await?;
    let mut members = answer["members"].as_array().into_iter().flatten();
    Ok(members.find(|member| member["self"] == true).cloned())
}

/// One line of progress.
fn say(shown: Shown, progress: &Value, elapsed: f64) {
    if shown == Shown::Json {
        table::line(&progress.to_string());
        return;
    }
    let name = word(&progress["name"]);
    let (is_last, text) = match (phase(progress), progress["sessions"].as_u64()) {
        ("left", _) => (true, format!("{name} left after {elapsed:.1} s")),
        (_, Some(1)) => (false, format!("{name} is draining: 1 session left")),
        (_, sessions) => {
            (false, format!("{name} is draining: {} sessions left", sessions.unwrap_or_default()))
        }
    };
    if shown == Shown::Lines {
        table::line(&text);
        return;
    }
    let (time, end) = if is_last { (String::new(), "\n") } else { (format!(", {elapsed:.0} s"), "") };
    let mut stdout = io::stdout();
    // To the line's beginning, and what was there before is wiped out.
    let _ = write!(stdout, "\r\u{1b}[K{text}{time}{end}").and_then(|()| stdout.flush());
}

fn phase(member: &Value) -> &str {
    word(&member["phase"])
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
