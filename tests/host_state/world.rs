//! A host with a container on a bridge, and a /0 through its only neighbour. The neighbour answers for all outside
//! addresses, both in clear and through the tunnel.

use crate::lab::{A, B, Host, Lab, Outside};

/// The outside addresses. In clear they are reached by the default route.
pub(crate) const OUTSIDE: [&str; 2] = ["192.0.2.77", "2001:db8::77"];
/// The bridge on `a`.
pub(crate) const BRIDGE: &str = "br0";

pub(crate) struct World {
    pub(crate) a: Host,
    /// The neighbour: it is the default router of `a` in clear, and also its peer.
    pub(crate) b: Host,
    /// A container on `a`.
    pub(crate) c: Host,
    /// Dropped last.
    _lab: Lab,
}

impl World {
    /// Creates the hosts and wires, with nothing running. `None` if this machine cannot.
    pub(crate) fn new(name: &str) -> Option<World> {
        if !crate::lab::installed(name, &["tcpdump", "nft"]) {
            return None;
        }
        let lab = Lab::new(name)?;
        let (a, b, c) = (lab.router("a"), lab.router("b"), lab.host("c"));
        lab.link(&a, &b, &["10.1.0.1/24", "fd01::1/64"], &["10.1.0.2/24", "fd01::2/64"]);
        lab.link(&a, &c, &[], &["172.18.0.2/24", "fd18::2/64"]);
        a.ip(&format!("link add {BRIDGE} type bridge"));
        a.exec(format!("sysctl -qw net.ipv6.conf.{BRIDGE}.accept_dad=0"));
        a.ip(&format!("link set {} master {BRIDGE}", a.link_to(&c)));
        a.ip(&format!("link set {BRIDGE} up"));
        for address in ["172.18.0.1/24", "fd18::1/64"] {
            a.ip(&format!("address add {address} dev {BRIDGE}"));
        }
        a.ip("route add default via 10.1.0.2");
        a.ip("-6 route add default via fd01::2");
        c.ip("route add default via 172.18.0.1");
        c.ip("-6 route add default via fd18::1");
        for (address, length) in OUTSIDE.into_iter().zip([32, 128]) {
            b.ip(&format!("address add {address}/{length} dev lo"));
        }
        for address in ["10.1.0.2", "fd01::2"] {
            c.reaches_within(
                crate::lab::SHORTLY,
                &address.replace("10.1.0.2", "172.18.0.1").replace("fd01::2", "fd18::1"),
            );
            a.reaches(address);
        }
        Some(World { a, b, c, _lab: lab })
    }

    /// A config with which `a` sends everything for these prefixes to `b`, with more keys in `[interface]`.
    pub(crate) fn config_of_a(&self, allowed: &[&str], more: &str) -> String {
        let inner = A.inner();
        let endpoint = B.endpoint(Outside::V4, 51820);
        self.a.interface_toml(&[&inner[0], &inner[1]]) + more + &self.b.peer_toml(Some(&endpoint), allowed)
    }

    /// A config for `b`, which forwards for `a` and for the container.
    pub(crate) fn config_of_b(&self) -> String {
        let (inner, allowed) = (B.inner(), A.allowed());
        let allowed = [&allowed[0], &allowed[1], "172.18.0.0/24", "fd18::/64"];
        self.b.interface_toml(&[&inner[0], &inner[1]]) + "forward = true\n" + &self.a.peer_toml(None, &allowed)
    }

    /// The wire between `a` and `b`.
    pub(crate) fn wire(&self) -> String {
        self.a.link_to(&self.b)
    }

    /// A capture filter for packets that must never appear on the wire while a /0 is in force.
    pub(crate) fn in_clear() -> String {
        OUTSIDE.map(|address| format!("host {address}")).join(" or ")
    }
}
