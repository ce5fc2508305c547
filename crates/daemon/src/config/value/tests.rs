//! The grammars of single values, tested in tables where complete error output would add nothing.

use super::*;
use crate::config::Endpoint;

fn hint_of<T>(parsed: Result<T, Problem>) -> String {
    match parsed {
        Ok(_) => "accepted".to_owned(),
        Err(problem) => problem.hint.expect("every problem has a hint"),
    }
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
        ("", "write \"host.example.net:51820\""),
        (" 203.0.113.7:1", "write \"203.0.113.7:1\""),
        (":51820", "write \"host.example.net:51820\""),
        ("bob", "write its UDP port after it: \"bob:51820\""),
        ("bob:", "write a port from 1 to 65535: \"bob:51820\""),
        ("bob:0", "write a port from 1 to 65535: \"bob:51820\""),
        ("bob:+1", "write a port from 1 to 65535: \"bob:51820\""),
        ("bob:https", "write a port from 1 to 65535: \"bob:51820\""),
        ("2001:db8::7", "write \"[2001:db8::7]:51820\""),
        ("2001:db8::7:51820", "write \"[2001:db8::7]:51820\""),
        ("fe80::1:5182", "write \"[fe80::1]:5182\" or \"[fe80::1:5182]:51820\""),
        ("[2001:db8::7]", "write its UDP port after it: \"[2001:db8::7]:51820\""),
        ("[203.0.113.7]:51820", "write \"203.0.113.7:51820\""),
        ("[fe80::1%eth0]:51820", "write the interface's index, as `ip link` shows it: \"[fe80::1%2]:51820\""),
        ("udp://203.0.113.7:1/", "leave `udp://` out: \"203.0.113.7:1\""),
        ("300.0.113.7:1", "an IPv4 address is four numbers from 0 to 255, as \"203.0.113.7:51820\""),
        ("0.0.0.0:1", "write the address of the peer's own host; leave `endpoint` out if the peer calls us"),
        ("224.0.0.1:1", "write the address of the peer's own host; leave `endpoint` out if the peer calls us"),
        ("255.255.255.255:1", "write the address of the peer's own host; leave `endpoint` out if the peer calls us"),
        ("bob smith:1", "write it as \"203.0.113.7:51820\", \"[2001:db8::7]:51820\" or \"host.example.net:51820\""),
        ("-bob:1", "write it as \"203.0.113.7:51820\", \"[2001:db8::7]:51820\" or \"host.example.net:51820\""),
        (&long_label, "write it as \"203.0.113.7:51820\", \"[2001:db8::7]:51820\" or \"host.example.net:51820\""),
        (&long_host, "write it as \"203.0.113.7:51820\", \"[2001:db8::7]:51820\" or \"host.example.net:51820\""),
    ];
    for (text, hint) in refused {
        assert_eq!(hint_of(parse_endpoint(text)), hint, "{text}");
    }
}

#[test]
fn prefixes_have_a_length_that_fits_their_family() {
    for text in ["10.77.0.2", "10.77.0.0/24", "0.0.0.0/0", "fd00::/8", "::/0", "fd00::1"] {
        assert!(parse_allowed_ip(text).is_ok(), "{text}");
    }
    let refused = [
        ("10.77.0.2/24", "write 10.77.0.0/24 for the whole network or 10.77.0.2/32 for this address alone"),
        ("fd00::1/64", "write fd00::/64 for the whole network or fd00::1/128 for this address alone"),
        ("10.77.0.0/33", "write \"10.77.0.0/32\" for this address alone"),
        ("10.77.0.0/", "write \"10.77.0.0/32\" for this address alone"),
        ("10.77.0.0/024", "write \"10.77.0.0/32\" for this address alone"),
        ("10.77.0.0/+24", "write \"10.77.0.0/32\" for this address alone"),
        ("fd00::/129", "write \"fd00::/128\" for this address alone"),
        ("10.77.0.0/255.255.0.255", "write a length from 0 to 32"),
        (" 10.77.0.0/24", "write \"10.77.0.0/24\""),
        ("10.77.0.0/24, 10.78.0.0/24", "write each in quotes of its own, with a comma between"),
        ("10.77.0.2:80", "write it as \"10.77.0.2/32\""),
        ("bob", "write an address and a length, as \"10.77.0.2/32\""),
        ("", "write an address and a length, as \"10.77.0.2/32\""),
    ];
    for (text, hint) in refused {
        assert_eq!(hint_of(parse_allowed_ip(text)), hint, "{text}");
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
    let grammar = "write \"icmp\", \"tcp\", \"udp\", \"tcp/22\", \"udp/8000-8010\" or the number of an IP protocol";
    let range = "write a port or a range of them, as \"tcp/22\" or \"tcp/8000-8010\"; \"tcp\" is all ports";
    let refused = [
        ("tpc/22", "did you mean \"tcp/22\"?"),
        ("TCP/22", "did you mean \"tcp/22\"?"),
        ("tcp:22", "did you mean \"tcp/22\"?"),
        ("22/tcp", "did you mean \"tcp/22\"?"),
        ("upd", "did you mean \"udp\"?"),
        ("icmpv6", "did you mean \"icmp\"?"),
        ("ping", "did you mean \"icmp\"?"),
        ("all", "leave `allow` out to allow everything"),
        ("none", "write allow = [] to allow nothing but answers"),
        ("ssh", grammar),
        ("/22", grammar),
        ("icmp/3", "write \"icmp\""),
        ("47/3", "write \"47\""),
        ("tcp/", range),
        ("tcp/0", range),
        ("tcp/70000", range),
        ("tcp/ssh", range),
        ("tcp/1-2-3", range),
        ("tcp/8010-8000", "write \"tcp/8000-8010\""),
        ("tcp/80,443", "write each as an entry of its own: \"tcp/80\", \"tcp/443\""),
        ("44", "leave it out: extension headers are passed with the protocol they carry"),
        ("443", "a port is written with its protocol, as \"tcp/443\""),
    ];
    for (text, hint) in refused {
        assert_eq!(hint_of(parse_rule(text)), hint, "{text}");
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
