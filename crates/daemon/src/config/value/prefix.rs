//! Addresses and prefixes: `10.77.0.1/24`, `10.77.0.2`, `fd00:77::/64`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::config::problem::{Problem, quoted};

/// Parses a virtual IP of this host, such as "10.77.0.1/24". Host bits are kept, and a bare address gets the longest prefix.
///
/// # Errors
/// What is wrong with the text, without a place.
pub fn parse_address(text: &str) -> Result<IpNet, Problem> {
    let net = parse_prefix(text, "10.77.0.1/24")?;
    let address = net.addr();
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast {
        let what = match () {
            () if address.is_unspecified() => "the unspecified address",
            () if address.is_loopback() => "a loopback address",
            () if broadcast => "the broadcast address",
            () => "a multicast address",
        };
        return Err(Problem::new("bad_address", format!("{} cannot be a virtual IP: it is {what}", quoted(text)))
            .hint("use an address of a private range, for example \"10.77.0.1/24\""));
    }
    Ok(net)
}

/// Parses a peer's prefix. Host bits must be zero, and a bare address gets the longest prefix.
pub(crate) fn parse_allowed_ip(text: &str) -> Result<IpNet, Problem> {
    let net = parse_prefix(text, "10.77.0.2/32")?;
    let network = net.trunc();
    if net == network {
        return Ok(net);
    }
    let host = IpNet::from(net.addr());
    Err(Problem::new("host_bits", format!("{text} has host bits set"))
        .hint(format!("write {network} for the whole network or {host} for this address alone")))
}

fn parse_prefix(text: &str, example: &str) -> Result<IpNet, Problem> {
    let bad = |message: String, hint: String| Err(Problem::new("bad_cidr", message).hint(hint));
    let shown = quoted(text);
    if text.contains(',') {
        let hint = "write each in quotes of its own, with a comma between";
        return bad(format!("{shown} is more than one prefix"), hint.to_owned());
    }
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(ip) = address.parse::<IpAddr>() else {
        if text.trim() != text && parse_prefix(text.trim(), example).is_ok() {
            return bad(format!("{shown} has blanks around it"), format!("write \"{}\"", text.trim()));
        }
        return match address.parse::<SocketAddr>() {
            Ok(_) => bad(format!("{shown} has a port; a prefix has none"), format!("write it as \"{example}\"")),
            Err(_) => bad(
                format!("{shown} is not a valid prefix: {} is not an IP address", quoted(address)),
                format!("write an address and a length, as \"{example}\""),
            ),
        };
    };
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let Some(length) = length else { return Ok(IpNet::from(ip)) };
    if ip.is_ipv4()
        && let Ok(mask) = length.parse::<Ipv4Addr>()
    {
        let hint = match IpNet::with_netmask(ip, IpAddr::V4(mask)) {
            Ok(net) => format!("write \"{net}\""),
            Err(_) => format!("write a length from 0 to {longest}"),
        };
        return bad(format!("{shown} has a netmask where a length belongs"), hint);
    }
    // A sign or a leading zero is a mistake, although `parse` accepts it.
    let digits = length.bytes().all(|byte| byte.is_ascii_digit()) && (length.len() == 1 || !length.starts_with('0'));
    let number = length.parse::<u8>().ok().filter(|number| digits && *number <= longest);
    match number.and_then(|number| IpNet::new(ip, number).ok()) {
        Some(net) => Ok(net),
        None => bad(
            format!("{shown} is not a valid prefix: {family} prefixes end at /{longest}"),
            format!("write \"{ip}/{longest}\" for this address alone"),
        ),
    }
}

/// Parses a prefix like WireGuard does: host bits may be set. The error message is meant for a line of a different file.
pub(crate) fn parse_net(text: &str) -> Result<IpNet, String> {
    parse_prefix(text, "10.77.0.2/32").map_err(|problem| problem.message)
}
