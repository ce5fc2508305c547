//! An Internet for labs: four routers in a row, with sites at both ends and servers in between.
//!
//! ```text
//! site r            server r          server r            site
//!   |               |                 |                    |
//!   core1 -------- core2 ---------- core3 ---------------- core4
//! ```
//!
//! The WANs of two sites at different ends have five links and four routers between them, so an opener with a small TTL
//! leaves its own router and does not reach the other one. [`Delays`](super::Delays) between `core1` and `core3` delay what
//! crosses `core2`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Host, Lab};

/// How many routers it has.
const LENGTH: usize = 4;

/// Where something is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At `core1`.
    West,
    /// At `core2`, before delays on the way from the west.
    NearWest,
    /// At `core3`.
    NearEast,
    /// At `core4`.
    East,
}

/// The routers that everybody's datagrams pass.
pub struct Internet {
    core: [Host; LENGTH],
    attached: AtomicU8,
}

/// A link that several hosts share, with a router of the Internet.
pub struct Segment {
    end: End,
    number: u8,
    attached: AtomicU8,
}

/// The addresses of a link to the Internet.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// Its number, from 1.
    pub number: u8,
    /// The IPv4 address of the host that is attached.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// The IPv4 address of the router.
    pub gateway_v4: Ipv4Addr,
}

impl Segment {
    /// Where it is attached.
    pub fn end(&self) -> End {
        self.end
    }
}

impl Internet {
    /// Creates the routers.
    pub fn new(lab: &Lab) -> Internet {
        let core = ["core1", "core2", "core3", "core4"].map(|name| lab.router(name));
        for (number, pair) in (1..).zip(core.windows(2)) {
            let addresses = |end: u8| [format!("10.9.{number}.{end}/24"), format!("fd09:{number}::{end}/64")];
            let (west, east) = (addresses(1), addresses(2));
            lab.link(&pair[0], &pair[1], &[&west[0], &west[1]], &[&east[0], &east[1]]);
        }
        Internet { core, attached: AtomicU8::new(0) }
    }

    /// The routers, from west to east.
    pub fn core(&self) -> &[Host; LENGTH] {
        &self.core
    }

    /// Attaches a host with a public address of each family and a default route.
    pub fn attach(&self, lab: &Lab, host: &Host, end: End) -> Attachment {
        self.attach_with(lab, host, end, "")
    }

    /// Attaches a host that has a default route already. The kernel prefers that one.
    pub fn attach_beside(&self, lab: &Lab, host: &Host, end: End) -> Attachment {
        self.attach_with(lab, host, end, " metric 2000")
    }

    fn attach_with(&self, lab: &Lab, host: &Host, end: End, metric: &str) -> Attachment {
        let number = self.numbers(1);
        let edge = &self.core[end as usize];
        let addresses = |last: u8| [format!("{}/30", v4(number, last)), format!("{}/64", v6(number, last))];
        let (gateway, own) = (addresses(1), addresses(2));
        lab.link(host, edge, &[&own[0], &own[1]], &[&gateway[0], &gateway[1]]);
        host.ip(&format!("route add default via {}{metric}", v4(number, 1)));
        host.ip(&format!("-6 route add default via {}{metric}", v6(number, 1)));
        self.announce(end, &format!("{}/30", v4(number, 0)), None);
        self.announce(end, &format!("{}/64", v6(number, 0)), None);
        Attachment { number, v4: v4(number, 2), v6: v6(number, 2), gateway_v4: v4(number, 1) }
    }

    /// Creates a link that up to five hosts share.
    pub fn segment(&self, end: End) -> Segment {
        // A prefix of eight addresses begins at an even number.
        let mut number = self.numbers(2);
        if !number.is_multiple_of(2) {
            number = self.numbers(1);
        }
        let (edge, bridge) = (&self.core[end as usize], format!("shared{number}"));
        edge.ip(&format!("link add {bridge} type bridge"));
        edge.exec(format!("sysctl -qw net.ipv6.conf.{bridge}.accept_dad=0"));
        edge.ip(&format!("address add {}/29 dev {bridge}", v4(number, 1)));
        edge.ip(&format!("address add {}/64 dev {bridge}", v6(number, 1)));
        edge.ip(&format!("link set {bridge} up"));
        self.announce(end, &format!("{}/29", v4(number, 0)), None);
        self.announce(end, &format!("{}/64", v6(number, 0)), None);
        Segment { end, number, attached: AtomicU8::new(2) }
    }

    /// Attaches a host to a link that others share.
    pub fn attach_to(&self, segment: &Segment, lab: &Lab, host: &Host) -> Attachment {
        let (number, edge) = (segment.number, &self.core[segment.end as usize]);
        let last = segment.attached.fetch_add(1, Ordering::Relaxed);
        assert!(last < 7, "the prefix of a shared link has room for five hosts");
        lab.link(host, edge, &[&format!("{}/29", v4(number, last)), &format!("{}/64", v6(number, last))], &[]);
        edge.ip(&format!("link set {} master shared{number}", edge.link_to(host)));
        host.ip(&format!("route add default via {}", v4(number, 1)));
        host.ip(&format!("-6 route add default via {}", v6(number, 1)));
        Attachment { number, v4: v4(number, last), v6: v6(number, last), gateway_v4: v4(number, 1) }
    }

    /// Takes the next numbers of links, and returns the first.
    fn numbers(&self, count: u8) -> u8 {
        let number = self.attached.fetch_add(count, Ordering::Relaxed) + 1;
        assert!(number + count <= 64, "the address plan has room for 63");
        number
    }

    /// Routes a prefix to an end, and there to the address of a router.
    pub fn announce(&self, end: End, prefix: &str, router: Option<IpAddr>) {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let edge = end as usize;
        for (index, host) in self.core.iter().enumerate() {
            let via = match index {
                _ if index < edge => neighbour(family, index + 1, 2),
                _ if index > edge => neighbour(family, index, 1),
                _ => match router {
                    Some(router) => router.to_string(),
                    None => continue,
                },
            };
            host.ip(&format!("{family} route add {prefix} via {via}"));
        }
    }
}

/// An address of the link to the Internet with this number.
fn v4(number: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 4 * number + last)
}

fn v6(number: u8, last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, number.into(), 0, 0, 0, last.into())
}

/// An address on the link between two routers with this number, from 1.
fn neighbour(family: &str, link: usize, end: usize) -> String {
    match family {
        "-6" => format!("fd09:{link}::{end}"),
        _ => format!("10.9.{link}.{end}"),
    }
}
