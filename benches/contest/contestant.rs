//! The contestants, and how each of them is started between two hosts.
//!
//! All get the same conditions: two namespaces of their own, a veth between them, an MTU of 1420 inside 1500, and the
//! other's endpoint configured on both sides. The daemon on host `b` is started first. The one on `a` is timed until
//! the first ping over it is answered.

mod nebula;
mod overlay;
mod wireguard;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use serde::Serialize;

use self::nebula::Nebula;
use self::overlay::Overlay;
use self::wireguard::WireGuard;
use super::settings::Wire;
use super::standing::{Standing, last_words};
use super::start::answered_after;
use crate::lab::world::Addresses;
use crate::lab::{A, B, Host, Pair, Process};

/// The MTU inside every tunnel. It fits a wire of 1500: all contestants add 60 bytes over IPv4, and most allow for 80.
const MTU: u32 = 1420;

/// A program that carries packets between two hosts.
pub(crate) trait Tunnel: fmt::Debug {
    /// Writes every file that it needs on this side. The returned function starts it there, which is what `up` does and
    /// no more.
    fn prepare(&self, pair: &Pair, side: Side) -> Start;

    /// The version that it reports. `None` if it is not installed.
    fn version(&self) -> Option<String>;
}

/// Starts a prepared daemon, and configures it if that is done from outside.
pub(crate) type Start = Box<dyn FnOnce() -> Process>;

/// One of the two hosts of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

/// A way to carry packets from one host to another.
#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    /// The name in tables and in `BENCH_ONLY`.
    pub(crate) label: String,
    /// The role in the comparison.
    pub(crate) role: Role,
    note: &'static str,
    /// The tunnel. `None` for the wire itself.
    tunnel: Option<Rc<dyn Tunnel>>,
}

/// The role of a contestant in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Not a tunnel, but the bare wire.
    Veth,
    /// Ours, with default settings.
    Overlay,
    /// Ours in a different scheduling class.
    OverlayVariant,
    /// A program that ours is compared with.
    Peer,
    /// Such a program written in Rust.
    RustPeer,
    /// From `PEER_BINS`: listed, but not part of the comparison.
    Guest,
}

/// The description of a contestant in the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Identity {
    pub(crate) label: String,
    pub(crate) role: Role,
    /// The version that it reports. For a guest, its path.
    pub(crate) version: String,
    /// Further information that a reader needs to judge its results.
    pub(crate) note: &'static str,
}

impl Contestant {
    /// All contestants, guests last.
    pub(crate) fn all(guests: &[PathBuf]) -> Vec<Contestant> {
        let mut all = vec![
            Contestant::new("veth", Role::Veth, "no tunnel: the wire itself, MTU 1500", None),
            Contestant::new("overlay", Role::Overlay, "as it comes", Some(Overlay::with_scheduling("default"))),
            Contestant::new(
                "overlay-high",
                Role::OverlayVariant,
                "scheduling = \"high\"",
                Some(Overlay::with_scheduling("high")),
            ),
            Contestant::new(
                "overlay-realtime",
                Role::OverlayVariant,
                "scheduling = \"realtime\"",
                Some(Overlay::with_scheduling("realtime")),
            ),
            Contestant::new("boringtun", Role::RustPeer, "as it comes", Some(WireGuard::known("boringtun-cli"))),
            Contestant::new("gotatun", Role::RustPeer, "as it comes", Some(WireGuard::known("gotatun"))),
            Contestant::new("wireguard-go", Role::Peer, "as it comes", Some(WireGuard::known("wireguard-go"))),
            Contestant::new("nebula", Role::Peer, nebula::NOTE, Some(Rc::new(Nebula))),
        ];
        for path in guests {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            let namesakes = all.iter().filter(|other| other.label.starts_with(&name)).count();
            let label = if namesakes == 0 { name } else { format!("{name}-{}", namesakes + 1) };
            all.push(Contestant::new(&label, Role::Guest, "from PEER_BINS", Some(WireGuard::guest(path))));
        }
        all
    }

    fn new(label: &str, role: Role, note: &'static str, tunnel: Option<Rc<dyn Tunnel>>) -> Self {
        Self { label: label.into(), role, note, tunnel }
    }

    /// Whether it is ours. If ours fails, the run has failed.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.role, Role::Overlay | Role::OverlayVariant)
    }

    /// The description of the contestant. This runs the program, so it is called once in a run.
    pub(crate) fn identity(&self) -> Identity {
        let version = match &self.tunnel {
            None => "-".into(),
            Some(tunnel) => tunnel.version().unwrap_or_else(|| "not installed".into()),
        };
        Identity { label: self.label.clone(), role: self.role, version, note: self.note }
    }

    /// Starts it between two new hosts.
    ///
    /// # Panics
    /// Panics if it does not start or does not answer. The message says why.
    pub(crate) fn stand(&self, wire: Wire) -> Standing {
        let pair = Pair::new(&self.label).expect("`main` has asked whether this machine can run a lab");
        if wire == Wire::Plain {
            pair.a.offloads_off(&pair.b);
            pair.b.offloads_off(&pair.a);
        }
        let Some(tunnel) = &self.tunnel else {
            return Standing::new(pair, B.outer_v4, Vec::new(), None);
        };
        let first = tunnel.prepare(&pair, Side::B)();
        let start = tunnel.prepare(&pair, Side::A);
        let (second, answered) = answered_after(&pair.a, B.v4, start);
        let daemons = vec![first, second];
        let time = answered.unwrap_or_else(|reason| panic!("{reason}; {}", last_words(&daemons)));
        Standing::new(pair, B.v4, daemons, Some(time))
    }
}

impl Side {
    /// The host on this side.
    fn host(self, pair: &Pair) -> &Host {
        match self {
            Side::A => &pair.a,
            Side::B => &pair.b,
        }
    }

    fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    fn addresses(self) -> Addresses {
        match self {
            Side::A => A,
            Side::B => B,
        }
    }
}

/// The first line of the program's output about its version, reduced to the version.
fn version_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    text.lines().next().map(|line| line.trim().to_owned())
}
