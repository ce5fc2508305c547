//! The worlds that most tests need: two hosts on one wire, with an address of each family outside and inside, or a star
//! of four hosts.

use super::{Host, Lab, Overlay};

/// The addresses of one of the two hosts.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The IPv4 address on the wire.
    pub outer_v4: &'static str,
    /// The IPv6 address on the wire.
    pub outer_v6: &'static str,
    /// The virtual IPv4 address.
    pub v4: &'static str,
    /// The virtual IPv6 address.
    pub v6: &'static str,
}

/// The first host's addresses.
pub const A: Addresses = Addresses { outer_v4: "10.1.0.1", outer_v6: "fd01::1", v4: "10.77.0.1", v6: "fd77::1" };
/// The second host's addresses.
pub const B: Addresses = Addresses { outer_v4: "10.1.0.2", outer_v6: "fd01::2", v4: "10.77.0.2", v6: "fd77::2" };

/// The address family that carries the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Hosts `a` and `b` of a lab, connected by a wire with both families.
pub struct Pair {
    /// The first host, at [`A`].
    pub a: Host,
    /// The second host, at [`B`].
    pub b: Host,
    /// Dropped last.
    pub lab: Lab,
}

impl Addresses {
    /// Both virtual IPs with the prefix lengths of an interface.
    pub fn inner(&self) -> [String; 2] {
        [format!("{}/24", self.v4), format!("{}/64", self.v6)]
    }

    /// Both virtual IPs with the prefix lengths of a peer's allowed IPs.
    pub fn allowed(&self) -> [String; 2] {
        [format!("{}/32", self.v4), format!("{}/128", self.v6)]
    }

    /// The endpoint of this host's daemon.
    pub fn endpoint(&self, outside: Outside, port: u16) -> String {
        match outside {
            Outside::V4 => format!("{}:{port}", self.outer_v4),
            Outside::V6 => format!("[{}]:{port}", self.outer_v6),
        }
    }
}

impl Pair {
    /// Creates the two hosts, with nothing running. `None` if this machine cannot.
    pub fn new(name: &str) -> Option<Pair> {
        let lab = Lab::new(name)?;
        let (a, b) = (lab.host("a"), lab.host("b"));
        lab.link(&a, &b, &["10.1.0.1/24", "fd01::1/64"], &["10.1.0.2/24", "fd01::2/64"]);
        Some(Pair { a, b, lab })
    }

    /// A config for `a` with the endpoint of `b`. More keys of the peer may be appended.
    pub fn config_of_a(&self, outside: Outside) -> String {
        config(&self.a, A, &self.b, B, Some(outside))
    }

    /// A config for `b` with the endpoint of `a`. More keys of the peer may be appended.
    pub fn config_of_b(&self, outside: Outside) -> String {
        config(&self.b, B, &self.a, A, Some(outside))
    }

    /// A config for `a` that waits for `b` to call.
    pub fn config_of_a_waiting(&self) -> String {
        config(&self.a, A, &self.b, B, None)
    }

    /// A config for `b` that waits for `a` to call.
    pub fn config_of_b_waiting(&self) -> String {
        config(&self.b, B, &self.a, A, None)
    }

    /// Starts both daemons, each with the other's endpoint.
    #[track_caller]
    pub fn up(&self, outside: Outside) -> (Overlay, Overlay) {
        (self.a.overlay_up(&self.config_of_a(outside)), self.b.overlay_up(&self.config_of_b(outside)))
    }
}

fn config(host: &Host, own: Addresses, peer: &Host, far: Addresses, outside: Option<Outside>) -> String {
    let (inner, allowed) = (own.inner(), far.allowed());
    let endpoint = outside.map(|outside| far.endpoint(outside, 51820));
    host.interface_toml(&[&inner[0], &inner[1]]) + &peer.peer_toml(endpoint.as_deref(), &[&allowed[0], &allowed[1]])
}

/// Host `a` in the middle, with a wire to each of `b`, `c` and `d`.
pub struct Star {
    /// The host in the middle.
    pub a: Host,
    /// A point of the star.
    pub b: Host,
    /// A point of the star.
    pub c: Host,
    /// A point of the star.
    pub d: Host,
    /// Dropped last.
    pub lab: Lab,
}

impl Star {
    /// Creates the four hosts, with nothing running. `None` if this machine cannot.
    pub fn new(name: &str) -> Option<Star> {
        let lab = Lab::new(name)?;
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| lab.host(name));
        for (number, host) in [(2, &b), (3, &c), (4, &d)] {
            lab.link(&a, host, &[&format!("10.{number}.0.1/24")], &[&format!("10.{number}.0.2/24")]);
        }
        Some(Star { a, b, c, d, lab })
    }

    /// The virtual IP of `b`, `c` or `d`.
    pub fn inner(&self, host: &Host) -> &'static str {
        match host.name() {
            "b" => "10.77.0.2",
            "c" => "10.77.0.3",
            _ => "10.77.0.4",
        }
    }

    /// A config for `a` with these peers and their endpoints, each with more keys.
    pub fn config_of_a(&self, peers: &[(&Host, &str)]) -> String {
        let mut config = self.a.interface_toml(&["10.77.0.1/32"]);
        for (peer, keys) in peers {
            let inner = self.inner(peer);
            let endpoint = format!("10.{}.0.2:51820", inner.rsplit('.').next().unwrap_or_default());
            config += &(peer.peer_toml(Some(&endpoint), &[&format!("{inner}/32")]) + keys);
        }
        config
    }

    /// A config for `b`, `c` or `d`, which waits for `a` to call.
    pub fn config_of(&self, host: &Host) -> String {
        host.interface_toml(&[&format!("{}/32", self.inner(host))]) + &self.a.peer_toml(None, &["10.77.0.1/32"])
    }
}
