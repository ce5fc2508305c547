//! What a peer with valid keys must not do: lie about inner addresses, lengths and counters, or flood with handshakes.
//! Everything refused is counted under its name, and the session survives.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_core::{Protocol, Rule};
use overlay_sim::initiator::{Session, Timestamp};
use overlay_sim::packet::Ends;
use overlay_sim::{HostId, HostOptions, Outsider, World, millis, minutes, seconds};
use overlay_wire::checksum;

/// Counters from this value on are refused: 2^64 - 2^13 - 1.
const REJECT_AFTER_MESSAGES: u64 = 0xffff_ffff_ffff_dfff;

/// A host, and a peer with a session that sends anything.
struct Scene {
    world: World,
    alice: HostId,
    carol: Outsider,
    session: Session,
}

impl Scene {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// Creates the scene with an edited configuration of carol at alice.
    fn with(edit: impl FnOnce(&mut overlay_core::PeerConfig)) -> Self {
        let mut world = World::new(7);
        let alice = world.host();
        let mut carol = world.outsider_with(alice, edit);
        let session = world.connect(&mut carol);
        Self { world, alice, carol, session }
    }

    /// The inner IPv4 addresses from carol to alice.
    fn ends(&self) -> Ends {
        self.world.from_outsider(&self.carol)
    }

    /// The inner addresses from carol to alice in both families.
    fn ends_of_both(&self) -> [Ends; 2] {
        let v6 = self.world.v6(self.alice, self.alice).source;
        [self.ends(), Ends { source: self.carol.inner[1], destination: v6 }]
    }

    /// Delivers a sealed packet to alice.
    fn say(&mut self, packet: &[u8]) {
        let message = self.session.seal(packet);
        self.world.inject(self.carol.address, self.alice, &message);
    }

    /// Delivers a message unchanged to alice.
    fn inject(&mut self, message: &[u8]) {
        self.world.inject(self.carol.address, self.alice, message);
    }

    /// The packets that alice has accepted so far.
    fn received(&self) -> Vec<Vec<u8>> {
        self.world.received(self.alice).iter().map(|received| received.packet.clone()).collect()
    }

    fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.world.drops(self.alice)
    }

    /// Checks that data still passes both ways, and only through this session.
    fn assert_alive(&mut self) {
        self.world.forget();
        let packet = self.ends().udp(b"still here");
        self.say(&packet);
        assert_eq!(self.received(), [packet], "{:?}", self.drops());
        let packet = self.ends().reversed().udp(b"so am I");
        self.world.send(self.alice, packet.clone());
        self.world.run_for(seconds(0));
        let mail = self.world.take_mail(self.carol.address);
        let opened = self.session.open(mail.last().expect("data for carol")).expect("data of this session");
        assert_eq!(opened.plaintext[..packet.len()], packet);
    }
}

/// A TCP segment in the middle of a connection, without payload.
fn tcp_segment(destination_port: u16) -> Vec<u8> {
    let [high, low] = destination_port.to_be_bytes();
    vec![0x03, 0xe8, high, low, 0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, 0x10, 0xff, 0xff, 0, 0, 0, 0]
}

#[test]
fn an_inner_source_of_another_peer_is_spoofed() {
    let mut scene = Scene::new();
    let dave = scene.world.outsider(scene.alice);
    let [_, ours_v6] = scene.ends_of_both();
    for source in [dave.inner[0], Ipv4Addr::new(10, 77, 0, 200).into()] {
        let packet = Ends { source, ..scene.ends() }.udp(b"from dave, I swear");
        scene.say(&packet);
    }
    let packet = Ends { source: dave.inner[1], ..ours_v6 }.udp(b"from dave, I swear");
    scene.say(&packet);
    assert_eq!(scene.drops(), BTreeMap::from([("spoofed_source", 3)]));
    assert!(scene.received().is_empty());
    assert_eq!(scene.world.peer_stats(scene.alice, scene.carol.key()).drops.value(), 3);
    scene.assert_alive();
}

#[test]
fn the_most_specific_owner_of_an_inner_source_decides() {
    // Carol is the default route, but dave's one address still belongs to dave.
    let mut scene = Scene::with(|peer| peer.allowed_ips = vec!["0.0.0.0/0".parse().expect("a prefix")]);
    let dave = scene.world.outsider(scene.alice);
    let from = |source: IpAddr, scene: &Scene| Ends { source, ..scene.ends() }.udp(b"who am I");
    let (daves, anyones) = (from(dave.inner[0], &scene), from(Ipv4Addr::new(198, 51, 100, 9).into(), &scene));
    scene.say(&daves);
    scene.say(&anyones);
    assert_eq!(scene.drops(), BTreeMap::from([("spoofed_source", 1)]));
    assert_eq!(scene.received(), [anyones]);
}

