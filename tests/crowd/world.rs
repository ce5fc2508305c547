//! The namespace of the rendezvous and its crowd, and the server in it, or two of them over an etcd cluster.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use overlay_rendezvous::channel::Pinned;
use rustix::process::Signal;
use serde_json::Value;

#[cfg(feature = "etcd")]
use crate::lab::etcd::Etcd;
use crate::lab::{AT_LENGTH, Host, Lab, Process, SHORTLY, within};

/// The first address of the crowd. The namespace has all that begin with 10.2, and what connects to one of them comes
/// from the same one: the kernel takes the destination as the source where a route to the host itself names none.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// The ports of the first server, and of the second if there are two.
const PORTS: [u16; 2] = [7447, 7448];
const METRICS: &str = "127.0.0.1:9447";

pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) url: Pinned,
    servers: Vec<Option<Process>>,
    #[cfg(feature = "etcd")]
    _etcd: Option<Etcd>,
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
        let (server, url) = serve(&host, 0, "");
        Some(World {
            host,
            url,
            servers: vec![Some(server)],
            #[cfg(feature = "etcd")]
            _etcd: None,
            _lab: lab,
        })
    }

    /// A host with two processes of one rendezvous. `None` if this machine cannot.
    #[cfg(feature = "etcd")]
    #[track_caller]
    pub(crate) fn shared(name: &str) -> Option<World> {
        let lab = Lab::new(name)?;
        overlay_os::privileges::raise_file_limit().expect("more files");
        let host = lab.host("rv");
        host.ip("route add local 10.2.0.0/16 dev lo");
        let etcd = Etcd::start(&host);
        let (first, url) = serve(&host, 0, &format!("--url https://127.0.0.1:7447 --store {}", Etcd::store()));
        let keys = host.dir().join("lab.backup").display().to_string();
        let verb =
            |place: usize, line: String| host.overlay(format!("--state-dir {} rendezvous {line}", state(&host, place)));
        verb(0, format!("backup {keys}")).succeeded("backup");
        verb(1, format!("restore --shared {keys}")).succeeded("restore");
        let (second, same) = serve(&host, 1, &format!("--store {}", Etcd::store()));
        assert_eq!(same, url, "it is one rendezvous");
        Some(World { host, url, servers: vec![Some(first), Some(second)], _etcd: Some(etcd), _lab: lab })
    }

    /// Where the rendezvous is for a member, in the order in which it tries.
    pub(crate) fn places_of(&self, who: usize) -> Vec<SocketAddr> {
        let (ip, count) = (World::ip_of(who), self.servers.len());
        (0..count).map(|turn| (ip, PORTS[(who + turn) % count]).into()).collect()
    }

    /// Kills the second process. Its agents are those with an odd number.
    #[track_caller]
    pub(crate) fn kill_second(&mut self) {
        drop(self.servers[1].take().expect("it runs"));
    }

    /// The address of a member: where it reaches the rendezvous, and where it comes from.
    pub(crate) fn ip_of(who: usize) -> Ipv4Addr {
        Ipv4Addr::from(FIRST.to_bits() + u32::try_from(who).expect("a small crowd"))
    }

    /// Ends the server with a signal, and starts it again at once. Returns how long nobody could connect.
    #[track_caller]
    pub(crate) fn restart(&mut self, signal: Signal) -> Duration {
        let server = self.servers[0].take().expect("it runs");
        let began = Instant::now();
        server.signal(signal);
        server.finish_within(SHORTLY);
        let (server, url) = serve(&self.host, 0, "");
        assert_eq!(url, self.url, "the keys are the same");
        self.servers[0] = Some(server);
        began.elapsed()
    }

    /// Starts a process that takes the place of the server, and waits until it has.
    #[track_caller]
    pub(crate) fn replace(&mut self, more: &str) {
        let (server, url) = serve(&self.host, 0, &format!("--replace {more}"));
        assert_eq!(url, self.url, "the keys are the same");
        let former = self.servers[0].replace(server).expect("it ran");
        former.succeed_within(SHORTLY);
    }

    /// Starts a process that cannot take the place of the server, and returns what it says.
    #[track_caller]
    pub(crate) fn replaces_in_vain(&mut self, more: &str) -> String {
        let line = line(&self.host, 0, &format!("--replace {more}"));
        let process = self.host.start(self.host.overlay_command(line), "overlay rendezvous serve --replace");
        let ended = process.finish_within(SHORTLY);
        assert!(ended.code != 0, "{ended:?}");
        let server = self.servers[0].as_mut().expect("it runs");
        assert!(server.ended().is_none(), "the old server has ended: {}", server.stderr());
        ended.stderr
    }

    /// A file of the rendezvous.
    pub(crate) fn state_file(&self, name: &str) -> PathBuf {
        PathBuf::from(state(&self.host, 0)).join("rendezvous/lab").join(name)
    }

    /// The memory of the server that has more: now, and the most that it ever was, in bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        self.pids().map(memory_of).max().expect("one runs")
    }

    fn pids(&self) -> impl Iterator<Item = u32> {
        self.servers.iter().flatten().map(Process::pid)
    }

    /// The CPU time that the servers have used.
    pub(crate) fn cpu(&self) -> Duration {
        self.pids().map(cpu_of).sum()
    }

    /// A counter of the registry, as the operator sees it, of all servers together.
    #[track_caller]
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let running = (0..self.servers.len()).filter(|place| self.servers[*place].is_some());
        running.map(|place| self.counter_at(place, name)).sum()
    }

    #[track_caller]
    fn counter_at(&self, place: usize, name: &str) -> u64 {
        let line = format!("--state-dir {} rendezvous stats --json", state(&self.host, place));
        let command = self.host.overlay_command(line);
        let printed = self.host.start(command, "overlay rendezvous stats").succeed_within(AT_LENGTH);
        let stats: Value = serde_json::from_str(&printed).expect("JSON");
        let counters = stats["counters"].as_array().expect("a list");
        let counter = counters.iter().find(|counter| counter[0] == name).and_then(|counter| counter[1].as_u64());
        counter.unwrap_or_else(|| panic!("no counter `{name}` in {stats}"))
    }
}

