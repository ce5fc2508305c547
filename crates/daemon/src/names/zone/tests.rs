//! A zone with three agents, and what it answers.

use super::*;

pub(super) const DOMAIN: &str = "lab.overlay.internal";

fn agent(name: &str, addresses: &[&str], tags: &[&str], services: &[(&str, &str, u16, &str)]) -> Agent {
    let service = |&(name, protocol, port, text): &(&str, &str, u16, &str)| Service {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        port,
        text: text.to_owned(),
    };
    Agent {
        name: name.to_owned(),
        addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        services: services.iter().map(service).collect(),
    }
}

/// `me` with a tag and a service of its own, which are no answer to "who has a GPU?"; alice, bob, and carol without IPv4.
pub(super) fn zone() -> Zone {
    let me = agent("me-too", &["10.99.0.1", "fd5c:102::1"], &["gpu"], &[("http", "tcp", 80, "")]);
    let pools = ["10.99.0.0/16", "fd5c:102::/32"].map(|pool| pool.parse().expect("a prefix"));
    let origin = Origin { interface: "ov0".to_owned(), domain: DOMAIN.to_owned(), pools: pools.into(), me };
    let mut zone = Zone::new(origin).expect("a domain");
    zone.put(agent(
        "alice",
        &["10.99.0.2", "fd5c:102::2"],
        &["gpu", "eu"],
        &[("http", "tcp", 8080, "a search engine"), ("quic", "udp", 443, "")],
    ));
    zone.put(agent("bob", &["10.99.0.3", "fd5c:102::3"], &["gpu"], &[("http", "tcp", 80, "")]));
    zone.put(agent("carol", &["fd5c:102::4"], &[], &[]));
    zone
}

pub(super) fn question(name: &str, asked: RecordType) -> Query {
    Query::query(Name::from_ascii(name).expect("a name"), asked)
}

/// The answer as text: the code, then each record without its name and TTL.
fn ask(zone: &Zone, name: &str, asked: RecordType) -> String {
    let full = match name {
        "@" => format!("{DOMAIN}."),
        name if name.ends_with('.') => name.to_owned(),
        name => format!("{name}.{DOMAIN}."),
    };
    shown(&zone.answer(&question(&full, asked), false))
}

fn shown(answer: &Answer) -> String {
    let records = answer.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data));
    let mut words: Vec<_> = records.collect();
    words.sort_unstable();
    let empty = if answer.authority.is_some() { " + SOA" } else { "" };
    format!("{:?}{empty}: {}", answer.code, words.join(", "))
}

#[test]
fn every_name_has_what_the_table_says() {
    use RecordType::{A, AAAA, ANY, CNAME, MX, NS, PTR, SRV, TXT, Unknown};
    let zone = zone();
    for (name, asked, expected) in [
        ("alice", A, "NoError: A 10.99.0.2"),
        ("ALICE", AAAA, "NoError: AAAA fd5c:102::2"),
        ("me-too", A, "NoError: A 10.99.0.1"),
        ("carol", A, "NoError + SOA: "),
        ("carol", AAAA, "NoError: AAAA fd5c:102::4"),
        ("carol", TXT, "NoError + SOA: "),
        ("alice", MX, "NoError + SOA: "),
        ("alice", Unknown(65_280), "NoError + SOA: "),
        ("bob", ANY, "NoError: A 10.99.0.3, AAAA fd5c:102::3, TXT tag=gpuservice=tcp/80=http"),
        ("dave", A, "NXDomain + SOA: "),
        ("x.alice", A, "NXDomain + SOA: "),
        ("ns", A, "NoError: A 10.99.0.1"),
        ("@", NS, "NoError: NS ns.lab.overlay.internal."),
        ("@", A, "NoError + SOA: "),
        ("_http._tcp", SRV, "NoError: SRV 0 0 80 bob.lab.overlay.internal., SRV 0 0 8080 alice.lab.overlay.internal."),
        ("_http._tcp.alice", SRV, "NoError: SRV 0 0 8080 alice.lab.overlay.internal."),
        ("_http._tcp.alice", TXT, "NoError: TXT a search engine"),
        ("_http._tcp.me-too", SRV, "NoError: SRV 0 0 80 me-too.lab.overlay.internal."),
        ("_http._udp.alice", SRV, "NXDomain + SOA: "),
        ("_ssh._tcp", SRV, "NXDomain + SOA: "),
        ("_tcp", SRV, "NoError + SOA: "),
        ("_udp.bob", A, "NXDomain + SOA: "),
        ("_tcp.bob", A, "NoError + SOA: "),
        ("eu._tag", SRV, "NoError: SRV 0 0 443 alice.lab.overlay.internal., SRV 0 0 8080 alice.lab.overlay.internal."),
        ("gpu._tag", TXT, "NoError: TXT agent=alice, TXT agent=bob"),
        ("_http._tcp.eu._tag", SRV, "NoError: SRV 0 0 8080 alice.lab.overlay.internal."),
        ("_tcp.eu._tag", SRV, "NoError + SOA: "),
        ("_tag", SRV, "NoError + SOA: "),
        ("fpga._tag", SRV, "NXDomain + SOA: "),
        ("alice.short", A, "NoError: A 10.99.0.2, CNAME alice.lab.overlay.internal."),
        ("alice.short", CNAME, "NoError: CNAME alice.lab.overlay.internal."),
        ("carol.short", A, "NoError + SOA: CNAME carol.lab.overlay.internal."),
        ("dave.short", A, "NXDomain + SOA: "),
        ("short", A, "NoError + SOA: "),
        ("2.0.99.10.in-addr.arpa.", PTR, "NoError: PTR alice.lab.overlay.internal."),
        ("9.0.99.10.in-addr.arpa.", PTR, "NXDomain + SOA: "),
        ("0.99.10.in-addr.arpa.", PTR, "NoError + SOA: "),
        ("7.99.10.in-addr.arpa.", PTR, "NXDomain + SOA: "),
        ("99.10.in-addr.arpa.", NS, "NoError: NS ns.lab.overlay.internal."),
        ("98.10.in-addr.arpa.", NS, "Refused: "),
        (
            "4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.1.0.c.5.d.f.ip6.arpa.",
            PTR,
            "NoError: PTR carol.lab.overlay.internal.",
        ),
        ("example.org.", A, "Refused: "),
        ("overlay.internal.", A, "Refused: "),
        (".", NS, "Refused: "),
    ] {
        assert_eq!(ask(&zone, name, asked), expected, "{name} {asked}");
    }
}

