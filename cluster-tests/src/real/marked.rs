//! Finds processes by a mark in their environment, whoever their parent is by now: what a child was started
//! with, its children and theirs have too. Called by tests that look for processes left behind.

use std::fmt::{self, Display};

/// The variable that carries the mark.
pub const VARIABLE: &str = "RINGWAY_TEST_MARK";

/// A mark that no other test of any run has.
pub fn new(label: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{label}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One process, as `ps` would show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub pid: libc::pid_t,
    pub parent: libc::pid_t,
    pub group: libc::pid_t,
    /// As the kernel writes it: `R`, `S`, `D` and so on. What has ended (`Z`) has no environment and isn't found.
    pub state: char,
    pub command: String,
}

impl Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { pid, parent, group, state, command } = self;
        write!(f, "{pid:>8} {parent:>8} {group:>8} {state} {command}")
    }
}

/// Every living process that carries `mark`.
pub fn all(mark: &str) -> Vec<Found> {
    let variable = format!("{VARIABLE}={mark}");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    let mut found: Vec<Found> =
        pids.filter(|pid| carries(*pid, variable.as_bytes())).filter_map(look).collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// The same as a table, as `ps -o pid,ppid,pgid,s,args` prints it.
pub fn table(found: &[Found]) -> String {
    let lines: Vec<String> = found.iter().map(|process| format!("\n{process}")).collect();
    format!("{:>8} {:>8} {:>8} S ARGS{}", "PID", "PPID", "PGID", lines.concat())
}

fn carries(pid: libc::pid_t, variable: &[u8]) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|&byte| byte == 0).any(|entry| entry == variable)
}

/// `None` where it ended in the meantime.
fn look(pid: libc::pid_t) -> Option<Found> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may contain anything but ends at the last parenthesis.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = line.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    Some(Found { pid, parent, group, state, command: words.join(" ").trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_found_by_its_mark_with_its_children_until_it_ends() {
        let mark = new("marked");
        assert_eq!(all(&mark), []);
        let script = "sleep 60 & echo up; read line; kill $!; wait";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .env(VARIABLE, &mark)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 2];
        std::io::Read::read_exact(&mut shell.stdout.take().unwrap(), &mut said).unwrap();
        let pid = libc::pid_t::try_from(shell.id()).unwrap();
        let found = all(&mark);
        assert_eq!((found.len(), found[0].pid, found[1].parent), (2, pid, pid), "{}", table(&found));
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(all(&mark), []);
    }
}
