//! How this host is seen from outside, as somebody has said last, for as long as nobody says so.
//!
//! A host behind a NAT knows its own address there from others alone. One that starts anew while no rendezvous and no relay
//! serves it would tell its peers less than they know already. So what it was told stands until its own addresses change.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv6Net};

/// The bits of an IPv6 address that stay when a host makes itself a new one in the same network.
const NETWORK_BITS: u8 = 64;

/// How this host is seen, and where it was then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outside {
    /// Its own addresses: those of IPv4, and the networks of those of IPv6.
    own: BTreeSet<IpNet>,
    seen: Vec<SocketAddr>,
}

impl Outside {
    /// `own`: the addresses of this host. `seen`: how it is seen, the best address first.
    pub(super) fn new(own: impl IntoIterator<Item = IpAddr>, seen: Vec<SocketAddr>) -> Self {
        let network = |ip| match ip {
            IpAddr::V4(_) => Some(ip.into()),
            IpAddr::V6(ip) => Ipv6Net::new(ip, NETWORK_BITS).ok().map(|network| network.trunc().into()),
        };
        Self { own: own.into_iter().filter_map(network).collect(), seen }
    }

    /// How a host with these addresses is seen. Nothing, if it is elsewhere now.
    pub(super) fn seen_with(&self, own: impl IntoIterator<Item = IpAddr>) -> &[SocketAddr] {
        if Self::new(own, Vec::new()).own == self.own { &self.seen } else { &[] }
    }

    /// Reads what was written. A line that cannot be read is left out: somebody will say it again.
    pub(super) fn read(text: &str) -> Self {
        let named = |name: &'static str| text.lines().filter_map(move |line| line.strip_prefix(name));
        Self {
            own: named("own ").filter_map(|network| network.parse().ok()).collect(),
            seen: named("seen ").filter_map(|address| address.parse().ok()).collect(),
        }
    }

    pub(super) fn write(&self) -> String {
        let own = self.own.iter().map(|network| format!("own {network}\n"));
        own.chain(self.seen.iter().map(|address| format!("seen {address}\n"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn what_was_seen_stands_until_the_host_has_other_addresses() {
        let seen: Vec<SocketAddr> = vec!["198.51.100.7:40000".parse().expect("an address")];
        let outside = Outside::new(ips(&["2001:db8::1:2", "192.168.1.2"]), seen.clone());
        for same in [&["192.168.1.2", "2001:db8::1:2"][..], &["192.168.1.2", "2001:db8::9:9", "2001:db8::1:2"]] {
            assert_eq!(outside.seen_with(ips(same)), seen);
        }
        for other in [&["192.168.1.3", "2001:db8::1:2"][..], &["192.168.1.2", "2001:db8:1::1:2"], &["192.168.1.2"], &[]]
        {
            assert!(outside.seen_with(ips(other)).is_empty(), "{other:?}");
        }
    }

    #[test]
    fn it_is_read_as_it_was_written_and_damage_costs_a_line() {
        let seen = ["198.51.100.7:40000", "[2001:db8::1:2]:51820"].map(|text| text.parse().expect("an address"));
        let outside = Outside::new(ips(&["2001:db8::1:2", "192.168.1.2"]), seen.to_vec());
        let text = "own 192.168.1.2/32\nown 2001:db8::/64\nseen 198.51.100.7:40000\nseen [2001:db8::1:2]:51820\n";
        assert_eq!(outside.write(), text);
        assert_eq!(Outside::read(text), outside);
        assert_eq!(Outside::read(&text.replace("40000", "400000")).seen, seen[1..]);
        assert_eq!(Outside::read(""), Outside::default());
    }
}