#[test]
fn an_inner_source_that_nobody_can_have_is_a_martian() {
    // Everything is routed to carol, so that these packets cannot be refused for a different reason.
    let everything = ["0.0.0.0/0", "::/0"].map(|prefix| prefix.parse().expect("a prefix"));
    let mut scene = Scene::with(|peer| peer.allowed_ips = everything.to_vec());
    let [v4, v6] = scene.ends_of_both();
    let v4_sources = [
        v4.destination,
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::new(127, 255, 0, 1).into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::new(224, 0, 0, 1).into(),
        Ipv4Addr::new(239, 255, 255, 255).into(),
        Ipv4Addr::BROADCAST.into(),
    ];
    let v6_sources = [
        v6.destination,
        Ipv6Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
    ];
    let sources = v4_sources.map(|source| Ends { source, ..v4 }).into_iter();
    for ends in sources.chain(v6_sources.map(|source| Ends { source, ..v6 })) {
        let before = scene.drops();
        scene.say(&ends.udp(b"from nowhere"));
        let count = before.get("martian_source").copied().unwrap_or_default() + 1;
        assert_eq!(scene.drops(), BTreeMap::from([("martian_source", count)]), "{ends:?}");
    }
    assert!(scene.received().is_empty());
    scene.assert_alive();
}

#[test]
fn a_packet_for_somebody_else_comes_in_only_where_forwarding_is_on() {
    for forward in [false, true] {
        let mut world = World::new(7);
        let alice = world.host_with(HostOptions { forward, ..HostOptions::default() });
        let mut carol = world.outsider(alice);
        let mut session = world.connect(&mut carol);
        let ends = Ends { destination: Ipv4Addr::new(192, 168, 1, 1).into(), ..world.from_outsider(&carol) };
        world.inject(carol.address, alice, &session.seal(&ends.udp(b"into your network")));
        assert_eq!(world.received(alice).len(), usize::from(forward));
        assert_eq!(world.drops(alice).contains_key("inbound_destination"), !forward);
    }
}

#[test]
fn a_counter_at_the_end_of_its_range_is_refused_and_the_session_lives_on() {
    let mut scene = Scene::new();
    let packet = scene.ends().udp(b"the last one");
    for counter in [REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1, u64::MAX - 1, u64::MAX] {
        scene.inject(&scene.session.seal_as_is(counter, &packet));
    }
    assert_eq!(scene.drops(), BTreeMap::from([("counter_exhausted", 4)]));
    scene.assert_alive();
}

#[test]
fn three_authenticated_frames_at_the_very_end_kill_nothing() {
    let mut scene = Scene::new();
    let packet = scene.ends().udp(b"the last one");
    for _ in 0..3 {
        for counter in [u64::MAX, u64::MAX - 1, u64::MAX - 2, u64::MAX - 1_024, u64::MAX - 1_025] {
            scene.inject(&scene.session.seal_as_is(counter, &packet));
        }
    }
    assert_eq!(scene.drops(), BTreeMap::from([("counter_exhausted", 15)]));
    scene.assert_alive();
}

#[test]
fn the_last_counters_in_range_are_taken_and_the_next_handshake_begins_at_zero() {
    let mut scene = Scene::new();
    let packet = scene.ends().udp(b"nearly the last one");
    for back in [3, 1, 2, 1, 2, 3] {
        scene.inject(&scene.session.seal_as_is(REJECT_AFTER_MESSAGES - back, &packet));
    }
    assert_eq!(scene.received().len(), 3);
    assert_eq!(scene.drops(), BTreeMap::from([("replay", 3)]));
    scene.world.run_for(seconds(1));
    scene.session = scene.world.connect(&mut scene.carol);
    scene.assert_alive();
}

#[test]
fn a_counter_behind_the_window_is_a_replay_and_one_inside_it_is_not() {
    let mut scene = Scene::new();
    let packet = scene.ends().udp(b"in any order");
    for counter in [5_000, 4_000, 4_999, 5_001] {
        scene.inject(&scene.session.seal_as_is(counter, &packet));
    }
    assert_eq!(scene.received().len(), 4);
    for counter in [3_900, 1, 4_000, 4_999, 5_000, 5_001] {
        scene.inject(&scene.session.seal_as_is(counter, &packet));
    }
    assert_eq!(scene.drops(), BTreeMap::from([("replay", 6)]));
    scene.session.next_counter = 5_002;
    scene.assert_alive();
}

