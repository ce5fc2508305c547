//! WireGuard as other people wrote it, to be the peer of our daemon.
//!
//! The three programs differ in how they are started and in what they leave behind; all are configured through `wg`.
//! What `wg-quick` would do around them (addresses, MTU, routes) is done here with `ip`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::host::Host;
use super::process::{Process, find};
use super::wait::{SHORTLY, within};

/// An implementation of WireGuard that nobody here wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    /// Cloudflare's, in Rust, on the session engine that `overlay` uses too.
    BoringTun,
    /// Mullvad's, in Rust, long since its own code.
    GotaTun,
    /// The reference in user space, in Go.
    WireGuardGo,
}

/// How a stock peer is set up.
#[derive(Clone, Copy, Debug)]
pub struct StockConfig<'a> {
    /// The addresses of its tunnel interface, with their prefix lengths.
    pub addresses: &'a [&'a str],
    /// Its one peer.
    pub peer: &'a Host,
    /// Where that peer is; `None`: it waits for the peer to come.
    pub endpoint: Option<&'a str>,
    /// What that peer may send from.
    pub allowed_ips: &'a [&'a str],
    /// The file with the preshared key.
    pub preshared_key_file: Option<&'a Path>,
}

/// Every stock daemon has made its socket by then.
const SOCKET_PATIENCE: Duration = Duration::from_secs(5);

/// A stock daemon, up on a host. Dropped, it is killed.
#[derive(Debug)]
pub struct StockPeer {
    process: Option<Process>,
    socket: PathBuf,
}

impl Stock {
    /// All of them.
    pub const ALL: [Stock; 3] = [Stock::BoringTun, Stock::GotaTun, Stock::WireGuardGo];

    /// Its program.
    pub const fn program(self) -> &'static str {
        match self {
            Stock::BoringTun => "boringtun-cli",
            Stock::GotaTun => "gotatun",
            Stock::WireGuardGo => "wireguard-go",
        }
    }

    /// Starts it on `host`, port 51820, MTU 1420, and waits until it is configured and its interface is up.
    #[track_caller]
    pub fn up(self, host: &Host, config: &StockConfig<'_>) -> StockPeer {
        let interface = host.interface();
        let program = find(self.program()).unwrap_or_else(|| panic!("{} is not installed", self.program()));
        let program = program.display();
        let line = match self {
            Stock::BoringTun => format!("{program} --foreground --disable-drop-privileges {interface}"),
            Stock::GotaTun => format!("{program} --foreground --disable-drop-privileges --verbosity error {interface}"),
            Stock::WireGuardGo => format!("{program} --foreground {interface}"),
        };
        let socket = Path::new("/var/run/wireguard").join(format!("{interface}.sock"));
        // Held from here on, so that a panic below takes the daemon away.
        let mut peer = StockPeer { process: Some(host.spawn(&line)), socket };
        let mut started = Instant::now();
        within(SHORTLY, &format!("{} to answer `wg`", self.program()), || {
            // `wg show all`, whoever runs it, takes away a socket that is not listened on yet: then it starts once more.
            if started.elapsed() > SOCKET_PATIENCE && !peer.socket.exists() {
                drop(peer.process.take());
                peer.process = Some(host.spawn(&line));
                started = Instant::now();
            }
            (host.run(["wg", "show", interface]).code == 0).then_some(())
        });
        host.exec(config.wg_set(host));
        for address in config.addresses {
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
        // Killed, none of them removes its socket; gotatun does not when it ends in peace either.
        let _ = fs::remove_file(&self.socket);
    }
}
