//! A road: hosts `a` and `b`, each behind its own router, and a hop with a smaller MTU between the routers.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::world::Addresses;
use crate::lab::{A, B, Host, Lab, Outside, Overlay, SHORTLY, within};

/// The second host's addresses, on a different network than the first host's.
pub(super) const FAR: Addresses = Addresses { outer_v4: "10.2.0.2", outer_v6: "fd02::2", v4: B.v4, v6: B.v6 };

/// By when an end of a path has found what the path carries: a search takes seconds.
pub(super) const FOUND: Duration = Duration::from_secs(10);
/// The same where sizes are lost in silence and tried again, or the peer answers echoes only.
pub(super) const FOUND_SLOWLY: Duration = Duration::from_secs(15);
/// Once the path's MTU was found a stream never stands still for longer: TCP's own retransmissions take less.
pub(super) const SHORT_STALL: Duration = Duration::from_secs(2);
/// How long a path that has become narrower may be felt.
pub(super) const LONGEST_STALL: Duration = Duration::from_secs(5);

/// Bytes around an inner packet.
pub(super) const fn around(outside: Outside) -> u16 {
    match outside {
        Outside::V4 => 60,
        Outside::V6 => 80,
    }
}

/// How routers treat a packet that is too long for the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Router {
    /// As the RFCs require: they send "too big", or fragment IPv4 without DF.
    Says,
    /// They drop it silently, with or without DF.
    IsSilent,
}

/// `a` - `near` - `far` - `b`.
pub(super) struct Road {
    pub(super) a: Host,
    pub(super) b: Host,
    pub(super) near: Host,
    pub(super) far: Host,
    /// The MTU of all links before one is narrowed.
    width: u16,
    /// Dropped last.
    _lab: Lab,
}

impl Road {
    /// Creates a road. All links have an MTU of `width` and no offloads, so packets cross them at their real size.
    pub(super) fn new(name: &str, width: u16) -> Option<Road> {
        let lab = Lab::new(name)?;
        let [a, b] = ["a", "b"].map(|name| lab.host(name));
        let [near, far] = ["near", "far"].map(|name| lab.router(name));
        lab.link(&a, &near, &["10.1.0.1/24", "fd01::1/64"], &["10.1.0.254/24", "fd01::fe/64"]);
        lab.link(&far, &b, &["10.2.0.254/24", "fd02::fe/64"], &["10.2.0.2/24", "fd02::2/64"]);
        lab.link(&near, &far, &["10.3.0.1/24", "fd03::1/64"], &["10.3.0.2/24", "fd03::2/64"]);
        for (host, to, via_v4, via_v6) in [
            (&a, "default", "10.1.0.254", "fd01::fe"),
            (&b, "default", "10.2.0.254", "fd02::fe"),
            (&near, "2", "10.3.0.2", "fd03::2"),
            (&far, "1", "10.3.0.1", "fd03::1"),
        ] {
            let net = |family: &str| match (to, family) {
                ("default", _) => "default".to_owned(),
                (number, "4") => format!("10.{number}.0.0/24"),
                (number, _) => format!("fd0{number}::/64"),
            };
            host.ip(&format!("route add {} via {via_v4}", net("4")));
            host.ip(&format!("-6 route add {} via {via_v6}", net("6")));
        }
        let road = Road { a, b, near, far, width, _lab: lab };
        for (host, other) in [(&road.a, &road.near), (&road.near, &road.far), (&road.far, &road.b)] {
            for (end, other) in [(host, other), (other, host)] {
                end.ip(&format!("link set {} mtu {width}", end.link_to(other)));
                end.offloads_off(other);
            }
        }
        Some(road)
    }

    /// Sets the MTU of the hop in the middle to `outer`.
    pub(super) fn narrow(&self, outer: u16, router: Router) {
        for (host, other) in [(&self.near, &self.far), (&self.far, &self.near)] {
            let link = match router {
                Router::Says => outer,
                Router::IsSilent => self.width,
            };
            host.ip(&format!("link set {} mtu {link}", host.link_to(other)));
            let longest = if router == Router::Says { u16::MAX } else { outer };
            drop_longer_than(host, longest, "");
        }
    }

    /// Makes the hop drop packets longer than `outer` bytes on the way to `b`, but none on the way to `a`.
    pub(super) fn narrow_towards_b(&self, outer: u16) {
        drop_longer_than(&self.near, outer, &format!("oifname {}", self.near.link_to(&self.far)));
    }

