//! The addresses at which this host may be reached from outside the tunnel, and who is told which.
//!
//! * Server-reflexive: how relays see the node's own socket, and the same address with our own port. A Linux router keeps the
//!   port for each destination where it is free, and it may have been taken towards the relay alone.
//! * Where no relay has said so, the address from which a rendezvous sees us stands in, with our port: right without a NAT,
//!   and behind many others.
//! * Host: the addresses of every uplink, which is a link with a default route. Where no link has one, those of all links but
//!   bridges. Never loopback, link-local, the addresses of the overlay, and tunnels of any kind.
//!
//! A private address (RFC 1918, RFC 4193, RFC 6598) means something to those who live in the same network. So with `auto` it
//! is told only to a peer that shares a public address of ours, and to everybody if that is how a relay sees us.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use overlay_core::{Base, Candidate, CandidateKind, CandidateScope, Nat, Node};
use overlay_os::netlink::{Address, Link, MAIN_TABLE, Route};

use crate::config::Candidates as Choice;

/// The kinds of links that lead into tunnels.
const TUNNELS: [&str; 10] = ["tun", "wireguard", "ipip", "sit", "ip6tnl", "gre", "ip6gre", "vti", "vti6", "xfrm"];
/// The kinds of links that are the tunnel of a VPN on some hosts, and the uplink of others.
const PERHAPS_TUNNELS: [&str; 7] = ["ppp", "ovpn", "ovpn-dco", "gretap", "ip6gretap", "vxlan", "geneve"];

/// What the kernel says of this host.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
}

/// All addresses of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    all: Vec<Candidate>,
    /// The public addresses that a peer may share.
    outside: Vec<IpAddr>,
}

impl Candidates {
    /// Those that follow from what is known. `observed`: how relays see us. `seen_from`: how rendezvous see us. `inner`: the
    /// prefixes inside the tunnel. `port`: that of the node's sockets.
    pub(super) fn of(
        host: &Host,
        (observed, seen_from): (&[SocketAddr], &[IpAddr]),
        inner: &[IpNet],
        port: u16,
    ) -> Self {
        let usable = |ip: IpAddr| is_reachable(ip) && !inner.iter().any(|prefix| prefix.contains(&ip));
        let stands_in = |ip: &&IpAddr| !observed.iter().any(|known| known.is_ipv4() == ip.is_ipv4());
        let guessed = seen_from.iter().filter(stands_in).map(|ip| SocketAddr::new(*ip, port));
        let kept = observed.iter().map(|address| SocketAddr::new(address.ip(), port));
        let reflexive = observed.iter().copied().chain(guessed).chain(kept).filter(|address| usable(address.ip()));
        let mut all: Vec<Candidate> = Vec::new();
        for address in reflexive {
            if !all.iter().any(|known| known.address == address) {
                all.push(Candidate { address, kind: CandidateKind::ServerReflexive, base: None });
            }
        }
        let outside = observed.iter().map(SocketAddr::ip).chain(seen_from.iter().copied()).collect();
        let mut own: Vec<_> = host.of_uplinks().filter(|(ip, _)| usable(*ip)).collect();
        // Public ones first. Two links may have the same address.
        own.sort_by_key(|(ip, _)| is_private(*ip));
        let choice = host.choice();
        for (ip, link) in own {
            let address = SocketAddr::new(ip, port);
            let base = Some(Base { local: (ip, link), is_uplink: ip.is_ipv4() && choice.contains(&link) });
            match all.iter_mut().find(|known| known.address == address) {
                Some(known) => known.base = known.base.or(base),
                None => all.push(Candidate { address, kind: CandidateKind::Host, base }),
            }
        }
        while all.len() > Node::MAX_LOCAL_CANDIDATES {
            all.remove(least(&all));
        }
        Self { all, outside }
    }

    /// Adds addresses at which friends see us, as far as there is room.
    pub(super) fn add_seen(&mut self, seen: &[SocketAddr]) {
        for address in seen {
            match self.all.iter().position(|known| known.address == *address) {
                // It is this host's own, and reached from outside. So it may be told, although it may be private.
                Some(at) => self.all[at].kind = CandidateKind::ServerReflexive,
                None if self.all.len() < Node::MAX_LOCAL_CANDIDATES => {
                    let kind = CandidateKind::ServerReflexive;
                    self.all.push(Candidate { address: *address, kind, base: None });
                }
                None => {}
            }
        }
    }

    /// All of them, for the node.
    pub(super) fn all(&self) -> &[Candidate] {
        &self.all
    }

    /// The addresses of uplinks, each with the index of its link.
    pub(super) fn uplinks(&self) -> Vec<(IpAddr, u32)> {
        let bases = self.all.iter().filter_map(|candidate| candidate.base);
        bases.filter(|base| base.is_uplink).map(|base| base.local).collect()
    }

