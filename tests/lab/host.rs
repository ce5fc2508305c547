//! A host: a network namespace with a folder and a key pair of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::overlay::Overlay;
use super::process::{CommandLine, Finished, Process};
use super::wait::{SHORTLY, within};

/// A namespace of a lab. A clone is the same host.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    namespace: String,
    name: String,
    interface: String,
    dir: PathBuf,
    public_key: String,
    commands: AtomicU32,
}

impl Host {
    pub(super) fn new(namespace: &str, name: &str, interface: &str, lab_dir: &Path) -> Host {
        assert!(name.len() <= 12, "`to-{name}` must fit an interface's name");
        assert!(interface.len() <= 15, "`{interface}` must fit an interface's name");
        let dir = lab_dir.join(name);
        fs::create_dir(&dir).expect("each host of a lab has a name of its own");
        let private_key = finish(Command::new("wg").arg("genkey")).succeeded("wg genkey");
        write_secret(&dir.join("private.key"), &private_key);
        let public_key =
            finish(Command::new("sh").args(["-c", "wg pubkey < \"$1\"", "sh"]).arg(dir.join("private.key")));
        finish(Command::new("ip").args(["netns", "add", namespace])).succeeded("ip netns add");
        let host = Host {
            inner: Arc::new(Inner {
                namespace: namespace.into(),
                name: name.into(),
                interface: interface.into(),
                dir,
                public_key: public_key.succeeded("wg pubkey").trim().into(),
                commands: AtomicU32::new(0),
            }),
        };
        host.ip("link set lo up");
        // Daemons of agents write names there, which no other host is to find.
        host.write_etc_hosts("127.0.0.1\tlocalhost\n::1\tlocalhost\n");
        host
    }

    /// Compares what a program said here with the test's golden file (`overlay-golden`): without this host's own folders,
    /// interface, and the process id of the daemon that holds the lock.
    #[track_caller]
    pub fn golden(&self, what: impl AsRef<str>, said: &str) {
        let lab = self.dir().parent().expect("the lab's folder");
        let folders = [self.runtime_dir(), self.dir().to_owned(), lab.to_owned()].map(|it| it.display().to_string());
        let program = overlay_program().display().to_string();
        let lock = self.runtime_dir().join(format!("{}.lock", self.interface()));
        // Tests put pipes there.
        let lock = Some(lock).filter(|lock| fs::symlink_metadata(lock).is_ok_and(|found| found.is_file()));
        let pid = lock.and_then(|lock| fs::read_to_string(lock).ok()).unwrap_or_default();
        let daemon = format!(" {} ", pid.trim());
        let varying = [
            (&*folders[0], "RUNTIME"),
            (&*folders[1], "DIR"),
            (&*folders[2], "LAB"),
            (&*program, "overlay"),
            (self.namespace(), "NAMESPACE"),
            (self.interface(), "IFACE"),
            (&*daemon, " PID "),
        ];
        let varying: Vec<_> = varying.into_iter().filter(|(found, _)| !found.trim().is_empty()).collect();
        overlay_golden::golden_with(what, said, &varying);
    }

    /// What the lab calls it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The name of the namespace, as listed by `ip netns`.
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// The name for the host's tunnel interface. No other lab on this machine uses it.
    pub fn interface(&self) -> &str {
        &self.inner.interface
    }

    /// The host's folder.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The folder for the socket, lock and state of the host's daemon.
    pub fn runtime_dir(&self) -> PathBuf {
        self.inner.dir.join("run")
    }

    /// The file with the host's private key, in WireGuard's base64.
    pub fn private_key_file(&self) -> PathBuf {
        self.inner.dir.join("private.key")
    }

    /// The host's public key, in WireGuard's base64.
    pub fn public_key(&self) -> &str {
        &self.inner.public_key
    }

    /// The name of the veth interface that leads to `other`.
    pub fn link_to(&self, other: &Host) -> String {
        format!("to-{}", other.name())
    }

