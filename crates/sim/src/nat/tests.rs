//! One NAT by itself: mapping, filtering, ports, lifetimes and bounds.

use std::time::Duration;

use rand_core::SeedableRng as _;

use super::*;
use crate::seconds;
use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

const INSIDE: &str = "192.168.1.2:5000";
const EXTERNAL: &str = "198.51.100.1";
/// A destination, a different port of its address, and a different address.
const REMOTES: [&str; 3] = ["203.0.113.1:7000", "203.0.113.1:7001", "203.0.113.2:7000"];

/// A NAT and its time.
struct Fixture {
    nat: Nat,
    rng: ChaCha8Rng,
    now: Instant,
}

impl Fixture {
    fn new(behaviour: Behaviour) -> Self {
        let external = ["198.51.100.1", "198.51.100.2"][..behaviour.addresses.into()].iter();
        let mut nat = Nat::new(behaviour, external.map(|address| address.parse().unwrap()).collect());
        nat.on_host(at(INSIDE).ip());
        nat.on_host(at("192.168.1.3:1").ip());
        Self { nat, rng: ChaCha8Rng::seed_from_u64(7), now: Instant::from_start(seconds(1_000)) }
    }

    fn of(mapping: Dependence, filtering: Dependence) -> Self {
        Self::new(Behaviour::new(mapping, filtering))
    }

    fn out_from(&mut self, inside: &str, remote: &str) -> Result<SocketAddr, Refusal> {
        self.nat.outbound(at(inside), at(remote), self.now, &mut self.rng)
    }

    fn out(&mut self, remote: &str) -> SocketAddr {
        self.out_from(INSIDE, remote).expect("it leaves")
    }

    fn back(&mut self, remote: &str, external: SocketAddr) -> Result<SocketAddr, Refusal> {
        self.nat.inbound(at(remote), external, self.now)
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
    }
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address and a port")
}

/// RFC 4787, sections 4.1 and 5: after one datagram to the first remote, which remotes share its mapping, and which may
/// answer to it.
#[test]
fn mapping_and_filtering_depend_on_what_their_names_say() {
    for (dependence, is_shared) in [
        (EndpointIndependent, [true, true, true]),
        (AddressDependent, [true, true, false]),
        (AddressAndPortDependent, [true, false, false]),
    ] {
        let random = |mapping| Behaviour { ports: Ports::Random, ..Behaviour::new(mapping, EndpointIndependent) };
        let mut fixture = Fixture::new(random(dependence));
        let first = fixture.out(REMOTES[0]);
        assert_eq!(REMOTES.map(|remote| fixture.out(remote) == first), is_shared, "mapping {dependence:?}");

        let mut fixture = Fixture::of(EndpointIndependent, dependence);
        let first = fixture.out(REMOTES[0]);
        assert_eq!(REMOTES.map(|remote| fixture.back(remote, first).is_ok()), is_shared, "filtering {dependence:?}");
    }
}

#[test]
fn nothing_comes_in_without_a_mapping_except_where_addresses_are_fixed() {
    let passes = |behaviour, to| Fixture::new(behaviour).back(REMOTES[0], at(to));
    let open = Behaviour::new(EndpointIndependent, EndpointIndependent);
    assert_eq!(passes(open, "198.51.100.1:5000"), Err(Refusal::NoMapping));
    let fixed = Behaviour { translation: Translation::Address, filtering: None, ..open };
    assert_eq!(passes(fixed, "198.51.100.1:5000"), Ok(at(INSIDE)));
    let filtered = Behaviour { filtering: Some(AddressAndPortDependent), ..fixed };
    assert_eq!(passes(filtered, "198.51.100.1:5000"), Err(Refusal::NoMapping));
    assert_eq!(passes(Behaviour::untranslated(None), INSIDE), Ok(at(INSIDE)));
}

