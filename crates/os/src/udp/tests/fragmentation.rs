//! Whether datagrams may be fragmented, observed in the packets that the kernel makes of them. With a TUN device we act
//! as the next hop, and can send any ICMP message.

use std::io::IoSlice;
use std::path::Path;

use overlay_wire::icmp;
use overlay_wire::ip::{Fragment, Packet};

use super::*;
use crate::clock::boottime;
use crate::netlink::Netlink;
use crate::refusal::{Argument, refuse};
use crate::tun::Tun;

/// The next hop.
struct Hop {
    tun: Tun,
}

impl Hop {
    /// Creates a next hop with this MTU. Returns `None`, and prints the reason, if this machine cannot.
    async fn new(netlink: &Netlink, mtu: u32) -> Option<Self> {
        if !Path::new("/dev/net/tun").exists() {
            eprintln!("skipped: there is no /dev/net/tun");
            return None;
        }
        let tun = Tun::create("ovtest0", false).unwrap();
        netlink.set_addr_gen_mode_none(tun.index()).await.unwrap();
        netlink.set_mtu(tun.index(), mtu).await.unwrap();
        netlink.add_address(tun.index(), "10.9.0.1".parse().unwrap(), 24).await.unwrap();
        netlink.add_address(tun.index(), "fd09::1".parse().unwrap(), 64).await.unwrap();
        netlink.set_up(tun.index()).await.unwrap();
        Some(Self { tun })
    }

    /// The next packet to [`beyond`].
    fn next(&self) -> Vec<u8> {
        let mut poller = Poller::new().unwrap();
        poller.add(&self.tun, 0).unwrap();
        let mut buffer = vec![0; 65_535];
        loop {
            assert!(poller.wait(Some(Duration::from_secs(2))).unwrap().next().is_some(), "no packet came");
            let len = self.tun.read(&mut buffer).unwrap();
            let packet = Packet::parse(&buffer[..len]).unwrap();
            // The kernel also sends packets of its own.
            if [Family::V4, Family::V6].map(|family| beyond(family).ip()).contains(&packet.destination()) {
                return packet.bytes().to_vec();
            }
        }
    }

    fn next_fragment(&self) -> Option<Fragment> {
        Packet::parse(&self.next()).unwrap().upper().unwrap().fragment
    }