#[test]
fn fragments_and_extension_headers_do_not_get_round_what_is_allowed() {
    let tcp_22 = Rule { protocol: Protocol::Tcp, ports: Some(22..=22) };
    let mut scene = Scene::with(|peer| peer.allow = Some(vec![tcp_22]));
    let [v4, v6] = scene.ends_of_both();
    let tcp = tcp_segment(22);
    let fragment = |payload: &[u8], flags_and_offset: u16| {
        let mut packet = v4.ip(6, payload);
        packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        packet
    };
    const MORE: u16 = 0x2000;
    const DESTINATION_OPTIONS: u8 = 60;
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let long_chain: Vec<u8> =
        (0..20).flat_map(|_| options(DESTINATION_OPTIONS)).chain(options(6)).chain(tcp.clone()).collect();
    let attacks = [
        ("fragment_orphan", fragment(&tcp, 100)),
        ("fragment_evasion", fragment(&tcp[..3], MORE)),
        ("fragment_evasion", fragment(&tcp[..8], 1)),
        ("extension_headers", v6.ip(DESTINATION_OPTIONS, &long_chain)),
        ("extension_headers", v6.ip(DESTINATION_OPTIONS, &[&options(253)[..], &tcp].concat())),
        ("not_allowed", v6.ip(DESTINATION_OPTIONS, &[&options(17)[..], &tcp].concat())),
    ];
    let mut expected = BTreeMap::new();
    for (reason, packet) in attacks {
        scene.say(&packet);
        *expected.entry(reason).or_default() += 1;
        assert_eq!(scene.drops(), expected);
    }
    assert!(scene.received().is_empty());
    let allowed = [v4.ip(6, &tcp), v6.ip(DESTINATION_OPTIONS, &[&options(6)[..], &tcp].concat())];
    for packet in &allowed {
        scene.say(packet);
    }
    assert_eq!(scene.received(), allowed);
}

#[test]
fn a_packet_with_more_behind_it_is_cut_to_its_length() {
    let mut scene = Scene::new();
    for ends in scene.ends_of_both() {
        for behind in [1, 7, 16, 300] {
            for filling in [0x00, 0x45, 0xff] {
                scene.world.forget();
                let packet = ends.udp(b"a short one");
                let mut plaintext = packet.clone();
                plaintext.resize(packet.len() + behind, filling);
                let message = scene.session.seal_as_is(scene.session.next_counter, &plaintext);
                scene.session.next_counter += 1;
                scene.inject(&message);
                assert_eq!(scene.received(), [packet], "{behind} bytes of {filling:#04x}");
            }
        }
    }
    assert!(scene.drops().is_empty());
}

#[test]
fn an_unpadded_packet_is_taken_as_well() {
    let mut scene = Scene::new();
    for len in 0..40 {
        let packet = scene.ends().udp(&vec![1; len]);
        let message = scene.session.seal_as_is(scene.session.next_counter, &packet);
        scene.session.next_counter += 1;
        scene.inject(&message);
    }
    assert_eq!(scene.received().len(), 40);
    assert!(scene.drops().is_empty());
}

#[test]
fn an_inner_packet_whose_lengths_lie_is_malformed() {
    let mut scene = Scene::new();
    let [v4, v6] = scene.ends_of_both();
    let (v4, v6) = (v4.udp(b"eight by"), v6.udp(b"eight by"));
    let with = |packet: &[u8], at: usize, bytes: &[u8]| {
        let mut packet = packet.to_vec();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    };
    let lies = [
        ("v4: total length beyond the padding", with(&v4, 2, &100u16.to_be_bytes())),
        ("v4: the largest total length", with(&v4, 2, &u16::MAX.to_be_bytes())),
        ("v4: total length shorter than the header", with(&v4, 2, &19u16.to_be_bytes())),
        ("v4: no total length", with(&v4, 2, &[0, 0])),
        ("v4: header longer than the packet", with(&v4, 0, &[0x4f])),
        ("v4: header shorter than a header", with(&v4, 0, &[0x44])),
        ("v6: payload length beyond the padding", with(&v6, 4, &100u16.to_be_bytes())),
        ("v6: the largest payload length", with(&v6, 4, &u16::MAX.to_be_bytes())),
        ("version 0", with(&v4, 0, &[0x05])),
        ("version 5", with(&v4, 0, &[0x55])),
        ("version 15", with(&v4, 0, &[0xf5])),
        ("one byte", vec![0x45]),
        ("half an IPv4 header", v4[..10].to_vec()),
        ("half an IPv6 header", v6[..16].to_vec()),
        ("zeros", vec![0; 1_400]),
    ];
    for (expected, (lie, plaintext)) in (1..).zip(&lies) {
        scene.say(plaintext);
        assert_eq!(scene.drops(), BTreeMap::from([("inbound_malformed", expected)]), "{lie}");
    }
    assert!(scene.received().is_empty());
    scene.assert_alive();
}

