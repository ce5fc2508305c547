//! Packets that configure hosts do not pass the tunnel in either direction. Each message is tested by its bytes, next
//! to a similar packet that does pass.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{AllowedIpChange, Command, PeerChange, Protocol, Rule};
use overlay_sim::packet::Ends;
use overlay_sim::{HostOptions, Scene, seconds};
use overlay_wire::offload::{Segmentation, VirtioHeader};

const ICMP: u8 = 1;
const IGMP: u8 = 2;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// A host, and a peer of it to whom everything is routed.
fn scene(allow: Option<Vec<Rule>>, options: HostOptions) -> Scene {
    let everything = ["0.0.0.0/0", "::/0"].map(prefix);
    Scene::with(options, |peer| (peer.allowed_ips, peer.allow) = (everything.to_vec(), allow))
}

/// What becomes of packets of both.
trait Verdicts {
    /// What became of a packet from carol: the reasons that it was dropped for, none where alice has it.
    fn says(&mut self, packet: &[u8]) -> Vec<&'static str>;

    /// The same for a packet from alice to carol.
    fn hears(&mut self, packet: &[u8]) -> Vec<&'static str>;
}

impl Verdicts for Scene {
    fn says(&mut self, packet: &[u8]) -> Vec<&'static str> {
        let message = self.session.seal(packet);
        let (before, drops) = (self.world.received(self.alice).len(), self.world.drops(self.alice));
        self.world.inject(self.carol.address, self.alice, &message);
        let dropped = moved(&drops, &self.world.drops(self.alice));
        let received = self.world.received(self.alice).len() - before;
        assert_eq!(received, usize::from(dropped.is_empty()), "{packet:02x?} {dropped:?}");
        dropped
    }

    fn hears(&mut self, packet: &[u8]) -> Vec<&'static str> {
        self.world.take_mail(self.carol.address);
        let drops = self.world.drops(self.alice);
        self.world.send(self.alice, packet.to_vec());
        self.world.run_for(seconds(0));
        let mail = self.world.take_mail(self.carol.address);
        let dropped = moved(&drops, &self.world.drops(self.alice));
        assert_eq!(mail.len(), usize::from(dropped.is_empty()), "{packet:02x?} {dropped:?}");
        dropped
    }
}

