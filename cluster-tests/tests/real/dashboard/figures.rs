//! Compares what stands on the dashboard with the admin JSON, figure by figure.

use anyhow::{Context as _, bail, ensure};
use cluster_tests::real::cluster::Cluster;
use serde_json::{Map, Value, json};

/// The node's own count of each thing, as members of `/v1/traffic`, by the figure's name on the page.
const OF_TRAFFIC: [(&str, &str); 6] = [
    ("sessions", "/sessions/live"),
    ("idle", "/sessions/idle"),
    ("streams", "/streams"),
    ("children", "/children"),
    ("requests", "/requests"),
    ("leased", "/leased"),
];
const OF_MEMBERS: [&str; 3] = ["phase", "listen", "version"];
const OF_SESSIONS: [&str; 10] =
    ["id", "owner", "state", "epoch", "age_s", "idle_s", "streams", "route", "client", "protocol"];
/// These go on by themselves: only the answer that they were drawn from says what they were.
const AGES: [&str; 2] = ["age_s", "idle_s"];
const OF_FORWARDS: [&str; 4] = ["answered", "refused", "not_here", "unsent"];
/// Shown as plain numbers, with commas.
const PLAIN: [&str; 8] =
    ["sessions", "idle", "streams", "children", "requests", "epoch", "answered", "active"];

/// The answers that a page is drawn from.
pub(super) async fn answers(cluster: &Cluster, name: &str) -> anyhow::Result<Value> {
    Ok(json!({
        "members": cluster.admin_json(name, "/v1/members").await?,
        "ring": cluster.admin_json(name, "/v1/ring?arcs=1").await?,
        "traffic": cluster.admin_json(name, "/v1/traffic").await?,
        "sessions": cluster.admin_json(name, "/v1/sessions?scope=cluster&limit=25").await?,
        "lookup": null,
    }))
}

/// Fails with the first figure on the page that is not the one in its own last answers; says how many it compared.
pub(super) fn own(page: &Value) -> anyhow::Result<usize> {
    equal(page, &page["last"], true)
}

/// The same against other answers, but for ages.
pub(super) fn fresh(page: &Value, answers: &Value) -> anyhow::Result<usize> {
    equal(page, answers, false)
}

fn equal(page: &Value, answers: &Value, with_ages: bool) -> anyhow::Result<usize> {
    let mut compared = 0;
    compared += members(page, answers)?;
    compared += totals(page, answers)?;
    compared += forwards(page, answers)?;
    compared += sessions(page, answers, with_ages)?;
    compared += lookup(page, answers)?;
    ensure!(page["others"] == 0, "{} figures are on the page that nobody compares", page["others"]);
    let mut drawn: Vec<&str> = list(&page["arcs"]).iter().filter_map(Value::as_str).collect();
    drawn.sort_unstable();
    let ring = rows(&answers["ring"]["nodes"], "name")?;
    ensure!(drawn == ring.keys().collect::<Vec<_>>(), "the ring shows {drawn:?}, the JSON {:?}", ring.keys());
    Ok(compared)
}

fn members(page: &Value, answers: &Value) -> anyhow::Result<usize> {
    let expected = rows(&answers["members"]["members"], "name")?;
    let traffic = rows(&answers["traffic"]["nodes"], "name")?;
    let ring = rows(&answers["ring"]["nodes"], "name")?;
    let shown = page["members"].as_object().context("no members on the page")?;
    ensure!(shown.len() == expected.len(), "nodes {:?}, the JSON has {:?}", shown.keys(), expected.keys());
    let mut compared = 0;
    for (name, member) in &expected {
        let row = shown.get(name).with_context(|| format!("{name} is not on the page"))?;
        let counted = traffic.get(name).unwrap_or(&Value::Null);
        let of_members = OF_MEMBERS.map(|key| (key, &member[key]));
        let of_traffic = OF_TRAFFIC.map(|(key, path)| (key, counted.pointer(path).unwrap_or(&Value::Null)));
        let share = ("share", ring.get(name).map_or(&Value::Null, |node| &node["share"]));
        let all: Vec<_> = of_members.into_iter().chain(of_traffic).chain([share]).collect();
        compared += figures(name, row, &all)?;
    }
    Ok(compared)
}

fn totals(page: &Value, answers: &Value) -> anyhow::Result<usize> {
    let shown = page["totals"].as_object().context("no totals on the page")?;
    let active =
        list(&answers["members"]["members"]).iter().filter(|member| member["phase"] == "active").count();
    // A page that was just opened has none yet, which is a reason to look again and not to panic.
    let total = |name: &str| shown.get(name).with_context(|| format!("no total of {name} on the page"));
    same("nodes", "active", total("active")?, &json!(active))?;
    for (name, path) in &OF_TRAFFIC[..5] {
        let sum: u64 = list(&answers["traffic"]["nodes"])
            .iter()
            .filter_map(|node| node.pointer(path).and_then(Value::as_u64))
            .sum();
        let known = if answers["traffic"].is_null() { Value::Null } else { json!(sum) };
        same("all nodes", name, total(name)?, &known)?;
    }
    ensure!(shown.len() == 6, "totals that nobody compares: {:?}", shown.keys());
    Ok(shown.len())
}

