//! The commands that ask a node's admin endpoint once: `members`, `ring`, `locate`, `end`. Tables for people,
//! JSON for scripts.

use super::admin::Admin;
use super::table::{self, word};
use super::{AdminArgs, Failure, runtime};
use hyper::Method;
use serde_json::Value;

pub(super) fn members(args: &AdminArgs) -> Result<(), Failure> {
    let answer = Admin::new(args)?.get("/v1/members")?;
    if args.json {
        return print_json(&answer);
    }
    let mut rows =
        vec![["NAME", "PHASE", "SESSIONS", "LISTEN", "PEER", "ADMIN", "VERSION"].map(str::to_owned).to_vec()];
    for member in answer["members"].as_array().into_iter().flatten() {
        let cells = ["name", "phase", "sessions", "listen", "peer", "admin", "version"];
        rows.push(cells.map(|key| word(&member[key])).to_vec());
    }
    table::print(&rows);
    table::line(&format!("view {}", word(&answer["view"])));
    Ok(())
}

pub(super) fn ring(args: &AdminArgs) -> Result<(), Failure> {
    let answer = Admin::new(args)?.get("/v1/ring")?;
    if args.json {
        return print_json(&answer);
    }
    let mut rows = vec![["NAME", "PHASE", "SHARE"].map(str::to_owned).to_vec()];
    for node in answer["nodes"].as_array().into_iter().flatten() {
        let share = format!("{:5.2} %", node["share"].as_f64().unwrap_or_default() * 100.0);
        rows.push(vec![word(&node["name"]), word(&node["phase"]), share]);
    }
    table::print(&rows);
    let (points, view) = (word(&answer["points_per_node"]), word(&answer["view"]));
    table::line(&format!("{points} points per node, view {view}"));
    Ok(())
}

pub(super) fn locate(args: &AdminArgs, id: &str) -> Result<(), Failure> {
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("session", id).finish();
    let answer = Admin::new(args)?.get(&format!("/v1/ring/lookup?{query}"))?;
    if args.json {
        return print_json(&answer);
    }
    table::line(&word(&answer["why"]));
    let successors: Vec<_> = answer["successors"].as_array().into_iter().flatten().map(word).collect();
    let mut rows: Vec<Vec<String>> = ["owner", "home", "state", "epoch", "route"]
        .iter()
        .map(|key| vec![(*key).to_owned(), word(&answer[key])])
        .collect();
    rows.push(vec!["successors".to_owned(), successors.join(", ")]);
    table::print(&rows);
    Ok(())
}

pub(super) fn end(args: &AdminArgs, id: &str) -> Result<(), Failure> {
    // What is no id is told so by the node; what would change the path has no place in one.
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    let admin = Admin::new(args)?;
    let path = format!("/v1/sessions/{id}");
    let answer = runtime()?.block_on(admin.fetch(Method::DELETE, &path, String::new()))?;
    if args.json {
        return print_json(&answer);
    }
    table::line(&format!("{} has ended", word(&answer["id"])));
    Ok(())
}

pub(super) fn print_json(value: &Value) -> Result<(), Failure> {
    table::line(&value.to_string());
    Ok(())
}
