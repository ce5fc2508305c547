//! Trains over loopback, as the kernel really carries them.

mod fragmentation;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::netns::{drop_capabilities, isolated, isolated_async};
use crate::poll::Poller;

pub(super) fn options() -> BindOptions {
    BindOptions {
        port: 0,
        fwmark: None,
        receive_buffer: 4 << 20,
        send_buffer: 4 << 20,
        segmentation: true,
        coalescing: true,
    }
}

/// Two sockets, and the address of the second.
pub(super) fn pair(family: Family, sender: &BindOptions, receiver: &BindOptions) -> (UdpSocket, UdpSocket, SocketAddr) {
    let (a, b) = (UdpSocket::bind(family, sender).unwrap(), UdpSocket::bind(family, receiver).unwrap());
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let to_b = SocketAddr::new(ip, b.local_port());
    (a, b, to_b)
}

pub(super) fn train(destination: SocketAddr, contents: &[u8], segment_size: usize) -> Transmit<'_> {
    Transmit::to(destination, contents, segment_size)
}

/// `count` different datagrams of `len` bytes.
pub(super) fn datagrams(count: usize, len: usize) -> Vec<u8> {
    (0..count).flat_map(|n| (0..len).map(move |at| (n * 31 + at) as u8)).collect()
}

/// Receives for up to a second, until `len` bytes have arrived. Returns each train as `(stride, length)`, and the
/// bytes.
pub(super) fn receive_all(socket: &UdpSocket, len: usize) -> (Vec<(usize, usize)>, Vec<u8>) {
    let mut batch = ReceiveBatch::new(8);
    let (mut shapes, mut bytes) = (Vec::new(), Vec::new());
    while bytes.len() < len && is_readable(socket) {
        socket.receive(&mut batch, usize::MAX).unwrap();
        for received in batch.iter_mut() {
            assert!(!received.truncated);
            shapes.push((received.stride, received.contents.len()));
            bytes.extend_from_slice(received.contents);
        }
    }
    (shapes, bytes)
}

fn is_readable(socket: &UdpSocket) -> bool {
    let mut poller = Poller::new().unwrap();
    poller.add(socket, 0).unwrap();
    poller.wait(Some(Duration::from_secs(1))).unwrap().next().is_some()
}

