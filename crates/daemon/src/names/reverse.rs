//! The reverse zones of a prefix: where the names of its addresses are found.

use hickory_proto::rr::Name;
use ipnet::IpNet;

/// The zones in `in-addr.arpa` or `ip6.arpa` that make up a prefix. One that ends within a label is several zones, at most 128
/// of IPv4 and 8 of IPv6.
pub(crate) fn zones(prefix: &IpNet) -> Vec<Name> {
    // Bits for each label.
    let bits = if prefix.addr().is_ipv4() { 8 } else { 4 };
    let len = prefix.prefix_len().next_multiple_of(bits).max(bits);
    let Ok(parts) = prefix.subnets(len) else { return Vec::new() };
    parts.filter_map(|part| zone(&part)).collect()
}

fn zone(prefix: &IpNet) -> Option<Name> {
    let (mut labels, above): (Vec<String>, _) = match prefix {
        IpNet::V4(v4) => {
            let octets = v4.network().octets();
            (octets.iter().take(usize::from(v4.prefix_len()) / 8).map(ToString::to_string).collect(), "in-addr")
        }
        IpNet::V6(v6) => {
            let nibbles = v6.network().octets().into_iter().flat_map(|octet| [octet >> 4, octet & 0xf]);
            let known = nibbles.take(usize::from(v6.prefix_len()) / 4);
            (known.map(|nibble| format!("{nibble:x}")).collect(), "ip6")
        }
    };
    labels.reverse();
    labels.extend([above, "arpa"].map(str::to_owned));
    let mut name = Name::from_labels(labels.iter().map(String::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones_of(prefix: &str) -> Vec<String> {
        zones(&prefix.parse().expect("a prefix")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_prefix_that_ends_with_a_label_is_one_zone() {
        assert_eq!(zones_of("10.99.0.0/16"), ["99.10.in-addr.arpa."]);
        assert_eq!(zones_of("fd5c:102::/32"), ["2.0.1.0.c.5.d.f.ip6.arpa."]);
    }

    #[test]
    fn a_prefix_that_ends_within_a_label_is_several_zones() {
        assert_eq!(zones_of("10.99.64.0/23"), ["64.99.10.in-addr.arpa.", "65.99.10.in-addr.arpa."]);
        assert_eq!(zones_of("10.99.0.0/17").len(), 128);
        assert_eq!(zones_of("fd5c:100::/31").len(), 2);
    }
}
