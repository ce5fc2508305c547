//! The machine on which the measurements were made.

use std::fs;

use serde::Serialize;

/// What a reader needs to judge absolute values.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// The CPUs that this process may use.
    pub(crate) cores: usize,
    /// Whether the machine is virtual, if it says so.
    pub(crate) is_virtual: bool,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) distribution: String,
    /// The default congestion control for TCP on this machine.
    pub(crate) tcp_congestion_control: String,
}

impl Machine {
    /// This machine.
    pub(crate) fn this() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        // The model name alone says little if a hypervisor invented it, and aarch64 has none.
        let [name, family, model] =
            ["model name", "cpu family", "model\t"].map(|field| line(&cpuinfo, field).unwrap_or("unknown"));
        let cpu = format!("{name} (family {family}, model {model})");
        let memory_kib = read("/proc/meminfo");
        let memory_kib = line(&memory_kib, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let release = read("/etc/os-release");
        let distribution = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Self {
            cpu,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            is_virtual: cpuinfo.contains(" hypervisor"),
            memory_bytes: memory_kib.unwrap_or_default() * 1024,
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            distribution: distribution.unwrap_or("unknown").trim_matches('"').to_owned(),
            tcp_congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value behind `name:` in a table of /proc.
fn line<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = table.lines().find(|line| line.starts_with(name))?.split_once(':')?;
    Some(value.trim())
}