/// Receives the one waiting datagram or train.
fn receive_one<T>(socket: &UdpSocket, look: impl Fn(Received<'_>) -> T) -> T {
    assert!(is_readable(socket), "nothing arrived");
    let mut batch = ReceiveBatch::new(2);
    assert_eq!(socket.receive(&mut batch, usize::MAX).unwrap(), 1);
    batch.iter_mut().map(look).next().unwrap()
}

#[test]
fn a_batch_asks_for_as_many_trains_as_would_bring_the_bytes_that_are_wanted() {
    let (a, b, to_b) = pair(Family::V4, &options(), &options());
    let mut batch = ReceiveBatch::new(8);
    assert_eq!(batch.slots_for(1), 8, "nothing is known of their length yet");
    for len in [1_000, 3_000] {
        a.send(&train(to_b, &datagrams(1, len), len)).unwrap();
    }
    assert!(is_readable(&b));
    assert_eq!(b.receive(&mut batch, 8).unwrap(), 2);
    assert_eq!([0, 1_999, 4_000, 100_000].map(|len| batch.slots_for(len)), [1, 1, 2, 8]);
    assert_eq!(b.receive(&mut batch, 8).unwrap(), 0);
    assert_eq!(batch.slots_for(4_000), 2, "an empty receive says nothing of it");
}

#[test]
fn no_more_trains_are_received_than_asked_for() {
    let (a, b, to_b) = pair(Family::V4, &options(), &options());
    for _ in 0..3 {
        a.send(&train(to_b, &datagrams(1, 100), 100)).unwrap();
    }
    assert!(is_readable(&b));
    let mut batch = ReceiveBatch::new(8);
    assert_eq!([2, 8].map(|slots| b.receive(&mut batch, slots).unwrap()), [2, 1]);
}

#[test]
fn a_train_arrives_with_its_stride_and_a_shorter_last_datagram() {
    for family in [Family::V4, Family::V6] {
        let (a, b, to_b) = pair(family, &options(), &options());
        let contents = &datagrams(10, 1000)[..9_500];
        a.send(&train(to_b, contents, 1000)).unwrap();
        let (shapes, bytes) = receive_all(&b, contents.len());
        assert!(bytes == contents, "{family:?}");
        assert!(a.max_segments() >= 64);
        // Loopback delivers the train whole.
        assert_eq!(shapes, [(1000, 9_500)], "{family:?}");
    }
}

#[test]
fn a_train_arrives_in_pieces_where_the_receiver_does_not_coalesce() {
    let (a, b, to_b) = pair(Family::V4, &options(), &BindOptions { coalescing: false, ..options() });
    let contents = &datagrams(10, 1000)[..9_500];
    a.send(&train(to_b, contents, 1000)).unwrap();
    let (shapes, bytes) = receive_all(&b, contents.len());
    assert!(bytes == contents);
    assert_eq!(shapes.len(), 10);
    assert_eq!((shapes[0], shapes[9]), ((1000, 1000), (500, 500)));
}

#[test]
fn a_train_goes_out_without_segmentation_too() {
    let without = BindOptions { segmentation: false, ..options() };
    let (a, b, to_b) = pair(Family::V6, &without, &BindOptions { coalescing: false, ..options() });
    assert_eq!(a.max_segments(), 1);
    // More than one sendmmsg carries.
    let contents = &datagrams(150, 100)[..14_901];
    a.send(&train(to_b, contents, 100)).unwrap();
    let (shapes, bytes) = receive_all(&b, contents.len());
    assert!(bytes == contents);
    assert_eq!((shapes.len(), shapes[149]), (150, (1, 1)));
}

#[test]
fn a_train_longer_than_one_send_is_cut_between_datagrams() {
    let (a, b, to_b) = pair(Family::V4, &options(), &options());
    // A super-packet of 64 KiB becomes 47 datagrams of 1,452 bytes. One send carries 45 of them.
    let contents = datagrams(47, 1452);
    a.send(&train(to_b, &contents, 1452)).unwrap();
    let (shapes, bytes) = receive_all(&b, contents.len());
    assert!(bytes == contents);
    assert_eq!(shapes, [(1452, 45 * 1452), (1452, 2 * 1452)]);

    let contents = datagrams(300, 16);
    a.send(&train(to_b, &contents, 16)).unwrap();
    let (shapes, bytes) = receive_all(&b, contents.len());
    assert!(bytes == contents);
    assert!(shapes.iter().all(|(stride, len)| *stride == 16 && len % 16 == 0 && *len <= 16 * a.max_segments()));
}

#[test]
fn a_train_of_datagrams_above_the_mtu_is_fragmented_and_segmentation_stays() {
    isolated_async(async |netlink| {
        let loopback = netlink.link("lo").await.unwrap().unwrap();
        netlink.set_mtu(loopback.index, 1400).await.unwrap();
        for family in [Family::V4, Family::V6] {
            let (a, b, to_b) = pair(family, &options(), &options());
            let contents = datagrams(5, 1452);
            a.send(&train(to_b, &contents, 1452)).unwrap();
            let (_, bytes) = receive_all(&b, contents.len());
            assert!(bytes == contents, "{family:?}");
            assert!(a.max_segments() > 1, "{family:?}");
        }
    });
}

#[test]
fn the_longest_datagram_goes_through_and_a_longer_one_is_an_error() {
    let (a, b, to_b) = pair(Family::V4, &options(), &options());
    let contents = datagrams(1, 65_508);
    a.send(&train(to_b, &contents[..65_507], 65_507)).unwrap();
    let (shapes, bytes) = receive_all(&b, 65_507);
    assert!(bytes == contents[..65_507]);
    assert_eq!(shapes, [(65_507, 65_507)]);
    let error = a.send(&train(to_b, &contents, 65_508)).unwrap_err();
    assert!(matches!(error, SendError::MessageTooLong), "{error}");
}

#[test]
fn an_empty_datagram_is_no_train_and_an_empty_socket_no_error() {
    let (a, b, to_b) = pair(Family::V4, &options(), &options());
    let mut batch = ReceiveBatch::new(4);
    assert_eq!(b.receive(&mut batch, usize::MAX).unwrap(), 0);
    assert_eq!(batch.iter_mut().count(), 0);
    a.send(&train(to_b, &[], 1)).unwrap();
    assert_eq!(b.receive(&mut batch, usize::MAX).unwrap(), 0);
    // An empty datagram can come from any other sender.
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[], to_b).unwrap();
    receive_one(&b, |received| assert_eq!((received.contents.len(), received.stride), (0, 0)));
}

#[test]
fn a_datagram_says_which_address_it_came_to_and_the_answer_leaves_from_there() {
    let loopback = crate::interface::index_of("lo").unwrap().unwrap();
    let (a, b, to_b) = pair(Family::V4, &options(), &options());
    let second: SocketAddr = ([127, 0, 0, 2], to_b.port()).into();
    a.send(&train(second, b"question", 8)).unwrap();
    let (source, local) = receive_one(&b, |received| (received.source, received.local));
    assert_eq!(local, Some((second.ip(), loopback)));
    assert_eq!(source.port(), a.local_port());

    b.send(&Transmit { source: local, ..train(source, b"answer", 6) }).unwrap();
    assert_eq!(receive_one(&a, |received| received.source), second);
}

#[test]
fn an_ipv6_datagram_says_where_it_came_to() {
    let loopback = crate::interface::index_of("lo").unwrap().unwrap();
    let (a, b, to_b) = pair(Family::V6, &options(), &options());
    let source = Some((Ipv6Addr::LOCALHOST.into(), loopback));
    a.send(&Transmit { source, ..train(to_b, b"question", 8) }).unwrap();
    receive_one(&b, |received| {
        assert_eq!(received.local, Some((to_b.ip(), loopback)));
        assert_eq!(received.source, SocketAddr::new(to_b.ip(), a.local_port()));
    });
}

