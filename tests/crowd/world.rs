//! The namespace of the rendezvous and its crowd, and the server in it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use overlay_rendezvous::channel::Pinned;
use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{AT_LENGTH, Host, Lab, Process, SHORTLY, within};

/// The first address of the crowd. The namespace has all that begin with 10.2, and what connects to one of them comes
/// from the same one: the kernel takes the destination as the source where a route to the host itself names none.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const PORT: u16 = 7447;
const METRICS: &str = "127.0.0.1:9447";

pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) url: Pinned,
    server: Option<Process>,
    /// Dropped last.
    _lab: Lab,
}

impl World {
    /// A host with a rendezvous. `None` if this machine cannot.
    #[track_caller]
    pub(crate) fn new(name: &str) -> Option<World> {
        let lab = Lab::new(name)?;
        overlay_os::privileges::raise_file_limit().expect("more files");
        let host = lab.host("rv");
        host.ip("route add local 10.2.0.0/16 dev lo");
        let (server, url) = serve(&host, "");
        Some(World { host, url, server: Some(server), _lab: lab })
    }

    /// The address of a member: where it reaches the rendezvous, and where it comes from.
    pub(crate) fn address_of(who: usize) -> String {
        Ipv4Addr::from(FIRST.to_bits() + u32::try_from(who).expect("a small crowd")).to_string()
    }

    /// Ends the server with a signal, and starts it again at once. Returns how long nobody could connect.
    #[track_caller]
    pub(crate) fn restart(&mut self, signal: Signal) -> Duration {
        let server = self.server.take().expect("it runs");
        let began = Instant::now();
        server.signal(signal);
        server.finish_within(SHORTLY);
        let (server, url) = serve(&self.host, "");
        assert_eq!(url, self.url, "the keys are the same");
        self.server = Some(server);
        began.elapsed()
    }

    /// Starts a process that takes the place of the server, and waits until it has.
    #[track_caller]
    pub(crate) fn replace(&mut self, more: &str) {
        let (server, url) = serve(&self.host, &format!("--replace {more}"));
        assert_eq!(url, self.url, "the keys are the same");
        let former = self.server.replace(server).expect("it ran");
        former.succeed_within(SHORTLY);
    }

    /// Starts a process that cannot take the place of the server, and returns what it says.
    #[track_caller]
    pub(crate) fn replaces_in_vain(&mut self, more: &str) -> String {
        let line = line(&self.host, &format!("--replace {more}"));
        let process = self.host.start(self.host.overlay_command(line), "overlay rendezvous serve --replace");
        let ended = process.finish_within(SHORTLY);
        assert!(ended.code != 0, "{ended:?}");
        let server = self.server.as_mut().expect("it runs");
        assert!(server.ended().is_none(), "the old server has ended: {}", server.stderr());
        ended.stderr
    }

    /// A file of the rendezvous.
    pub(crate) fn state_file(&self, name: &str) -> PathBuf {
        self.host.dir().join("state/rendezvous/lab").join(name)
    }

    /// The memory of the server: now, and the most that it ever was, in bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let pid = self.server.as_ref().expect("it runs").pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.expect("a process has memory") * 1024
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// The CPU time that the server has used.
    pub(crate) fn cpu(&self) -> Duration {
        let pid = self.server.as_ref().expect("it runs").pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
        // The name may contain anything. Behind it, utime and stime are fields 12 and 13, in hundredths of a second.
        let rest = stat.rsplit_once(')').expect("a name").1;
        let ticks = rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// A counter of the registry, as the operator sees it.
    #[track_caller]
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let state = self.host.dir().join("state").display().to_string();
        let line = format!("--state-dir {state} rendezvous stats --json");
        let command = self.host.overlay_command(line);
        let printed = self.host.start(command, "overlay rendezvous stats").succeed_within(AT_LENGTH);
        let stats: Value = serde_json::from_str(&printed).expect("JSON");
        let counters = stats["counters"].as_array().expect("a list");
        let counter = counters.iter().find(|counter| counter[0] == name).and_then(|counter| counter[1].as_u64());
        counter.unwrap_or_else(|| panic!("no counter `{name}` in {stats}"))
    }
}

/// The arguments of the server. What `more` says counts instead.
fn line(host: &Host, more: &str) -> String {
    let state = host.dir().join("state").display().to_string();
    let or = |name: &str, default: &str| if more.contains(name) { String::new() } else { format!("{name} {default}") };
    let (pool, metrics) = (or("--pool", "10.99.0.0/16"), or("--metrics", METRICS));
    format!("--state-dir {state} rendezvous serve --network lab --listen 0.0.0.0:{PORT} {pool} {metrics} {more}")
}

/// Starts the server on a host, and waits until agents can connect.
#[track_caller]
fn serve(host: &Host, more: &str) -> (Process, Pinned) {
    let mut server = host.start(host.overlay_command(line(host, more)), "overlay rendezvous serve");
    let url = within(SHORTLY, "the rendezvous", || {
        assert!(server.ended().is_none(), "the rendezvous ended: {}", server.stderr());
        server.stdout().strip_suffix('\n').map(str::to_owned)
    });
    (server, url.parse().expect("the URL of a rendezvous"))
}
