//! One child, from its start to the end of the last process that came of it.
//!
//! The warden is the child's parent and the *subreaper* (prctl(2)) of all below it: a descendant that
//! detaches itself (`setsid`, a double fork) becomes the warden's child. So what belongs to the session
//! is known to the kernel: exactly what is below its warden. Nothing needs to be marked and looked for.

use super::{
    kin::{self, Deaths},
    wire::{Order, Report},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout},
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{self, SigSet, Signal},
    },
    unistd::{Pid, getppid},
};
use std::{
    collections::HashSet,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::Command,
    time::{Duration, Instant},
};

/// From the end of its standard input, which is how MCP asks a child to end, to SIGTERM. Of the servers
/// measured all ended within half a second.
const GRACE: Duration = Duration::from_secs(2);
/// From SIGTERM to SIGKILL: as long as init systems give at the very least.
const TERM_TIME: Duration = Duration::from_secs(3);
/// The same if the node is gone: SIGTERM is sent at once, and whoever starts the node again should not
/// find its predecessor's children.
const TERM_TIME_WITHOUT_NODE: Duration = Duration::from_secs(1);
/// What was killed is looked for again when somebody has died; this is for what can't die at once
/// (a system call that can't be interrupted), doubled from the first to the second.
const LOOK_AGAIN_MIN_MS: u16 = 10;
const LOOK_AGAIN_MAX_MS: u16 = 1_000;

/// Starts what `control` orders, and returns when nothing of it is left.
pub(super) fn run(control: UnixStream, pipes: [OwnedFd; 3]) -> io::Result<()> {
    prctl::set_name(c"warden")?;
    let order = Order::read(&control)?;
    let deaths = Deaths::listen()?; // the guardian's would tell this process nothing
    prctl::set_child_subreaper(true)?;
    let mut warden = Warden { control, deaths, child: None, end: End::None };
    match start(&order, pipes) {
        Ok(child) => {
            warden.child = Some(child);
            warden.report(Report::Started(child.as_raw()));
            warden.watch()
        }
        Err(error) => {
            warden.report(Report::Failed(error.raw_os_error().unwrap_or(libc::EINVAL)));
            Ok(())
        }
    }
}

/// The child in a process group of its own, with an empty signal mask.
#[expect(unsafe_code, reason = "what a child does between fork and exec can't be checked by the compiler")]
fn start(order: &Order, [stdin, stdout, stderr]: [OwnedFd; 3]) -> io::Result<Pid> {
    if let Some(open_files) = order.open_files {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, open_files.min(hard), hard)?;
    }
    let mut command = Command::new(&order.program);
    command.args(&order.arguments).envs(&order.env).process_group(0);
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let warden = Pid::this();
    let prepare = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        let _ = prctl::set_thp_disable(false); // the node does without (`cli::memory`), not the child
        if getppid() != warden {
            return Err(Errno::ESRCH.into()); // it died before that call
        }
        Ok(SigSet::empty().thread_set_mask()?)
    };
    // SAFETY: it makes four system calls and touches no memory but its own stack.
    unsafe { command.pre_exec(prepare) };
    let child = command.spawn()?.id();
    Ok(Pid::from_raw(child.cast_signed()))
}

/// How far the end of a session has come.
#[derive(Clone, Copy)]
enum End {
    None,
    /// The child's standard input is closed; SIGTERM follows.
    Grace(Instant),
    /// SIGTERM is sent; SIGKILL follows.
    Term(Instant),
    Kill,
}

struct Warden {
    /// Closed by the node when the session ends. Closed in both directions the node is gone.
    control: UnixStream,
    deaths: Deaths,
    /// None once it has been reaped, when its number may be another's.
    child: Option<Pid>,
    end: End,
}

impl Warden {
    fn watch(mut self) -> io::Result<()> {
        let mut is_node_gone = false;
        while self.reap() && self.child.is_some() {
            let told = self.wait(is_node_gone)?;
            let now = Instant::now();
            if told.contains(PollFlags::POLLHUP) {
                is_node_gone = true;
                self.terminate(now + TERM_TIME_WITHOUT_NODE);
            } else if !told.is_empty() {
                self.end = End::Grace(now + GRACE);
            }
            match self.end {
                End::Grace(until) if until <= now => self.terminate(now + TERM_TIME),
                End::Term(until) if until <= now => self.end = End::Kill,
                End::None | End::Grace(_) | End::Term(_) => {}
                End::Kill => break,
            }
        }
        self.kill_what_is_left()
    }

    /// Waits for a death, for word from the node, or for the next step of the end. What the node's end
    /// of the socket shows.
    fn wait(&self, is_node_gone: bool) -> io::Result<PollFlags> {
        let (is_ending, patience) = match self.end {
            End::None => (false, PollTimeout::NONE),
            End::Grace(until) | End::Term(until) => {
                // Rounded up: woken too early it would spin until then.
                let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                (true, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
            }
            End::Kill => (true, PollTimeout::ZERO),
        };
        // The first word is the last: from then on only a hang-up is news, which poll always tells.
        let news = if is_ending { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut waiting = vec![PollFd::new(self.deaths.as_fd(), PollFlags::POLLIN)];
        if !is_node_gone {
            waiting.push(PollFd::new(self.control.as_fd(), news));
        }
        kin::poll(&mut waiting, patience)?;
        let told = waiting.get(1).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
        self.deaths.forget();
        Ok(told)
    }

    fn terminate(&mut self, until: Instant) {
        if let Some(child) = self.child {
            let _ = signal::killpg(child, Signal::SIGTERM); // a group without members needs none
        }
        self.end = End::Term(until);
    }

    /// Whether anything lives below this process.
    fn reap(&mut self) -> bool {
        let mut ended = None;
        let is_left = kin::reap(|pid, status| {
            if self.child == Some(pid) {
                ended = Some(status);
            }
        });
        if let Some(status) = ended {
            self.child = None;
            self.report(Report::Ended(status));
        }
        is_left
    }

    /// Children first: what was theirs is this process's then, and its turn comes.
    fn kill_what_is_left(mut self) -> io::Result<()> {
        if let Some(child) = self.child {
            let _ = signal::killpg(child, Signal::SIGKILL);
        }
        let mut look_again_ms = LOOK_AGAIN_MIN_MS;
        while self.reap() {
            kin::kill_children_but(&HashSet::new());
            let died = self.deaths.wait(look_again_ms.into())?;
            look_again_ms = if died { LOOK_AGAIN_MIN_MS } else { (look_again_ms * 2).min(LOOK_AGAIN_MAX_MS) };
        }
        Ok(())
    }

    /// Five bytes into a buffer that holds thousands; if the node is gone nobody wants to know.
    fn report(&self, report: Report) {
        let _ = (&self.control).write_all(&report.to_bytes());
    }
}