#[test]
fn a_source_that_is_no_longer_ours_is_forgotten() {
    for (family, gone) in [(Family::V4, "192.0.2.77"), (Family::V6, "2001:db8::77")] {
        let (a, b, to_b) = pair(family, &options(), &options());
        for interface in [0, 9999] {
            let source = Some((gone.parse().unwrap(), interface));
            let contents = datagrams(3, 100);
            a.send(&Transmit { source, ..train(to_b, &contents, 100) }).unwrap();
            let (_, bytes) = receive_all(&b, contents.len());
            assert!(bytes == contents, "{gone} by {interface}");
        }
        assert!(a.max_segments() > 1);
    }
}

#[test]
fn ecn_bits_are_carried_both_ways() {
    for family in [Family::V4, Family::V6] {
        let (a, b, to_b) = pair(family, &options(), &options());
        for ecn in 0..=3 {
            a.send(&Transmit { traffic_class: ecn, ..train(to_b, &datagrams(4, 100), 100) }).unwrap();
            assert_eq!(receive_one(&b, |received| received.ecn), ecn, "{family:?}");
        }
    }
}

#[test]
fn a_socket_begins_without_dont_fragment() {
    let a = UdpSocket::bind(Family::V4, &options()).unwrap();
    let b = UdpSocket::bind(Family::V6, &options()).unwrap();
    assert_eq!(option(a.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER).unwrap(), libc::IP_PMTUDISC_DONT);
    assert_eq!(option(b.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER).unwrap(), libc::IPV6_PMTUDISC_DONT);
}

#[test]
fn a_port_in_use_says_so_and_the_families_do_not_share_one() {
    let first = UdpSocket::bind(Family::V4, &options()).unwrap();
    let same = BindOptions { port: first.local_port(), ..options() };
    assert!(matches!(UdpSocket::bind(Family::V4, &same), Err(BindError::PortInUse)));
    let other = UdpSocket::bind(Family::V6, &same).unwrap();
    assert_eq!((other.local_port(), other.family()), (first.local_port(), Family::V6));
}

#[test]
fn a_mark_is_set_changed_and_taken_away() {
    if !crate::privileges::has_net_admin() {
        return eprintln!("skipped: marks need CAP_NET_ADMIN");
    }
    let mark = |socket: &UdpSocket| option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MARK).unwrap() as u32;
    let socket = UdpSocket::bind(Family::V4, &BindOptions { fwmark: Some(0xca6c_0001), ..options() }).unwrap();
    assert_eq!(mark(&socket), 0xca6c_0001);
    socket.set_fwmark(Some(7)).unwrap();
    assert_eq!(mark(&socket), 7);
    socket.set_fwmark(None).unwrap();
    assert_eq!(mark(&socket), 0);
}

#[test]
fn a_mark_and_a_low_port_need_privileges() {
    isolated(|| {
        drop_capabilities();
        for refused in [BindOptions { fwmark: Some(1), ..options() }, BindOptions { port: 1, ..options() }] {
            let result = UdpSocket::bind(Family::V4, &refused);
            assert!(matches!(result, Err(BindError::Permission)), "{result:?}");
        }
        // If the administrator allows only smaller buffers, that is not an error.
        UdpSocket::bind(Family::V4, &BindOptions { receive_buffer: 1 << 30, ..options() }).unwrap();
    });
}

#[test]
fn without_a_route_the_destination_is_unreachable() {
    isolated(|| {
        let (a, _, to_b) = pair(Family::V4, &options(), &options());
        for contents in [&b"one"[..], &[0; 3000]] {
            let error = a.send(&train(to_b, contents, 1000)).unwrap_err();
            assert!(matches!(error, SendError::Unreachable(_)), "{error}");
        }
    });
}

#[test]
fn the_other_family_is_unreachable() {
    let socket = UdpSocket::bind(Family::V4, &options()).unwrap();
    let error = socket.send(&train("[::1]:9".parse().unwrap(), b"x", 1)).unwrap_err();
    assert!(matches!(error, SendError::Unreachable(_)), "{error}");
}

#[test]
fn errno_has_the_meaning_that_a_sender_can_act_on() {
    let meaning = |errno| SendError::from(io::Error::from_raw_os_error(errno));
    assert!(matches!(meaning(libc::EAGAIN), SendError::WouldBlock));
    assert!(matches!(meaning(libc::ENOBUFS), SendError::WouldBlock));
    assert!(matches!(meaning(libc::EMSGSIZE), SendError::MessageTooLong));
    assert!(matches!(meaning(libc::EPERM), SendError::Unreachable(_)));
    assert!(matches!(meaning(libc::EIO), SendError::Io(_)));
}