#[test]
fn every_plaintext_length_from_nothing_to_200_is_survived() {
    for first in [0x45, 0x60, 0x4f, 0x00] {
        let mut scene = Scene::new();
        for len in 1..=200 {
            let mut plaintext = vec![0xff; len];
            plaintext[0] = first;
            let message = scene.session.seal_as_is(scene.session.next_counter, &plaintext);
            scene.session.next_counter += 1;
            scene.inject(&message);
        }
        assert!(scene.received().is_empty());
        assert_eq!(scene.drops(), BTreeMap::from([("inbound_malformed", 200)]), "first byte {first:#04x}");
        scene.assert_alive();
    }
}

#[test]
fn a_spoofed_second_packet_of_a_train_is_dropped_and_the_others_pass() {
    let mut scene = Scene::new();
    let dave = scene.world.outsider(scene.alice);
    let ends = scene.ends();
    let spoofed = Ends { source: dave.inner[0], ..ends };
    let payloads = [b"one", b"two", b"six", b"ten"];
    for at in 0..payloads.len() {
        scene.world.forget();
        let packets: Vec<_> =
            (0..payloads.len()).map(|n| if n == at { spoofed } else { ends }.udp(payloads[n])).collect();
        let messages: Vec<_> = packets.iter().map(|packet| scene.session.seal(packet)).collect();
        let train: Vec<_> = messages.iter().map(Vec::as_slice).collect();
        scene.world.inject_train(scene.carol.address, scene.alice, &train);
        let expected: Vec<_> = packets.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, it)| it.clone()).collect();
        assert_eq!(scene.received(), expected, "spoofed at {at}");
        assert_eq!(scene.drops(), BTreeMap::from([("spoofed_source", at as u64 + 1)]));
    }
    scene.assert_alive();
}

#[test]
fn a_packet_of_a_train_that_is_not_allowed_is_dropped_and_the_others_pass() {
    let udp_53 = Rule { protocol: Protocol::Udp, ports: Some(53..=53) };
    let mut scene = Scene::with(|peer| peer.allow = Some(vec![udp_53]));
    let ends = scene.ends();
    let packets = [
        ends.udp_between(1_000, 53, b"allowed one"),
        ends.udp_between(1_000, 54, b"not allowed"),
        ends.udp_between(1_000, 53, b"allowed two"),
        ends.ip(6, &tcp_segment(53)),
        ends.udp_between(1_001, 53, b"allowed 3rd"),
        ends.udp_between(53, 1_000, b"not allowed"),
    ];
    let messages: Vec<_> = packets.iter().map(|packet| scene.session.seal(packet)).collect();
    let train: Vec<_> = messages.iter().map(Vec::as_slice).collect();
    assert!(train.iter().all(|message| message.len() == train[0].len()), "one train");
    scene.world.inject_train(scene.carol.address, scene.alice, &train);
    assert_eq!(scene.received(), [0, 2, 4].map(|n| packets[n].clone()));
    assert_eq!(scene.drops(), BTreeMap::from([("not_allowed", 3)]));
}

#[test]
fn a_train_may_carry_datagrams_of_several_peers() {
    let mut scene = Scene::new();
    let mut dave = scene.world.outsider(scene.alice);
    let mut daves = scene.world.connect(&mut dave);
    let (from_carol, from_dave) =
        (scene.ends().udp(b"from carol"), scene.world.from_outsider(&dave).udp(b"from dave!"));
    scene.world.forget();
    let stolen = daves.seal(&from_carol);
    let messages = [scene.session.seal(&from_carol), daves.seal(&from_dave), stolen, scene.session.seal(&from_carol)];
    let train: Vec<_> = messages.iter().map(Vec::as_slice).collect();
    scene.world.inject_train(scene.carol.address, scene.alice, &train);
    assert_eq!(scene.received(), [from_carol.clone(), from_dave, from_carol]);
    assert_eq!(scene.drops(), BTreeMap::from([("spoofed_source", 1)]));
    let endpoint = scene.world.last_endpoint(scene.alice, dave.key());
    assert_eq!(endpoint, Some(scene.carol.address), "both were authenticated from there");
}