fn prefix(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn moved(before: &BTreeMap<&'static str, u64>, after: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    after.iter().filter(|(reason, count)| before.get(*reason) != Some(count)).map(|(reason, _)| *reason).collect()
}

/// Messages of these types, each in a packet between `ends`.
fn messages(ends: Ends, protocol: u8, kinds: impl IntoIterator<Item = u8>) -> Vec<Vec<u8>> {
    kinds.into_iter().map(|kind| ends.ip(protocol, &[kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).collect()
}

/// All messages that configure hosts, between these ends.
fn configures(v4: Ends, v6: Ends) -> Vec<Vec<u8>> {
    let mut all = messages(v4, ICMP, [5, 9, 10, 15, 16, 17, 18]);
    all.extend(messages(v6, ICMPV6, (130..=138).chain(141..=149).chain(151..=154).chain([157, 158])));
    all.extend(messages(v4, IGMP, [0x11, 0x16, 0x17, 0x22]));
    all.extend([(67, 68), (68, 67)].map(|(source, destination)| v4.udp_between(source, destination, b"dhcp")));
    all.extend([(546, 547), (547, 546)].map(|(source, destination)| v6.udp_between(source, destination, b"dhcpv6")));
    // Behind a router alert, as in MLD.
    let alert = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    all.extend([130, 131, 132, 143].map(|kind| v6.ip(0, &[&alert[..], &[kind, 0, 0, 0, 0, 0, 0, 0]].concat())));
    // Behind options, and in the first of two fragments (RFC 6980).
    let options = [ICMPV6, 0, 1, 4, 0, 0, 0, 0];
    all.push(v6.ip(DESTINATION_OPTIONS, &[&options[..], &[134, 0, 0, 0, 0, 0, 0, 0]].concat()));
    all.push(v6.ip(FRAGMENT, &[ICMPV6, 0, 0, 1, 0, 0, 0, 9, 134, 0, 0, 0, 0, 0, 0, 0]));
    all
}

/// Similar messages that do not configure hosts.
fn ordinary(v4: Ends, v6: Ends) -> Vec<Vec<u8>> {
    let mut all = messages(v4, ICMP, [3, 8, 11, 12, 13]);
    all.extend(messages(v6, ICMPV6, [1, 2, 3, 4, 128, 139, 140, 150, 160]));
    all.extend([(67, 67), (53, 67), (546, 547)].map(|(source, destination)| v4.udp_between(source, destination, b"")));
    all.extend([(547, 547), (53, 547), (67, 68)].map(|(source, destination)| v6.udp_between(source, destination, b"")));
    all.extend([v4.tcp_syn(67, 68, 1_400), v6.tcp_syn(546, 547, 1_400)]);
    // Behind an unknown protocol, where no receiver looks any further.
    all.push(v6.ip(253, &[ICMPV6, 0, 0, 0, 0, 0, 0, 0, 134, 0, 0, 0]));
    all
}

fn everything_allowed() -> Vec<Rule> {
    let numbers = [Protocol::Number(IGMP), Protocol::Number(253)];
    let protocols = [Protocol::Icmp, Protocol::Tcp, Protocol::Udp].into_iter().chain(numbers);
    protocols.map(|protocol| Rule { protocol, ports: None }).collect()
}

#[test]
fn nothing_that_configures_hosts_comes_in_whatever_the_allowlist_says() {
    for allow in [None, Some(everything_allowed())] {
        let mut scene = scene(allow.clone(), HostOptions::default());
        let (v4, v6) = (scene.ends(), scene.ends_v6());
        for packet in configures(v4, v6) {
            assert_eq!(scene.says(&packet), ["host_configuration"], "{packet:02x?}");
        }
        let drops = scene.world.peer_stats(scene.alice, scene.carol.key()).drops.value();
        assert_eq!(drops, scene.world.drops(scene.alice)["host_configuration"], "they are counted as the peer's");
        for packet in ordinary(v4, v6) {
            let is_opaque = allow.is_some() && packet[6] == 253;
            let expected: &[&str] = if is_opaque { &["extension_headers"] } else { &[] };
            assert_eq!(scene.says(&packet), expected, "{packet:02x?}");
        }
    }
    // What nothing allows is counted as that.
    let mut scene = scene(Some(Vec::new()), HostOptions::default());
    let advertisement = messages(scene.ends_v6(), ICMPV6, [134]);
    assert_eq!(scene.says(&advertisement[0]), ["not_allowed"]);
}

#[test]
fn nothing_that_configures_hosts_goes_out() {
    let mut scene = scene(None, HostOptions::default());
    let (v4, v6) = (scene.ends().reversed(), scene.ends_v6().reversed());
    for packet in configures(v4, v6) {
        assert_eq!(scene.hears(&packet), ["host_configuration"], "{packet:02x?}");
    }
    for packet in ordinary(v4, v6) {
        assert_eq!(scene.hears(&packet), [""; 0], "{packet:02x?}");
    }
}

#[test]
fn a_chain_that_hides_an_advertisement_is_dropped_without_an_allowlist_too() {
    let mut scene = scene(None, HostOptions::default());
    let v6 = scene.ends_v6();
    let advertisement = [134, 0, 0, 0, 0, 0, 0, 0];
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let chain: Vec<u8> = (0..8).flat_map(|_| options(DESTINATION_OPTIONS)).chain(options(ICMPV6)).collect();
    let long = v6.ip(DESTINATION_OPTIONS, &[&chain[..], &advertisement].concat());
    assert_eq!(scene.says(&long), ["extension_headers"]);
    let twice = [&[FRAGMENT, 0, 0, 0, 0, 0, 0, 9][..], &[ICMPV6, 0, 0, 0, 0, 0, 0, 9], &advertisement].concat();
    assert_eq!(scene.says(&v6.ip(FRAGMENT, &twice)), ["extension_headers"]);
    // The message type is in the second fragment.
    let first = [DESTINATION_OPTIONS, 0, 0, 1, 0, 0, 0, 9, ICMPV6, 1, 1, 12, 0, 0, 0, 0];
    assert_eq!(scene.says(&v6.ip(FRAGMENT, &first)), ["fragment_evasion"]);
    // For the receiver too, a packet that ends within its headers ends there.
    assert_eq!(scene.says(&v6.ip(DESTINATION_OPTIONS, &[ICMPV6, 9, 0, 0])), [""; 0]);
}

#[test]
fn a_link_local_source_needs_a_prefix_of_its_own() {
    let link_local: IpAddr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).into();
    let end_of_range: IpAddr = Ipv6Addr::new(0xfebf, 0, 0, 0, 0, 0, 0, 9).into();
    let behind: IpAddr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 9).into();
    let v4: IpAddr = Ipv4Addr::new(169, 254, 0, 9).into();
    /// The peer's prefixes, the source, and the drop reason for a peer from a config file and for a WireGuard peer.
    type Row = (&'static [&'static str], IpAddr, Option<&'static str>, Option<&'static str>);
    let rows: &[Row] = &[
        (&["::/0"], link_local, Some("host_configuration"), None),
        (&["fe00::/8"], end_of_range, Some("host_configuration"), None),
        (&["::/0"], behind, None, None),
        (&["::/0", "fe80::/10"], link_local, None, None),
        (&["fe80::/64"], link_local, None, None),
        (&["fe80::9/128"], link_local, None, None),
        (&["::/0", "fe80::8/128"], link_local, Some("host_configuration"), None),
        (&["fd00::/8"], link_local, Some("spoofed_source"), Some("spoofed_source")),
        (&["0.0.0.0/0"], v4, Some("host_configuration"), None),
        (&["169.0.0.0/8"], v4, Some("host_configuration"), None),
        (&["0.0.0.0/0", "169.254.0.0/16"], v4, None, None),
        (&["169.254.0.9/32"], v4, None, None),
    ];
    for (prefixes, source, of_a_file, of_wireguard) in rows {
        for (is_declared, expected) in [(true, of_a_file), (false, of_wireguard)] {
            let mut scene = scene(None, HostOptions::default());
            let key = scene.carol.key();
            let allowed_ips: Vec<_> = prefixes.iter().map(|text| prefix(text)).collect();
            if is_declared {
                scene.world.set_allowed_ips(scene.alice, key, allowed_ips);
            } else {
                scene.world.remove_peer(scene.alice, key);
                let allowed_ips = allowed_ips.into_iter().map(AllowedIpChange::Add).collect();
                let tag = scene.world.tag_for(scene.alice, key);
                let change = PeerChange { add: Some((key, Arc::default())), allowed_ips, ..PeerChange::of(tag) };
                scene.world.command(scene.alice, Command::ChangePeer(Box::new(change))).expect("a peer");
                scene.session = scene.world.connect(&mut scene.carol);
            }
            let destination = if source.is_ipv4() { scene.ends() } else { scene.ends_v6() }.destination;
            let ends = Ends { source: *source, destination };
            let expected: Vec<_> = expected.iter().copied().collect();
            assert_eq!(scene.says(&ends.udp(b"hello")), expected, "{prefixes:?} {source} {is_declared}");
            // A router's message does not pass from any source.
            if ends.source.is_ipv6() && expected.is_empty() {
                let advertisement = messages(ends, ICMPV6, [134]);
                assert_eq!(scene.says(&advertisement[0]), ["host_configuration"]);
            }
        }
    }
}

