//! Many prefixes and many peers: how much memory they take, what a change costs, and that other peers do not notice.
//!
//! Costs are counted in allocations and bytes, which are the same on every machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_core::{Command, Instant, Joins, Node, NodeConfig, Output, PeerConfig, PeerKey, PeerTag, UdpTrain, Via};
use overlay_sim::initiator::{Initiator, Session, Timestamp};
use overlay_sim::packet::Ends;
use overlay_wire::offload::VirtioHeader;
use zeroize::Zeroizing;

const PREFIXES: u32 = 130_000;
const PEERS: u32 = 10_000;
const NOW: Instant = Instant::from_start(Duration::from_secs(1_000));
const OURS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);

fn node() -> Node {
    let config = NodeConfig {
        private_key: Some(Zeroizing::new([1; 32])),
        // As in WireGuard, inner addresses are not restricted.
        addresses: Vec::new(),
        forward: false,
        mtu: 1420,
        max_mtu: 1420,
        joins: Joins::NOTHING,
        seed: [7; 32],
        wall_anchor: Some(NOW),
    };
    Node::new(config, NOW)
}

/// A key derived from a number. It is never a low-order point.
fn key(number: u32) -> PeerKey {
    let mut key = [9; 32];
    key[4..8].copy_from_slice(&number.to_le_bytes());
    PeerKey(key)
}

/// The tag of the peer with this key: the peers with a number lie in the table in their order, the guest of a round behind them.
fn tag(public_key: PeerKey) -> PeerTag {
    let number = u32::from_le_bytes(public_key.0[4..8].try_into().expect("four bytes"));
    let is_friend = public_key != key(number);
    PeerTag::from_bits(if is_friend { 0 } else { 1 + number.min(PEERS) })
}

fn set(node: &mut Node, public_key: PeerKey, allowed_ips: Vec<IpNet>, endpoint: Option<SocketAddr>) {
    let config = Box::new(PeerConfig { endpoint, allowed_ips, ..PeerConfig::of(public_key) });
    let peer = tag(public_key);
    node.handle_command(Command::SetPeer { peer, config, stats: Arc::default() }, NOW).expect("a good peer");
}

/// Prefixes like those of an Internet routing table: of all lengths, many nested, both families.
fn prefixes() -> Vec<IpNet> {
    let scatter = |number: u32| number.wrapping_mul(0x9e37_79b9) ^ number.wrapping_mul(0x85eb_ca6b).rotate_left(13);
    let v4 = |number: u32| {
        IpNet::V4(Ipv4Net::new(scatter(number).into(), 8 + (number % 25) as u8).expect("a length").trunc())
    };
    let v6 = |number: u32| {
        let address = Ipv6Addr::from(0x2001_u128 << 112 | u128::from(scatter(number)) << 64);
        IpNet::V6(Ipv6Net::new(address, 20 + (number % 109) as u8).expect("a length").trunc())
    };
    (0..PREFIXES).map(|number| if number % 4 == 0 { v6(number) } else { v4(number) }).collect()
}

/// A peer with a session.
struct Friend {
    noise: Initiator,
    session: Session,
    address: SocketAddr,
    inner: Ipv4Addr,
}

impl Friend {
    fn of(node: &mut Node) -> Self {
        let inner = Ipv4Addr::new(198, 18, 0, 1);
        let mut noise = Initiator::new([0x77; 32], node.public_key().expect("it has a key").0, 5);
        set(node, PeerKey(noise.public_key()), vec![IpAddr::from(inner).into()], None);
        let address = (Ipv4Addr::new(203, 0, 113, 9), 51_820).into();
        let pending = noise.initiate(Timestamp::from_unix_seconds(1), 77);
        hear(node, address, &pending.message);
        let response = sent(node).pop().expect("a response");
        let session = noise.complete(&pending, &response).expect("a good response");
        let mut friend = Self { noise, session, address, inner };
        friend.is_undisturbed(node);
        friend
    }

    /// Checks that data still passes both ways in the existing session.
    fn is_undisturbed(&mut self, node: &mut Node) {
        let ends = Ends::new(self.inner, OURS);
        hear(node, self.address, &self.session.seal(&ends.udp(b"in")));
        let delivered = node.poll_outputs().filter(|output| matches!(output, Output::Packet(_))).count();
        assert_eq!(delivered, 1);
        node.handle_tun(&VirtioHeader::NONE, &mut ends.reversed().udp(b"out"), NOW);
        let out = sent(node).pop().expect("data");
        assert!(self.session.open(&out).is_ok(), "an earlier session");
    }
}

fn hear(node: &mut Node, source: SocketAddr, message: &[u8]) {
    node.handle_udp(&UdpTrain { contents: message, stride: message.len(), source, via: Via::ANY, ecn: 0 }, NOW);
}

