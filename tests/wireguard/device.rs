//! The program under test and its device: started with an interface's name, configured with `wg` and `ip`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::host::overlay_program;
use crate::lab::process::{CommandLine, Finished, find, kill};
use crate::lab::{Host, SHORTLY, within};

/// A program that creates WireGuard devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Our binary under the name `overlay-wg`.
    Ours,
    /// wireguard-go.
    Reference,
}

/// A device. Dropping it kills its program.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    pid: u32,
    /// The host where its program runs, and so where its UDP sockets are.
    sockets_at: Host,
    /// The host where its interface is.
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
    /// The program that this run tests.
    pub(crate) fn under_test() -> Program {
        match std::env::var("OVERLAY_WG_REFERENCE").as_deref() {
            Err(_) | Ok("") => Program::Ours,
            Ok("wireguard-go") => Program::Reference,
            Ok(other) => panic!("OVERLAY_WG_REFERENCE is `{other}`; the one reference is `wireguard-go`"),
        }
    }

    /// Whether this is the reference, which then skips a step for this reason.
    pub(crate) fn is_excused(self, reason: &str) -> bool {
        let is_reference = self == Program::Reference;
        if is_reference {
            eprintln!("not asked of the reference: {reason}");
        }
        is_reference
    }

    /// The path that `host` must execute.
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
    /// Creates a key pair.
    pub(crate) fn new(host: &Host, name: &str) -> Key {
        let file = host.write_secret(name, &host.exec("wg genkey"));
        Key::from_file(host, file)
    }

    /// The key pair that a host was created with.
    pub(crate) fn of(host: &Host) -> Key {
        Key { file: host.private_key_file(), public: host.public_key().into() }
    }

    fn from_file(host: &Host, file: PathBuf) -> Key {
        let public = host.shell(&format!("wg pubkey <{}", file.display())).trim().into();
        Key { file, public }
    }

    /// A file without a key. `wg` then removes the key in question.
    pub(crate) const NONE: &str = "/dev/null";
}

impl Device {
    /// Starts the program under test to create a device.
    #[track_caller]
    pub(crate) fn start(host: &Host) -> Device {
        Device::named(Program::under_test(), host, host.interface())
    }

    /// Creates a second device on the same host.
    #[track_caller]
    pub(crate) fn second(host: &Host) -> Device {
        Device::named(Program::under_test(), host, &second_name(host))
    }

    /// Starts the given program to create a device.
    #[track_caller]
    pub(crate) fn named(program: Program, host: &Host, name: &str) -> Device {
        assert!(name.len() <= 15, "`{name}` must fit an interface's name");
        let what = format!("{} {name}", program.path(host).display());
        // The program must go into the background when the device exists, and close its caller's streams. Otherwise
        // this waits forever.
        host.spawn(&what).succeed_within(SHORTLY);
        Device::adopt(host, name)
    }

    /// A device that another program has just created here.
    #[track_caller]
    pub(crate) fn adopt(host: &Host, name: &str) -> Device {
        let pid = within(SHORTLY, &format!("a program behind {name}"), || daemon_of(host, name));
        Device { name: name.into(), pid, sockets_at: host.clone(), at: host.clone() }
    }

    /// The name of its interface.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where its interface is.
    pub(crate) fn host(&self) -> &Host {
        &self.at
    }

    /// The process ID of its program.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether its program is still running.
    pub(crate) fn is_alive(&self) -> bool {
        // A program that is exiting has no command line any more, but still has open files, and the interface is one of
        // them.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        let line = command_line(self.pid);
        state.is_some_and(|state| !"ZX".contains(state)) && (line.is_empty() || is_given(&line, &self.name))
    }

    /// The counters of its program, as in `overlay status --json`, and its log. If the program has exited or is not
    /// ours, this contains an error.
    pub(crate) fn account(&self) -> String {
        let counted = self.sockets_at.run([&*overlay_program().to_string_lossy(), "status", &self.name, "--json"]);
        let log = fs::read_to_string(format!("/run/overlay/{}.log", self.name)).unwrap_or_default();
        counted.stdout + &counted.stderr + &log
    }

