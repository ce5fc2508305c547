//! The kernel's TUN device, in separate network namespaces.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::netlink::Netlink;
use crate::netns::{drop_capabilities, isolated_async};
use crate::poll::Poller;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const VIRTIO_LEN: usize = overlay_wire::offload::VIRTIO_HEADER_LEN;

/// Creates a device with an address and brings it up. Returns `None`, and prints the reason, if this machine cannot.
async fn device(netlink: &Netlink, offload: bool) -> Option<Tun> {
    if !Path::new(CONTROL_DEVICE).exists() {
        eprintln!("skipped: there is no {CONTROL_DEVICE}");
        return None;
    }
    let tun = Tun::create("ovtest0", offload).unwrap();
    netlink.set_addr_gen_mode_none(tun.index()).await.unwrap();
    netlink.add_address(tun.index(), OURS.into(), 24).await.unwrap();
    netlink.set_up(tun.index()).await.unwrap();
    Some(tun)
}

/// The next IPv4 packet, and the header that the device puts in front of it.
fn next_ipv4(tun: &Tun, header_len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut poller = Poller::new().unwrap();
    poller.add(tun, 0).unwrap();
    let mut buffer = vec![0; VIRTIO_LEN + 65_535];
    loop {
        assert!(poller.wait(Some(Duration::from_secs(2))).unwrap().next().is_some(), "no packet came");
        let len = tun.read(&mut buffer).unwrap();
        if buffer[header_len] >> 4 == 4 {
            return (buffer[..header_len].to_vec(), buffer[header_len..len].to_vec());
        }
    }
}

