//! Where a peer is reached: an address or a host name, and a UDP port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAX_LABEL, parse_port};
use crate::config::Endpoint;
use crate::config::problem::{Problem, quoted};

/// The maximum length of a host name in bytes.
const MAX_HOST: usize = 253;

/// Parses an endpoint: `203.0.113.7:51820`, `[2001:db8::7]:51820`, `host.example.net:51820`.
pub(crate) fn parse_endpoint(text: &str) -> Result<Endpoint, Problem> {
    let bad = |message: String, hint: String| Err(Problem::new("bad_endpoint", message).hint(hint));
    let shown = quoted(text);
    let port_after = |host: &str| format!("write its UDP port after it: \"{host}:51820\"");
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return bad(
            format!("{shown} is a URL; an endpoint is a host and a UDP port"),
            format!("leave {} out: \"{rest}\"", quoted(&format!("{scheme}://"))),
        );
    }
    if text.trim() != text || text.is_empty() {
        let trimmed = text.trim();
        let hint = if trimmed.is_empty() { "host.example.net:51820" } else { trimmed };
        return bad(
            format!("{shown} is not a valid endpoint: it is empty or has blanks around it"),
            format!("write \"{hint}\""),
        );
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return match text.rsplit_once(':') {
            // The last group may have been meant as the port.
            Some((head, port)) if head.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok() => bad(
                format!("{shown} is an IPv6 address without brackets, so that its port cannot be told from it"),
                format!("write \"[{head}]:{port}\" or \"[{text}]:51820\""),
            ),
            _ => bad(format!("{shown} has no port"), format!("write \"[{text}]:51820\"")),
        };
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return bad(format!("{shown} has no port"), port_after(text));
    };
    if host.ends_with(']') || !text.contains(']') {
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if inner.is_none() && host.parse::<Ipv6Addr>().is_ok() {
            return bad(
                format!("{shown} is an IPv6 address without brackets, so that its port cannot be told from it"),
                format!("write \"[{host}]:{port}\""),
            );
        }
        if host.is_empty() {
            return bad(format!("{shown} has no host"), format!("write \"host.example.net{text}\""));
        }
        let port = match parse_port(port) {
            Ok(port) => port,
            Err(reason) => {
                return bad(
                    format!("the port of {shown} is wrong: {reason}"),
                    format!("write a port from 1 to 65535: \"{host}:51820\""),
                );
            }
        };
        return match inner {
            Some(inner) => bracketed(text, inner, port),
            None => address_or_name(text, host, port),
        };
    }
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => bad(format!("{shown} has no port"), port_after(text)),
        _ => bad(format!("{shown} is not a valid endpoint"), "write it as \"[2001:db8::7]:51820\"".to_owned()),
    }
}

fn bracketed(text: &str, inner: &str, port: u16) -> Result<Endpoint, Problem> {
    let bad = |message: String, hint: String| Err(Problem::new("bad_endpoint", message).hint(hint));
    let shown = quoted(text);
    if let Ok(address) = text.parse::<SocketAddr>() {
        return usable(text, address);
    }
    if let Some((address, zone)) = inner.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
    {
        return bad(
            format!("the zone {} of {shown} is not a number", quoted(zone)),
            format!("write the interface's index, as `ip link` shows it: \"[{address}%2]:{port}\""),
        );
    }
    if inner.parse::<Ipv4Addr>().is_ok() {
        return bad(format!("{shown}: an IPv4 address has no brackets"), format!("write \"{inner}:{port}\""));
    }
    bad(
        format!("{shown} is not a valid endpoint: {} is not an IPv6 address", quoted(inner)),
        "check the address".to_owned(),
    )
}

fn address_or_name(text: &str, host: &str, port: u16) -> Result<Endpoint, Problem> {
    let bad = |message: String, hint: &str| Err(Problem::new("bad_endpoint", message).hint(hint));
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return usable(text, SocketAddr::new(ip.into(), port));
    }
    let shown = quoted(text);
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return bad(
            format!("{shown} is not a valid endpoint: {} is not an IPv4 address", quoted(host)),
            "an IPv4 address is four numbers from 0 to 255, as \"203.0.113.7:51820\"",
        );
    }
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > MAX_HOST || !host.split('.').all(label) {
        return bad(
            format!("{shown} is not a valid endpoint: {} is neither an address nor a host name", quoted(host)),
            "write it as \"203.0.113.7:51820\", \"[2001:db8::7]:51820\" or \"host.example.net:51820\"",
        );
    }
    Ok(Endpoint::Name { host: host.to_owned(), port })
}

/// Refuses literal addresses to which nothing can be sent.
fn usable(text: &str, address: SocketAddr) -> Result<Endpoint, Problem> {
    let ip = address.ip();
    let what = match ip {
        _ if ip.is_unspecified() => "the unspecified address",
        _ if ip.is_multicast() => "a multicast address",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "the broadcast address",
        // Each address gets a single form, so that the same host cannot be two endpoints.
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => return Ok(Endpoint::Address(SocketAddr::new(v4.into(), address.port()))),
            None => return Ok(Endpoint::Address(address)),
        },
        IpAddr::V4(_) => return Ok(Endpoint::Address(address)),
    };
    Err(Problem::new("bad_endpoint", format!("{} cannot be reached: it is {what}", quoted(text)))
        .hint("write the address of the peer's own host; leave `endpoint` out if the peer calls us"))
}