#[test]
fn soa_says_how_short_nothing_may_be_kept() {
    let zone = zone();
    let soa = "ns.lab.overlay.internal. hostmaster.lab.overlay.internal.";
    assert!(ask(&zone, "@", RecordType::SOA).starts_with(&format!("NoError: SOA {soa}")));
    for (name, asked) in [("dave", RecordType::A), ("carol", RecordType::A)] {
        let answer = zone.answer(&question(&format!("{name}.{DOMAIN}."), asked), false);
        let authority = answer.authority.expect("a SOA");
        let RData::SOA(soa) = &authority.data else { panic!("{authority}") };
        assert_eq!((authority.ttl, soa.minimum), (2, 2), "the smaller of the two counts (RFC 2308 section 5)");
    }
    let found = zone.answer(&question(&format!("alice.{DOMAIN}."), RecordType::A), false);
    assert_eq!(found.answers[0].ttl, 5);
}

#[test]
fn a_name_alone_that_is_somebody_elses_is_not_ours() {
    let zone = zone();
    let asked = question(&format!("Alice.short.{DOMAIN}."), RecordType::A);
    assert_eq!(zone.short_name(&asked).as_deref(), Some("alice"));
    assert_eq!(shown(&zone.answer(&asked, true)), "NXDomain + SOA: ");
    for name in ["alice", "dave.short", "short", "x.alice.short"] {
        assert_eq!(zone.short_name(&question(&format!("{name}.{DOMAIN}."), RecordType::A)), None, "{name}");
    }
}

#[test]
fn other_classes_and_whole_zones_are_refused() {
    let zone = zone();
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.set_query_class(DNSClass::CH);
    assert_eq!(shown(&zone.answer(&chaos, false)), "Refused: ");
    assert_eq!(ask(&zone, "@", RecordType::AXFR), "Refused: ");
}

#[test]
fn who_has_gone_is_found_no_more_and_who_has_changed_as_he_is_now() {
    let mut zone = zone();
    zone.remove("alice");
    assert_eq!(ask(&zone, "alice", RecordType::A), "NXDomain + SOA: ");
    assert_eq!(ask(&zone, "2.0.99.10.in-addr.arpa.", RecordType::PTR), "NXDomain + SOA: ");
    zone.put(agent("bob", &["10.99.0.9"], &[], &[]));
    assert_eq!(ask(&zone, "bob", RecordType::A), "NoError: A 10.99.0.9");
    assert_eq!(ask(&zone, "3.0.99.10.in-addr.arpa.", RecordType::PTR), "NXDomain + SOA: ");
    assert_eq!(ask(&zone, "_http._tcp", RecordType::SRV), "NXDomain + SOA: ");
}

#[test]
fn a_new_address_of_ours_leaves_the_agents_where_they_are() {
    let mut zone = zone();
    let me = agent("me-too", &["10.99.0.77"], &[], &[]);
    assert!(zone.is_of(DOMAIN) && !zone.is_of("other.overlay.internal"));
    let pools = vec!["10.99.0.0/16".parse().expect("a prefix")];
    zone.set_origin(Origin { interface: "ov0".to_owned(), domain: DOMAIN.to_owned(), pools, me });
    assert_eq!(ask(&zone, "me-too", RecordType::A), "NoError: A 10.99.0.77");
    assert_eq!(ask(&zone, "alice", RecordType::A), "NoError: A 10.99.0.2");
    assert_eq!(ask(&zone, "1.0.99.10.in-addr.arpa.", RecordType::PTR), "NXDomain + SOA: ");
    assert_eq!(ask(&zone, "2.0.99.10.in-addr.arpa.", RecordType::PTR), "NoError: PTR alice.lab.overlay.internal.");
}
