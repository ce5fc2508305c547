//! The outer sockets: one for each address family, on the same port, with room for a burst.

use overlay_os::udp::{BindError, BindOptions, Buffers, Family, UdpSocket};

use crate::config::Switch;
use crate::engine::Sockets;
use crate::failure::{ExitKind, Failure};

/// The buffer size in bytes that is requested for each UDP socket in each direction. The kernel doubles it for its own
/// bookkeeping. The buffer holds what arrives while the engine is waiting for a CPU. At 8 and at 64 TCP streams and 5
/// Gbit/s, every run lost datagrams with 1 MiB, some runs did with 3.5, and hardly any did with 7. A size of 16 changed
/// neither loss nor a loaded ping.
const SOCKET_BUFFER: usize = 7 << 20;

/// How many ports the kernel may choose until one is free in both families.
const PORT_TRIES: u32 = 16;

/// How the outer sockets are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The UDP port. 0 lets the kernel choose.
    pub port: u16,
    /// The mark of outer packets, never 0.
    pub fwmark: Option<u32>,
    /// Whether outer datagrams are sent and received as trains.
    pub udp_gso: Switch,
}

/// Binds one socket for each address family that the host has, on the same port.
///
/// # Errors
/// [`ExitKind::Conflict`] if the port is in use, [`ExitKind::Permission`] if this process may not use it.
pub fn bind(outer: Outer) -> Result<Sockets, Failure> {
    let one = |family, port| {
        UdpSocket::bind(
            family,
            &BindOptions {
                port,
                fwmark: outer.fwmark,
                receive_buffer: SOCKET_BUFFER,
                send_buffer: SOCKET_BUFFER,
                segmentation: outer.udp_gso != Switch::Off,
                coalescing: outer.udp_gso != Switch::Off,
            },
        )
    };
    let mut tries = if outer.port == 0 { PORT_TRIES } else { 1 };
    let (v4, v6) = loop {
        tries -= 1;
        let v4 = available(one(Family::V4, outer.port), outer.port)?;
        // A port that the kernel chose for IPv4 is requested by number for IPv6, where it may already be in use.
        let port = v4.as_ref().map_or(outer.port, UdpSocket::local_port);
        match one(Family::V6, port) {
            Err(BindError::PortInUse) if tries > 0 => {}
            v6 => break (v4, available(v6, port)?),
        }
    };
    if v4.is_none() && v6.is_none() {
        return Err(Failure::new(ExitKind::Other, "this host has neither IPv4 nor IPv6"));
    }
    let lacks_offload = |socket: &UdpSocket| socket.max_segments() == 1 || !socket.coalesces();
    if outer.udp_gso == Switch::On && [&v4, &v6].into_iter().flatten().any(lacks_offload) {
        return Err(Failure::new(ExitKind::Other, "this kernel has no UDP segmentation offload")
            .with_cause("`udp_gso = \"on\"` under [tuning] asks for it")
            .with_hint("set `udp_gso = \"auto\"` to use it only where the kernel has it"));
    }
    let sockets = Sockets { v4, v6 };
    warn_of_small_buffers(&sockets);
    Ok(sockets)
}

/// Returns the port of these sockets, or `None` without sockets.
pub fn port_of(sockets: &Sockets) -> Option<u16> {
    sockets.each().next().map(UdpSocket::local_port)
}

/// The failure to bind a port that somebody else has.
pub(crate) fn port_in_use(port: u16) -> Failure {
    Failure::new(ExitKind::Conflict, format!("UDP port {port} is already in use"))
        .with_cause("another process listens on it, or a WireGuard interface of the kernel uses it")
        .with_hint("set a different `listen_port` under [interface], or 0 to let the kernel choose")
}

fn available(bound: Result<UdpSocket, BindError>, port: u16) -> Result<Option<UdpSocket>, Failure> {
    match bound {
        Ok(socket) => Ok(Some(socket)),
        Err(BindError::FamilyUnavailable) => Ok(None),
        Err(BindError::PortInUse) => Err(port_in_use(port)),
        Err(BindError::Permission) => {
            Err(Failure::new(ExitKind::Permission, format!("this process may not use UDP port {port}")))
        }
        Err(error) => Err(Failure::new(ExitKind::Other, format!("cannot use UDP port {port}")).with_cause(error)),
    }
}

/// Warns once if the kernel granted clearly less than was requested. This happens if this process may not override the
/// limit, as in a container whose administrator rights end at its own namespace.
fn warn_of_small_buffers(sockets: &Sockets) {
    let told = sockets.each().filter_map(|socket| socket.watch().buffers().ok());
    for (direction, size, sysctl) in told.flat_map(too_small).take(1) {
        let (wanted, hint) = (2 * SOCKET_BUFFER, SOCKET_BUFFER);
        tracing::warn!(
            "the {direction} buffers of the UDP sockets have {size} bytes, not {wanted}: bursts will be lost; sysctl -w {sysctl}={hint}"
        );
    }
}

/// Returns the buffers that are smaller than half of what was requested: direction, size, and the sysctl that limits it.
fn too_small(buffers: Buffers) -> Vec<(&'static str, u32, &'static str)> {
    let both =
        [("receive", buffers.receive_size, "net.core.rmem_max"), ("send", buffers.send_size, "net.core.wmem_max")];
    both.into_iter().filter(|(_, size, _)| (*size as usize) < SOCKET_BUFFER).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_at_the_usual_limit_are_too_small_and_forced_ones_are_not() {
        let usual = Buffers { receive_size: 425_984, send_size: 425_984, ..Buffers::default() };
        let expected = [("receive", 425_984, "net.core.rmem_max"), ("send", 425_984, "net.core.wmem_max")];
        assert_eq!(too_small(usual), expected);
        let forced = 2 * SOCKET_BUFFER as u32;
        assert_eq!(too_small(Buffers { receive_size: forced, send_size: forced, ..Buffers::default() }), []);
        assert_eq!(too_small(Buffers { receive_size: forced, ..usual }), expected[1..]);
    }
}