    /// Writes a file into the host's folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.inner.dir.join(name);
        fs::write(&path, content).expect("a file in the lab's folder");
        path
    }

    /// Writes a file that only root can read into the host's folder.
    pub fn write_secret(&self, name: &str, content: &str) -> PathBuf {
        let path = self.inner.dir.join(name);
        write_secret(&path, content);
        path
    }

    /// Sets the content of `/etc/hosts` for programs on this host that start from now on. Later calls also affect
    /// programs that are already running.
    pub fn write_etc_hosts(&self, content: &str) {
        self.write_etc("hosts", content);
    }

    /// Its `/etc/hosts`.
    pub fn etc_hosts(&self) -> String {
        fs::read_to_string(self.etc().join("hosts")).expect("a file in our own folder")
    }

    /// Sets the content of a file in `/etc` for programs on this host that start from now on.
    pub fn write_etc(&self, name: &str, content: &str) {
        fs::create_dir_all(self.etc()).expect("/etc/netns, which `ip netns exec` reads");
        fs::write(self.etc().join(name), content).expect("a file in our own folder");
    }

    /// The folder whose files stand for those in `/etc`.
    pub fn etc(&self) -> PathBuf {
        Path::new("/etc/netns").join(self.namespace())
    }

    /// Prepares a command to run on this host.
    pub fn command(&self, command: impl CommandLine) -> Command {
        let mut line = Command::new("ip");
        line.args(["netns", "exec", self.namespace()]).args(command.words());
        line
    }

    /// Runs a program to its end.
    pub fn run(&self, command: impl CommandLine) -> Finished {
        finish(&mut self.command(command))
    }

    /// Runs a program that must succeed, and returns its standard output.
    #[track_caller]
    pub fn exec(&self, command: impl CommandLine) -> String {
        let words = command.words();
        let line = words.join(" ");
        self.run(&words.iter().map(String::as_str).collect::<Vec<_>>()[..]).succeeded(&line)
    }

    /// Runs a line of shell that must succeed, and returns its standard output.
    #[track_caller]
    pub fn shell(&self, line: &str) -> String {
        self.exec(["sh", "-ec", line])
    }

    /// Starts a program that runs until the returned value is dropped.
    #[track_caller]
    pub fn spawn(&self, command: impl CommandLine) -> Process {
        let words = command.words();
        let line = words.join(" ");
        self.start(self.command(&words.iter().map(String::as_str).collect::<Vec<_>>()[..]), &line)
    }

    /// Starts a prepared command. Its output goes to files in this host's folder.
    #[track_caller]
    pub fn start(&self, command: Command, what: &str) -> Process {
        let number = self.inner.commands.fetch_add(1, Ordering::Relaxed);
        Process::start(command, what, &self.inner.dir.join(format!("command-{number}")))
    }

    /// Runs `ip` on this host: `address add 10.1.0.1/24 dev eth0`.
    #[track_caller]
    pub fn ip(&self, arguments: &str) -> String {
        let line = format!("ip -n {} {arguments}", self.namespace());
        finish(Command::new("ip").args(["-n", self.namespace()]).args(arguments.words())).succeeded(&line)
    }

    /// Turns off the offloads of the link to `other`, so that packets cross it one by one at their real size. Call this
    /// for both ends.
    #[track_caller]
    pub fn offloads_off(&self, other: &Host) {
        let link = self.link_to(other);
        self.exec(format!("ethtool -K {link} tso off gso off gro off tx off tx-udp-segmentation off"));
    }

    /// Waits until a program on this host listens on this TCP port.
    #[track_caller]
    pub fn wait_for_listener(&self, port: u16) {
        within(SHORTLY, &format!("a listener on tcp port {port}"), || {
            (!self.exec(format!("ss -Hltn sport = :{port}")).is_empty()).then_some(())
        });
    }

    /// Pings until an answer comes, which means that the path works.
    #[track_caller]
    pub fn reaches(&self, address: &str) {
        self.reaches_within(SHORTLY, address);
    }

    /// Like [`Host::reaches`], with a different limit.
    #[track_caller]
    pub fn reaches_within(&self, limit: Duration, address: &str) {
        within(limit, &format!("an answer from {address} to {}", self.name()), || {
            (self.run(format!("ping -n -q -c 1 -W 1 {address}")).code == 0).then_some(())
        });
    }

    /// The `[interface]` table of a config for this host. More keys and `[[peer]]` tables may be appended.
    pub fn interface_toml(&self, addresses: &[&str]) -> String {
        let key = self.private_key_file();
        format!(
            "[interface]\nname = \"{}\"\nprivate_key_file = \"{}\"\naddresses = {addresses:?}\n",
            self.interface(),
            key.display()
        )
    }

    /// The `[[peer]]` table for this host in another host's config. More keys may be appended.
    pub fn peer_toml(&self, endpoint: Option<&str>, allowed_ips: &[&str]) -> String {
        let endpoint = endpoint.map(|endpoint| format!("endpoint = \"{endpoint}\"\n")).unwrap_or_default();
        format!(
            "\n[[peer]]\nname = \"{}\"\npublic_key = \"{}\"\nallowed_ips = {allowed_ips:?}\n{endpoint}",
            self.name(),
            self.public_key()
        )
    }

    /// Prepares an `overlay` command with this host's runtime folder.
    pub fn overlay_command(&self, arguments: impl CommandLine) -> Command {
        let mut command = self.command([&*overlay_program().to_string_lossy()]);
        command.arg("--runtime-dir").arg(self.runtime_dir()).args(arguments.words()).env("NO_COLOR", "1");
        command
    }

    /// Runs a verb of `overlay` to its end: `host.overlay("status --json")`.
    pub fn overlay(&self, arguments: impl CommandLine) -> Finished {
        finish(&mut self.overlay_command(arguments))
    }

    /// Starts `overlay up` with this config and waits until it answers.
    #[track_caller]
    pub fn overlay_up(&self, config: &str) -> Overlay {
        Overlay::up(self, config)
    }
}

/// The binary that labs run: `OVERLAY_BIN` if that is set, otherwise the one that cargo has built for this test.
pub fn overlay_program() -> PathBuf {
    std::env::var_os("OVERLAY_BIN").map_or_else(|| env!("CARGO_BIN_EXE_overlay").into(), PathBuf::from)
}

fn finish(command: &mut Command) -> Finished {
    command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}")).into()
}

fn write_secret(path: &Path, content: &str) {
    fs::write(path, content).expect("a file in the lab's folder");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
}
