//! What our table says, as a value and as the text that `nft` reads.
//!
//! Two chains do the work. `weak_host` sees what arrives, before connection tracking, so that what is dropped leaves no
//! entry behind. `outside_tunnel` sees what leaves, sent by this host or forwarded, after every rewrite of the destination
//! and before every rewrite of the source and of marks: it is the second lock of a default route through the tunnel.
//!
//! All sets are anonymous, so that nobody can change their contents without taking the rule away. A table is therefore
//! always replaced whole, in one transaction, and its counters go on from where they were.

use std::fmt::{Display, Write};
use std::net::IpAddr;

use super::{Counters, NftError, table_name};

/// The counter of packets to a virtual IP that arrived elsewhere.
pub(super) const WEAK_HOST: &str = "weak_host";
/// The counter of packets that would have left past the tunnel.
pub(super) const OUTSIDE_TUNNEL: &str = "outside_tunnel";
/// Our chains.
pub(super) const CHAINS: [&str; 3] = ["weak_host", "outside_tunnel", "closed"];

/// Our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Name of our interface.
    pub interface: String,
    /// Destinations that are taken from our interface, from loopback and from `own` only.
    pub addresses: Vec<IpAddr>,
    /// Indices of other interfaces that may deliver to `addresses`.
    pub own: Vec<u32>,
    /// Keeps inside the tunnel what a default route covers.
    pub lock: Option<Lock>,
}

/// The second lock of a default route: what leaves by another interface is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// Whether IPv4 is covered.
    pub v4: bool,
    /// Whether IPv6 is covered.
    pub v6: bool,
    /// What bears one of these marks may leave: our own outer datagrams.
    pub marks: Vec<u32>,
    /// What may leave by other interfaces: disjoint ranges of addresses, first and last.
    pub direct: Vec<(IpAddr, IpAddr)>,
}

/// What the lock makes of packets that a bridge of this host switches from port to port. Netfilter shows them where
/// `bridge-nf-call-iptables` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switched {
    /// This host does not route them: they pass.
    Pass,
    /// They are taken for routed ones. Not every kernel can tell them apart.
    Locked,
}

impl Table {
    /// The transaction that puts this table in the place of the one before it, with counters that begin at `counted`.
    pub(super) fn text(&self, counted: Counters, switched: Switched) -> Result<String, NftError> {
        let name = table_name(&self.interface)?;
        let mut text = super::removal(&self.interface)?;
        let _ = writeln!(text, "table inet {name} {{");
        let counters = [(WEAK_HOST, counted.weak_host), (OUTSIDE_TUNNEL, counted.outside_tunnel)];
        for (counter, packets) in counters {
            let _ = writeln!(text, "\tcounter {counter} {{ packets {packets} bytes 0 }}");
        }
        self.write_weak_host(&mut text);
        if let Some(lock) = &self.lock {
            lock.write(&mut text, &self.interface, switched);
        }
        text.push_str("}\n");
        Ok(text)
    }

    fn write_weak_host(&self, text: &mut String) {
        text.push_str("\tchain weak_host {\n\t\ttype filter hook prerouting priority raw; policy accept;\n");
        let own = match self.own.as_slice() {
            [] => String::new(),
            own => format!(" iif != {{ {} }}", joined(own)),
        };
        for family in Family::BOTH {
            let addresses: Vec<_> = self.addresses.iter().filter(|ip| family.has(ip)).collect();
            if !addresses.is_empty() {
                let _ = writeln!(
                    text,
                    "\t\tiifname != {{ \"lo\", \"{}\" }} {} daddr {{ {} }}{own} counter name {WEAK_HOST} drop",
                    self.interface,
                    family.keyword(),
                    joined(&addresses)
                );
            }
        }
        text.push_str("\t}\n");
    }
}

impl Lock {
    fn write(&self, text: &mut String, interface: &str, switched: Switched) {
        text.push_str("\tchain outside_tunnel {\n\t\ttype filter hook postrouting priority raw; policy accept;\n");
        let _ = writeln!(text, "\t\toifname {{ \"lo\", \"{interface}\" }} accept");
        if !self.marks.is_empty() {
            let _ = writeln!(text, "\t\tmeta mark {{ {} }} accept", joined(&self.marks));
        }
        for family in Family::BOTH {
            let direct: Vec<_> = self.direct.iter().filter(|(first, _)| family.has(first)).map(range).collect();
            if !direct.is_empty() {
                let _ = writeln!(text, "\t\t{} daddr {{ {} }} accept", family.keyword(), joined(&direct));
            }
        }
        text.push_str(NEVER_LEAVES_THE_LINK);
        if switched == Switched::Pass {
            text.push_str(IS_SWITCHED);
        }
        text.push_str(NEEDED_BY_THE_HOST);
        text.push_str("\t}\n\tchain closed {\n");
        for (family, is_covered) in Family::BOTH.into_iter().zip([self.v4, self.v6]) {
            if is_covered {
                let _ = writeln!(text, "\t\tmeta nfproto {} counter name {OUTSIDE_TUNNEL} drop", family.protocol());
            }
        }
        text.push_str("\t}\n");
    }
}

/// Multicast and broadcast that no router forwards. What follows is not for packets that this host forwards: those came in
/// by an interface.
const NEVER_LEAVES_THE_LINK: &str = r#"		ip daddr { 224.0.0.0/24, 255.255.255.255 } accept
		ip6 daddr { fe80::/10, ff01::/16, ff02::/16 } accept
		iif != 0 goto closed
"#;

/// Neither is a packet that a bridge switches sent by this host, and it has no interface that it came in by.
const IS_SWITCHED: &str = "\t\tmeta oifkind \"bridge\" fib saddr type != local accept\n";

/// What the host needs to keep its addresses and its neighbours: DHCP, neighbour discovery, IGMP.
const NEEDED_BY_THE_HOST: &str = r#"		udp sport 68 udp dport 67 accept
		udp sport 546 udp dport 547 accept
		icmpv6 type { 133, 134, 135, 136 } ip6 hoplimit 255 accept
		ip protocol igmp ip ttl 1 accept
		goto closed
"#;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn has(self, ip: &IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }

    fn keyword(self) -> &'static str {
        if self == Self::V4 { "ip" } else { "ip6" }
    }

    fn protocol(self) -> &'static str {
        if self == Self::V4 { "ipv4" } else { "ipv6" }
    }
}

fn range((first, last): &(IpAddr, IpAddr)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn joined(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
