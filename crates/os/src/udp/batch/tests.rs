//! Many trains in few system calls, over loopback.

use std::net::SocketAddr;

use super::*;
use crate::netns::{isolated, isolated_async};
use crate::refusal::{Argument, refuse};
use crate::socket::{ControlMessage, control_messages, receive, set_option};
use crate::udp::BindOptions;
use crate::udp::tests::{datagrams, options, pair, receive_all, train};

/// Sends the trains. Returns the number of system calls, and each failure with its destination.
fn send_all(socket: &UdpSocket, trains: &[Transmit<'_>]) -> (usize, Vec<(SocketAddr, SendError)>) {
    let mut failed = Vec::new();
    let calls = socket.send_batch(trains.iter().copied(), |transmit, error| failed.push((transmit.destination, error)));
    (calls, failed)
}

fn receiver(coalescing: bool) -> (UdpSocket, SocketAddr) {
    let (socket, _, _) = pair(Family::V4, &BindOptions { coalescing, ..options() }, &options());
    let address = ([127, 0, 0, 1], socket.local_port()).into();
    (socket, address)
}

#[test]
fn trains_to_different_destinations_share_one_system_call() {
    for family in [Family::V4, Family::V6] {
        let (a, b, to_b) = pair(family, &options(), &options());
        let (_, c, to_c) = pair(family, &options(), &options());
        let (long, short, small) = (datagrams(10, 1400), datagrams(3, 100), datagrams(1, 32));
        let trains = [
            train(to_b, &long[..13_000], 1400),
            train(to_c, &short, 100),
            train(to_b, &small, 32),
            train(to_c, &[], 1),
        ];
        let (calls, failed) = send_all(&a, &trains);
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(calls, 1, "{family:?}");
        let (shapes, bytes) = receive_all(&b, 13_032);
        assert_eq!(shapes, [(1400, 13_000), (32, 32)], "{family:?}");
        assert!(bytes[..13_000] == long[..13_000] && bytes[13_000..] == small);
        let (shapes, bytes) = receive_all(&c, 300);
        assert_eq!((shapes, bytes), (vec![(100, 300)], short));
    }
}

#[test]
fn each_train_has_its_own_ecn_bits_and_source() {
    let loopback = crate::interface::index_of("lo").unwrap().unwrap();
    let (a, b, to_b) = pair(Family::V4, &options(), &BindOptions { coalescing: false, ..options() });
    let contents = datagrams(1, 100);
    let trains: Vec<_> = (0..4u8)
        .map(|ecn| Transmit {
            traffic_class: ecn,
            source: Some(([127, 0, 0, 1 + ecn].into(), loopback)),
            ..train(to_b, &contents, 100)
        })
        .collect();
    assert_eq!(send_all(&a, &trains).0, 1);
    let mut batch = crate::udp::ReceiveBatch::new(8);
    assert_eq!(b.receive(&mut batch, usize::MAX).unwrap(), 4);
    let seen: Vec<_> = batch.iter_mut().map(|received| (received.ecn, received.source.ip().to_string())).collect();
    let expected = [(0, "127.0.0.1"), (1, "127.0.0.2"), (2, "127.0.0.3"), (3, "127.0.0.4")];
    assert_eq!(seen, expected.map(|(ecn, ip)| (ecn, ip.to_owned())));
}

#[test]
fn each_train_lives_as_many_hops_as_it_says() {
    let asks =
        [(Family::V4, libc::IPPROTO_IP, libc::IP_RECVTTL), (Family::V6, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT)];
    for (family, level, asked) in asks {
        let (a, b, to_b) = pair(family, &options(), &BindOptions { coalescing: false, ..options() });
        set_option(b.as_fd(), level, asked, 1).unwrap();
        let contents = datagrams(2, 100);
        let trains = [Some(2), Some(4), None].map(|ttl| Transmit { ttl, ..train(to_b, &contents, 100) });
        assert_eq!(send_all(&a, &trains).0, 1, "one system call, and a message for each train");
        let mut hops = Vec::new();
        for _ in 0..6 {
            let (mut source, mut control) = (RawAddress::default(), ControlBuffer::default());
            receive(b.as_fd(), &mut [0; 200], &mut source, &mut control).unwrap();
            hops.extend(control_messages(&control).filter_map(|message| match message {
                ControlMessage::HopLimit(hops) => Some(hops),
                _ => None,
            }));
        }
        assert_eq!(hops, [2, 2, 4, 4, 64, 64], "{family:?}");
    }
}

#[test]
fn more_messages_than_a_call_carries_go_out_in_several_and_in_order() {
    let (a, b, to_b) = pair(Family::V4, &options(), &BindOptions { coalescing: false, ..options() });
    let contents = datagrams(100, 64);
    let trains: Vec<_> = contents.chunks(64).map(|one| train(to_b, one, 64)).collect();
    let (calls, failed) = send_all(&a, &trains);
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(calls, 100usize.div_ceil(BATCH_MAX));
    assert!(receive_all(&b, contents.len()).1 == contents);
}

#[test]
fn without_segmentation_the_datagrams_of_several_trains_share_system_calls() {
    let without = BindOptions { segmentation: false, ..options() };
    let (a, b, to_b) = pair(Family::V4, &without, &BindOptions { coalescing: false, ..options() });
    let contents = datagrams(96, 500);
    let trains: Vec<_> = contents.chunks(12 * 500).map(|dozen| train(to_b, dozen, 500)).collect();
    let (calls, failed) = send_all(&a, &trains);
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(calls, 96 / BATCH_MAX);
    let (shapes, bytes) = receive_all(&b, contents.len());
    assert!(bytes == contents);
    assert_eq!(shapes.len(), 96);
}

#[test]
fn a_train_that_is_refused_is_reported_once_and_those_after_it_go_out() {
    isolated_async(async |_| {
        let (a, b, to_b) = pair(Family::V4, &options(), &options());
        // There is no route to this address: loopback is the only interface.
        let nowhere: SocketAddr = ([192, 0, 2, 1], 9).into();
        let other_family: SocketAddr = "[::1]:9".parse().unwrap();
        // These take more than one message.
        let (long, short) = (datagrams(100, 1000), datagrams(2, 700));
        let too_long = vec![0; 65_508];
        let trains = [
            train(to_b, &short, 700),
            train(nowhere, &long, 1000),
            train(to_b, &short[..700], 700),
            train(other_family, &short, 700),
            train(to_b, &too_long, 65_508),
            train(nowhere, &short, 700),
            train(to_b, &short[700..], 700),
        ];
        let (_, failed) = send_all(&a, &trains);
        let unreachable =
            |to| failed.iter().filter(|(at, error)| *at == to && matches!(error, SendError::Unreachable(_))).count();
        assert_eq!((unreachable(nowhere), unreachable(other_family)), (2, 1), "{failed:?}");
        assert!(failed.iter().any(|(at, error)| *at == to_b && matches!(error, SendError::MessageTooLong)));
        assert_eq!(failed.len(), 4, "{failed:?}");
        let (_, bytes) = receive_all(&b, 2 * short.len());
        assert!(bytes == [&short[..], &short].concat());
        assert!(a.max_segments() > 1, "none of this speaks against segmentation");
    });
}

#[test]
fn a_stale_source_is_forgotten_for_its_train_alone() {
    let loopback = crate::interface::index_of("lo").unwrap().unwrap();
    let (a, b, to_b) = pair(Family::V4, &options(), &options());
    let contents = datagrams(3, 100);
    let from = |ip: [u8; 4]| Transmit { source: Some((ip.into(), loopback)), ..train(to_b, &contents, 100) };
    let (_, failed) = send_all(&a, &[from([127, 0, 0, 5]), from([192, 0, 2, 77]), from([127, 0, 0, 6])]);
    assert!(failed.is_empty(), "{failed:?}");
    let mut batch = crate::udp::ReceiveBatch::new(8);
    assert_eq!(b.receive(&mut batch, usize::MAX).unwrap(), 3);
    let sources: Vec<_> = batch.iter_mut().map(|received| received.source.ip().to_string()).collect();
    assert_eq!(sources, ["127.0.0.5", "127.0.0.1", "127.0.0.6"]);
}

#[test]
fn a_train_that_the_kernel_cannot_segment_is_replayed_one_by_one_and_none_is_segmented_again() {
    isolated_async(async |_| {
        let (b, to_b) = receiver(false);
        let (c, to_c) = receiver(false);
        let a = UdpSocket::bind(Family::V4, &options()).unwrap();
        // Behaves like IPsec on the path: the first attempt is one message, the separate datagrams are many.
        refuse(libc::SYS_sendmmsg, 2, Argument::Is(1), libc::EIO);
        let (first, second) = (datagrams(10, 1000), datagrams(20, 900));
        let (_, failed) = send_all(&a, &[train(to_b, &first, 1000)]);
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(a.max_segments(), 1);
        let (calls, failed) = send_all(&a, &[train(to_c, &second, 900)]);
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(calls, 1, "nothing is tried that is known not to work");
        for (socket, contents, count) in [(&b, first, 10), (&c, second, 20)] {
            let (shapes, bytes) = receive_all(socket, contents.len());
            assert!(bytes == contents);
            assert_eq!(shapes.len(), count);
        }
    });
}

#[test]
fn a_way_too_narrow_for_a_train_costs_a_failed_call_once_and_no_other_way_suffers() {
    isolated_async(async |netlink| {
        let loopback = netlink.link("lo").await.unwrap().unwrap();
        netlink.set_mtu(loopback.index, 1400).await.unwrap();
        let (b, to_b) = receiver(true);
        let a = UdpSocket::bind(Family::V4, &options()).unwrap();
        let watch = a.watch();
        let (long, short) = (datagrams(5, 1452), datagrams(5, 1300));
        // The first train is refused, then sent as separate datagrams in one call. The second is not even tried as a
        // train.
        for (calls, trains) in [(2, 1), (1, 2)] {
            assert_eq!(send_all(&a, &[train(to_b, &long, 1452)]).0, calls);
            assert_eq!(watch.narrow_trains(), trains);
            assert!(receive_all(&b, long.len()).1 == long);
        }
        // Shorter datagrams still go as a train, even there. So does a train to a destination that is not known to be
        // narrow.
        assert_eq!(send_all(&a, &[train(to_b, &short, 1300)]).0, 1);
        let (shapes, bytes) = receive_all(&b, short.len());
        assert_eq!((shapes, bytes), (vec![(1300, short.len())], short));
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], to_b.port()));
        assert_eq!(send_all(&a, &[train(elsewhere, &long, 1452)]).0, 2);
        assert!(a.max_segments() > 1);
    });
}

#[test]
fn a_full_send_buffer_is_reported_for_every_train_it_refuses() {
    isolated(|| {
        let a = UdpSocket::bind(Family::V4, &options()).unwrap();
        refuse(libc::SYS_sendmmsg, 2, Argument::Above(0), libc::EAGAIN);
        let contents = datagrams(5, 100);
        let (_, failed) = send_all(&a, &[train(([127, 0, 0, 1], 9).into(), &contents, 100); 3]);
        assert_eq!(failed.len(), 3);
        assert!(failed.iter().all(|(_, error)| matches!(error, SendError::WouldBlock)), "{failed:?}");
        assert!(a.max_segments() > 1);
    });
}
