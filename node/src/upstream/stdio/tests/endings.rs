//! How sessions, children, wardens, guardians and nodes end, and that nothing is left of them.

use super::*;

/// A descendant that has left the session's process group and terminal session, and takes no hint.
const HIDDEN: &str =
    "setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1000; done' </dev/null >/dev/null 2>&1 &";

async fn nothing_is_left_of(name: &str) {
    until("nothing is left", || processes(name).is_empty()).await;
}

/// Starts `script` beside a hidden descendant, and waits until that is there: the shell, its `sleep`, and
/// what `script` runs.
async fn start_with_hidden(children: &Children, script: &str, count: usize) -> (Pipe, String) {
    let (pipe, name) = start(children, &format!("{HIDDEN}\n{script}")).await;
    until("all have started", || processes(&name).len() == count).await;
    (pipe, name)
}

#[tokio::test]
async fn a_session_that_ends_takes_its_daemons_along() {
    let children = Children::new();
    let (pipe, name) = start_with_hidden(&children, "exec cat", 3).await;
    drop(pipe);
    all_ended(&children).await;
    assert_eq!(processes(&name), []);
}

#[tokio::test]
async fn a_child_may_take_its_time_to_end_in_good_order() {
    let children = Children::new();
    let file = std::env::temp_dir().join(a_name());
    let script = format!("cat >/dev/null; sleep 0.5; echo '{{}}'; touch {}", file.display());
    let (pipe, _) = start(&children, &script).await;
    drop(pipe);
    all_ended(&children).await;
    fs::remove_file(file).expect("it came to its last command");
}

#[tokio::test]
async fn a_child_that_ignores_everything_is_killed() {
    let children = Children::new();
    let (pipe, name) = start(&children, "trap '' TERM INT HUP; echo '{}'; while :; do sleep 1; done").await;
    let begun = Instant::now();
    drop(pipe);
    all_ended(&children).await;
    assert_eq!(processes(&name), []);
    assert!(begun.elapsed() >= Duration::from_secs(5), "2 s of grace and 3 s after SIGTERM");
}

#[tokio::test]
async fn a_child_that_ends_by_itself_closes_its_pipe_at_once_and_leaves_nobody() {
    let children = Children::new();
    let (mut pipe, name) = start_with_hidden(&children, "sleep 1000 & read line; echo '{}'; exit 3", 4).await;
    tell(&pipe, "{}").await;
    assert_eq!(next(&mut pipe).await, Some(Bytes::from_static(b"{}")));
    let begun = Instant::now();
    assert_eq!(next(&mut pipe).await, None, "although `sleep` has its stdout");
    assert!(begun.elapsed() < Duration::from_secs(2), "nobody was asked to end in good order");
    all_ended(&children).await;
    assert_eq!(processes(&name), []);
    assert!(pipe.to.is_closed());
}

#[tokio::test]
async fn a_child_that_closes_its_stdout_is_ended() {
    let children = Children::new();
    let (mut pipe, name) = start(&children, "exec >&-; exec sleep 1000").await;
    assert_eq!(next(&mut pipe).await, None);
    all_ended(&children).await;
    assert_eq!(processes(&name), []);
}

#[tokio::test]
async fn a_child_that_does_not_read_holds_up_only_its_own_messages() {
    let children = Children::new();
    let (pipe, name) = start(&children, "exec sleep 1000").await;
    let large = Bytes::from(vec![b' '; 1024 * 1024]); // a pipe holds 64 KiB
    let mut sent = 0;
    while pipe.to.send_timeout(large.clone(), Duration::from_secs(1)).await.is_ok() {
        sent += 1;
    }
    assert!((MESSAGES_MAX..=MESSAGES_MAX + 1).contains(&sent), "{sent}");
    let (mut other, _) = start(&children, "exec cat").await;
    tell(&other, "{}").await;
    assert_eq!(next(&mut other).await, Some(Bytes::from_static(b"{}")));
    drop((pipe, other));
    all_ended(&children).await;
    assert_eq!(processes(&name), []);
}

#[tokio::test]
async fn a_child_that_nobody_listens_to_can_end_in_good_order() {
    let children = Children::new();
    let file = std::env::temp_dir().join(a_name());
    // More than the pipe holds: without a reader it would not come to its last command.
    let script = format!("cat >/dev/null; yes '{{}}' | head -n 100000; touch {}", file.display());
    let (pipe, _) = start(&children, &script).await;
    let Pipe { to, from } = pipe;
    drop(to);
    all_ended(&children).await;
    fs::remove_file(file).expect("it came to its last command");
    drop(from);
}

#[tokio::test]
async fn a_line_that_is_too_long_ends_the_child() {
    let children = Children::new();
    let (mut pipe, name) = start(&children, "echo '{}'; tr '\\0' x </dev/zero").await;
    assert_eq!(next(&mut pipe).await, Some(Bytes::from_static(b"{}")));
    assert_eq!(next(&mut pipe).await, None);
    all_ended(&children).await;
    assert_eq!(processes(&name), []);
}

#[tokio::test]
async fn wardens_survive_their_guardian_and_the_next_child_has_a_new_one() {
    let children = Children::new();
    let (mut pipe, name) = start(&children, "exec cat").await;
    let guardian = parent(parent(first_of(&name).await));
    kill(guardian);
    tell(&pipe, "{}").await;
    assert_eq!(next(&mut pipe).await, Some(Bytes::from_static(b"{}")), "the session goes on");
    let (mut other, others_name) = start(&children, "exec cat").await;
    tell(&other, "[]").await;
    assert_eq!(next(&mut other).await, Some(Bytes::from_static(b"[]")));
    assert_ne!(parent(parent(first_of(&others_name).await)), guardian);
    drop((pipe, other));
    all_ended(&children).await;
    assert_eq!((processes(&name), processes(&others_name)), (vec![], vec![]));
}

#[tokio::test]
async fn a_warden_that_is_killed_takes_its_session_along_and_no_other() {
    let children = Children::new();
    let (mut pipe, name) = start_with_hidden(&children, "exec cat", 3).await;
    let (mut other, _) = start(&children, "exec cat").await;
    kill(parent(first_of(&name).await));
    assert_eq!(next(&mut pipe).await, None);
    nothing_is_left_of(&name).await;
    tell(&other, "{}").await;
    assert_eq!(next(&mut other).await, Some(Bytes::from_static(b"{}")));
}

/// The kernel closes what a killed node had open; so does a runtime that is shut down, all at once.
#[test]
fn nothing_is_left_of_the_children_of_a_node_that_is_gone() {
    let node = tokio::runtime::Runtime::new().expect("a runtime");
    let children = Children::new();
    let (names, pipes, guardian) = node.block_on(async {
        let stubborn = "trap '' TERM HUP; while :; do sleep 1000; done";
        let (first, first_name) = start_with_hidden(&children, "exec cat", 3).await;
        let (second, second_name) = start_with_hidden(&children, stubborn, 4).await;
        let guardian = parent(parent(first_of(&first_name).await));
        ([first_name, second_name], [first, second], guardian)
    });
    let begun = Instant::now();
    node.shutdown_background();
    drop((children, pipes));
    let after = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    after.block_on(async {
        for name in &names {
            nothing_is_left_of(name).await;
        }
        println!("the last was gone after {:?}", begun.elapsed());
        until("the guardian has ended", || is_over(guardian)).await;
    });
}

/// Gone, or not yet reaped.
fn is_over(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z"))
}
