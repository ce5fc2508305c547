//! Echo over loopback, with both kinds of socket.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::netns::{isolated, isolated_async};

const SOON: Duration = Duration::from_secs(2);

#[test]
fn loopback_answers_each_request_by_its_number() {
    isolated_async(async |_| {
        for open_to_all in [false, true] {
            let groups = if open_to_all { "0 2147483647" } else { "1 0" };
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", groups).unwrap();
            for destination in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
                let ping = Ping::connect(destination, Some("lo")).unwrap();
                assert_eq!(ping.is_raw, !open_to_all);
                for (sequence, payload_len) in [(1, 0), (2, 56), (65_535, 1400)] {
                    ping.send(sequence, &vec![0xa5; payload_len]).unwrap();
                    let reply = ping.receive(SOON).unwrap();
                    assert_eq!(reply, Some(Reply { sequence, ttl: Some(64), payload_len }), "{destination}");
                }
            }
        }
    });
}

#[test]
fn two_sockets_do_not_see_each_others_replies() {
    isolated_async(async |_| {
        let [one, other] = [(); 2].map(|()| Ping::connect(Ipv4Addr::LOCALHOST.into(), None).unwrap());
        one.send(1, b"one").unwrap();
        assert_eq!(other.receive(Duration::from_millis(50)).unwrap(), None);
        assert_eq!(one.receive(SOON).unwrap().map(|reply| reply.sequence), Some(1));
    });
}

#[test]
fn without_a_reply_there_is_none_after_the_timeout() {
    isolated_async(async |_| {
        let ping = Ping::connect(Ipv4Addr::LOCALHOST.into(), None).unwrap();
        let before = clock::boottime();
        assert_eq!(ping.receive(Duration::from_millis(50)).unwrap(), None);
        assert!(clock::boottime() - before >= Duration::from_millis(50));
    });
}

#[test]
fn without_a_route_or_a_device_there_is_an_error() {
    isolated(|| {
        let error = Ping::connect("192.0.2.1".parse().unwrap(), None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        let error = Ping::connect(Ipv4Addr::LOCALHOST.into(), Some("nobody-has-this")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    });
}

#[test]
fn only_whole_echo_replies_of_our_own_count() {
    isolated_async(async |_| {
        let ping = Ping { identifier: 0x1234, ..Ping::connect(Ipv4Addr::LOCALHOST.into(), None).unwrap() };
        assert!(ping.is_raw);
        let mut message = vec![0x45; 20];
        message.extend([0, 0, 0, 0, 0x12, 0x34, 0, 7, b'x']);
        assert_eq!(ping.decode(&message), Some((7, 1)));
        // An IPv4 header with options.
        let mut with_options = vec![0x46; 24];
        with_options.extend(&message[20..]);
        assert_eq!(ping.decode(&with_options), Some((7, 1)));
        for (at, value) in [(20, 8), (21, 1), (24, 0x13), (0, 0x4f)] {
            let mut other = message.clone();
            other[at] = value;
            assert_eq!(ping.decode(&other), None, "byte {at} is {value}");
        }
        for len in 0..28 {
            assert_eq!(ping.decode(&message[..len]), None, "{len} bytes");
        }
    });
}
