//! The content of our table, as a value and as the text that `nft` reads.
//!
//! Two chains do the work. `weak_host` filters incoming packets before connection tracking, so a dropped packet leaves
//! no entry there. `outside_tunnel` filters outgoing packets, both local and forwarded, after all destination rewrites
//! and before all rewrites of the source and of marks. It is the second lock of a default route through the tunnel.
//!
//! All sets are anonymous, so their contents cannot be changed without removing the rule. A table is therefore always
//! replaced as a whole, in one transaction, and its counters continue.

use std::fmt::{Display, Write};
use std::net::IpAddr;

use super::{Counters, NftError, table_name};

/// The counter of packets to a virtual IP that arrived on the wrong interface.
pub(super) const WEAK_HOST: &str = "weak_host";
/// The counter of packets that would have left outside the tunnel.
pub(super) const OUTSIDE_TUNNEL: &str = "outside_tunnel";
/// The names of our chains.
pub(super) const CHAINS: [&str; 5] = ["weak_host", "outside_tunnel", "by_the_host", NAMES, "closed"];
/// The chain that lets DNS queries out while a daemon starts. It is empty otherwise.
pub(super) const NAMES: &str = "names";

/// The content of our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The name of our interface.
    pub interface: String,
    /// Destinations that are accepted only from our interface, from loopback and from `own`.
    pub addresses: Vec<IpAddr>,
    /// Indices of other interfaces that may deliver packets to `addresses`.
    pub own: Vec<u32>,
    /// Keeps the packets that a default route covers inside the tunnel.
    pub lock: Option<Lock>,
}

/// The second lock of a default route: it drops packets that leave by a different interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// Whether IPv4 is covered.
    pub v4: bool,
    /// Whether IPv6 is covered.
    pub v6: bool,
    /// Marks of packets that may leave, such as our own outer datagrams.
    pub marks: Vec<u32>,
    /// Destinations that may be reached through other interfaces: disjoint ranges, each with its first and last
    /// address.
    pub direct: Vec<(IpAddr, IpAddr)>,
}

/// How the lock treats packets that a bridge of this host switches from port to port. Netfilter sees them if
/// `bridge-nf-call-iptables` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switched {
    /// They pass, because this host does not route them.
    Pass,
    /// They are treated like routed packets, because not every kernel can tell the two apart.
    Locked,
}

impl Table {
    /// The transaction that replaces the previous table with this one. Its counters start at `counted`.
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

/// The transaction that lets DNS queries of this host pass the lock, or forbids it again. The rest of the table stays.
pub(super) fn names_text(interface: &str, may_leave: bool) -> Result<String, NftError> {
    let name = table_name(interface)?;
    let mut text = format!("flush chain inet {name} {NAMES}\n");
    if may_leave {
        // Port 853 is DNS over TLS.
        let _ =
            writeln!(text, "add rule inet {name} {NAMES} meta l4proto {{ tcp, udp }} th dport {{ 53, 853 }} accept");
    }
    Ok(text)
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
        text.push_str("\t\tgoto by_the_host\n\t}\n\tchain by_the_host {\n");
        text.push_str(NEEDED_BY_THE_HOST);
        let _ = writeln!(text, "\t}}\n\tchain {NAMES} {{\n\t}}\n\tchain closed {{");
        for (family, is_covered) in Family::BOTH.into_iter().zip([self.v4, self.v6]) {
            if is_covered {
                let _ = writeln!(text, "\t\tmeta nfproto {} counter name {OUTSIDE_TUNNEL} drop", family.protocol());
            }
        }
        text.push_str("\t}\n");
    }
}

/// Accepts multicast and broadcast that routers do not forward. The rules that follow do not apply to forwarded
/// packets, which have an incoming interface.
const NEVER_LEAVES_THE_LINK: &str = r#"		ip daddr { 224.0.0.0/24, 255.255.255.255 } accept
		ip6 daddr { fe80::/10, ff01::/16, ff02::/16 } accept
		iif != 0 goto closed
"#;

/// Accepts packets that a bridge switches. They have no incoming interface here, but are not sent by this host either.
/// A foreign source address alone does not prove that: a program on this host may choose one (IPV6_FREEBIND). Its
/// packets have a socket, and so an owner, which is never the user 2^32 - 1. Switched packets have none.
const IS_SWITCHED: &str = r#"		meta skuid != 4294967295 goto by_the_host
		meta oifkind "bridge" fib saddr type != local accept
"#;

/// Accepts what the host needs to keep its addresses and its neighbours: DHCP, neighbour discovery, IGMP.
const NEEDED_BY_THE_HOST: &str = r#"		jump names
		udp sport 68 udp dport 67 accept
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
