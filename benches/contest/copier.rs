//! A bare copier between TUN and UDP, without cryptography: what any tunnel in user space pays for being there.
//!
//! It is the simplest reasonable program: one thread, a blocking epoll, file descriptors that never block; a packet from TUN
//! goes to the peer as one datagram, a datagram from the peer goes into TUN. It knows no peers, sessions or timers and checks
//! nothing. Device and epoll are overlay's. The socket is a plain one, connected, with `send` and `recv`: for single
//! datagrams that is 3 % faster than overlay's own, which speaks of trains and sources with each of them, and a floor has to
//! be low. Virtio headers made no difference and are left out.
//!
//! It runs as a process of its own, as those do that are compared with it: this program starts itself inside a namespace.
#![allow(clippy::disallowed_types, reason = "a socket as anyone would open it is the point")]

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};

use overlay_os::poll::Poller;
use overlay_os::tun::Tun;

use crate::lab::{Host, Process, SHORTLY, within};

/// The word by which this program knows that it is to be a copier.
pub(crate) const PART: &str = "copier";

/// The interface that it makes.
const INTERFACE: &str = "copier0";
/// As inside the tunnel that it is compared with.
const MTU: u32 = 1420;
/// Both ends have the same.
const PORT: u16 = 51999;
/// The largest packet that TUN delivers.
const PACKET_LEN: usize = 65_535;

const TOKEN_TUN: u64 = 0;
const TOKEN_UDP: u64 = 1;

/// Starts one on `host` that talks to the one at `far`, with this address (`10.78.0.1/24`) inside.
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

/// Is one until it is killed; the argument says where the other one is, `ADDRESS:PORT`.
///
/// # Errors
/// There is no device, no socket, or no sense in the argument.
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
            // What cannot be read, sent or written is lost, as on any wire.
            if token == TOKEN_TUN {
                let Ok(len) = tun.read(&mut packet) else { continue };
                let _ = socket.send(&packet[..len]);
            } else if let Ok(len) = socket.recv(&mut packet) {
                let _ = tun.write(&[IoSlice::new(&packet[..len])]);
            }
        }
    }
}