#[test]
fn a_taken_port_is_replaced_and_a_sequence_goes_on() {
    let mut fixture = Fixture::of(EndpointIndependent, EndpointIndependent);
    assert_eq!(fixture.out(REMOTES[0]), at("198.51.100.1:5000"));
    let second = fixture.out_from("192.168.1.3:5000", REMOTES[0]).unwrap();
    assert_ne!(second.port(), 5000);
    assert_eq!(fixture.back(REMOTES[0], second), Ok(at("192.168.1.3:5000")));

    let behaviour = Behaviour::new(AddressAndPortDependent, EndpointIndependent);
    let mut fixture = Fixture::new(Behaviour { ports: Ports::Sequential, ..behaviour });
    let ports = REMOTES.map(|remote| fixture.out(remote).port());
    assert_eq!([ports[1] - ports[0], ports[2] - ports[1]], [1, 1]);
}

/// Conntrack lets two hosts share an outside port as long as they write to different remotes.
#[test]
fn dependent_mappings_share_an_outside_port() {
    let mut fixture = Fixture::of(AddressAndPortDependent, AddressAndPortDependent);
    assert_eq!(fixture.out(REMOTES[0]).port(), 5000);
    assert_eq!(fixture.out_from("192.168.1.3:5000", REMOTES[1]).unwrap().port(), 5000);
    assert_eq!(fixture.back(REMOTES[0], at("198.51.100.1:5000")), Ok(at(INSIDE)));
    assert_eq!(fixture.back(REMOTES[1], at("198.51.100.1:5000")), Ok(at("192.168.1.3:5000")));
}

#[test]
fn two_outside_addresses_are_paired_with_hosts_or_taken_in_turns() {
    let base = Behaviour { addresses: 2, ..Behaviour::new(AddressAndPortDependent, EndpointIndependent) };
    let mut paired = Fixture::new(base);
    assert!(REMOTES.iter().all(|remote| paired.out(remote).ip() == EXTERNAL.parse::<IpAddr>().unwrap()));
    assert_ne!(paired.out_from("192.168.1.3:5000", REMOTES[0]).unwrap().ip(), EXTERNAL.parse::<IpAddr>().unwrap());
    let mut arbitrary = Fixture::new(Behaviour { pooling: Pooling::Arbitrary, ..base });
    let seen = REMOTES.map(|remote| arbitrary.out(remote).ip());
    assert!(seen[0] != seen[1] && seen[0] == seen[2]);
}

#[test]
fn an_idle_mapping_ends_and_answers_lengthen_its_life() {
    let behaviour = Behaviour::new(EndpointIndependent, AddressAndPortDependent);
    let mut fixture = Fixture::new(behaviour);
    let external = fixture.out(REMOTES[0]);
    fixture.wait(seconds(29));
    assert!(fixture.back(REMOTES[0], external).is_ok());
    fixture.wait(seconds(119));
    assert!(fixture.back(REMOTES[0], external).is_ok(), "inbound datagrams refresh");
    fixture.wait(seconds(120));
    assert_eq!(fixture.back(REMOTES[0], external), Err(Refusal::NoMapping));

    let unanswered = fixture.out(REMOTES[0]);
    fixture.wait(seconds(30));
    assert_eq!(fixture.back(REMOTES[0], unanswered), Err(Refusal::NoMapping));

    let lifetime = Lifetime { inbound_refreshes: false, ..Lifetime::CONNTRACK };
    let mut fixture = Fixture::new(Behaviour { lifetime, ..behaviour });
    let external = fixture.out(REMOTES[0]);
    for _ in 0..3 {
        assert!(fixture.back(REMOTES[0], external).is_ok());
        fixture.wait(seconds(39));
    }
    fixture.wait(seconds(3));
    assert_eq!(fixture.back(REMOTES[0], external), Err(Refusal::NoMapping), "only outbound datagrams refresh");
}

