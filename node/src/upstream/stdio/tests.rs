//! Real children under a real guardian. What is left of a session is looked for in `/proc`, by the mark
//! in its environment.

use super::*;
use crate::config::{BODY_LEN_MAX_DEFAULT, Protocol};
use bytes::Bytes;
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use proto::core::route::OnLoss;
use proto::id::RouteId;
use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

mod endings;
mod logs;

/// Far more than anything here takes, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

fn route() -> Route {
    Route {
        id: RouteId::of("/shell"),
        path: "/shell".to_owned(),
        protocol: Protocol::Mcp,
        key: None,
        upstreams: Vec::new(),
        on_loss: OnLoss::Reinitialize,
        idle_timeout: PATIENCE,
        sessions_max: 200,
        sessions_per_client_max: 200,
        body_len_max: BODY_LEN_MAX_DEFAULT,
        trust_annotations: true,
        auth: None,
    }
}

fn command(program: &str, arguments: &[&str]) -> ChildCommand {
    ChildCommand {
        program: program.to_owned(),
        arguments: arguments.iter().map(|&one| one.to_owned()).collect(),
        env: BTreeMap::new(),
        start_timeout: PATIENCE,
    }
}

fn sh(script: &str) -> ChildCommand {
    command("sh", &["-c", script])
}

/// A session's name that no other has.
fn a_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A child of `script`, with its session's name.
async fn start(children: &Children, script: &str) -> (Pipe, String) {
    let name = a_name();
    (children.start(&route(), &sh(script), &name).await.expect("a shell"), name)
}

async fn next(pipe: &mut Pipe) -> Option<Bytes> {
    tokio::time::timeout(PATIENCE, pipe.from.recv()).await.expect("in time")
}

async fn tell(pipe: &Pipe, message: &'static str) {
    pipe.to.send(Bytes::from_static(message.as_bytes())).await.expect("a child that listens");
}

async fn all_ended(children: &Children) {
    tokio::time::timeout(PATIENCE, children.ended()).await.expect("in time");
}