    /// Limits the rate of the hop in the middle, in both directions.
    pub(super) fn limit(&self, rate: &str) {
        for (host, other) in [(&self.near, &self.far), (&self.far, &self.near)] {
            let link = host.link_to(other);
            host.exec(format!("tc qdisc replace dev {link} root tbf rate {rate} burst 64kb latency 50ms"));
        }
    }

    pub(super) fn config_of_a(&self, outside: Outside) -> String {
        config(&self.a, A, &self.b, FAR, outside)
    }

    pub(super) fn config_of_b(&self, outside: Outside) -> String {
        config(&self.b, FAR, &self.a, A, outside)
    }

    /// Starts both daemons.
    #[track_caller]
    pub(super) fn up(&self, outside: Outside) -> (Overlay, Overlay) {
        (self.a.overlay_up(&self.config_of_a(outside)), self.b.overlay_up(&self.config_of_b(outside)))
    }

    /// Replaces the outer addresses of `a`.
    pub(super) fn move_a(&self) {
        let link = self.a.link_to(&self.near);
        self.a.exec(format!("sysctl -qw net.ipv4.conf.{link}.promote_secondaries=1"));
        for (before, after) in [("10.1.0.1/24", "10.1.0.7/24"), ("fd01::1/64", "fd01::7/64")] {
            self.a.ip(&format!("address add {after} dev {link}"));
            self.a.ip(&format!("address delete {before} dev {link}"));
        }
    }

    /// Waits until this host reports an MTU that `is_it` accepts, and returns when it did.
    ///
    /// # Panics
    /// Panics when `limit` has passed since `began`.
    #[track_caller]
    pub(super) fn found_by(&self, host: &Host, began: Instant, limit: Duration, is_it: impl Fn(u16) -> bool) -> Found {
        let mut last = Value::Null;
        let remaining = limit.saturating_sub(began.elapsed());
        let what = format!("`overlay mtu` on {} to have found the MTU", host.name());
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            within(remaining, &what, || {
                last = mtu(host);
                let mtu = u16::try_from(last["mtu"].as_u64()?).ok()?;
                (last["path_mtu"]["state"] == "found" && is_it(mtu)).then(|| Found {
                    mtu,
                    took: began.elapsed(),
                    by: last["path_mtu"]["probed_by"].clone(),
                })
            })
        }));
        found.unwrap_or_else(|_| panic!("not found within {} s: {last:#}", limit.as_secs()))
    }
}

/// What a host has found out about the path to its only peer.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) mtu: u16,
    pub(super) took: Duration,
    pub(super) by: Value,
}

/// Waits until this host's kernel knows the MTU. It is told only after `overlay mtu` reports it.
#[track_caller]
pub(super) fn wait_for_route(host: &Host, address: &str, mtu: u16) {
    within(SHORTLY, &format!("the route of {} to {address} to say {mtu}", host.name()), || {
        let route = host.ip(&format!("route get {address}"));
        let said = route.split(" mtu ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        // A route without an MTU leaves it to the interface.
        (said.unwrap_or_else(|| link_mtu(host, host.interface())) == mtu).then_some(())
    });
}

fn link_mtu(host: &Host, link: &str) -> u16 {
    host.exec(format!("cat /sys/class/net/{link}/mtu")).trim().parse().expect("a number")
}

/// The first peer in the output of `overlay mtu --json`.
#[track_caller]
pub(super) fn mtu(host: &Host) -> Value {
    let said = host.overlay("mtu --json").succeeded("overlay mtu --json");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    said["peers"][0].clone()
}

/// Makes a router silently drop longer packets.
fn drop_longer_than(router: &Host, len: u16, out: &str) {
    let rules = format!(
        "table inet narrow\nflush table inet narrow\ntable inet narrow {{\n\
         chain forward {{ type filter hook forward priority 0; {out} meta length > {len} drop\n}}\n}}\n"
    );
    router.exec(format!("nft -f {}", router.write("narrow.nft", rules).display()));
}

fn config(host: &Host, own: Addresses, peer: &Host, far: Addresses, outside: Outside) -> String {
    let (inner, allowed) = (own.inner(), far.allowed());
    let endpoint = far.endpoint(outside, 51820);
    host.interface_toml(&[&inner[0], &inner[1]]) + &peer.peer_toml(Some(&endpoint), &[&allowed[0], &allowed[1]])
}
