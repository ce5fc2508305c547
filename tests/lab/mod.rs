//! The lab: a network of namespaces on this machine, made by a test and gone with it.
//!
//! A [`Lab`] hands out [`Host`]s, each a network namespace with a folder of its own, and joins them with veth pairs. On a
//! host run ordinary programs ([`Host::exec`], [`Host::spawn`]), the real binary ([`Host::overlay_up`]), WireGuard programs
//! by other people ([`stock`]) and servers that know nothing of any tunnel ([`services`]).
//!
//! What is shared between hosts because namespaces do not part it: the file system, and in it `/var/run/wireguard`. So the
//! names of tunnel interfaces are unique over the whole machine ([`Host::interface`]), and every daemon has a runtime folder of its own.
//!
//! Nothing outlives a test: processes, namespaces and folders go when their values do, on a panic too. What a killed test
//! binary left is swept away by the next lab on the machine, which knows it by the process id in the name.
//!
//! Left out: impairments and NATs. Tests that need them write the nft rules into a router's namespace themselves.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its own part of the lab")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the lab is a program: it waits for real processes on the real clock"
)]

pub mod crowd;
pub mod footprint;
pub mod host;
pub mod names;
pub mod namespace;
pub mod overlay;
pub mod pings;
pub mod process;
pub mod services;
pub mod stock;
pub mod streams;
pub mod wait;
pub mod words;
pub mod world;

pub use host::Host;
pub use names::NameServer;
pub use namespace::inside;
pub use overlay::Overlay;
pub use pings::Pings;
pub use process::{Finished, Process};
pub use stock::Stock;
pub use wait::{A_SECOND, AT_LENGTH, ENDED, POLL, SHORTLY, within};
pub use world::{A, B, Outside, Pair, Star};

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// What every namespace of every lab is called by: `ovl-PID-NUMBER-HOST`.
const PREFIX: &str = "ovl";

/// Where WireGuard programs, ours too, put the sockets that `wg` talks to; where ours has its own socket, lock and log unless
/// it is told otherwise. A program that was killed leaves them.
const SHARED_FOLDERS: [&str; 2] = ["/var/run/wireguard", "/run/overlay"];

/// A network of this test's own. Dropped, it takes everything away.
pub struct Lab {
    prefix: String,
    serial: u32,
    dir: TempDir,
    hosts: Mutex<Vec<Host>>,
}

impl Lab {
    /// An empty network; `None`, with the reason on stderr, where this machine cannot run one.
    ///
    /// # Panics
    /// Where `CI=true` or `OVERLAY_LAB=required` says that skipping is a failure.
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

    /// A new host: a namespace with its loopback up, a folder and a key pair.
    pub fn host(&self, name: &str) -> Host {
        let mut hosts = self.hosts.lock().expect("no test thread panics while it adds a host");
        let interface = format!("{}{}{}", interface_prefix(std::process::id()), self.serial, letters(hosts.len()));
        let host = Host::new(&format!("{}-{name}", self.prefix), name, &interface, self.dir.path());
        hosts.push(host.clone());
        host
    }

