//! Other WireGuard implementations, used as peers of our daemon.
//!
//! The three programs differ in how they are started and in what they leave behind. All of them are configured with
//! `wg`. The things that `wg-quick` would do around them (addresses, MTU, routes) are done here with `ip`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::host::Host;
use super::process::{Process, find};
use super::wait::{SHORTLY, within};

/// An independent implementation of WireGuard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    /// Cloudflare's, in Rust. It has the session engine that `overlay` uses too.
    BoringTun,
    /// Mullvad's, in Rust. It began as a fork of the first, but shares little code with it by now.
    GotaTun,
    /// The reference implementation in user space, in Go.
    WireGuardGo,
}

/// The configuration of a stock peer.
#[derive(Clone, Copy, Debug)]
pub struct StockConfig<'a> {
    /// The addresses of its tunnel interface, with their prefix lengths.
    pub addresses: &'a [&'a str],
    /// The peer of this stock daemon.
    pub peer: &'a Host,
    /// That peer's endpoint. `None` makes the stock daemon wait for the peer.
    pub endpoint: Option<&'a str>,
    /// The prefixes that the peer may send from.
    pub allowed_ips: &'a [&'a str],
    /// The file with the preshared key.
    pub preshared_key_file: Option<&'a Path>,
}

/// The most time that a stock daemon needs to create its socket.
const SOCKET_PATIENCE: Duration = Duration::from_secs(5);

/// A stock daemon that runs on a host. Dropping it kills it.
#[derive(Debug)]
pub struct StockPeer {
    process: Option<Process>,
    socket: PathBuf,
}

impl Stock {
    /// All implementations.
    pub const ALL: [Stock; 3] = [Stock::BoringTun, Stock::GotaTun, Stock::WireGuardGo];

    /// The name of its program.
    pub const fn program(self) -> &'static str {
        match self {
            Stock::BoringTun => "boringtun-cli",
            Stock::GotaTun => "gotatun",
            Stock::WireGuardGo => "wireguard-go",
        }
    }

    /// Starts it on `host` with port 51820 and MTU 1420, and waits until it is configured and its interface is up.
    #[track_caller]
    pub fn up(self, host: &Host, config: &StockConfig<'_>) -> StockPeer {
        self.up_with(host, &config.wg_set(host), config.addresses)
    }

    /// The same, where the interface is configured by this line of `wg set`.
    #[track_caller]
    pub fn up_with(self, host: &Host, wg_set: &str, addresses: &[&str]) -> StockPeer {
        let interface = host.interface();
        let program = find(self.program()).unwrap_or_else(|| panic!("{} is not installed", self.program()));
        let program = program.display();
        let line = match self {
            Stock::BoringTun => format!("{program} --foreground --disable-drop-privileges {interface}"),
            Stock::GotaTun => format!("{program} --foreground --disable-drop-privileges --verbosity error {interface}"),
            Stock::WireGuardGo => format!("{program} --foreground {interface}"),
        };
        let socket = Path::new("/var/run/wireguard").join(format!("{interface}.sock"));
        // The value exists from here on, so that a panic below kills the daemon.
        let mut peer = StockPeer { process: Some(host.spawn(&line)), socket };
        let mut started = Instant::now();
        within(SHORTLY, &format!("{} to answer `wg`", self.program()), || {
            // Any run of `wg show all` removes a socket that nobody listens on yet. The daemon is then started again.
            if started.elapsed() > SOCKET_PATIENCE && !peer.socket.exists() {
                drop(peer.process.take());
                peer.process = Some(host.spawn(&line));
                started = Instant::now();
            }
            (host.run(["wg", "show", interface]).code == 0).then_some(())
        });
        host.exec(wg_set);
        for address in addresses {
            host.ip(&format!("address add {address} dev {interface}"));
        }
        host.ip(&format!("link set {interface} mtu 1420 up"));
        peer
    }
}

impl StockConfig<'_> {
    fn wg_set(&self, host: &Host) -> String {
        let mut line = format!(
            "wg set {} listen-port 51820 private-key {} peer {} allowed-ips {}",
            host.interface(),
            host.private_key_file().display(),
            self.peer.public_key(),
            self.allowed_ips.join(",")
        );
        if let Some(endpoint) = self.endpoint {
            line += &format!(" endpoint {endpoint}");
        }
        if let Some(file) = self.preshared_key_file {
            line += &format!(" preshared-key {}", file.display());
        }
        line
    }
}

impl Drop for StockPeer {
    fn drop(&mut self) {
        // None of them removes its socket when killed. gotatun does not even do so on a normal exit.
        let _ = fs::remove_file(&self.socket);
    }
}
