//! What the system knows of this process, read when somebody asks: `process_*`, as every Prometheus client
//! library names them. Where there is no `/proc` there are none.

use super::listed;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use std::fmt;

#[derive(Debug)]
pub(super) struct Process;

/// One look at it.
struct Look {
    cpu_s: f64,
    resident: u64,
    virtual_len: u64,
    open_files: u64,
    files_max: u64,
    started_s: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(look) = Look::now() else { return Ok(()) };
        let help = |name| format!("{}.", listed::of(name).help); // as the registry does
        let cpu = ConstCounter::new(look.cpu_s);
        // The encoder adds `_total`.
        let named = help("process_cpu_seconds_total");
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", &named, None, cpu.metric_type())?)?;
        let started = ConstGauge::new(look.started_s);
        let name = "process_start_time_seconds";
        started.encode(encoder.encode_descriptor(name, &help(name), None, started.metric_type())?)?;
        for (name, value) in [
            ("process_resident_memory_bytes", look.resident),
            ("process_virtual_memory_bytes", look.virtual_len),
            ("process_open_fds", look.open_files),
            ("process_max_fds", look.files_max),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, &help(name), None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

impl Look {
    fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The program's name, in parentheses, may hold anything.
        let (_, stat) = stat.rsplit_once(')')?;
        let field = |number: usize| stat.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
        let number = |name| nix::unistd::sysconf(name).ok().flatten().and_then(|it| u64::try_from(it).ok());
        let ticks = number(nix::unistd::SysconfVar::CLK_TCK)? as f64;
        let page = number(nix::unistd::SysconfVar::PAGE_SIZE)?;
        let system = std::fs::read_to_string("/proc/stat").ok()?;
        let booted: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        let (files_max, _) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok()?;
        Some(Self {
            cpu_s: (field(14)? + field(15)?) as f64 / ticks,
            started_s: booted as f64 + field(22)? as f64 / ticks,
            virtual_len: field(23)?,
            resident: field(24)? * page,
            // Without the one that the folder is read through.
            open_files: (std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
            files_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_process_is_seen_as_the_system_sees_it() {
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let look = Look::now().expect("there is a /proc");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64();
        assert!(look.cpu_s > 0.0 && look.cpu_s < 100_000.0, "{}", look.cpu_s);
        // The system knows when it was booted to a second.
        assert!(look.started_s < now + 2.0 && look.started_s > now - 86_400.0, "{}", look.started_s);
        assert!(look.resident > 1 << 20 && look.virtual_len > look.resident);
        assert!(look.open_files >= 3 && look.open_files < look.files_max);
    }
}