/// A filter forgets a remote that we no longer write to, while the mapping lives on for others.
#[test]
fn a_contact_ends_by_itself() {
    let mut fixture = Fixture::of(EndpointIndependent, AddressAndPortDependent);
    let external = fixture.out(REMOTES[0]);
    for _ in 0..3 {
        fixture.out(REMOTES[1]);
        fixture.wait(seconds(15));
    }
    assert_eq!(fixture.back(REMOTES[0], external), Err(Refusal::Filtered));
    assert!(fixture.back(REMOTES[1], external).is_ok());
}

#[test]
fn an_absolute_age_ends_a_mapping_that_is_in_use() {
    let lifetime = Lifetime { age: Some(seconds(60)), ..Lifetime::CONNTRACK };
    let behaviour = Behaviour { ports: Ports::Random, ..Behaviour::new(EndpointIndependent, EndpointIndependent) };
    let mut fixture = Fixture::new(Behaviour { lifetime, ..behaviour });
    let first = fixture.out(REMOTES[0]);
    for _ in 0..59 {
        fixture.wait(seconds(1));
        assert_eq!(fixture.out(REMOTES[0]), first);
    }
    fixture.wait(seconds(1));
    assert_eq!(fixture.back(REMOTES[0], first), Err(Refusal::NoMapping));
    assert_ne!(fixture.out(REMOTES[0]), first);
}

#[test]
fn a_full_table_takes_no_mapping_until_one_ends() {
    let mut fixture = Fixture::of(EndpointIndependent, EndpointIndependent);
    for port in 0..MAX_MAPPINGS {
        fixture.out_from(&format!("192.168.1.2:{}", 2_000 + port), REMOTES[0]).unwrap();
    }
    assert_eq!(fixture.out_from("192.168.1.2:1", REMOTES[0]), Err(Refusal::TableFull));
    assert!(fixture.out_from("192.168.1.2:2000", REMOTES[0]).is_ok(), "those that are there go on");
    fixture.wait(seconds(30));
    assert!(fixture.out_from("192.168.1.2:1", REMOTES[0]).is_ok());
}

#[test]
fn contacts_and_own_flows_are_bounded() {
    let mut fixture = Fixture::of(EndpointIndependent, AddressAndPortDependent);
    let external = fixture.out(REMOTES[0]);
    fixture.wait(Duration::from_millis(1));
    for port in 0..MAX_CONTACTS {
        fixture.out(&format!("203.0.113.9:{}", 2_000 + port));
    }
    assert_eq!(fixture.back(REMOTES[0], external), Err(Refusal::Filtered), "the oldest one gives way");
    assert!(fixture.back("203.0.113.9:2000", external).is_ok());

    let behaviour = Behaviour::new(AddressAndPortDependent, AddressAndPortDependent);
    let mut fixture = Fixture::new(Behaviour { takes_strangers: true, ..behaviour });
    for port in 0..=MAX_OWN_FLOWS {
        let remote = format!("203.0.113.9:{}", 2_000 + port);
        assert_eq!(fixture.back(&remote, at("198.51.100.1:5000")), Err(Refusal::TakenForOwn));
    }
    assert_eq!(fixture.nat.own_flows.len(), MAX_OWN_FLOWS);
}

#[test]
fn a_pool_without_a_free_port_or_address_says_so() {
    let behaviour = Behaviour::new(EndpointIndependent, EndpointIndependent);
    let mut fixture = Fixture::new(Behaviour { ports: Ports::Sequential, ..behaviour });
    for port in 0..MAX_ATTEMPTS {
        fixture.out_from(&format!("192.168.1.2:{}", 2_000 + port), REMOTES[0]).unwrap();
    }
    fixture.nat.next_port = FIRST_PORT;
    assert_eq!(fixture.out_from("192.168.1.2:1", REMOTES[0]), Err(Refusal::NoPort));
    let fixed = Behaviour { translation: Translation::Address, ..behaviour };
    assert_eq!(Fixture::new(fixed).out_from("192.168.1.3:1", REMOTES[0]), Err(Refusal::NoAddress));
}