/// The memory of a process: now, and the most that it ever was.
fn memory_of(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("a process has memory") * 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// The CPU time that a process has used.
fn cpu_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    // The name may contain anything. Behind it, utime and stime are fields 12 and 13, in hundredths of a second.
    let rest = stat.rsplit_once(')').expect("a name").1;
    let ticks = rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// The arguments of a server. What `more` says counts instead.
fn line(host: &Host, place: usize, more: &str) -> String {
    let or = |name: &str, default: &str| if more.contains(name) { String::new() } else { format!("{name} {default}") };
    let (pool, metrics) = match place {
        0 => (or("--pool", "10.99.0.0/16"), or("--metrics", METRICS)),
        _ => (String::new(), String::new()),
    };
    let (state, port) = (state(host, place), PORTS[place]);
    format!("--state-dir {state} rendezvous serve --network lab --listen 0.0.0.0:{port} {pool} {metrics} {more}")
}

/// The state folder of a server.
fn state(host: &Host, place: usize) -> String {
    host.dir().join(format!("state-{place}")).display().to_string()
}

/// Starts a server on a host, and waits until agents can connect.
#[track_caller]
fn serve(host: &Host, place: usize, more: &str) -> (Process, Pinned) {
    let mut server = host.start(host.overlay_command(line(host, place, more)), "overlay rendezvous serve");
    let url = within(SHORTLY, "the rendezvous", || {
        assert!(server.ended().is_none(), "the rendezvous ended: {}", server.stderr());
        server.stdout().strip_suffix('\n').map(str::to_owned)
    });
    (server, url.parse().expect("the URL of a rendezvous"))
}
