//! The table's text, and its effect on packets in a separate network namespace.

use std::io::IoSlice;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::*;
use crate::netns::isolated_async;
use crate::tun::Tun;

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

fn table(interface: &str, addresses: &[&str]) -> Table {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Table { interface: interface.to_owned(), addresses, ..Table::default() }
}

fn nothing() -> Counters {
    Counters::default()
}

#[test]
fn the_table_is_replaced_whole_and_names_every_address() {
    let table = Table { own: vec![3, 7], ..table("wg-0", &["10.77.0.1", "fd00::1", "10.77.0.2"]) };
    let expected = r#"add table inet overlay_wg-0
delete table inet overlay_wg-0
table inet overlay_wg-0 {
	counter weak_host { packets 5 bytes 0 }
	counter outside_tunnel { packets 6 bytes 0 }
	chain weak_host {
		type filter hook prerouting priority raw; policy accept;
		iifname != { "lo", "wg-0" } ip daddr { 10.77.0.1, 10.77.0.2 } iif != { 3, 7 } counter name weak_host drop
		iifname != { "lo", "wg-0" } ip6 daddr { fd00::1 } iif != { 3, 7 } counter name weak_host drop
	}
}
"#;
    assert_eq!(table.text(Counters { weak_host: 5, outside_tunnel: 6 }, Switched::Pass).unwrap(), expected);
}

#[test]
fn a_lock_lets_out_what_is_marked_or_direct_or_stays_on_the_link() {
    let direct = [("10.1.0.0", "10.1.0.255"), ("192.0.2.1", "192.0.2.1"), ("fd01::", "fd01::ffff")];
    let direct = direct.map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap())).into();
    let lock = Lock { v4: true, v6: false, marks: vec![51820, 99], direct };
    let table = Table { lock: Some(lock), ..table("wg-0", &["10.77.0.1"]) };
    let text = table.text(nothing(), Switched::Pass).unwrap();
    let without = table.text(nothing(), Switched::Locked).unwrap();
    let switched =
        "\t\tmeta skuid != 4294967295 goto by_the_host\n\t\tmeta oifkind \"bridge\" fib saddr type != local accept\n";
    assert_eq!(without, text.replace(switched, ""));
    assert_ne!(without, text);
    let chain = &text[text.find("\tchain outside_tunnel").unwrap()..];
    let expected = r#"	chain outside_tunnel {
		type filter hook postrouting priority raw; policy accept;
		oifname { "lo", "wg-0" } accept
		meta mark { 51820, 99 } accept
		ip daddr { 10.1.0.0-10.1.0.255, 192.0.2.1 } accept
		ip6 daddr { fd01::-fd01::ffff } accept
		ip daddr { 224.0.0.0/24, 255.255.255.255 } accept
		ip6 daddr { fe80::/10, ff01::/16, ff02::/16 } accept
		iif != 0 goto closed
		meta skuid != 4294967295 goto by_the_host
		meta oifkind "bridge" fib saddr type != local accept
		goto by_the_host
	}
	chain by_the_host {
		jump names
		udp sport 68 udp dport 67 accept
		udp sport 546 udp dport 547 accept
		icmpv6 type { 133, 134, 135, 136 } ip6 hoplimit 255 accept
		ip protocol igmp ip ttl 1 accept
		goto closed
	}
	chain names {
	}
	chain closed {
		meta nfproto ipv4 counter name outside_tunnel drop
	}
}
"#;
    assert_eq!(chain, expected);
}

#[test]
fn a_name_that_would_end_the_table_is_refused() {
    for name in ["", "a b", "a;flush", "a{", "a\"b", "a\nb", "ü", "a/b"] {
        assert!(matches!(table(name, &[]).text(nothing(), Switched::Pass), Err(NftError::Name)), "{name:?}");
        assert!(matches!(removal(name), Err(NftError::Name)), "{name:?}");
    }
    assert_eq!(table_name("a+b=c").unwrap(), "overlay_a/2b/b/3d/c");
}

#[test]
fn installing_twice_and_removing_twice_are_no_errors() {
    if !is_available() {
        return eprintln!("skipped: nft is not installed");
    }
    isolated_async(async |_| {
        for name in ["ovtest0", "ov+t=0"] {
            remove(name).await.unwrap();
            install(&table(name, &["10.77.0.1", "fd00::1"]), nothing()).await.unwrap();
            install(&table(name, &["10.77.0.1"]), nothing()).await.unwrap();
            let listed = ruleset();
            assert!(listed.contains(&format!("table inet {}", table_name(name).unwrap())), "{listed}");
            assert!(listed.contains("10.77.0.1") && !listed.contains("fd00::1"), "{listed}");
            remove(name).await.unwrap();
            remove(name).await.unwrap();
            assert_eq!(ruleset(), "");
        }
    });
}

