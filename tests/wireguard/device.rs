//! The program under test, and the device it makes: started with an interface's name, configured with `wg` and `ip`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::host::overlay_program;
use crate::lab::process::{CommandLine, Finished, find, kill};
use crate::lab::{Host, SHORTLY, within};

/// A program that makes WireGuard devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Our binary, called `overlay-wg`.
    Ours,
    /// wireguard-go.
    Reference,
}

/// A device. Dropped, its program is killed.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    pid: u32,
    /// Where its program runs, and so its UDP sockets are.
    sockets_at: Host,
    /// Where its interface is.
    at: Host,
}

/// A key pair.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// The file with the private key.
    pub(crate) file: PathBuf,
    /// The public key.
    pub(crate) public: String,
}

impl Program {
    /// What this run is about.
    pub(crate) fn under_test() -> Program {
        match std::env::var("OVERLAY_WG_REFERENCE").as_deref() {
            Err(_) | Ok("") => Program::Ours,
            Ok("wireguard-go") => Program::Reference,
            Ok(other) => panic!("OVERLAY_WG_REFERENCE is `{other}`; the one reference is `wireguard-go`"),
        }
    }

    /// Whether it is the reference, which is then excused from a step for this reason.
    pub(crate) fn is_excused(self, reason: &str) -> bool {
        let is_reference = self == Program::Reference;
        if is_reference {
            eprintln!("not asked of the reference: {reason}");
        }
        is_reference
    }

    /// What `host` has to call.
    pub(crate) fn path(self, host: &Host) -> PathBuf {
        match self {
            Program::Reference => find("wireguard-go").expect("wireguard-go is installed (scripts/setup test)"),
            Program::Ours => {
                let path = host.dir().join("overlay-wg");
                if !path.exists() {
                    symlink(overlay_program(), &path).expect("a name in the lab's folder");
                }
                path
            }
        }
    }
}

impl Key {
    /// A new one.
    pub(crate) fn new(host: &Host, name: &str) -> Key {
        let file = host.write_secret(name, &host.exec("wg genkey"));
        Key::from_file(host, file)
    }

    /// The one a host was made with.
    pub(crate) fn of(host: &Host) -> Key {
        Key { file: host.private_key_file(), public: host.public_key().into() }
    }

    fn from_file(host: &Host, file: PathBuf) -> Key {
        let public = host.shell(&format!("wg pubkey <{}", file.display())).trim().into();
        Key { file, public }
    }

    /// A file that holds no key: `wg` clears what it is given for.
    pub(crate) const NONE: &str = "/dev/null";
}

impl Device {
    /// Has the program under test make one.
    #[track_caller]
    pub(crate) fn start(host: &Host) -> Device {
        Device::named(Program::under_test(), host, host.interface())
    }

    /// Another one on the same host.
    #[track_caller]
    pub(crate) fn second(host: &Host) -> Device {
        Device::named(Program::under_test(), host, &second_name(host))
    }

    /// Has any program make one.
    #[track_caller]
    pub(crate) fn named(program: Program, host: &Host, name: &str) -> Device {
        assert!(name.len() <= 15, "`{name}` must fit an interface's name");
        let what = format!("{} {name}", program.path(host).display());
        // It goes into the background when the device is there, and holds no stream of its caller's: else this waits for ever.
        host.spawn(&what).succeed_within(SHORTLY);
        Device::adopt(host, name)
    }

    /// One that something else has just started here.
    #[track_caller]
    pub(crate) fn adopt(host: &Host, name: &str) -> Device {
        let pid = within(SHORTLY, &format!("a program behind {name}"), || daemon_of(host, name));
        Device { name: name.into(), pid, sockets_at: host.clone(), at: host.clone() }
    }

    /// Its interface's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where its interface is.
    pub(crate) fn host(&self) -> &Host {
        &self.at
    }

    /// Its program's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether its program still runs.
    pub(crate) fn is_alive(&self) -> bool {
        // One that is ending has no command line any more, but files still, of which the interface is one.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        let line = command_line(self.pid);
        state.is_some_and(|state| !"ZX".contains(state)) && (line.is_empty() || is_given(&line, &self.name))
    }

    /// What its program counts, as `overlay status --json` has it, and its log; an error where it has ended or is not ours.
    pub(crate) fn account(&self) -> String {
        let counted = self.sockets_at.run([&*overlay_program().to_string_lossy(), "status", &self.name, "--json"]);
        let log = fs::read_to_string(format!("/run/overlay/{}.log", self.name)).unwrap_or_default();
        counted.stdout + &counted.stderr + &log
    }

    /// Moves its interface to another host; its UDP sockets stay where they are.
    #[track_caller]
    pub(crate) fn move_to(&mut self, host: &Host) {
        self.at.ip(&format!("link set {} netns {}", self.name, host.namespace()));
        self.at = host.clone();
    }

    /// Gives its interface an address.
    #[track_caller]
    pub(crate) fn address(&self, address: &str) {
        // Without duplicate detection: an address can be used at once.
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.at.ip(&format!("address add {address} dev {} {nodad}", self.name));
    }