#[test]
fn a_link_local_source_of_somebody_else_is_not_forwarded_into_the_tunnel() {
    let options = HostOptions { forward: true, ..HostOptions::default() };
    let mut scene = scene(None, options);
    let (to_v4, to_v6) = (scene.ends().source, scene.ends_v6().source);
    let from = |source: IpAddr, destination| Ends { source, destination }.udp(b"hello");
    let link_local = from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).into(), to_v6);
    assert_eq!(scene.hears(&link_local), ["host_configuration"]);
    assert_eq!(scene.hears(&from(Ipv4Addr::new(169, 254, 0, 9).into(), to_v4)), ["host_configuration"]);
    assert_eq!(scene.hears(&from(Ipv4Addr::new(192, 168, 0, 9).into(), to_v4)), [""; 0]);
}

#[test]
fn a_verdict_is_not_passed_on_to_a_neighbour_that_is_another_packet() {
    for allow in [None, Some(everything_allowed())] {
        let mut scene = scene(allow, HostOptions::default());
        let (v4, v6) = (scene.ends(), scene.ends_v6());
        // Two trains, each of packets of one length between the same addresses.
        let datagram = v4.udp_between(1_000, 9, b"dhcp");
        let datagrams = [datagram.clone(), datagram.clone(), v4.udp_between(67, 68, b"dhcp"), datagram];
        let echo = v6.echo_request(7, 1, &[]);
        let echoes = [echo.clone(), v6.ip(ICMPV6, &[134, 0, 0, 0, 0, 0, 0, 0]), echo];
        for packets in [&datagrams[..], &echoes] {
            let sealed: Vec<_> = packets.iter().map(|packet| scene.session.seal(packet)).collect();
            let sealed: Vec<_> = sealed.iter().map(Vec::as_slice).collect();
            scene.world.inject_train(scene.carol.address, scene.alice, &sealed);
        }
        assert_eq!(scene.world.drops(scene.alice), BTreeMap::from([("host_configuration", 2)]));
        assert_eq!(scene.world.received(scene.alice).len(), 5);
    }
}

#[test]
fn a_super_packet_is_judged_once() {
    let mut scene = scene(None, HostOptions::default());
    let payload = [0x5a; 3_000];
    for (ports, drops) in [((68, 67), 1), ((68, 69), 1)] {
        let packet = scene.ends().reversed().udp_between(ports.0, ports.1, &payload);
        let header = VirtioHeader {
            needs_checksum: true,
            segmentation: Segmentation::Udp,
            header_len: 28,
            segment_size: 1_000,
            checksum_start: 20,
            checksum_offset: 6,
            ..VirtioHeader::NONE
        };
        scene.world.send_super(scene.alice, &header, packet);
        assert_eq!(scene.world.drops(scene.alice), BTreeMap::from([("host_configuration", drops)]));
    }
    scene.world.run_for(seconds(0));
    let sent = scene.world.take_mail(scene.carol.address).len();
    assert_eq!(sent, 3, "the other one went in segments");
}