#[test]
fn a_table_that_was_touched_has_another_shape() {
    if !is_available() {
        return eprintln!("skipped: nft is not installed");
    }
    isolated_async(async |_| {
        let lock = Lock { v4: true, v6: true, marks: vec![7], direct: Vec::new() };
        let ours = Table { own: vec![5], lock: Some(lock), ..table("ovtest0", &["10.77.0.1", "fd00::1"]) };
        assert_eq!(shape("ovtest0").unwrap(), None);
        let touches = [
            "flush ruleset",
            "flush table inet overlay_ovtest0",
            "flush chain inet overlay_ovtest0 closed",
            "insert rule inet overlay_ovtest0 weak_host accept",
            "add table inet overlay_ovtest0 { flags dormant; }",
            "add chain inet overlay_ovtest0 weak_host { policy drop; }",
        ];
        for touch in touches {
            let installed = install(&ours, nothing()).await.unwrap();
            assert_eq!(shape("ovtest0").unwrap().as_ref(), Some(&installed), "nobody touched it");
            run("add table inet theirs\nflush table inet theirs\n").await.unwrap();
            assert_eq!(shape("ovtest0").unwrap().as_ref(), Some(&installed), "somebody else's table changed");
            run(&format!("{touch}\n")).await.unwrap();
            assert_ne!(shape("ovtest0").unwrap(), Some(installed), "{touch}");
        }
    });
}

#[test]
fn counters_go_on_when_the_table_is_replaced() {
    if !is_available() {
        return eprintln!("skipped: nft is not installed");
    }
    isolated_async(async |_| {
        assert_eq!(counters("ovtest0").unwrap(), None);
        let remembered = Counters { weak_host: 3, outside_tunnel: 1 << 40 };
        install(&table("ovtest0", &["10.77.0.1"]), remembered).await.unwrap();
        assert_eq!(counters("ovtest0").unwrap(), Some(remembered));
        install(&table("ovtest0", &["10.77.0.2"]), nothing()).await.unwrap();
        assert_eq!(counters("ovtest0").unwrap(), Some(remembered), "not what is remembered, but what stood");
    });
}

#[test]
fn what_nft_refuses_is_reported_in_its_words() {
    if !is_available() {
        return eprintln!("skipped: nft is not installed");
    }
    isolated_async(async |_| {
        let error = run("add rule inet nowhere nothing drop\n").await.unwrap_err();
        let NftError::Refused(said) = error else { panic!("{error}") };
        assert!(said.contains("No such file or directory"), "{said}");
    });
}

#[test]
fn a_virtual_ip_answers_on_our_interface_and_loopback_only() {
    if !is_available() || !Path::new("/dev/net/tun").exists() {
        return eprintln!("skipped: nft or /dev/net/tun is missing");
    }
    isolated_async(async |netlink| {
        // Two devices whose remote end we hold: our interface, and one that stands for the local network.
        let ours = Tun::create("ovtest0", false).unwrap();
        let lan = Tun::create("lan0", false).unwrap();
        netlink.add_address(ours.index(), VIRTUAL.into(), 32).await.unwrap();
        netlink.add_address(lan.index(), Ipv4Addr::new(192, 0, 2, 1).into(), 24).await.unwrap();
        for tun in [&ours, &lan] {
            netlink.set_up(tun.index()).await.unwrap();
            // The reverse path filter would otherwise decide first.
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{}/rp_filter", tun.name()), "0").unwrap();
        }
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
        let socket = UdpSocket::bind((VIRTUAL, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let port = socket.local_addr().unwrap().port();
        let arrives_by = |tun: &Tun| {
            tun.write(&[IoSlice::new(&packet(port))]).unwrap();
            socket.recv(&mut [0; 10]).is_ok()
        };

        assert!(arrives_by(&ours) && arrives_by(&lan), "a weak host takes it from anywhere");
        let guarded = table("ovtest0", &["10.77.0.1"]);
        install(&guarded, nothing()).await.unwrap();
        assert!(!arrives_by(&lan));
        assert_eq!(counters("ovtest0").unwrap(), Some(Counters { weak_host: 1, outside_tunnel: 0 }));
        assert!(arrives_by(&ours));
        install(&Table { own: vec![lan.index()], ..guarded.clone() }, nothing()).await.unwrap();
        assert!(arrives_by(&lan), "an own interface");
        install(&guarded, nothing()).await.unwrap();
        assert!(!arrives_by(&lan));
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", (VIRTUAL, port)).unwrap();
        assert!(socket.recv(&mut [0; 10]).is_ok(), "loopback");
        remove("ovtest0").await.unwrap();
        assert!(arrives_by(&lan));
    });
}

fn ruleset() -> String {
    let output = std::process::Command::new(program().unwrap()).args(["list", "ruleset"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A one-byte UDP datagram from the neighbour to the virtual IP.
fn packet(port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(NEIGHBOUR.octets());
    packet.extend(VIRTUAL.octets());
    let checksum = overlay_wire::checksum::finish(overlay_wire::checksum::sum(&packet));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([0x07, 0xd0]);
    packet.extend(port.to_be_bytes());
    packet.extend([0, 9, 0, 0, b'x']);
    packet
}
