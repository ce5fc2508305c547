//! The lab: a network of namespaces on this machine, which a test creates and which disappears with the test.
//!
//! A [`Lab`] creates [`Host`]s, each a network namespace with a folder of its own, and connects them with veth pairs. A
//! host runs ordinary programs ([`Host::exec`], [`Host::spawn`]), the real binary ([`Host::overlay_up`]), other
//! WireGuard programs ([`stock`]), and servers that do not know about the tunnel ([`services`]).
//!
//! Network namespaces do not separate the file system, and so not `/var/run/wireguard` either. Therefore the names of
//! tunnel interfaces are unique on the whole machine ([`Host::interface`]), and every daemon has a runtime folder of
//! its own.
//!
//! Nothing outlives a test. Processes, namespaces and folders are removed when their values are dropped, also after a
//! panic. If a test binary was killed, the next lab on the machine removes what it left, recognised by the process ID
//! in the names.
//!
//! [`Internet`] connects [`Site`]s, whose hosts are behind routers of every kind that the simulator has too, and [`Delays`]
//! make a router slow. Tests of other impairments write nft rules into a router's namespace themselves.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its own part of the lab")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the lab is a program: it waits for real processes on the real clock"
)]

pub mod agents;
pub mod apart;
pub mod crowd;
pub mod delays;
pub mod disk;
pub mod etcd;
pub mod faketime;
pub mod footprint;
pub mod frames;
pub mod host;
pub mod internet;
pub mod names;
pub mod namespace;
pub mod overlay;
pub mod pings;
pub mod plain;
pub mod process;
pub mod resolved;
pub mod services;
pub mod site;
pub mod state_folder;
pub mod stock;
pub mod streams;
pub mod wait;
pub mod words;
pub mod world;

pub use agents::{Agent, Agents};
pub use apart::Apart;
pub use delays::{Crossed, Delay, Delays, Way};
pub use disk::Disk;
pub use frames::{Datagram, Frames, datagram};
pub use host::Host;
pub use internet::{Attachment, End, Internet};
pub use names::NameServer;
pub use namespace::inside;
pub use overlay::Overlay;
pub use pings::Pings;
pub use plain::Plain;
pub use process::{Finished, Process};
pub use resolved::Resolved;
pub use site::{Ageing, Site};
pub use state_folder::StateFolder;
pub use stock::Stock;
pub use wait::{A_SECOND, AT_LENGTH, ENDED, POLL, SHORTLY, within};
pub use world::{A, B, Outside, Pair, Star};

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// The first part of every namespace's name: `ovl-PID-NUMBER-HOST`.
const PREFIX: &str = "ovl";

/// The folders where WireGuard programs, including ours, put the sockets that `wg` connects to, and where our daemon
/// keeps its socket, lock and log by default. A program that is killed leaves its files there.
const SHARED_FOLDERS: [&str; 2] = ["/var/run/wireguard", "/run/overlay"];

/// A network for one test. Dropping it removes everything.
pub struct Lab {
    prefix: String,
    serial: u32,
    dir: TempDir,
    hosts: Mutex<Vec<Host>>,
}

impl Lab {
    /// Creates an empty network. Returns `None`, and prints the reason, if this machine cannot run one.
    ///
    /// # Panics
    /// Panics instead if `CI=true` or `OVERLAY_LAB=required` makes skipping a failure.
    pub fn new(name: &str) -> Option<Lab> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        if let Err(reason) = able() {
            skip(name, &reason);
            return None;
        }
        sweep();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Some(Lab {
            prefix: format!("{PREFIX}-{}-{serial}", std::process::id()),
            serial,
            dir: tempfile::Builder::new()
                .prefix(&format!("{PREFIX}-{}-", std::process::id()))
                .tempdir()
                .expect("a temporary folder"),
            hosts: Mutex::new(Vec::new()),
        })
    }

    /// Creates a host: a namespace with its loopback up, a folder and a key pair.
    pub fn host(&self, name: &str) -> Host {
        let mut hosts = self.hosts.lock().expect("no test thread panics while it adds a host");
        let interface = format!("{}{}{}", interface_prefix(std::process::id()), self.serial, letters(hosts.len()));
        let host = Host::new(&format!("{}-{name}", self.prefix), name, &interface, self.dir.path());
        hosts.push(host.clone());
        host
    }

    /// Creates a host that forwards between its links in both families.
    pub fn router(&self, name: &str) -> Host {
        let router = self.host(name);
        router.exec("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        router
    }

    /// Creates a veth pair between two hosts, up, with these addresses (`10.1.0.1/24`, `fd01::1/64`). Each end is named
    /// after the host at the other end: on `a`, the link to `b` is `to-b`.
    pub fn link(&self, a: &Host, b: &Host, a_addresses: &[&str], b_addresses: &[&str]) {
        let (on_a, on_b) = (a.link_to(b), b.link_to(a));
        a.ip(&format!("link add {on_a} type veth peer name {on_b} netns {}", b.namespace()));
        let ends = [(a, on_a, a_addresses), (b, on_b, b_addresses)];
        for (host, interface, addresses) in &ends {
            // Without duplicate address detection, IPv6 addresses can be used at once, the link-local one included.
            host.exec(format!("sysctl -qw net.ipv6.conf.{interface}.accept_dad=0"));
            for address in *addresses {
                host.ip(&format!("address add {address} dev {interface}"));
            }
            host.ip(&format!("link set {interface} up"));
        }
        // The carrier and its consequences come a moment later. A test must not see them change.
        for (host, interface, _) in &ends {
            within(SHORTLY, &format!("{interface} to be ready"), || {
                let is_up = host.ip(&format!("-o link show dev {interface}")).contains(" state UP ");
                let without_ipv6 = host.exec(format!("sysctl -n net.ipv6.conf.{interface}.disable_ipv6")).trim() == "1";
                let link_local = host.ip(&format!("-o -6 address show dev {interface} scope link"));
                (is_up && (without_ipv6 || !link_local.is_empty())).then_some(())
            });
        }
    }

    /// The lab's folder, which its hosts share.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Ok(hosts) = self.hosts.get_mut() {
            for host in hosts.drain(..) {
                remove_namespace(host.namespace());
            }
            // The name of a host's second device begins with the same prefix and has a digit after the host's letter.
            let prefix = format!("{}{}", interface_prefix(std::process::id()), self.serial);
            remove_files(|name| {
                name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_lowercase()))
            });
        }
    }
}