    /// Whether no other packets have come.
    fn is_silent(&self) -> bool {
        self.tun.read(&mut [0; 2_000]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends the ICMP error that `packet` is too big for the link behind this hop.
    fn says_too_big(&self, packet: &[u8], mtu: u16) {
        let mut message = Vec::new();
        assert!(icmp::too_big(&Packet::parse(packet).unwrap(), mtu, &mut message));
        self.tun.write(&[IoSlice::new(&message)]).unwrap();
    }
}

/// An address that is reached through the next hop.
fn beyond(family: Family) -> SocketAddr {
    match family {
        Family::V4 => "10.9.0.2:9".parse().unwrap(),
        Family::V6 => "[fd09::2]:9".parse().unwrap(),
    }
}

/// Length of the headers in front of a datagram, in bytes.
fn headers_len(family: Family) -> usize {
    match family {
        Family::V4 => 28,
        Family::V6 => 48,
    }
}

fn whole(transmit: Transmit<'_>) -> Transmit<'_> {
    Transmit { dont_fragment: true, ..transmit }
}

#[test]
fn trains_of_both_kinds_go_out_in_order_and_each_has_its_own_df_bit() {
    isolated_async(async |netlink| {
        let Some(hop) = Hop::new(&netlink, 1_500).await else { return };
        let a = UdpSocket::bind(Family::V4, &options()).unwrap();
        let contents = datagrams(3, 1_000);
        let to = beyond(Family::V4);
        let trains = [
            whole(train(to, &contents, 1_000)),
            whole(train(to, &contents[..900], 900)),
            train(to, &contents[..800], 800),
            train(to, &contents[..700], 700),
            whole(train(to, &contents[..600], 600)),
        ];
        let sends = a.send_batch(trains, |_, error| panic!("{error}"));
        assert_eq!(sends, 3, "one for each kind in turn");
        let seen: Vec<_> = (0..7)
            .map(|_| {
                let packet = hop.next();
                let packet = Packet::parse(&packet).unwrap();
                (packet.len() - headers_len(Family::V4), packet.dont_fragment())
            })
            .collect();
        let expected =
            [(1_000, true), (1_000, true), (1_000, true), (900, true), (800, false), (700, false), (600, true)];
        assert_eq!(seen, expected);
    });
}

#[test]
fn what_fits_the_device_exactly_goes_out_and_a_byte_more_is_too_long_at_once() {
    isolated_async(async |netlink| {
        let Some(hop) = Hop::new(&netlink, 1_400).await else { return };
        for family in [Family::V4, Family::V6] {
            let a = UdpSocket::bind(family, &options()).unwrap();
            let contents = datagrams(1, 1_400);
            let fits = 1_400 - headers_len(family);
            a.send(&whole(train(beyond(family), &contents[..fits], fits))).unwrap();
            let packet = hop.next();
            assert_eq!(Packet::parse(&packet).unwrap().upper().unwrap().fragment, None, "{family:?}");
            assert_eq!(packet[headers_len(family)..], contents[..fits], "{family:?}");

            let error = a.send(&whole(train(beyond(family), &contents[..=fits], fits + 1))).unwrap_err();
            assert!(matches!(error, SendError::MessageTooLong), "{family:?}: {error}");
            assert!(hop.is_silent(), "{family:?}");

            a.send(&train(beyond(family), &contents[..=fits], fits + 1)).unwrap();
            assert!([hop.next_fragment(), hop.next_fragment()].iter().all(Option::is_some), "{family:?}");
        }
    });
}

#[test]
fn of_a_train_that_is_too_long_the_last_datagram_goes_out_where_it_fits_and_the_train_is_reported_once() {
    isolated_async(async |netlink| {
        let Some(hop) = Hop::new(&netlink, 1_400).await else { return };
        for (family, segmentation) in [(Family::V4, true), (Family::V4, false), (Family::V6, true), (Family::V6, false)]
        {
            let a = UdpSocket::bind(family, &BindOptions { segmentation, ..options() }).unwrap();
            let watch = a.watch();
            let most = a.max_segments();
            let (long, fits) = (datagrams(5, 1_452), datagrams(2, 1_300));
            let trains = [
                whole(train(beyond(family), &long[..4 * 1_452 + 500], 1_452)),
                whole(train(beyond(family), &long, 1_452)),
                whole(train(beyond(family), &long[..2 * 1_452 - 1], 1_452)),
                whole(train(beyond(family), &fits, 1_300)),
            ];
            let mut failed = Vec::new();
            let sends = a.send_batch(trains, |transmit, error| failed.push((transmit.contents.len(), error)));
            let [first, second, third] = &failed[..] else { panic!("{family:?}: {failed:?}") };
            for (train, (len, error)) in [(0, first), (1, second), (2, third)] {
                assert_eq!(*len, trains[train].contents.len(), "{family:?}");
                assert!(matches!(error, SendError::MessageTooLong), "{family:?}: {error}");
            }
            // First as trains, then the first datagram separately, then the last if it is shorter. It must never be one
            // call for each.
            assert!(sends <= 9, "{family:?}: {sends} system calls");
            let headers_len = headers_len(family);
            assert_eq!(hop.next()[headers_len..], long[4 * 1_452..4 * 1_452 + 500], "{family:?}");
            assert_eq!(hop.next()[headers_len..], fits[..1_300], "{family:?}");
            assert_eq!(hop.next()[headers_len..], fits[1_300..], "{family:?}");
            assert!(hop.is_silent(), "{family:?}");
            assert_eq!((a.max_segments(), watch.narrow_trains()), (most, 0), "{family:?}");
        }
    });
}

#[test]
fn a_path_mtu_that_somebody_has_told_the_kernel_does_not_count() {
    isolated_async(async |netlink| {
        let Some(hop) = Hop::new(&netlink, 1_500).await else { return };
        for family in [Family::V4, Family::V6] {
            let a = UdpSocket::bind(family, &options()).unwrap();
            let watch = a.watch();
            let contents = datagrams(3, 1_400);
            // Repeats the error for every packet, as a router would, until the kernel accepts it. Its IPv6 address
            // takes a moment to become usable.
            let deadline = boottime() + Duration::from_secs(2);
            loop {
                a.send(&train(beyond(family), &contents[..1_400], 1_400)).unwrap();
                let packet = hop.next();
                if Packet::parse(&packet).unwrap().upper().unwrap().fragment.is_some() {
                    assert!(hop.next_fragment().is_some(), "{family:?}");
                    break;
                }
                assert!(boottime() < deadline, "{family:?}: nothing was fragmented");
                hop.says_too_big(&packet, 1_280);
            }
            // Repeats the error for a datagram with DF. An application would see that error.
            a.send(&whole(train(beyond(family), &contents[..1_400], 1_400))).unwrap();
            hop.says_too_big(&hop.next(), 1_280);

            // Datagrams without DF are fragmented.
            a.send(&train(beyond(family), &contents, 1_400)).unwrap();
            for _ in 0..6 {
                assert!(hop.next_fragment().is_some(), "{family:?}");
            }
            assert_eq!(watch.narrow_trains(), 1, "{family:?}");
            let way = netlink.route_to(beyond(family).ip(), None).await.unwrap().unwrap();
            assert_eq!((way.mtu, way.told_mtu), (None, Some(1_280)), "{family:?}");

            a.send(&whole(train(beyond(family), &contents, 1_400))).unwrap();
            for datagram in contents.chunks(1_400) {
                let packet = hop.next();
                let parsed = Packet::parse(&packet).unwrap();
                assert!(parsed.dont_fragment() && parsed.upper().unwrap().fragment.is_none(), "{family:?}");
                assert_eq!(packet[headers_len(family)..], *datagram, "{family:?}");
            }
            assert_eq!(watch.narrow_trains(), 1, "{family:?}: it went as a train");
        }
    });
}

#[test]
fn only_a_change_of_kind_costs_a_system_call_and_what_cannot_be_changed_is_not_sent_as_the_other_kind() {
    for (family, level) in [(Family::V4, libc::IPPROTO_IP), (Family::V6, libc::IPPROTO_IPV6)] {
        isolated_async(async |_| {
            let (a, b, to_b) = pair(family, &options(), &options());
            let contents = datagrams(3, 1_000);
            a.send(&whole(train(to_b, &contents, 1_000))).unwrap();
            refuse(libc::SYS_setsockopt, 1, Argument::Is(level as u32), libc::EPERM);
            let trains = [true, true, false, true]
                .map(|dont_fragment| Transmit { dont_fragment, ..train(to_b, &contents, 1_000) });
            let mut failed = Vec::new();
            a.send_batch(trains, |transmit, error| failed.push((transmit.dont_fragment, error)));
            assert!(matches!(failed[..], [(false, SendError::Unreachable(_))]), "{family:?}: {failed:?}");
            let (_, bytes) = receive_all(&b, 4 * contents.len());
            assert_eq!(bytes.len(), 4 * contents.len(), "{family:?}");
        });
    }
}
