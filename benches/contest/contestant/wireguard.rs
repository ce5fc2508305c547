//! Other WireGuard daemons in user space: started with the name of their interface, configured with `wg`.
//!
//! The rest of what wg-quick does is done with fewer programs, so that the daemon's start is timed and not that of a
//! shell script: one `wg set`, and one `ip -batch` for addresses, MTU and up.
//!
//! For a guest from `PEER_BINS`, the usual ways to start such a program are tried until `wg` gets an answer from it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{MTU, Side, Start, Tunnel, version_of};
use crate::lab::process::find;
use crate::lab::{Host, Outside, Pair, Process};

/// The arguments before the interface's name. Without them, boringtun and gotatun would drop root and could not be
/// measured in the same way.
const KNOWN: &[(&str, &[&str])] = &[
    ("boringtun-cli", &["--foreground", "--disable-drop-privileges"]),
    ("gotatun", &["--foreground", "--disable-drop-privileges", "--verbosity", "error"]),
    ("wireguard-go", &["--foreground"]),
];

/// The arguments with which an unknown program is tried, the most informative first. The last choice is for programs that
/// always go to the background.
const USUAL_ARGUMENTS: &[&[&str]] = &[&["--foreground"], &["-f"], &["--foreground", "--disable-drop-privileges"], &[]];

/// How long the program may take with one choice of arguments before the next is tried.
const PATIENCE: Duration = Duration::from_secs(4);

/// One such program.
#[derive(Debug)]
pub(super) struct WireGuard {
    /// A path, or a name to be looked up.
    program: PathBuf,
    /// The arguments before the interface's name, each choice in turn.
    argument_choices: &'static [&'static [&'static str]],
    is_guest: bool,
}

/// Everything that is needed to start and configure the daemon on one side.
struct Prepared {
    host: Host,
    program: PathBuf,
    /// The arguments before the interface's name, each choice in turn.
    argument_choices: &'static [&'static [&'static str]],
    wg_set: Vec<String>,
    ip_batch: PathBuf,
}

impl WireGuard {
    /// A program that `scripts/setup` installs.
    pub(super) fn known(program: &'static str) -> Rc<dyn Tunnel> {
        let (_, arguments) = KNOWN.iter().find(|(name, _)| *name == program).expect("one of those we know");
        Rc::new(Self { program: program.into(), argument_choices: std::slice::from_ref(arguments), is_guest: false })
    }

    /// A program from `PEER_BINS`.
    pub(super) fn guest(path: &Path) -> Rc<dyn Tunnel> {
        Rc::new(Self { program: path.to_owned(), argument_choices: USUAL_ARGUMENTS, is_guest: true })
    }

    fn path(&self) -> Option<PathBuf> {
        if self.is_guest { Some(self.program.clone()) } else { find(self.program.to_str()?) }
    }
}

impl Tunnel for WireGuard {
    fn prepare(&self, pair: &Pair, side: Side) -> Start {
        let program = self.path().unwrap_or_else(|| panic!("{} is not installed", self.program.display()));
        let (host, peer) = (side.host(pair), side.other().host(pair));
        let (inner, far) = (side.addresses().inner(), side.other().addresses());
        let interface = host.interface();
        let wg_set = format!(
            "wg set {interface} listen-port 51820 private-key {} peer {} allowed-ips {} endpoint {}",
            host.private_key_file().display(),
            peer.public_key(),
            far.allowed().join(","),
            far.endpoint(Outside::V4, 51820),
        );
        let [v4, v6] = inner.map(|address| format!("address add {address} dev {interface}\n"));
        let ip_batch = host.write("ip-batch", format!("{v4}{v6}link set {interface} mtu {MTU} up\n"));
        let prepared = Prepared {
            host: host.clone(),
            program,
            argument_choices: self.argument_choices,
            wg_set: wg_set.split(' ').map(String::from).collect(),
            ip_batch,
        };
        Box::new(move || prepared.start())
    }

    fn version(&self) -> Option<String> {
        let path = self.path()?;
        // An unknown program might take `--version` as the name of an interface.
        if self.is_guest { Some(path.display().to_string()) } else { version_of(&path, "--version") }
    }
}

impl Prepared {
    fn start(self) -> Process {
        let mut failures = String::new();
        for arguments in self.argument_choices {
            match self.try_to_start(arguments) {
                Ok(process) => {
                    self.host.ip(&format!("-batch {}", self.ip_batch.display()));
                    return process;
                }
                Err(reason) => failures += &format!("; started with {arguments:?}: {reason}"),
            }
        }
        panic!("{} does not answer `wg`{failures}", self.program.display());
    }

    /// Starts it and configures it through its socket.
    fn try_to_start(&self, arguments: &[&str]) -> Result<Process, String> {
        let interface = self.host.interface();
        let program = self.program.to_string_lossy();
        let words: Vec<&str> = [&*program].into_iter().chain(arguments.iter().copied()).chain([interface]).collect();
        let mut process = self.host.spawn(&words[..]);
        let socket = Path::new("/var/run/wireguard").join(format!("{interface}.sock"));
        let deadline = Instant::now() + PATIENCE;
        let wg_set: Vec<&str> = self.wg_set.iter().map(String::as_str).collect();
        let mut reason = "no socket came".to_owned();
        while Instant::now() < deadline {
            if socket.exists() {
                let finished = self.host.run(&wg_set[..]);
                if finished.code == 0 {
                    return Ok(process);
                }
                reason = finished.stderr;
            }
            // If a program goes to the background by itself, its successful exit means nothing.
            if let Some(ended) = process.ended().filter(|ended| ended.code != 0) {
                reason = format!("it ended with {}: {}{}", ended.code, ended.stdout, ended.stderr);
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // A socket left by a killed program would be mistaken for that of the next.
        let _ = std::fs::remove_file(&socket);
        Err(reason.trim().replace('\n', " "))
    }
}