    /// Brings its interface up and waits until it listens.
    #[track_caller]
    pub(crate) fn up(&self) {
        self.at.ip(&format!("link set {} up", self.name));
        within(SHORTLY, &format!("{} to listen", self.name), || self.is_listening().then_some(()));
    }

    /// Whether there is a socket for its port.
    pub(crate) fn is_listening(&self) -> bool {
        let port = self.show("listen-port");
        port != "0" && !self.sockets_at.exec(format!("ss -Hlun sport = :{port}")).is_empty()
    }

    /// Changes its MTU.
    #[track_caller]
    pub(crate) fn mtu(&self, mtu: u32) {
        self.at.ip(&format!("link set {} mtu {mtu}", self.name));
    }

    /// `wg set` of it.
    #[track_caller]
    pub(crate) fn set(&self, arguments: &str) {
        self.at.exec(format!("wg set {} {arguments}", self.name));
    }

    /// `wg COMMAND NAME FILE`, for setconf, addconf and syncconf.
    #[track_caller]
    pub(crate) fn conf(&self, command: &str, config: &str) -> Finished {
        let file = self.at.write_secret(&format!("{}.{command}", self.name), config);
        self.at.run(format!("wg {command} {} {}", self.name, file.display()))
    }

    /// `wg show NAME WHAT`, without the end of its last line.
    #[track_caller]
    pub(crate) fn show(&self, what: &str) -> String {
        self.at.exec(format!("wg show {} {what}", self.name)).trim_end().into()
    }

    /// The same, and of that what it says of one peer, field by field.
    #[track_caller]
    pub(crate) fn show_peer(&self, what: &str, peer: &Key) -> Vec<String> {
        let said = self.show(what);
        let line = said.lines().find_map(|line| line.strip_prefix(&peer.public));
        let line = line.unwrap_or_else(|| panic!("no peer {} in `{said}`", peer.public));
        line.words()
    }

    /// Where it believes a peer to be: `10.1.0.2:51820`.
    #[track_caller]
    pub(crate) fn endpoint_of(&self, peer: &Key) -> String {
        self.show_peer("endpoints", peer).concat()
    }

    /// Bytes received from a peer and sent to it.
    #[track_caller]
    pub(crate) fn transfer(&self, peer: &Key) -> (u64, u64) {
        let fields = self.show_peer("transfer", peer);
        let number = |at: usize| fields[at].parse().expect("a number of bytes");
        (number(0), number(1))
    }

    /// When it last had a handshake with a peer, in seconds since 1970; 0: never.
    #[track_caller]
    pub(crate) fn latest_handshake(&self, peer: &Key) -> u64 {
        self.show_peer("latest-handshakes", peer).concat().parse().expect("a number of seconds")
    }

    /// Processor time its program has used so far, in hundredths of a second (`/proc/PID/stat`).
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("the program runs");
        let after_name = stat.rsplit(')').next().expect("a name in parentheses");
        // User and system time are fields 14 and 15; what follows the name begins with field 3.
        after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
    }

    /// Bytes of memory its program holds (`/proc/PID/status`).
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the program runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("a process has memory") * 1024
    }

    /// Deletes its interface, which ends its program.
    #[track_caller]
    pub(crate) fn delete(self) {
        self.at.ip(&format!("link delete {}", self.name));
        within(SHORTLY, "the program to end with its interface", || (!self.is_alive()).then_some(()));
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.is_alive() {
            kill(&self.pid.to_string(), Signal::KILL);
            // Its interface goes with the last of its threads: who makes the next one of this name must not meet it.
            let deadline = Instant::now() + SHORTLY;
            while self.at.run(["ip", "link", "show", &self.name]).code == 0 && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = fs::remove_file(Path::new("/var/run/wireguard").join(format!("{}.sock", self.name)));
    }
}

/// The name of a host's second device.
pub(crate) fn second_name(host: &Host) -> String {
    format!("{}2", host.interface())
}

/// The process on this host that was given this name: what started it has ended.
fn daemon_of(host: &Host, name: &str) -> Option<u32> {
    let pids = host.run(["ip", "netns", "pids", host.namespace()]).stdout;
    pids.lines().filter_map(|pid| pid.trim().parse().ok()).find(|pid| is_given(&command_line(*pid), name))
}

fn command_line(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Whether this name is an argument of this command line.
fn is_given(line: &[u8], name: &str) -> bool {
    line.split(|byte| *byte == 0).any(|word| word == name.as_bytes())
}

/// One ping must be answered, the first: within 4 s, that is before a handshake is tried a second time.
#[track_caller]
pub(crate) fn one_ping(from: &Host, address: &str) {
    let said = from.run(format!("ping -n -c 1 -W 4 {address}"));
    assert!(said.code == 0, "no answer from {address} to {}\n{}{}", from.name(), said.stdout, said.stderr);
}

/// One ping must not be answered.
#[track_caller]
pub(crate) fn no_ping(from: &Host, address: &str) {
    let said = from.run(format!("ping -n -c 1 -W 1 {address}"));
    assert!(said.code != 0, "an answer from {address} to {}\n{}", from.name(), said.stdout);
}
