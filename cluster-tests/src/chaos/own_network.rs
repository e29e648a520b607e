//! Starts this program anew in a network namespace of its own, where the machine lets it. Called by `mod` before
//! anything else, since it ends this process's image.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Names the network that the program was started from, to be told from the one that it is in.
const CAME_FROM: &str = "RINGWAY_CHAOS_CAME_FROM";

/// As root, and as anybody else where the kernel lets them.
const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];

/// What is needed later, tried where nothing can be broken.
const TRIAL: &str = "ip link add probe0 type bridge && ip link add probe1 type veth peer name probe2 && \
    nsenter --net=/proc/self/ns/net -- unshare --net true";

/// Whether this process is in a network of its own already.
pub(super) fn is_here() -> bool {
    std::env::var_os(CAME_FROM).is_some_and(|from| current().is_some_and(|now| now != from))
}

/// A way into a network of its own, or why there is none.
pub(super) fn way() -> Result<&'static [&'static str], String> {
    let mut why = String::new();
    for way in WAYS {
        match Command::new("unshare").args(way).args(["sh", "-c", TRIAL]).output() {
            Ok(output) if output.status.success() => return Ok(way),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                why = said.lines().next().unwrap_or("unshare failed").trim().to_owned();
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Err("no `unshare` here".to_owned()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// Becomes the same program with the same arguments in there. Comes back only with an error.
pub(super) fn enter(way: &[&str]) -> anyhow::Error {
    let program = std::env::current_exe().unwrap_or_else(|_| Path::new("/proc/self/exe").to_path_buf());
    let mut command = Command::new("unshare");
    command.args(way).arg("--").arg(program).args(std::env::args_os().skip(1));
    // There is no way to a registry from there, and nothing left to fetch.
    command.env(CAME_FROM, current().unwrap_or_default()).env("CARGO_NET_OFFLINE", "true");
    anyhow::Error::new(command.exec()).context("starting unshare")
}

/// The network namespace, as the kernel names it.
fn current() -> Option<OsString> {
    Some(std::fs::read_link("/proc/self/ns/net").ok()?.into_os_string())
}
