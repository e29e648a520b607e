//! `ringway sessions`: which sessions a node, or the whole cluster, serves.

use super::admin::Admin;
use super::ask::print_json;
use super::table::{self, word};
use super::{Failure, Scope, SessionsArgs};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The longest page there is.
const PAGE_MAX: u16 = 1_000;

pub(super) fn run(args: &SessionsArgs) -> Result<(), Failure> {
    let admin = Admin::new(&args.admin)?;
    let (mut sessions, mut unreachable, mut next) = (Vec::new(), BTreeSet::new(), args.after.clone());
    loop {
        let page = admin.get(&path(args, next.as_deref()))?;
        sessions.extend(page["sessions"].as_array().into_iter().flatten().cloned());
        unreachable.extend(page["unreachable"].as_array().into_iter().flatten().map(word));
        next = page["next"].as_str().map(str::to_owned);
        if !args.all || next.is_none() {
            break;
        }
    }
    if args.admin.json {
        return print_json(&json!({ "sessions": sessions, "next": next, "unreachable": unreachable }));
    }
    print_table(&sessions);
    let count =
        if sessions.len() == 1 { "1 session".to_owned() } else { format!("{} sessions", sessions.len()) };
    match next {
        Some(next) => table::line(&format!("{count}, and more: --all, or --after {next}")),
        None => table::line(&count),
    };
    if !unreachable.is_empty() {
        let silent: Vec<_> = unreachable.into_iter().collect();
        return Err(anyhow::anyhow!(
            "not listed is what these own, who did not answer: {}",
            silent.join(", ")
        )
        .into());
    }
    Ok(())
}

fn path(args: &SessionsArgs, after: Option<&str>) -> String {
    let scope = match args.scope {
        Scope::Node => "node",
        Scope::Cluster => "cluster",
    };
    let limit = if args.all { PAGE_MAX } else { args.limit };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("scope", scope).append_pair("limit", &limit.to_string());
    query.append_pair("full", if args.full { "1" } else { "0" });
    if let Some(after) = after {
        query.append_pair("after", after);
    }
    format!("/v1/sessions?{}", query.finish())
}

fn print_table(sessions: &[Value]) {
    let headings = ["ID", "ROUTE", "OWNER", "STATE", "AGE", "IDLE", "STREAMS", "EPOCH", "CLIENT", "PROTOCOL"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    rows.extend(sessions.iter().map(|row| {
        vec![
            word(&row["id"]),
            word(&row["route"]),
            word(&row["owner"]),
            word(&row["state"]),
            long(&row["age_s"]),
            long(&row["idle_s"]),
            word(&row["streams"]),
            word(&row["epoch"]),
            word(&row["client"]),
            word(&row["protocol"]),
        ]
    }));
    table::print(&rows);
}

/// A time in its two largest units.
fn long(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_u64() else { return "-".to_owned() };
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        (_, _, _) => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_its_two_largest_units() {
        for (seconds, told) in
            [(0, "0s"), (59, "59s"), (61, "1m01s"), (3_599, "59m59s"), (3_660, "1h01m"), (90_000, "1d01h")]
        {
            assert_eq!(long(&json!(seconds)), told);
        }
        assert_eq!(long(&Value::Null), "-");
    }
}