fn sent(node: &mut Node) -> Vec<Vec<u8>> {
    let transmits = node.poll_outputs().filter_map(|output| match output {
        Output::Transmit(transmit) => Some(transmit.contents.to_vec()),
        _ => None,
    });
    transmits.collect()
}

#[test]
fn a_peer_may_have_130000_prefixes_and_be_given_them_again() {
    let mut node = node();
    let mut friend = Friend::of(&mut node);
    let (prefixes, endpoint) = (prefixes(), (Ipv4Addr::new(203, 0, 113, 1), 51_820).into());
    let given = prefixes.clone();
    let cost = measure(|| set(&mut node, key(1), given, Some(endpoint)));
    assert!(cost.bytes_max < u64::from(PREFIXES) * 300, "{} bytes", cost.bytes_max);
    let held = cost.bytes_current.unsigned_abs();
    eprintln!("{} bytes held, {} at most, {} allocations", held, cost.bytes_max, cost.count_total);
    friend.is_undisturbed(&mut node);

    // An address in each n-th prefix belongs to the peer. Its first packet starts a handshake, later ones do not.
    for prefix in prefixes.iter().step_by(1_009) {
        let ends = match prefix.addr() {
            IpAddr::V4(address) => Ends::new(OURS, address),
            IpAddr::V6(address) => Ends::new(Ipv6Addr::LOCALHOST, address),
        };
        let before = node.stats().drops(overlay_core::DropReason::OutboundNoPeer);
        node.handle_tun(&VirtioHeader::NONE, &mut ends.udp(b"whose is it"), NOW);
        assert_eq!(node.stats().drops(overlay_core::DropReason::OutboundNoPeer), before, "{prefix}");
    }
    sent(&mut node);

    // The same prefixes again, one more, half of them, none: no memory is leaked.
    let mut more = prefixes.clone();
    more.push("100.64.0.0/10".parse().expect("a prefix"));
    let again = measure(|| set(&mut node, key(1), more, Some(endpoint)));
    assert!(again.bytes_current < (held / 10 + 100_000) as i64, "{} bytes more", again.bytes_current);
    set(&mut node, key(1), prefixes[..PREFIXES as usize / 2].to_vec(), Some(endpoint));
    friend.is_undisturbed(&mut node);
    set(&mut node, key(1), Vec::new(), Some(endpoint));
    node.handle_command(Command::RemovePeer(tag(key(1))), NOW).expect("it is there");
    friend.is_undisturbed(&mut node);
    for prefix in prefixes.iter().step_by(1_009) {
        let IpAddr::V4(address) = prefix.addr() else { continue };
        let before = node.stats().drops(overlay_core::DropReason::OutboundNoPeer);
        node.handle_tun(&VirtioHeader::NONE, &mut Ends::new(OURS, address).udp(b"nobody's"), NOW);
        assert_eq!(node.stats().drops(overlay_core::DropReason::OutboundNoPeer), before + 1, "{prefix}");
    }
}

#[test]
fn ten_thousand_peers_weigh_little_and_a_change_of_one_costs_no_more_than_with_ten() {
    let inner = |number: u32| vec![IpAddr::from(Ipv4Addr::from(0x0a41_0000 + number)).into()];
    let endpoint = |number: u32| Some((Ipv4Addr::from(0xcb00_7100 + number % 256), 51_820).into());
    let mut changes = Vec::new();
    for peers in [10, PEERS] {
        let mut node = node();
        let mut friend = Friend::of(&mut node);
        let all =
            measure(|| (0..peers).for_each(|number| set(&mut node, key(number), inner(number), endpoint(number))));
        let each = all.bytes_current.unsigned_abs() / u64::from(peers);
        eprintln!("{peers} peers: {each} bytes each");
        assert!(each < 2_048, "{each} bytes for a peer that waits");
        friend.is_undisturbed(&mut node);

        // Repeatedly adds a peer, gives an existing one a different prefix, and removes the new one again.
        let mut most = (0, 0);
        for round in 0..500 {
            let number = round % peers;
            let change = measure(|| {
                set(&mut node, key(PEERS + round), inner(PEERS + round), endpoint(round));
                set(&mut node, key(number), inner(2 * PEERS + round), endpoint(number));
                node.handle_command(Command::RemovePeer(tag(key(PEERS + round))), NOW).expect("it is there");
            });
            // Occasionally a table doubles its size. That does not count as the cost of the change.
            if change.bytes_max < 20_000 {
                most = (most.0.max(change.count_total), most.1.max(change.bytes_max));
            }
            if round % 50 == 0 {
                friend.is_undisturbed(&mut node);
            }
        }
        changes.push(most);
        assert_eq!(node.stats().handshakes_completed.value(), 1, "the friend's, and no second one");
        assert_eq!(friend.noise.peer_key(), node.public_key().expect("it has a key").0);
    }
    assert!(changes[1].0 <= changes[0].0 + 8 && changes[1].1 <= 2 * changes[0].1 + 4_096, "{changes:?}");
}
