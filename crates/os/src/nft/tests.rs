//! The table's text, and what it does to packets in a network namespace of its own.

use std::io::IoSlice;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::*;
use crate::netns::isolated_async;
use crate::tun::Tun;

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

#[test]
fn the_table_is_replaced_whole_and_names_every_address() {
    let addresses = ["10.77.0.1", "fd00::1", "10.77.0.2"].map(|ip| ip.parse().unwrap());
    let expected = r#"add table inet overlay_wg-0
delete table inet overlay_wg-0
table inet overlay_wg-0 {
	chain weak_host {
		type filter hook prerouting priority raw; policy accept;
		iifname != { "lo", "wg-0" } ip daddr { 10.77.0.1, 10.77.0.2 } counter drop
		iifname != { "lo", "wg-0" } ip6 daddr { fd00::1 } counter drop
	}
}
"#;
    assert_eq!(table("wg-0", &addresses).unwrap(), expected);
}

#[test]
fn a_name_that_would_end_the_table_is_refused() {
    for name in ["", "a b", "a;flush", "a{", "a\"b", "a\nb", "ü"] {
        assert!(matches!(table(name, &[]), Err(NftError::Name)), "{name:?}");
        assert!(matches!(removal(name), Err(NftError::Name)), "{name:?}");
    }
}

#[test]
fn installing_twice_and_removing_twice_are_no_errors() {
    if !is_available() {
        return eprintln!("skipped: nft is not installed");
    }
    isolated_async(async |_| {
        let addresses = ["10.77.0.1", "fd00::1"].map(|ip| ip.parse().unwrap());
        remove("ovtest0").await.unwrap();
        install("ovtest0", &addresses).await.unwrap();
        install("ovtest0", &addresses[..1]).await.unwrap();
        let listed = ruleset();
        assert!(listed.contains("table inet overlay_ovtest0"), "{listed}");
        assert!(listed.contains("10.77.0.1") && !listed.contains("fd00::1"), "{listed}");
        remove("ovtest0").await.unwrap();
        remove("ovtest0").await.unwrap();
        assert_eq!(ruleset(), "");
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
        // Two devices that we hold the other end of: ours, and one that stands for the local network.
        let ours = Tun::create("ovtest0", false).unwrap();
        let lan = Tun::create("lan0", false).unwrap();
        netlink.add_address(ours.index(), VIRTUAL.into(), 32).await.unwrap();
        netlink.add_address(lan.index(), Ipv4Addr::new(192, 0, 2, 1).into(), 24).await.unwrap();
        for tun in [&ours, &lan] {
            netlink.set_up(tun.index()).await.unwrap();
            // The reverse path filter would otherwise decide before we do.
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
        install("ovtest0", &[VIRTUAL.into()]).await.unwrap();
        assert!(!arrives_by(&lan));
        assert!(arrives_by(&ours));
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

/// A UDP datagram of one byte from the neighbour to the virtual IP.
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