    /// A host that forwards between its links, both families.
    pub fn router(&self, name: &str) -> Host {
        let router = self.host(name);
        router.exec("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        router
    }

    /// A veth pair between two hosts, up, with these addresses (`10.1.0.1/24`, `fd01::1/64`). Each end is called after the
    /// host at the other: on `a`, the link to `b` is `to-b`.
    pub fn link(&self, a: &Host, b: &Host, a_addresses: &[&str], b_addresses: &[&str]) {
        let (on_a, on_b) = (a.link_to(b), b.link_to(a));
        a.ip(&format!("link add {on_a} type veth peer name {on_b} netns {}", b.namespace()));
        let ends = [(a, on_a, a_addresses), (b, on_b, b_addresses)];
        for (host, interface, addresses) in &ends {
            // Without duplicate detection an IPv6 address, the link-local one too, can be used at once.
            host.exec(format!("sysctl -qw net.ipv6.conf.{interface}.accept_dad=0"));
            for address in *addresses {
                host.ip(&format!("address add {address} dev {interface}"));
            }
            host.ip(&format!("link set {interface} up"));
        }
        // The carrier and what follows from it come a moment later; a test must not see them change.
        for (host, interface, _) in &ends {
            within(SHORTLY, &format!("{interface} to be ready"), || {
                let is_up = host.ip(&format!("-o link show dev {interface}")).contains(" state UP ");
                let without_ipv6 = host.exec(format!("sysctl -n net.ipv6.conf.{interface}.disable_ipv6")).trim() == "1";
                let link_local = host.ip(&format!("-o -6 address show dev {interface} scope link"));
                (is_up && (without_ipv6 || !link_local.is_empty())).then_some(())
            });
        }
    }

    /// A folder of the lab, shared by its hosts.
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
            // A host's second device is called after it too, with a digit behind the host's letter.
            let prefix = format!("{}{}", interface_prefix(std::process::id()), self.serial);
            remove_files(|name| {
                name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_lowercase()))
            });
        }
    }
}

/// Whether every one of these programs is here; says on stderr which is not, and panics where skipping is a failure.
pub fn installed(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| process::find(program).is_none()).copied().collect();
    if !missing.is_empty() {
        skip(test, &format!("not installed: {} (scripts/setup test)", missing.join(", ")));
    }
    missing.is_empty()
}

/// Says why `test` does not run here: a program or a privilege is missing, which could be there.
///
/// # Panics
/// Where skipping is a failure.
pub fn skip(test: &str, reason: &str) {
    let strict = std::env::var("CI").is_ok_and(|value| value == "true")
        || std::env::var("OVERLAY_LAB").is_ok_and(|value| value == "required");
    assert!(!strict, "{test} cannot run here: {reason}");
    eprintln!("skipped {test}: {reason}");
}

/// Says why `test` has nothing to look at here: what it is about cannot happen on this kernel, which has an ability or lacks
/// one. Unlike what [`skip`] names, nobody can install that, so it is no failure anywhere.
pub fn not_applicable(test: &str, reason: &str) {
    eprintln!("not applicable {test}: {reason}");
}

/// Whether namespaces and TUN devices can be made here, else why not.
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

/// Takes away what test binaries left that were killed at their time limit: the process id in the names is nobody's any more.
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

/// Removes the files in the shared folders whose names these are.
fn remove_files(is_one: impl Fn(&str) -> bool) {
    for folder in SHARED_FOLDERS {
        for name in names_in(folder).filter(|name| is_one(name)) {
            let _ = fs::remove_file(Path::new(folder).join(name));
        }
    }
}

/// Whether it is called `ovl-PID-...` after a process that is gone.
fn is_orphan(name: &str) -> bool {
    let owner =
        name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.split('-').next());
    owner.is_some_and(|owner| !is_running(owner))
}

/// Whether there is a process of this id. What is no number belongs to nobody we know, and is left alone.
fn is_running(pid: &str) -> bool {
    pid.parse::<u32>().is_err() || Path::new("/proc").join(pid).exists()
}

fn names_in(folder: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// What the tunnel interfaces of a test binary's labs begin with: `ov1234x`, then the lab's number and the host's letter.
fn interface_prefix(pid: u32) -> String {
    format!("ov{pid}x")
}

/// Ends what runs in the namespace, then removes it. Failures are silent: two sweeps may meet.
fn remove_namespace(name: &str) {
    let pids = Command::new("ip").args(["netns", "pids", name]).output();
    for pid in pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default().lines() {
        process::kill(pid.trim(), rustix::process::Signal::KILL);
    }
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
    let _ = fs::remove_dir_all(Path::new("/etc/netns").join(name));
}

/// 0, 1, 25, 26 as `a`, `b`, `z`, `aa`.
fn letters(number: usize) -> String {
    let last = char::from(b'a' + u8::try_from(number % 26).expect("below 26"));
    if number < 26 { last.to_string() } else { letters(number / 26 - 1) + &last.to_string() }
}