    /// The addresses of this host's own links, each with the index of its link.
    pub(super) fn links(&self) -> Vec<(IpAddr, u32)> {
        self.all.iter().filter_map(|candidate| Some(candidate.base?.local)).collect()
    }

    /// How this host is seen from outside.
    pub(super) fn reflexive(&self) -> Vec<SocketAddr> {
        let reflexive = self.all.iter().filter(|candidate| candidate.kind == CandidateKind::ServerReflexive);
        reflexive.map(|candidate| candidate.address).collect()
    }

    /// Whether a peer at these addresses shares a public address of ours.
    pub(super) fn is_shared(&self, places: impl IntoIterator<Item = SocketAddr>) -> bool {
        places.into_iter().any(|place| self.outside.contains(&place.ip()))
    }

    /// What a peer is told, the best address first.
    pub(super) fn told(&self, choice: Choice, is_shared: bool) -> Vec<SocketAddr> {
        let is_told = |candidate: &&Candidate| match choice {
            Choice::Relay => false,
            Choice::All => true,
            Choice::Auto => is_shared || candidate.kind != CandidateKind::Host || !is_private(candidate.address.ip()),
        };
        self.all.iter().filter(is_told).map(|candidate| candidate.address).collect()
    }
}

/// The candidate that is missed least: a second address of a link, or else one of no uplink, the last one of them.
fn least(all: &[Candidate]) -> usize {
    let link = |candidate: &Candidate| candidate.base.map(|Base { local: (ip, link), .. }| (ip.is_ipv4(), link));
    let is_second =
        |at: &usize| link(&all[*at]).is_some() && all[..*at].iter().any(|known| link(known) == link(&all[*at]));
    let seconds = (0..all.len()).rev().find(is_second);
    let is_uplink = |candidate: &Candidate| candidate.base.is_some_and(|base| base.is_uplink);
    seconds.or_else(|| all.iter().rposition(|candidate| !is_uplink(candidate))).unwrap_or(all.len() - 1)
}

impl Host {
    /// The addresses of uplinks, each with the index of its link.
    pub(super) fn of_uplinks(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let leads_on = |link: &Link| {
            let mut routes = self.routes.iter().filter(|route| route.interface == Some(link.index));
            routes.any(|route| route.table == MAIN_TABLE && route.destination.prefix_len() == 0)
        };
        let is_of = |link: &Link, kinds: &[&str]| link.kind.as_deref().is_some_and(|kind| kinds.contains(&kind));
        let outer: Vec<_> = self.links.iter().filter(|link| link.up && !is_of(link, &TUNNELS)).collect();
        let has_uplink = outer.iter().any(|link| leads_on(link));
        let is_used = |link: &&Link| if has_uplink { leads_on(link) } else { !is_of(link, &["bridge"]) };
        let uplinks: Vec<_> = outer.into_iter().filter(is_used).map(|link| link.index).collect();
        let addresses = self.addresses.iter().filter(|address| address.is_preferred);
        addresses.filter(move |address| uplinks.contains(&address.index)).map(|address| (address.ip, address.index))
    }

    /// The links between which paths of IPv4 may choose, whatever the kernel prefers: those with a default route, if none leads
    /// into what may be a tunnel. Datagrams of IPv6 cannot be held to an interface.
    fn choice(&self) -> BTreeSet<u32> {
        let is_default = |route: &&Route| {
            let Route { destination, table, .. } = route;
            (*table, destination.prefix_len(), destination.addr().is_ipv4()) == (MAIN_TABLE, 0, true)
        };
        let is_tunnel = |kind: &str| TUNNELS.contains(&kind) || PERHAPS_TUNNELS.contains(&kind);
        let links: BTreeSet<_> = self.routes.iter().filter(is_default).filter_map(|route| route.interface).collect();
        let mut kinds =
            self.links.iter().filter(|link| links.contains(&link.index)).filter_map(|link| link.kind.as_deref());
        if kinds.any(is_tunnel) { BTreeSet::new() } else { links }
    }

    /// The NAT in front of this host, as relays that see us at these addresses can tell: each relay says one.
    pub(super) fn nat(&self, views: &[SocketAddr]) -> Nat {
        let is_own = |view: &SocketAddr| self.addresses.iter().any(|own| own.ip == view.ip());
        let translated = |is_ipv4| views.iter().filter(move |view| view.is_ipv4() == is_ipv4 && !is_own(view));
        let count = |is_ipv4| translated(is_ipv4).count();
        let differ = |is_ipv4| translated(is_ipv4).any(|view| translated(is_ipv4).next() != Some(view));
        match count(true).max(count(false)) {
            0 if views.is_empty() => Nat::Unknown,
            0 => Nat::None,
            1 => Nat::Unknown,
            _ if differ(true) || differ(false) => Nat::DestinationDependent,
            _ => Nat::EndpointIndependent,
        }
    }
}