    /// Moves its interface to a different host. Its UDP sockets stay.
    #[track_caller]
    pub(crate) fn move_to(&mut self, host: &Host) {
        self.at.ip(&format!("link set {} netns {}", self.name, host.namespace()));
        self.at = host.clone();
    }

    /// Gives its interface an address.
    #[track_caller]
    pub(crate) fn address(&self, address: &str) {
        // Without duplicate address detection, an address can be used at once.
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

    /// Changes the MTU of its interface.
    #[track_caller]
    pub(crate) fn mtu(&self, mtu: u32) {
        self.at.ip(&format!("link set {} mtu {mtu}", self.name));
    }

    /// Runs `wg set` on it.
    #[track_caller]
    pub(crate) fn set(&self, arguments: &str) {
        self.at.exec(format!("wg set {} {arguments}", self.name));
    }

    /// Runs `wg COMMAND NAME FILE`, for setconf, addconf and syncconf.
    #[track_caller]
    pub(crate) fn conf(&self, command: &str, config: &str) -> Finished {
        let file = self.at.write_secret(&format!("{}.{command}", self.name), config);
        self.at.run(format!("wg {command} {} {}", self.name, file.display()))
    }

    /// The output of `wg show NAME WHAT`, without the final newline.
    #[track_caller]
    pub(crate) fn show(&self, what: &str) -> String {
        self.at.exec(format!("wg show {} {what}", self.name)).trim_end().into()
    }

    /// The fields for one peer in the output of `wg show NAME WHAT`.
    #[track_caller]
    pub(crate) fn show_peer(&self, what: &str, peer: &Key) -> Vec<String> {
        let said = self.show(what);
        let line = said.lines().find_map(|line| line.strip_prefix(&peer.public));
        let line = line.unwrap_or_else(|| panic!("no peer {} in `{said}`", peer.public));
        line.words()
    }

    /// The endpoint that it has for a peer: `10.1.0.2:51820`.
    #[track_caller]
    pub(crate) fn endpoint_of(&self, peer: &Key) -> String {
        self.show_peer("endpoints", peer).concat()
    }

    /// How many bytes it has received from a peer and sent to it.
    #[track_caller]
    pub(crate) fn transfer(&self, peer: &Key) -> (u64, u64) {
        let fields = self.show_peer("transfer", peer);
        let number = |at: usize| fields[at].parse().expect("a number of bytes");
        (number(0), number(1))
    }

    /// When it last completed a handshake with a peer, in seconds since 1970. 0 means never.
    #[track_caller]
    pub(crate) fn latest_handshake(&self, peer: &Key) -> u64 {
        self.show_peer("latest-handshakes", peer).concat().parse().expect("a number of seconds")
    }

    /// The CPU time that its program has used so far, in hundredths of a second (`/proc/PID/stat`).
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("the program runs");
        let after_name = stat.rsplit(')').next().expect("a name in parentheses");
        // User and system time are fields 14 and 15. The part after the name begins with field 3.
        after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
    }

    /// The resident memory of its program in bytes (`/proc/PID/status`).
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
            // The interface disappears with the program's last thread. The next device with this name must not find it.
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

/// The process on this host that was started with this name. The process that started it has exited.
fn daemon_of(host: &Host, name: &str) -> Option<u32> {
    let pids = host.run(["ip", "netns", "pids", host.namespace()]).stdout;
    pids.lines().filter_map(|pid| pid.trim().parse().ok()).find(|pid| is_given(&command_line(*pid), name))
}

fn command_line(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Whether this name is an argument in this command line.
fn is_given(line: &[u8], name: &str) -> bool {
    line.split(|byte| *byte == 0).any(|word| word == name.as_bytes())
}

/// The first ping must be answered within 4 s, before a handshake would be tried a second time.
#[track_caller]
pub(crate) fn one_ping(from: &Host, address: &str) {
    let said = from.run(format!("ping -n -c 1 -W 4 {address}"));
    assert!(said.code == 0, "no answer from {address} to {}\n{}{}", from.name(), said.stdout, said.stderr);
}

/// A ping must not be answered.
#[track_caller]
pub(crate) fn no_ping(from: &Host, address: &str) {
    let said = from.run(format!("ping -n -c 1 -W 1 {address}"));
    assert!(said.code != 0, "an answer from {address} to {}\n{}", from.name(), said.stdout);
}