/// An IPv4 packet with a UDP datagram without checksum, from 10.9.0.2:2000 to 10.9.0.1:`port`.
fn udp_packet(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(THEIRS.octets());
    packet.extend(OURS.octets());
    packet[2..4].copy_from_slice(&(28 + payload.len() as u16).to_be_bytes());
    let checksum = overlay_wire::checksum::finish(overlay_wire::checksum::sum(&packet));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(2000u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend((8 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

#[test]
fn a_packet_that_the_kernel_routes_to_it_is_read_and_one_that_is_written_arrives() {
    isolated_async(async |netlink| both_directions(&netlink, false).await);
}

#[test]
fn with_offload_packets_travel_behind_a_virtio_header() {
    isolated_async(async |netlink| both_directions(&netlink, true).await);
}

async fn both_directions(netlink: &Netlink, offload: bool) {
    let Some(tun) = device(netlink, offload).await else { return };
    assert_eq!((tun.name(), tun.has_offload()), ("ovtest0", offload));
    let header_len = if offload { VIRTIO_LEN } else { 0 };

    let socket = UdpSocket::bind((OURS, 0)).unwrap();
    socket.send_to(b"outbound", (THEIRS, 2000)).unwrap();
    let (header, packet) = next_ipv4(&tun, header_len);
    // With offload the kernel leaves the checksum to us: flag 1, checksum field at 20 + 6.
    assert_eq!(header, if offload { vec![1, 0, 0, 0, 0, 0, 20, 0, 6, 0] } else { vec![] });
    assert_eq!(packet[12..20], [10, 9, 0, 1, 10, 9, 0, 2]);
    assert_eq!(packet[28..], *b"outbound");

    let packet = udp_packet(socket.local_addr().unwrap().port(), b"inbound");
    let header = [0; VIRTIO_LEN];
    let (head, tail) = packet.split_at(20);
    let parts = [&header[..header_len], head, tail].map(IoSlice::new);
    assert_eq!(tun.write(&parts).unwrap(), header_len + packet.len());
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 100];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"inbound"[..], (THEIRS, 2000).into()));
}

#[test]
fn with_offload_a_train_is_handed_over_whole() {
    isolated_async(async |netlink| {
        let Some(tun) = device(&netlink, true).await else {
            return;
        };
        // UDP is used instead of TCP, which would need a peer that answers.
        if !tun.has_udp_offload() {
            return eprintln!("skipped: this kernel's TUN does not join UDP (Linux 6.2)");
        }
        let options = crate::udp::BindOptions {
            port: 0,
            fwmark: None,
            receive_buffer: 1 << 20,
            send_buffer: 1 << 20,
            segmentation: true,
            coalescing: true,
        };
        let socket = crate::udp::UdpSocket::bind(crate::udp::Family::V4, &options).unwrap();
        let destination = (THEIRS, 2000).into();
        let train = crate::udp::Transmit::to(destination, &[7; 10_000], 1000);
        socket.send(&train).unwrap();
        let (header, packet) = next_ipv4(&tun, VIRTIO_LEN);
        assert_eq!(packet.len(), 28 + 10_000);
        // GSO type 5 is UDP, with segments of 1,000 bytes.
        assert_eq!((header[1], u16::from_le_bytes([header[4], header[5]])), (5, 1000));
    });
}

#[test]
fn reading_never_waits_and_writing_before_it_is_up_is_eio() {
    isolated_async(async |_| {
        if !Path::new(CONTROL_DEVICE).exists() {
            return eprintln!("skipped: there is no {CONTROL_DEVICE}");
        }
        let tun = Tun::create("ovtest0", false).unwrap();
        assert_eq!(tun.read(&mut [0; 100]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let error = tun.write(&[IoSlice::new(&udp_packet(1, b""))]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    });
}

#[test]
fn the_interface_is_down_without_an_address_and_goes_with_the_value() {
    isolated_async(async |netlink| {
        if !Path::new(CONTROL_DEVICE).exists() {
            return eprintln!("skipped: there is no {CONTROL_DEVICE}");
        }
        let tun = Tun::create("ovtest0", true).unwrap();
        let link = netlink.link("ovtest0").await.unwrap().unwrap();
        assert_eq!((link.index, link.up, link.kind.as_deref()), (tun.index(), false, Some("tun")));
        assert!(netlink.addresses().await.unwrap().iter().all(|address| address.index != tun.index()));
        drop(tun);
        // A process that another test is just starting holds a copy of the device's descriptor until its exec.
        let deadline = crate::clock::boottime() + Duration::from_secs(2);
        while netlink.link("ovtest0").await.unwrap().is_some() {
            assert!(crate::clock::boottime() < deadline, "the interface stays");
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn as_many_packets_wait_to_be_read_as_the_queue_is_long_and_the_others_are_counted() {
    isolated_async(async |netlink| {
        let Some(tun) = device(&netlink, true).await else { return };
        netlink.set_tx_queue_len(tun.index(), 20).await.unwrap();
        assert_eq!(netlink.link(tun.name()).await.unwrap().unwrap().tx_queue_len, 20);
        let socket = UdpSocket::bind((OURS, 0)).unwrap();
        for number in 0..50u8 {
            socket.send_to(&[number], (THEIRS, 2000)).unwrap();
        }
        assert_eq!(dropped_packets(tun.name()).unwrap(), Some(30));
        let mut buffer = vec![0; VIRTIO_LEN + 65_535];
        let waited: Vec<u8> = std::iter::from_fn(|| tun.read(&mut buffer).ok().map(|len| buffer[len - 1])).collect();
        assert_eq!(waited, (0..20).collect::<Vec<_>>());
        // There is space again.
        socket.send_to(&[99], (THEIRS, 2000)).unwrap();
        let len = tun.read(&mut buffer).unwrap();
        assert_eq!((buffer[len - 1], dropped_packets(tun.name()).unwrap()), (99, Some(30)));
    });
}

#[test]
fn an_interface_that_exists_is_never_adopted() {
    isolated_async(async |_| {
        if !Path::new(CONTROL_DEVICE).exists() {
            return eprintln!("skipped: there is no {CONTROL_DEVICE}");
        }
        assert!(matches!(Tun::create("lo", true), Err(TunError::Busy)));
        let held = Tun::create("held", true).unwrap();
        assert!(matches!(Tun::create(held.name(), true), Err(TunError::Busy)));
        let status = Command::new("ip").args(["tuntap", "add", "persists", "mode", "tun"]).status().unwrap();
        assert!(status.success());
        assert!(matches!(Tun::create("persists", true), Err(TunError::Busy)));
    });
}

#[test]
fn without_net_admin_it_is_not_permitted() {
    isolated_async(async |_| {
        if !Path::new(CONTROL_DEVICE).exists() {
            return eprintln!("skipped: there is no {CONTROL_DEVICE}");
        }
        drop_capabilities();
        assert!(matches!(Tun::create("ovtest0", true), Err(TunError::Permission)));
    });
}

#[test]
fn names_that_no_interface_can_have_are_refused() {
    for name in ["", "sixteen_bytes_xx", "a/b", "tun%d", "a b"] {
        assert!(matches!(Tun::create(name, false), Err(TunError::Name)), "{name}");
    }
}

#[test]
fn errno_has_the_meaning_that_a_user_can_act_on() {
    let meaning = |errno| classify(io::Error::from_raw_os_error(errno), "lo");
    assert!(matches!(meaning(libc::EPERM), TunError::Permission));
    assert!(matches!(meaning(libc::ENODEV), TunError::NoDevice));
    assert!(matches!(meaning(libc::EBUSY), TunError::Busy));
    assert!(matches!(meaning(libc::EINVAL), TunError::Busy), "loopback is not a TUN");
    let elsewhere = classify(io::Error::from_raw_os_error(libc::EINVAL), "nobody-has-this");
    assert!(matches!(elsewhere, TunError::Io(_)));
    assert!(matches!(meaning(libc::EMFILE), TunError::Io(_)));
}