#[test]
fn initiations_of_one_peer_beyond_50_a_second_are_a_flood() {
    let mut scene = Scene::new();
    scene.world.run_for(seconds(1));
    let mut answered = 0;
    // Few enough in a second that no cookie is requested.
    for _ in 0..200 {
        let message = scene.carol.initiate().message;
        let answers = scene.world.ask(scene.carol.address, scene.alice, &message);
        answered += answers.iter().filter(|answer| answer[0] == 2).count();
        scene.world.run_for(millis(5));
    }
    assert!((48..=50).contains(&answered), "{answered} of 200 within a second");
    assert_eq!(scene.drops(), BTreeMap::from([("handshake_flood", 200 - answered as u64)]));
}

#[test]
fn unconfirmed_initiations_do_not_kill_the_session_that_is_in_use() {
    for count in [1, 7, 8, 9, 16, 40, 100] {
        let mut scene = Scene::new();
        for _ in 0..count {
            scene.world.run_for(millis(21));
            let message = scene.carol.initiate().message;
            let answers = scene.world.ask(scene.carol.address, scene.alice, &message);
            let is_response = |answer: &Vec<u8>| answer[0] == 2;
            assert!(answers.iter().any(is_response), "a restarted peer has to get in");
            assert!(answers.len() <= 2, "at most an initiation of alice's own besides");
        }
        scene.assert_alive();
    }
}

#[test]
fn unconfirmed_initiations_minutes_apart_do_not_kill_the_session_either() {
    let mut scene = Scene::new();
    for _ in 0..20 {
        scene.world.run_for(seconds(5));
        let message = scene.carol.initiate().message;
        scene.world.ask(scene.carol.address, scene.alice, &message);
    }
    scene.assert_alive();
}

#[test]
fn an_unconfirmed_session_is_never_used_to_send() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    for _ in 0..40 {
        let message = carol.initiate().message;
        assert_eq!(world.ask(carol.address, alice, &message).len(), 1);
        world.send(alice, world.from_outsider(&carol).reversed().udp(b"for carol, if it is her"));
        world.run_for(seconds(1));
        let mail = world.take_mail(carol.address);
        assert!(mail.iter().all(|message| message[0] != 4), "data before carol proved that she holds the keys");
    }
    world.connect(&mut carol);
    world.run_for(seconds(0));
    assert_eq!(world.take_mail(carol.address).iter().filter(|message| message[0] == 4).count(), 40);
}

#[test]
fn an_initiation_with_an_older_or_equal_timestamp_is_a_replay() {
    let mut scene = Scene::new();
    scene.world.run_for(seconds(1));
    let now = scene.carol.seconds;
    let stamps = [
        Timestamp::from_unix_seconds(now),
        Timestamp::from_unix(now - 1, 999_999_999),
        Timestamp::from_unix_seconds(0),
        Timestamp::ZERO,
    ];
    for timestamp in stamps {
        scene.world.run_for(millis(100));
        let message = scene.carol.initiator.initiate(timestamp, 99).message;
        assert!(scene.world.ask(scene.carol.address, scene.alice, &message).is_empty());
    }
    assert_eq!(scene.drops(), BTreeMap::from([("handshake_replay", 4)]));
    let message = scene.carol.initiator.initiate(Timestamp::from_unix(now, 1), 100).message;
    assert_eq!(scene.world.ask(scene.carol.address, scene.alice, &message).len(), 1, "a nanosecond newer is new");
    scene.assert_alive();
}

#[test]
fn a_peer_that_claims_the_end_of_time_locks_out_only_itself() {
    let mut scene = Scene::new();
    let mut dave = scene.world.outsider(scene.alice);
    scene.world.run_for(seconds(1));
    let message = scene.carol.initiator.initiate(Timestamp::NEWEST, 1).message;
    assert_eq!(scene.world.ask(scene.carol.address, scene.alice, &message).len(), 1);
    scene.world.run_for(minutes(5));
    let message = scene.carol.initiate().message;
    assert!(scene.world.ask(scene.carol.address, scene.alice, &message).is_empty());
    scene.world.connect(&mut dave);
}