/// The choice of the config, for the node.
pub(super) fn scope(choice: Choice) -> CandidateScope {
    match choice {
        Choice::Auto => CandidateScope::Auto,
        Choice::All => CandidateScope::All,
        Choice::Relay => CandidateScope::Relay,
    }
}

/// Whether other hosts may be able to send to this address.
pub(super) fn is_reachable(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast() || address.octets()[0] == 0,
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    !is_local && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// Whether an address means something in one network alone.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        // 100.64.0.0/10 is that of carriers (RFC 6598).
        IpAddr::V4(address) => address.is_private() || (address.octets()[0], address.octets()[1] & 0xc0) == (100, 64),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: Option<&str>) -> Link {
        Link {
            index,
            name: format!("link{index}"),
            kind: kind.map(str::to_owned),
            mtu: 1_500,
            tx_queue_len: 1_000,
            up: true,
            controller: None,
            is_ethernet: true,
        }
    }

    fn address(index: u32, ip: &str) -> Address {
        Address { index, ip: ip.parse().expect("one"), prefix: 24, is_preferred: true }
    }

    fn default_route(index: u32) -> Route {
        Route::to_interface("0.0.0.0/0".parse().expect("a prefix"), index)
    }

    /// An uplink, a container bridge, a tunnel with a default route, and loopback.
    fn host() -> Host {
        Host {
            links: vec![link(1, None), link(2, None), link(3, Some("bridge")), link(4, Some("wireguard"))],
            addresses: vec![
                address(1, "127.0.0.1"),
                address(2, "192.168.1.2"),
                address(2, "2001:db8::2"),
                address(2, "fe80::2"),
                address(2, "10.77.0.9"),
                address(3, "172.17.0.1"),
                address(4, "10.8.0.2"),
            ],
            routes: vec![default_route(2), default_route(4)],
        }
    }

    fn told(candidates: &Candidates, choice: Choice, is_shared: bool) -> Vec<String> {
        candidates.told(choice, is_shared).iter().map(ToString::to_string).collect()
    }

    fn of(host: &Host, observed: &[&str], seen_from: &[&str]) -> Candidates {
        let observed: Vec<_> = observed.iter().map(|text| text.parse().expect("one")).collect();
        let seen_from: Vec<_> = seen_from.iter().map(|text| text.parse().expect("one")).collect();
        Candidates::of(host, (&observed, &seen_from), &["10.77.0.0/16".parse().expect("a prefix")], 51_820)
    }

    #[test]
    fn private_addresses_are_told_to_those_who_share_a_public_one() {
        let candidates = of(&host(), &["198.51.100.7:40000"], &["198.51.100.7"]);
        let public = ["198.51.100.7:40000", "198.51.100.7:51820", "[2001:db8::2]:51820"];
        assert_eq!(told(&candidates, Choice::Auto, false), public);
        let all = [&public[..], &["192.168.1.2:51820"]].concat();
        assert_eq!(told(&candidates, Choice::Auto, true), all);
        assert_eq!(told(&candidates, Choice::All, false), all);
        assert!(told(&candidates, Choice::Relay, true).is_empty());
        assert!(candidates.is_shared(["198.51.100.7:1".parse().expect("one")]));
        assert!(!candidates.is_shared(["198.51.100.8:40000".parse().expect("one")]));
        let kinds: Vec<_> = candidates.all().iter().map(|it| (it.kind, it.base.map(|base| base.local.1))).collect();
        assert_eq!(kinds[0], (CandidateKind::ServerReflexive, None));
        assert_eq!(kinds[2], (CandidateKind::Host, Some(2)));
    }

    #[test]
    fn an_address_that_a_relay_sees_is_told_although_it_is_private() {
        let candidates = of(&host(), &["192.168.1.2:51820"], &["192.168.1.2"]);
        assert_eq!(told(&candidates, Choice::Auto, false), ["192.168.1.2:51820", "[2001:db8::2]:51820"]);
        assert_eq!(candidates.all()[0].base.map(|base| base.local.1), Some(2), "and it is the host's own");
    }

    #[test]
    fn without_a_relay_the_address_at_the_rendezvous_stands_in() {
        let candidates = of(&host(), &[], &["198.51.100.7", "10.77.0.1"]);
        assert_eq!(told(&candidates, Choice::Auto, false), ["198.51.100.7:51820", "[2001:db8::2]:51820"]);
        let candidates = of(&host(), &["198.51.100.7:40000"], &["198.51.100.9", "2001:db8::9"]);
        let expected = ["198.51.100.7:40000", "[2001:db8::9]:51820", "198.51.100.7:51820", "[2001:db8::2]:51820"];
        assert_eq!(told(&candidates, Choice::Auto, false), expected, "in the family of which no relay has spoken");
    }

    #[test]
    fn without_a_default_route_all_links_but_bridges_and_tunnels_count() {
        let host = Host { routes: Vec::new(), ..host() };
        assert_eq!(told(&of(&host, &[], &[]), Choice::All, false), ["[2001:db8::2]:51820", "192.168.1.2:51820"]);
    }

    #[test]
    fn a_deprecated_or_tentative_address_and_a_link_that_is_down_do_not_count() {
        let mut host = host();
        host.addresses[2].is_preferred = false;
        assert_eq!(told(&of(&host, &[], &[]), Choice::All, false), ["192.168.1.2:51820"]);
        host.links[1].up = false;
        assert!(told(&of(&host, &[], &[]), Choice::All, false).is_empty());
    }

    #[test]
    fn relays_tell_what_the_nat_does_once_two_have_spoken() {
        let nat = |views: &[&str]| host().nat(&views.iter().map(|text| text.parse().expect("one")).collect::<Vec<_>>());
        assert_eq!(nat(&[]), Nat::Unknown);
        assert_eq!(nat(&["192.168.1.2:51820"]), Nat::None, "a relay in the same network");
        assert_eq!(nat(&["198.51.100.7:40000"]), Nat::Unknown);
        assert_eq!(nat(&["198.51.100.7:40000", "[2001:db8::2]:51820"]), Nat::Unknown, "one of each family");
        assert_eq!(nat(&["198.51.100.7:40000", "198.51.100.7:40000"]), Nat::EndpointIndependent);
        assert_eq!(nat(&["198.51.100.7:40000", "198.51.100.7:40001"]), Nat::DestinationDependent);
    }

    /// Which links of IPv4 are uplinks between which paths may choose.
    fn chosen(host: &Host) -> Vec<u32> {
        of(host, &[], &[]).uplinks().iter().filter(|(ip, _)| ip.is_ipv4()).map(|(_, link)| *link).collect()
    }

    #[test]
    fn paths_choose_between_uplinks_of_a_family_but_not_where_one_may_be_a_tunnel() {
        let mut host = host();
        assert!(chosen(&host).is_empty(), "a tunnel has the default route");
        host.routes.pop();
        assert_eq!(chosen(&host), [2]);
        host.links.push(link(5, None));
        host.addresses.push(address(5, "192.168.5.2"));
        assert_eq!(chosen(&host), [2]);
        host.routes.push(default_route(5));
        assert_eq!(chosen(&host), [2, 5]);
        host.links[4].kind = Some("ppp".to_owned());
        assert!(chosen(&host).is_empty());
    }

    #[test]
    fn one_address_of_each_uplink_is_kept_where_there_are_too_many() {
        let mut host = host();
        host.routes = vec![default_route(2), default_route(5)];
        host.links.push(link(5, None));
        host.addresses.push(address(5, "192.168.5.2"));
        host.addresses.extend((1..=3).map(|n| address(2, &format!("2001:db8::1:{n}"))));
        let observed = ["198.51.100.7:40000", "198.51.100.8:40001"];
        assert_eq!(of(&host, &observed[..1], &[]).all().len(), Node::MAX_LOCAL_CANDIDATES);
        assert_eq!([&observed[..1], &observed].map(|observed| of(&host, observed, &[]).uplinks().len()), [2, 2]);
    }

    /// As on a router whose default routes stand in tables of their own.
    #[test]
    fn how_relays_see_us_is_kept_where_many_links_have_addresses() {
        let mut host = Host { routes: Vec::new(), ..host() };
        host.links.extend((10..20).map(|index| link(index, None)));
        host.addresses.extend((10..20).map(|index| address(index, &format!("192.168.{index}.1"))));
        let candidates = of(&host, &["198.51.100.7:40000"], &[]);
        assert_eq!(candidates.all().len(), Node::MAX_LOCAL_CANDIDATES);
        assert_eq!(told(&candidates, Choice::Auto, false)[..2], ["198.51.100.7:40000", "198.51.100.7:51820"]);
    }

    #[test]
    fn the_node_gets_eight_at_most() {
        let mut host = host();
        host.addresses.extend((1..=20).map(|n| address(2, &format!("203.0.113.{n}"))));
        assert_eq!(of(&host, &[], &[]).all().len(), Node::MAX_LOCAL_CANDIDATES);
    }
}
