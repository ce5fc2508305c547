//! The UDP ports that programs on this host use.

use std::{fs, io};

/// The local ports of all UDP sockets in our network namespace, in arbitrary order. A port may be listed twice.
///
/// # Errors
/// Fails if `/proc` cannot be read.
pub fn udp_in_use() -> io::Result<Vec<u16>> {
    let mut ports = local_ports(&fs::read_to_string("/proc/self/net/udp")?);
    for table in ["udp6", "udplite", "udplite6"] {
        // These files exist only if the kernel supports the protocol.
        if let Ok(table) = fs::read_to_string(format!("/proc/self/net/{table}")) {
            ports.extend(local_ports(&table));
        }
    }
    Ok(ports)
}

/// The second column is `ADDRESS:PORT`, in hexadecimal.
fn local_ports(table: &str) -> Vec<u16> {
    let port = |line: &str| u16::from_str_radix(line.split_whitespace().nth(1)?.rsplit_once(':')?.1, 16).ok();
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_port_is_in_use_while_a_socket_of_either_family_has_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(address).expect("loopback");
            let port = socket.local_addr().expect("bound").port();
            assert!(udp_in_use().expect("/proc is mounted").contains(&port), "{address}");
            drop(socket);
            assert!(!udp_in_use().expect("/proc is mounted").contains(&port), "{address}");
        }
    }
}