/// The processes of a session.
fn processes(name: &str) -> Vec<Pid> {
    let mark = format!("{SESSION_MARK}={name}");
    let is_marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let entries = fs::read_dir("/proc").expect("Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_marked).map(Pid::from_raw).collect()
}

fn parent(pid: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that lives");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    Pid::from_raw(parent.trim().parse().expect("a number"))
}

/// The process that is nobody's child in its session: started by the warden. For a moment there is none:
/// while a shell becomes another program, neither of the two has an environment to be known by.
async fn first_of(name: &str) -> Pid {
    let mut first = None;
    until("the session has a child", || {
        let all = processes(name);
        first = all.iter().find(|pid| !all.contains(&parent(**pid))).copied();
        first.is_some()
    })
    .await;
    first.expect("looked for until it was there")
}

fn kill(pid: Pid) {
    signal::kill(pid, Signal::SIGKILL).expect("a process of this test");
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not so: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn messages_pass_through_a_child_in_their_order() {
    let children = Children::new();
    let mut pipe = children.start(&route(), &command("cat", &[]), "echo").await.expect("cat");
    for _ in 0..3 {
        tell(&pipe, r#"{"id":1}"#).await;
        tell(&pipe, r#"{"id":"ä"}"#).await;
        assert_eq!(next(&mut pipe).await, Some(Bytes::from_static(br#"{"id":1}"#)));
        assert_eq!(next(&mut pipe).await, Some(Bytes::from(r#"{"id":"ä"}"#)));
    }
    assert_eq!(children.count(), 1);
    drop(pipe);
    all_ended(&children).await;
    assert_eq!(children.count(), 0);
}

#[tokio::test]
async fn a_message_of_4_mib_passes() {
    let children = Children::new();
    let mut pipe = children.start(&route(), &command("cat", &[]), "large").await.expect("cat");
    let large = Bytes::from(format!("\"{}\"", "x".repeat(4 * 1024 * 1024)));
    pipe.to.send(large.clone()).await.expect("a child that listens");
    assert!(next(&mut pipe).await == Some(large));
}

#[tokio::test]
async fn what_is_not_json_is_dropped_and_the_last_line_needs_no_end() {
    let children = Children::new();
    let script = r#"printf 'Starting\n\n{"a":1}\r\n[INFO] up\n{"b":2}'"#;
    let (mut pipe, _) = start(&children, script).await;
    assert_eq!(next(&mut pipe).await, Some(Bytes::from_static(b"{\"a\":1}")));
    assert_eq!(next(&mut pipe).await, Some(Bytes::from_static(b"{\"b\":2}")));
    assert_eq!(next(&mut pipe).await, None);
}

#[tokio::test]
async fn a_start_that_fails_names_the_program() {
    let children = Children::new();
    let failure = |program: &'static str| {
        let children = &children;
        async move { children.start(&route(), &command(program, &[]), "none").await.expect_err("no child") }
    };
    let missing = failure("no-such-program").await;
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert!(missing.to_string().contains("no-such-program"), "{missing}");
    let forbidden = failure("/etc/passwd").await;
    assert_eq!(forbidden.kind(), io::ErrorKind::PermissionDenied);
    assert!(forbidden.to_string().contains("/etc/passwd"), "{forbidden}");
    assert_eq!(children.count(), 0);
}

#[tokio::test]
async fn a_child_gets_its_environment_and_nothing_else() {
    let children = Children::new();
    let (_other, _) = start(&children, "cat").await;
    let name = a_name();
    // `ls` opens the directory itself: 0, 1, 2 and 3.
    let script = r#"echo "[\"$GREETING\",\"$RINGWAY_SESSION\",$(ls /proc/self/fd | wc -l)]"
        awk '/^Sig(Blk|Ign)/ { print "\"" $2 "\"" }' /proc/self/status"#;
    let mut command = sh(script);
    command.env.insert("GREETING".to_owned(), "hello".to_owned());
    let mut pipe = children.start(&route(), &command, &name).await.expect("a shell");
    assert_eq!(next(&mut pipe).await, Some(Bytes::from(format!("[\"hello\",\"{name}\",4]"))));
    for which in ["blocked", "ignored"] {
        let signals: String = serde_json::from_slice(&next(&mut pipe).await.expect("a line")).expect("JSON");
        let signals = u64::from_str_radix(&signals, 16).expect("a mask");
        // From the 32nd on they belong to the C library, which lets nobody touch the first of them.
        assert_eq!(signals & 0x7fff_ffff, 0, "{which}: {signals:x}");
    }
}

#[tokio::test]
async fn a_child_has_the_limit_of_open_files_that_is_ordered() {
    let guardian = Guardian::start().expect("a guardian");
    let mut order = Order::of(&sh("ulimit -Sn"), "limit");
    order.open_files = Some(123);
    let mut child = guardian.start_child(&order.to_bytes().expect("short")).await.expect("a shell");
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut child.stdout, &mut said).await.expect("read");
    assert_eq!(said, "123\n");
}

#[tokio::test]
async fn two_hundred_children_start_at_once() {
    let children = Arc::new(Children::new());
    let names: Vec<String> = (0..200).map(|_| a_name()).collect();
    let begun = Instant::now();
    let mut starting: JoinSet<_> = (names.iter().cloned())
        .map(|name| {
            let (children, route, cat) = (children.clone(), route(), command("cat", &[]));
            async move { children.start(&route, &cat, &name).await.expect("cat") }
        })
        .collect();
    let mut pipes = Vec::new();
    while let Some(started) = starting.join_next().await {
        pipes.push(started.expect("no panic"));
    }
    println!("200 children started within {:?}", begun.elapsed());
    for pipe in &pipes {
        tell(pipe, "{}").await;
    }
    for pipe in &mut pipes {
        assert_eq!(next(pipe).await, Some(Bytes::from_static(b"{}")));
    }
    println!("200 children answered after {:?}", begun.elapsed());
    assert_eq!(children.count(), 200);
    drop(pipes);
    all_ended(&children).await;
    assert!(names.iter().all(|name| processes(name).is_empty()));
}
