//! The ways in which the mappings of a site end, and a site without UDP.

use std::net::SocketAddr;
use std::time::Duration;

use overlay_sim::nat::Kind;

use crate::lab::{Ageing, End, Host, Internet, Lab, Plain, SHORTLY, Site, installed, within};

/// After this time without a datagram none comes.
const QUIET: Duration = Duration::from_millis(500);

/// A host behind a site, and a server that asks it back.
struct Fixture {
    site: Site,
    inside: Plain,
    server: Plain,
    second_server: Plain,
    _lab: Lab,
}

impl Fixture {
    fn new(name: &str, kind: Kind) -> Option<Fixture> {
        if !installed(name, &["conntrack"]) {
            return None;
        }
        let lab = Lab::new(name)?;
        let internet = Internet::new(&lab);
        let site = Site::new(&lab, &internet, End::West, "a", kind);
        let (host, server) = (site.host(&lab, "inside"), lab.host("server"));
        let attachment = internet.attach(&lab, &server, End::East);
        let open = |host: &Host, port| Plain::open(host, SocketAddr::new(attachment.v4.into(), port));
        Some(Fixture {
            inside: Plain::open(&host, SocketAddr::new(site.inside(2), 20_000)),
            server: open(&server, 3_478),
            second_server: open(&server, 53),
            site,
            _lab: lab,
        })
    }

    /// Asks the server. Returns our outside address, or nothing if the question gets lost.
    fn ask(&self) -> Option<SocketAddr> {
        self.inside.send(self.server.address(), b"?");
        self.server.hear(QUIET).map(|heard| heard.source)
    }

    /// Whether the server reaches us there.
    fn is_reached(&self, at: SocketAddr) -> bool {
        self.server.send(at, b"!");
        self.inside.hear(QUIET).is_some()
    }
}

#[test]
fn idle_mappings_end_as_soon_as_a_test_wants() {
    for kind in [Kind::Moderate, Kind::Strict, Kind::Open, Kind::CarrierGrade] {
        let Some(fixture) = Fixture::new("ageing", kind) else { return };
        let second = Duration::from_secs(2);
        fixture.site.age(Ageing { unanswered: second, idle: second });
        let seen = fixture.ask().expect("it leaves");
        assert!(fixture.is_reached(seen), "{}", kind.name());
        // Each attempt of the server that passes renews the mapping of some kinds, so it waits.
        let _ = fixture.inside.hear(second * 2);
        assert!(!fixture.is_reached(seen), "{}", kind.name());
        assert!(fixture.ask().is_some_and(|seen| fixture.is_reached(seen)), "{}", kind.name());
    }
}

#[test]
fn a_router_forgets_everything_when_a_test_wants() {
    for kind in [Kind::Open, Kind::AddressRestricted, Kind::Moderate, Kind::Linux, Kind::Strict, Kind::CarrierGrade] {
        let Some(fixture) = Fixture::new("forgotten mappings", kind) else { return };
        let seen = fixture.ask().expect("it leaves");
        assert!(fixture.is_reached(seen), "{}", kind.name());
        fixture.site.forget();
        assert!(!fixture.is_reached(seen), "{}", kind.name());
    }
}

#[test]
fn a_mapping_in_constant_use_ends_by_age() {
    let Some(fixture) = Fixture::new("mappings that end by age", Kind::Strict) else { return };
    let first = fixture.ask().expect("it leaves");
    assert_eq!(fixture.ask(), Some(first), "traffic keeps it");
    let _timer = fixture.site.end_by_age(Duration::from_secs(1));
    within(SHORTLY, "a new mapping", || fixture.ask().filter(|seen| *seen != first));
}

#[test]
fn a_site_without_udp_lets_only_names_be_asked() {
    let Some(fixture) = Fixture::new("no UDP", Kind::Moderate) else { return };
    assert!(fixture.ask().is_some());
    fixture.site.block_udp();
    assert_eq!(fixture.ask(), None);
    fixture.inside.send(fixture.second_server.address(), b"?");
    assert!(fixture.second_server.hear(QUIET).is_some(), "port 53");
    fixture.site.unblock_udp();
    assert!(fixture.ask().is_some());
}
