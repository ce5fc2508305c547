//! The grammars of single values, tested in tables where complete error output would add nothing.

use overlay_golden::golden;

use super::*;
use crate::config::Endpoint;

/// Kind, message and hint of the refusal.
fn said<T>(parsed: Result<T, Problem>) -> String {
    let Err(problem) = parsed else { panic!("it is accepted") };
    format!("{}: {}\nhint: {}", problem.kind, problem.message, problem.hint.expect("every problem has a hint"))
}

#[test]
fn endpoints_are_addresses_or_host_names_with_a_port() {
    for text in ["203.0.113.7:1", "[2001:db8::7]:65535", "[fe80::1%2]:51820"] {
        assert_eq!(parse_endpoint(text).map_err(|p| p.message), Ok(Endpoint::Address(text.parse().unwrap())), "{text}");
    }
    for (text, host) in
        [("localhost:1", "localhost"), ("a-b.example.NET:1", "a-b.example.NET"), ("my_host.:1", "my_host")]
    {
        let expected = Endpoint::Name { host: host.to_owned(), port: 1 };
        assert_eq!(parse_endpoint(text).map_err(|p| p.message), Ok(expected), "{text}");
    }
    let long_label = format!("{}.net:1", "a".repeat(64));
    let long_host = format!("{}:1", vec!["a".repeat(60); 5].join("."));
    let refused = [
        "",
        " 203.0.113.7:1",
        ":51820",
        "bob",
        "bob:",
        "bob:0",
        "bob:+1",
        "bob:https",
        "2001:db8::7",
        "2001:db8::7:51820",
        "fe80::1:5182",
        "[2001:db8::7]",
        "[203.0.113.7]:51820",
        "[fe80::1%eth0]:51820",
        "udp://203.0.113.7:1/",
        "300.0.113.7:1",
        "0.0.0.0:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "bob smith:1",
        "-bob:1",
        &long_label,
        &long_host,
    ];
    for text in refused {
        golden(format!("{text:?}"), said(parse_endpoint(text)));
    }
}

#[test]
fn prefixes_have_a_length_that_fits_their_family() {
    for text in ["10.77.0.2", "10.77.0.0/24", "0.0.0.0/0", "fd00::/8", "::/0", "fd00::1"] {
        assert!(parse_allowed_ip(text).is_ok(), "{text}");
    }
    let refused = [
        "10.77.0.2/24",
        "fd00::1/64",
        "10.77.0.0/33",
        "10.77.0.0/",
        "10.77.0.0/024",
        "10.77.0.0/+24",
        "fd00::/129",
        "10.77.0.0/255.255.0.255",
        " 10.77.0.0/24",
        "10.77.0.0/24, 10.78.0.0/24",
        "10.77.0.2:80",
        "bob",
        "",
    ];
    for text in refused {
        golden(format!("{text:?}"), said(parse_allowed_ip(text)));
    }
}

#[test]
fn a_virtual_ip_is_an_address_that_a_host_can_have() {
    assert_eq!(parse_address("10.77.0.1/24").unwrap().to_string(), "10.77.0.1/24");
    for text in ["0.0.0.0", "127.0.0.1", "::1", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
        assert_eq!(parse_address(text).unwrap_err().kind, "bad_address", "{text}");
    }
}

#[test]
fn entries_of_allow_are_corrected_where_the_meaning_is_plain() {
    let refused = [
        "tpc/22",
        "TCP/22",
        "tcp:22",
        "22/tcp",
        "upd",
        "icmpv6",
        "ping",
        "all",
        "none",
        "ssh",
        "/22",
        "icmp/3",
        "47/3",
        "tcp/",
        "tcp/0",
        "tcp/70000",
        "tcp/ssh",
        "tcp/1-2-3",
        "tcp/8010-8000",
        "tcp/80,443",
        "44",
        "443",
    ];
    for text in refused {
        golden(format!("{text:?}"), said(parse_rule(text)));
    }
}

#[test]
fn scopes_are_corrected_where_the_meaning_is_plain() {
    let refused = [
        "tpc/22",
        "22/tcp",
        "all",
        "ANY",
        "any/22",
        "none",
        "",
        "ssh",
        "icmp/3",
        "tcp/",
        "tcp/70000",
        "tcp/80-22",
        "tcp/22,80",
        "tcp/22,icmp",
        "44",
        "443",
        "tcp/022",
        "017",
    ];
    for text in refused {
        let problem = check_scope(text).expect_err(text);
        golden(format!("{text:?}"), format!("{}\nhint: {}", problem.message, problem.hint.unwrap_or_default()));
    }
}

/// What people may write and what can be signed are the same.
#[test]
fn a_scope_that_passes_can_be_signed_and_no_other_can() {
    let words = ["any", "icmp", "tcp", "udp", "47", "0", "44", "58", "006", "256", "", "TCP", " tcp"];
    let ports =
        ["", "/", "/0", "/1", "/22", "/022", "/65535", "/65536", "/1-2", "/2-1", "/2-2", "/1-2-3", "/a", "/+1", "/ 1"];
    for text in words.iter().flat_map(|word| ports.map(|ports| format!("{word}{ports}"))) {
        let can_be_signed = overlay_wire::signed::Scope::parse(&text).is_ok();
        assert_eq!(check_scope(&text).is_ok(), can_be_signed, "{text:?}");
    }
}

#[test]
fn interface_names_are_those_that_the_kernel_and_the_file_system_take() {
    for name in ["overlay0", "a", "wg-lab_1.2", "fifteen-letters"] {
        assert!(check_interface_name(name).is_ok(), "{name}");
    }
    for name in
        ["", "sixteen-letters-", "a/b", "a b", "a:b", "a%d", "..", ".", "lo", "all", "default", "-rf", "größe", "a\n"]
    {
        assert!(check_interface_name(name).is_err(), "{name:?}");
    }
    assert_eq!(interface_name_of(Path::new("/etc/overlay/lab.toml")).as_deref(), Some("lab"));
    assert_eq!(interface_name_of(Path::new("/etc/overlay/two words.toml")), None);
}

#[test]
fn peer_names_are_words_and_no_addresses() {
    for name in ["bob", "bob-2.lab_a", "1"] {
        assert!(is_peer_name(name), "{name}");
    }
    for name in ["", "two words", "10.0.0.1", "größe", &"a".repeat(64)] {
        assert!(!is_peer_name(name), "{name}");
    }
}
