//! The commands that ask a node's admin endpoint: `members`, `ring`, `locate`. Tables for people,
//! JSON for scripts.

use super::{Failure, runtime};
use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;

/// An admin endpoint answers from memory, and asks at most one other node.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn members(admin: &str, json: bool) -> Result<(), Failure> {
    let answer = get(admin, "/v1/members")?;
    if json {
        return print_json(&answer);
    }
    let mut rows =
        vec![["NAME", "PHASE", "SESSIONS", "LISTEN", "PEER", "ADMIN", "VERSION"].map(str::to_owned).to_vec()];
    for member in answer["members"].as_array().into_iter().flatten() {
        let cells = ["name", "phase", "sessions", "listen", "peer", "admin", "version"];
        rows.push(cells.map(|key| word(&member[key])).to_vec());
    }
    print_table(&rows);
    println!("view {}", word(&answer["view"]));
    Ok(())
}

pub(super) fn ring(admin: &str, json: bool) -> Result<(), Failure> {
    let answer = get(admin, "/v1/ring")?;
    if json {
        return print_json(&answer);
    }
    let mut rows = vec![["NAME", "PHASE", "SHARE"].map(str::to_owned).to_vec()];
    for node in answer["nodes"].as_array().into_iter().flatten() {
        let share = format!("{:.2} %", node["share"].as_f64().unwrap_or_default() * 100.0);
        rows.push(vec![word(&node["name"]), word(&node["phase"]), share]);
    }
    print_table(&rows);
    println!("{} points per node, view {}", word(&answer["points_per_node"]), word(&answer["view"]));
    Ok(())
}

pub(super) fn locate(admin: &str, id: &str, json: bool) -> Result<(), Failure> {
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("session", id).finish();
    let answer = get(admin, &format!("/v1/ring/lookup?{query}"))?;
    if json {
        return print_json(&answer);
    }
    println!("{}", word(&answer["why"]));
    let successors: Vec<_> = answer["successors"].as_array().into_iter().flatten().map(word).collect();
    print_table(&[
        vec!["owner".to_owned(), word(&answer["owner"])],
        vec!["home".to_owned(), word(&answer["home"])],
        vec!["state".to_owned(), word(&answer["state"])],
        vec!["successors".to_owned(), successors.join(", ")],
    ]);
    Ok(())
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn print_json(value: &Value) -> Result<(), Failure> {
    println!("{value}");
    Ok(())
}

fn print_table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

fn get(admin: &str, path: &str) -> Result<Value, Failure> {
    Ok(runtime()?.block_on(fetch(admin, Method::GET, path, String::new()))?)
}

/// One request to a node's admin endpoint, and the JSON that it answers.
pub(super) async fn fetch(admin: &str, method: Method, path: &str, body: String) -> anyhow::Result<Value> {
    let asked = tokio::time::timeout(PATIENCE, ask(admin, method, path, body)).await;
    asked.with_context(|| format!("{admin} does not answer within {PATIENCE:?}"))?
}

async fn ask(admin: &str, method: Method, path: &str, body: String) -> anyhow::Result<Value> {
    let uri: Uri = admin.parse().with_context(|| format!("--admin {admin} is not a URL"))?;
    let authority = uri.authority().with_context(|| format!("--admin {admin} names no host"))?;
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await;
    let stream =
        stream.with_context(|| format!("no node answers at {admin} (is it running? see --admin)"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(header::HOST, authority.as_str());
    let request = request.body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let value: Value = serde_json::from_slice(&body)
        .with_context(|| format!("{admin} is no Ringway node's admin address"))?;
    if !status.is_success() {
        bail!("{admin} answered {status}: {}", word(&value["error"]));
    }
    Ok(value)
}