fn forwards(page: &Value, answers: &Value) -> anyhow::Result<usize> {
    let mut shown = list(&page["forwards"]).to_vec();
    let mut compared = 0;
    for node in list(&answers["traffic"]["nodes"]) {
        for forward in list(&node["forwards"]) {
            let at =
                shown.iter().position(|cell| cell["from"] == node["name"] && cell["to"] == forward["to"]);
            let cell =
                shown.swap_remove(at.with_context(|| format!("no cell for {} to {forward}", node["name"]))?);
            let what = format!("{} to {}", node["name"], forward["to"]);
            for key in OF_FORWARDS {
                same(&what, key, &cell[key], &forward[key])?;
                compared += 1;
            }
        }
    }
    // What is left are cells of nodes that a row does not name, such as itself.
    for cell in shown {
        ensure!(
            OF_FORWARDS.iter().all(|key| cell[*key]["value"].is_null()),
            "the JSON says nothing of {cell}"
        );
    }
    Ok(compared)
}

fn sessions(page: &Value, answers: &Value, with_ages: bool) -> anyhow::Result<usize> {
    let (shown, expected) = (list(&page["sessions"]), list(&answers["sessions"]["sessions"]));
    ensure!(shown.len() == expected.len(), "{} sessions, the JSON has {}", shown.len(), expected.len());
    let mut compared = 0;
    for (row, session) in shown.iter().zip(expected) {
        let what = session["id"].as_str().context("a session without an id")?;
        if with_ages {
            compared += figures(what, row, &OF_SESSIONS.map(|key| (key, &session[key])))?;
        } else {
            for key in OF_SESSIONS.iter().filter(|key| !AGES.contains(key)) {
                same(what, key, &row[*key], &session[*key])?;
                compared += 1;
            }
        }
    }
    Ok(compared)
}

fn lookup(page: &Value, answers: &Value) -> anyhow::Result<usize> {
    let Some(found) = answers["lookup"].as_object() else { return Ok(0) };
    let successors: Vec<&str> = list(&found["successors"]).iter().filter_map(Value::as_str).collect();
    let successors = if successors.is_empty() { Value::Null } else { successors.join(" ").into() };
    let keys = ["state", "owner", "home", "epoch", "position"];
    let mut expected: Vec<_> =
        keys.iter().map(|key| (*key, found.get(*key).unwrap_or(&Value::Null))).collect();
    expected.push(("successors", &successors));
    figures("what was looked up", &page["found"], &expected)
}

/// A row has exactly these figures.
fn figures(what: &str, row: &Value, expected: &[(&str, &Value)]) -> anyhow::Result<usize> {
    let shown = row.as_object().with_context(|| format!("{what}: no row"))?;
    for (key, value) in expected {
        let figure = shown.get(*key).with_context(|| format!("{what}: {key} is not on the page"))?;
        same(what, key, figure, value)?;
    }
    ensure!(shown.len() == expected.len(), "{what}: figures that nobody compares among {:?}", shown.keys());
    Ok(expected.len())
}

/// Both what stands in the page for programs, and what people read.
fn same(what: &str, key: &str, figure: &Value, expected: &Value) -> anyhow::Result<()> {
    let (shown, text) = (figure["value"].as_str(), figure["text"].as_str().unwrap_or_default());
    let is_same = match expected {
        Value::Null => shown.is_none(),
        Value::Bool(is) => shown == Some(if *is { "true" } else { "false" }),
        Value::Number(number) => {
            let shown: Option<f64> = shown.and_then(|shown| shown.parse().ok());
            // serde_json reads a fraction to within its last bit; the browser reads it exactly.
            let is_near = |(shown, number): (f64, f64)| (shown - number).abs() <= f64::EPSILON * number.abs();
            shown.zip(number.as_f64()).is_some_and(is_near)
        }
        Value::String(string) => shown == Some(string),
        Value::Array(_) | Value::Object(_) => bail!("{what}: {key} is no figure: {expected}"),
    };
    ensure!(is_same, "{what}: {key} is {figure} on the page, {expected} in the JSON");
    let read = text.replace(',', "");
    let is_read = match expected {
        Value::Number(number) if PLAIN.contains(&key) => read == number.to_string(),
        Value::String(string) => text.contains(string.as_str()) || key == "successors",
        Value::Number(number) if key == "share" => {
            let percent = number.as_f64().unwrap_or_default() * 100.0;
            let read: f64 = read.trim_end_matches(" %").parse().unwrap_or(f64::NAN);
            (read - percent).abs() < 0.051
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => true,
    };
    ensure!(is_read, "{what}: {key} reads {text:?}, but is {expected}");
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The objects of a list by one of their keys.
fn rows(value: &Value, key: &str) -> anyhow::Result<Map<String, Value>> {
    let named = |row: &Value| Some((row[key].as_str()?.to_owned(), row.clone()));
    list(value).iter().map(|row| named(row).with_context(|| format!("no {key}: {row}"))).collect()
}