#[test]
fn equal_sender_indices_of_two_peers_do_not_collide() {
    let mut world = World::new(7);
    let alice = world.host();
    let (mut carol, mut dave) = (world.outsider(alice), world.outsider(alice));
    let (carols, daves) = (world.connect(&mut carol), world.connect(&mut dave));
    assert_eq!(carols.local_index, daves.local_index);
    assert_ne!(carols.peer_index, daves.peer_index);
    for (peer, session) in [(&carol, &carols), (&dave, &daves)] {
        world.send(alice, world.from_outsider(peer).reversed().udp(b"for you"));
        world.run_for(seconds(0));
        let mail = world.take_mail(peer.address);
        assert!(session.open(mail.last().expect("data")).is_ok());
    }
}

#[test]
fn data_of_the_session_before_is_taken_while_it_is_not_too_old() {
    let mut scene = Scene::new();
    let mut old = scene.session.clone();
    scene.world.run_for(seconds(100));
    scene.session = scene.world.connect(&mut scene.carol);
    let packet = scene.ends().udp(b"was under way for long");
    scene.world.inject(scene.carol.address, scene.alice, &old.seal(&packet));
    assert_eq!(scene.received(), std::slice::from_ref(&packet));
    scene.world.run_for(seconds(81));
    scene.world.inject(scene.carol.address, scene.alice, &old.seal(&packet));
    assert_eq!(scene.received().len(), 1, "older than 180 s");
    assert_eq!(scene.drops(), BTreeMap::from([("unknown_receiver", 1)]));
    scene.assert_alive();
}

#[test]
fn a_session_older_than_180_seconds_is_not_used_in_either_direction() {
    let mut scene = Scene::new();
    scene.world.run_for(seconds(181));
    let packet = scene.ends().udp(b"too late");
    scene.say(&packet);
    assert!(scene.received().is_empty());
    assert_eq!(scene.drops(), BTreeMap::from([("unknown_receiver", 1)]));
    scene.world.send(scene.alice, scene.ends().reversed().udp(b"too late as well"));
    scene.world.run_for(seconds(0));
    let mail = scene.world.take_mail(scene.carol.address);
    assert_eq!(mail.iter().map(|message| message[0]).collect::<Vec<_>>(), [1], "an initiation and no data");
}

#[test]
fn a_peer_reports_nothing_about_packets_of_a_different_peer() {
    for allow in [None, Some(vec![Rule { protocol: Protocol::Icmp, ports: None }])] {
        let mut world = World::new(7);
        let alice = world.host();
        let mut mallory = world.outsider_with(alice, |peer| peer.allow = allow.clone());
        let bob = world.outsider(alice);
        let mut session = world.connect(&mut mallory);
        let quoted = world.from_outsider(&bob).reversed().udp_between(51_820, 51_820, &[0; 100]);
        let mut error = vec![3, 4, 0, 0, 0, 0, 2, 40];
        error.extend(&quoted[..28]);
        let sum = checksum::finish(checksum::sum(&error));
        error[2..4].copy_from_slice(&sum.to_be_bytes());
        let packet = world.from_outsider(&mallory).ip(1, &error);
        world.inject(mallory.address, alice, &session.seal(&packet));
        assert_eq!(world.received(alice).len(), 0, "{allow:?}");
    }
}

#[test]
fn an_sctp_dccp_or_udp_lite_flow_opens_no_other_port() {
    for protocol in [33, 132, 136] {
        let mut world = World::new(7);
        let alice = world.host();
        let mut mallory = world.outsider_with(alice, |peer| peer.allow = Some(Vec::new()));
        let mut from_mallory = world.connect(&mut mallory);
        let ends = world.from_outsider(&mallory);
        let packet = |ends: Ends, from: u16, to: u16| {
            ends.ip(protocol, &[&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 20]].concat())
        };
        world.send(alice, packet(ends.reversed(), 40_000, 3_868));
        world.inject(mallory.address, alice, &from_mallory.seal(&packet(ends, 3_868, 40_000)));
        assert_eq!(world.received(alice).len(), 1, "the answer");
        world.inject(mallory.address, alice, &from_mallory.seal(&packet(ends, 666, 22)));
        assert_eq!(world.received(alice).len(), 1, "{protocol}: another port");
    }
}
