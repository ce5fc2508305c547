//! A bare copier between TUN and UDP, without cryptography: the minimum cost of any tunnel in user space.
//!
//! It is the simplest reasonable program, with one thread, a blocking epoll and non-blocking file descriptors. A packet
//! from TUN is sent to the peer as one datagram, and a datagram from the peer is written to TUN. It has no peers,
//! sessions or timers, and checks nothing. Device and epoll are overlay's. The socket is a plain connected one with
//! `send` and `recv`. For single datagrams that is 3 % faster than overlay's own, which handles trains and sources, and
//! a floor must be low. Virtio headers made no difference, so it uses no headers.
//!
//! It runs in a separate process, like the programs compared with it: this program starts itself inside a namespace.
#![allow(clippy::disallowed_types, reason = "a socket as anyone would open it is the point")]

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};

use overlay_os::poll::Poller;
use overlay_os::tun::Tun;

use crate::lab::{Host, Process, SHORTLY, within};

/// The argument that makes this program a copier.
pub(crate) const PART: &str = "copier";

/// The name of its interface.
const INTERFACE: &str = "copier0";
/// The MTU of the tunnel that it is compared with.
const MTU: u32 = 1420;
/// The UDP port of both ends.
const PORT: u16 = 51999;
/// The largest packet that TUN delivers, in bytes.
const PACKET_LEN: usize = 65_535;

const TOKEN_TUN: u64 = 0;
const TOKEN_UDP: u64 = 1;

/// Starts a copier on `host`, with this inner address (`10.78.0.1/24`), that talks to the one at `far`.
pub(crate) fn start(host: &Host, far: &str, inside: &str) -> Process {
    let program = std::env::current_exe().expect("this program has a path").to_string_lossy().into_owned();
    let process = host.spawn([&*program, PART, &format!("{far}:{PORT}")]);
    within(SHORTLY, "the copier's interface", || {
        (host.run(format!("ip link show {INTERFACE}")).code == 0).then_some(())
    });
    host.ip(&format!("address add {inside} dev {INTERFACE}"));
    host.ip(&format!("link set {INTERFACE} mtu {MTU} up"));
    process
}

/// Runs as a copier until killed. The argument is the address of the other one, `ADDRESS:PORT`.
///
/// # Errors
/// Fails if there is no device or no socket, or if the argument is not valid.
pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let [far] = arguments else { return Err(io::ErrorKind::InvalidInput.into()) };
    let far: SocketAddr = far.parse().map_err(io::Error::other)?;
    let tun = Tun::create(INTERFACE, false).map_err(io::Error::other)?;
    let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
    socket.connect(far)?;
    socket.set_nonblocking(true)?;
    let mut poller = Poller::new()?;
    poller.add(&tun, TOKEN_TUN)?;
    poller.add(&socket, TOKEN_UDP)?;

    let mut packet = vec![0; PACKET_LEN];
    loop {
        for token in poller.wait(None)? {
            // Packets that cannot be read, sent or written are lost, as on any wire.
            if token == TOKEN_TUN {
                let Ok(len) = tun.read(&mut packet) else { continue };
                let _ = socket.send(&packet[..len]);
            } else if let Ok(len) = socket.recv(&mut packet) {
                let _ = tun.write(&[IoSlice::new(&packet[..len])]);
            }
        }
    }
}
