//! Where and of what a report is: the machine, the programs, the command. Called by `bench::run`, shown by `save`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

/// What one must know to repeat a run.
#[derive(Debug, Default, Serialize)]
pub(in super::super) struct Circumstances {
    command: String,
    when: String,
    took_s: u64,
    is_release_build: bool,
    commit: String,
    cpu: String,
    cores: usize,
    kernel: String,
    /// 1, 5 and 15 minutes, before and after: what else the machine did.
    load_average: [String; 2],
    /// Each with its version, or with how to install it where it was left out.
    programs: Vec<String>,
}

impl Circumstances {
    /// Looked at before the first case.
    pub(in super::super) fn now(programs: Vec<String>) -> Circumstances {
        Circumstances {
            command: std::env::args().skip(1).fold("bench".to_owned(), |all, word| all + " " + &word),
            when: httpdate::fmt_http_date(SystemTime::now()),
            took_s: 0,
            is_release_build: !cfg!(debug_assertions),
            commit: commit(&crate::real::places::workspace()),
            cpu: cpu_name(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            load_average: [load_average(), String::new()],
            programs,
        }
    }

    /// Looked at after the last.
    pub(in super::super) fn ended(&mut self, took: std::time::Duration) {
        self.took_s = took.as_secs();
        self.load_average[1] = load_average();
    }

    /// One line, for the picture.
    pub(super) fn summary(&self) -> String {
        let build = if self.is_release_build { "" } else { "DEBUG BUILD, " };
        format!("{build}{}, {} cores, {}, commit {}", self.cpu, self.cores, self.when, self.commit)
    }

    pub(super) fn to_markdown(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: &str| {
            writeln!(text, "- {what}: {value}").expect("writing to memory can't fail");
        };
        line("command", &format!("`{}`, {} s", self.command, self.took_s));
        line("when", &self.when);
        let build = if self.is_release_build { "release" } else { "DEBUG: its figures say nothing" };
        line("build", &format!("{build}, commit {}", self.commit));
        line("machine", &format!("{}, {} cores, Linux {}", self.cpu, self.cores, self.kernel));
        let [before, after] = &self.load_average;
        line("load average (1, 5, 15 minutes)", &format!("{before} before, {after} after"));
        self.programs.iter().for_each(|program| line("program", program));
        text
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn load_average() -> String {
    read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(", ")
}

fn cpu_name(cpuinfo: &str) -> String {
    let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let name = lines.find(|(key, _)| key.trim() == "model name").map(|(_, name)| name.trim());
    name.unwrap_or("a CPU that names no model").to_owned()
}

/// As git describes it; a copy without a repository has none.
fn commit(workspace: &Path) -> String {
    let said = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(workspace).output();
    let said = said.ok().filter(|said| said.status.success());
    said.map_or_else(|| "unknown".to_owned(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_has_a_name() {
        assert_eq!(
            cpu_name("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags : a b\n"),
            "Some CPU @ 2 GHz"
        );
        assert_eq!(cpu_name("processor : 0\n"), "a CPU that names no model");
    }
}