/// Whether all of these programs are installed. Prints which are missing, and panics if skipping is a failure.
pub fn installed(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| process::find(program).is_none()).copied().collect();
    if !missing.is_empty() {
        skip(test, &format!("not installed: {} (scripts/setup test)", missing.join(", ")));
    }
    missing.is_empty()
}

/// Prints why `test` does not run here: a program or a privilege is missing that could be provided.
///
/// # Panics
/// Panics if skipping is a failure.
pub fn skip(test: &str, reason: &str) {
    let strict = std::env::var("CI").is_ok_and(|value| value == "true")
        || std::env::var("OVERLAY_LAB").is_ok_and(|value| value == "required");
    assert!(!strict, "{test} cannot run here: {reason}");
    eprintln!("skipped {test}: {reason}");
}

/// Prints why `test` does not apply here: this kernel has or lacks an ability, so that its subject cannot occur. Unlike
/// the reasons for [`skip`], this cannot be changed by installing something, so it is never a failure.
pub fn not_applicable(test: &str, reason: &str) {
    eprintln!("not applicable {test}: {reason}");
}

/// Whether namespaces and TUN devices can be created here. If not, the error says why.
fn able() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces need root".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err("/dev/net/tun is missing".into());
    }
    for program in ["ip", "ss", "nft", "wg"] {
        process::find(program).ok_or_else(|| format!("`{program}` is not installed (scripts/setup test)"))?;
    }
    Ok(())
}

/// Removes what killed test binaries left behind: names with the ID of a process that no longer exists.
fn sweep() {
    for name in names_in("/run/netns").filter(|name| is_orphan(name)) {
        remove_namespace(&name);
    }
    for name in names_in(std::env::temp_dir()).filter(|name| is_orphan(name)) {
        let _ = fs::remove_dir_all(std::env::temp_dir().join(name));
    }
    remove_files(|name| {
        let owner = name.strip_prefix("ov").and_then(|rest| rest.split_once('x')).map(|(owner, _)| owner);
        owner.is_some_and(|owner| !is_running(owner))
    });
}

/// Removes the files in the shared folders whose names match.
fn remove_files(is_one: impl Fn(&str) -> bool) {
    for folder in SHARED_FOLDERS {
        for name in names_in(folder).filter(|name| is_one(name)) {
            let _ = fs::remove_file(Path::new(folder).join(name));
        }
    }
}

/// Whether this is a name of the form `ovl-PID-...` whose process is gone.
fn is_orphan(name: &str) -> bool {
    let owner =
        name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.split('-').next());
    owner.is_some_and(|owner| !is_running(owner))
}

/// Whether a process with this ID exists. True if it is not a number, so that foreign names are left alone.
fn is_running(pid: &str) -> bool {
    pid.parse::<u32>().is_err() || Path::new("/proc").join(pid).exists()
}

fn names_in(folder: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// The first part of the names of a test binary's tunnel interfaces: `ov1234x`, followed by the lab's number and the
/// host's letter.
fn interface_prefix(pid: u32) -> String {
    format!("ov{pid}x")
}

/// Kills all processes in the namespace, then removes it. Errors are ignored: two sweeps may run at the same time.
fn remove_namespace(name: &str) {
    let pids = Command::new("ip").args(["netns", "pids", name]).output();
    for pid in pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default().lines() {
        process::kill(pid.trim(), rustix::process::Signal::KILL);
    }
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
    let _ = fs::remove_dir_all(Path::new("/etc/netns").join(name));
}

/// Turns 0, 1, 25, 26 into `a`, `b`, `z`, `aa`.
fn letters(number: usize) -> String {
    let last = char::from(b'a' + u8::try_from(number % 26).expect("below 26"));
    if number < 26 { last.to_string() } else { letters(number / 26 - 1) + &last.to_string() }
}
