//! Every kind of router, held to the table that the simulator's are held to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overlay_sim::nat::{Ground, Kind, Place, Row, TABLE, observe};

use crate::lab::{End, Host, Internet, Lab, Plain, Site, installed};

/// After this time without a datagram none comes: they take a millisecond.
const QUIET: Duration = Duration::from_millis(500);
/// The first port of a place.
const FIRST_PORT: u16 = 20_000;

/// A site with two hosts, and two hosts on the other side.
struct Real {
    site: Site,
    /// Hosts and addresses, by place.
    places: [(Host, IpAddr); 5],
    sockets: Vec<Plain>,
    next_port: u16,
    _lab: Lab,
}

impl Real {
    fn new(kind: Kind) -> Option<Real> {
        let name = format!("NAT {}", kind.name());
        if !installed(&name, &["conntrack"]) {
            return None;
        }
        let lab = Lab::new(&name)?;
        let internet = Internet::new(&lab);
        let site = Site::new(&lab, &internet, End::West, "a", kind);
        let [inside, neighbour] = ["inside", "neighbour"].map(|name| site.host(&lab, name));
        let [peer, stranger] = ["peer", "stranger"].map(|name| {
            let host = lab.host(name);
            let attachment = internet.attach(&lab, &host, End::East);
            let address: IpAddr = if kind.is_ipv6() { attachment.v6.into() } else { attachment.v4.into() };
            (host, address)
        });
        let places = [(inside, site.inside(2)), (neighbour, site.inside(3)), peer.clone(), peer, stranger];
        let mut real = Real { site, places, sockets: Vec::new(), next_port: FIRST_PORT, _lab: lab };
        real.renew();
        Some(real)
    }
}

impl Ground for Real {
    fn renew(&mut self) {
        self.sockets.clear();
        self.site.forget();
        for (host, address) in &self.places {
            self.sockets.push(Plain::open(host, SocketAddr::new(*address, self.next_port)));
            self.next_port += 1;
        }
    }

    fn address(&self, place: Place) -> SocketAddr {
        self.sockets[place as usize].address()
    }

    fn outside(&self) -> IpAddr {
        self.site.outside()
    }

    fn send(&mut self, from: Place, to: SocketAddr, ttl: u8) {
        self.sockets[from as usize].send_with_ttl(to, b"hello", ttl);
    }

    fn hear(&mut self, at: Place) -> Option<SocketAddr> {
        self.sockets[at as usize].hear(QUIET).map(|heard| heard.source)
    }
}

#[track_caller]
fn does_what_the_table_says(kind: Kind) {
    let Some(mut real) = Real::new(kind) else { return };
    let row: Vec<Row> = TABLE.into_iter().filter(|row| row.kind == kind).collect();
    assert_eq!([observe(kind, &mut real)], row[..]);
}

#[test]
fn a_router_without_nat_lets_everything_pass() {
    does_what_the_table_says(Kind::None);
}

#[test]
fn an_open_nat_lets_everybody_in_once_the_inside_has_spoken() {
    does_what_the_table_says(Kind::Open);
}

#[test]
fn an_address_restricted_nat_lets_in_whoever_shares_the_address() {
    does_what_the_table_says(Kind::AddressRestricted);
}

#[test]
fn a_moderate_nat_lets_in_answers_only() {
    does_what_the_table_says(Kind::Moderate);
}

#[test]
fn a_linux_router_moves_us_to_a_different_port_if_the_peer_was_first() {
    does_what_the_table_says(Kind::Linux);
}

#[test]
fn a_strict_nat_shows_each_peer_a_different_port() {
    does_what_the_table_says(Kind::Strict);
}

#[test]
fn a_carrier_grade_nat_is_left_with_a_ttl_of_three() {
    does_what_the_table_says(Kind::CarrierGrade);
}

#[test]
fn a_one_to_one_nat_translates_the_address_and_filters_nothing() {
    does_what_the_table_says(Kind::OneToOne);
}

#[test]
fn an_ipv6_firewall_lets_in_answers_only() {
    does_what_the_table_says(Kind::Ipv6Firewall);
}
