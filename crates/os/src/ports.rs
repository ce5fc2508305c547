//! The UDP ports that programs on this host use, and those that the kernel gives them.

use std::ops::RangeInclusive;
use std::{fs, io};

/// The range that the kernel takes a port from for a program that asks for any port. It is the same for IPv4 and IPv6.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The ports in that range that the kernel leaves alone, because services need them.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

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

/// The ports that the kernel of our network namespace may give to a program that asks for any port.
///
/// # Errors
/// Fails if `/proc` cannot be read, or if it holds something else.
pub fn ephemeral() -> io::Result<RangeInclusive<u16>> {
    let text = fs::read_to_string(EPHEMERAL)?;
    range(&mut text.split_whitespace()).ok_or_else(|| malformed(EPHEMERAL))
}

/// The ports in our network namespace that the kernel gives to nobody who asks for any port
/// (`net.ipv4.ip_local_reserved_ports`).
///
/// # Errors
/// Fails if `/proc` cannot be read, or if it holds something else.
pub fn reserved() -> io::Result<Vec<u16>> {
    let text = match fs::read_to_string(RESERVED) {
        // A kernel without this setting reserves nothing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    listed(text.trim()).ok_or_else(|| malformed(RESERVED))
}

/// The second column is `ADDRESS:PORT`, in hexadecimal.
fn local_ports(table: &str) -> Vec<u16> {
    let port = |line: &str| u16::from_str_radix(line.split_whitespace().nth(1)?.rsplit_once(':')?.1, 16).ok();
    table.lines().skip(1).filter_map(port).collect()
}

/// Parses a list such as `8080,30000-30010`. It may be empty.
fn listed(text: &str) -> Option<Vec<u16>> {
    let mut ports = Vec::new();
    for entry in text.split(',').filter(|entry| !entry.is_empty()) {
        let (low, high) = entry.split_once('-').unwrap_or((entry, entry));
        ports.extend(range(&mut [low, high].into_iter())?);
    }
    Some(ports)
}

fn range<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<RangeInclusive<u16>> {
    Some(words.next()?.parse().ok()?..=words.next()?.parse().ok()?)
}

fn malformed(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{file} is malformed"))
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

    #[test]
    fn the_kernel_gives_ports_from_its_ephemeral_range() {
        let ephemeral = ephemeral().expect("/proc is mounted");
        let reserved = reserved().expect("/proc is mounted");
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(address).expect("loopback");
            let port = socket.local_addr().expect("bound").port();
            assert!(ephemeral.contains(&port) && !reserved.contains(&port), "{port}");
        }
    }

    #[test]
    fn a_list_of_ports_has_ports_and_ranges() {
        for (text, ports) in [
            ("", Some(vec![])),
            ("8080", Some(vec![8080])),
            ("53,8080-8082,65535", Some(vec![53, 8080, 8081, 8082, 65535])),
        ] {
            assert_eq!(listed(text), ports, "{text}");
        }
        for text in ["port", "1-", "-1", "65536", "1 2"] {
            assert_eq!(listed(text), None, "{text}");
        }
    }
}
