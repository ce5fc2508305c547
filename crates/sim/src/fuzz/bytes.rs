//! Targets that call a parser directly.

use std::net::IpAddr;

use overlay_wire::control::{self, Frame};
use overlay_wire::host_configuration::configures_hosts;
use overlay_wire::icmp::EchoReply;
use overlay_wire::ip::{Header, Packet};
use overlay_wire::offload::{self, Join, Joins, Segmentation, SuperPacket, VIRTIO_HEADER_LEN, VirtioHeader};
use overlay_wire::wireguard::{self, Message};
use overlay_wire::{checksum, icmp, ip, tcp};

use super::Input;

const MTUS: [usize; 6] = [0, 67, 576, 1_280, 1_420, 65_535];

/// Parses an IP packet in every way: its headers up to the last, the packet quoted in it, the error that answers it,
/// whether it is an echo reply, how it is fragmented, and how the MSS of a TCP SYN is clamped.
pub fn ip_packet(data: &[u8]) {
    for mtu in MTUS {
        let mut clamped = data.to_vec();
        tcp::clamp_mss(&mut clamped, mtu);
        let once = clamped.clone();
        tcp::clamp_mss(&mut clamped, mtu);
        assert_eq!(clamped, once, "what was clamped fits");
    }
    let Ok(packet) = Packet::parse(data) else { return };
    let upper = packet.upper();
    if let Ok(upper) = upper {
        assert!(upper.offset <= packet.len());
        assert!(upper.fragment.is_none_or(|fragment| fragment.start <= packet.len()));
        assert!(!matches!(upper.header, Header::LaterFragment) || upper.fragment.is_some());
    }
    if let (Ok(upper), Ok(configures)) = (upper, configures_hosts(&packet)) {
        let may_configure = match upper.header {
            Header::Icmp { .. } | Header::Udp { .. } => true,
            Header::Other => upper.protocol == 2,
            Header::Tcp { .. } | Header::Ports { .. } | Header::LaterFragment => false,
        };
        assert!(may_configure || !configures, "{upper:?}");
    }
    if let Some(quoted) = icmp::quoted(&packet) {
        assert_eq!(quoted.source.is_ipv4(), packet.source().is_ipv4());
    }

    if let Some(reply) = icmp::echo_reply(&packet) {
        let upper = upper.expect("a reply that can be read");
        assert!(upper.fragment.is_none_or(|fragment| fragment.offset == 0) && packet.len() >= upper.offset + 8);
        is_echoed(&packet, reply);
    }

    let mut answer = Vec::new();
    for is_too_big in [true, false] {
        let is_answered = if is_too_big {
            icmp::too_big(&packet, 1_280, &mut answer)
        } else {
            icmp::unreachable(&packet, &mut answer)
        };
        assert_eq!(is_answered, !answer.is_empty());
        if is_answered {
            let error = Packet::parse(&answer).expect("a whole packet");
            assert_eq!((error.source(), error.destination()), (packet.destination(), packet.source()));
            assert!(!icmp::unreachable(&error, &mut Vec::new()), "an error is never answered with an error");
        }
    }

    for mtu in MTUS {
        let mut payload = 0;
        let fragmented = ip::fragment_v4(&packet, mtu, &mut |fragment| {
            let fragment = Packet::parse(fragment).expect("a whole packet");
            assert!(fragment.len() <= mtu);
            payload += fragment.len() - fragment.header_len();
        });
        let whole = packet.len() - packet.header_len();
        assert_eq!(payload, if fragmented.is_ok() { whole } else { 0 });
    }
}

/// Builds the request that a reply of this length would answer, and checks the reply that a host makes of it.
fn is_echoed(packet: &Packet<'_>, reply: EchoReply) {
    let (asker, len) = (packet.destination(), packet.len());
    let mut bytes = vec![0xee; len];
    let is_written = icmp::write_echo_request(asker, reply.source, reply.id, reply.sequence, len, &mut bytes);
    assert_eq!(is_written, len <= usize::from(u16::MAX), "the reply has room for as much as the request");
    if !is_written {
        return;
    }
    let request = Packet::parse(&bytes).expect("a whole packet");
    assert!(request.len() == len && request.dont_fragment() && icmp::echo_reply(&request).is_none());
    assert_eq!((request.source(), request.destination()), (asker, reply.source));
    let at = request.header_len();
    let (addresses, size) = if at == 20 { (12, 4) } else { (8, 16) };
    let (first, second) = bytes[addresses..addresses + 2 * size].split_at_mut(size);
    first.swap_with_slice(second);
    bytes[at] = if size == 4 { 0 } else { 129 };
    assert_eq!(icmp::echo_reply(&Packet::parse(&bytes).expect("a whole packet")), Some(reply));
}

/// A virtio header and a packet: finishes its checksum, and cuts a super-packet into segments.
pub fn segment(data: &[u8]) {
    let mut input = Input::new(data);
    let mtu = MTUS[usize::from(input.byte()) % MTUS.len()];
    let Ok(header) = VirtioHeader::decode(input.take(VIRTIO_HEADER_LEN)) else { return };
    let bytes = input.take(usize::MAX);
    let _ = offload::complete_checksum(&header, &mut bytes.to_vec());
    let Ok(mut train) = SuperPacket::parse(&header, bytes) else { return };
    train.limit_segment(mtu);
    let mut payload = 0;
    let mut out = vec![0; train.segment_len(0)];
    for index in 0..train.segments() {
        let len = train.write_segment(index, &mut out);
        assert!(len == train.segment_len(index) && len <= train.segment_len(0));
        assert!(index + 1 == train.segments() || len == train.segment_len(0), "only the last is shorter");
        let segment = Packet::parse(&out[..len]).expect("a whole packet");
        assert_eq!(segment.len(), len);
        payload += len - train.headers_len();
    }
    assert_eq!(payload, train.payload_len());
}

/// A series of packets: joins those that can be joined, and checks that cutting gives the same packets back.
pub fn join(data: &[u8]) {
    let mut input = Input::new(data);
    let joins = Joins { tcp: true, udp: true };
    let mut packet = Vec::new();
    let mut open: Option<(Join, Vec<Vec<u8>>)> = None;
    while !input.is_empty() {
        if input.byte().is_multiple_of(2) {
            packet = input.part().to_vec();
        } else {
            advance(&mut packet);
            input.edit(&mut packet);
        }
        let Ok(parsed) = Packet::parse(&packet) else { continue };
        let next = parsed.bytes().to_vec();
        if let Some((join, packets)) = &mut open
            && let Some(skip) = join.append(&packets[0], &next)
        {
            assert!(skip < next.len());
            packets.push(next);
            continue;
        }
        open.take().iter().for_each(|(join, packets)| is_cut_again(join, packets));
        open = Join::begin(&next, joins).map(|join| (join, vec![next]));
    }
    open.iter().for_each(|(join, packets)| is_cut_again(join, packets));
}

/// Advances a TCP packet to the segment that follows it, as a sender would.
fn advance(packet: &mut [u8]) {
    let Ok(parsed) = Packet::parse(packet) else { return };
    let Ok(upper) = parsed.upper() else { return };
    let (at, len, is_v4) = (upper.offset, parsed.len(), parsed.source().is_ipv4());
    if matches!(upper.header, Header::Tcp { .. }) {
        let payload = len - at - usize::from(packet[at + 12] >> 4) * 4;
        let sequence = u32::from_be_bytes([packet[at + 4], packet[at + 5], packet[at + 6], packet[at + 7]]);
        packet[at + 4..at + 8].copy_from_slice(&sequence.wrapping_add(payload as u32).to_be_bytes());
    }
    if is_v4 {
        let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(1);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
    }
}

fn is_cut_again(join: &Join, packets: &[Vec<u8>]) {
    assert_eq!(join.segments(), packets.len());
    let mut first = packets[0].clone();
    let header = join.finish(&mut first);
    if packets.len() == 1 {
        assert!(header == VirtioHeader::NONE && first == packets[0]);
        return;
    }
    let headers_len = usize::from(header.header_len);
    let joined =
        [&first[..], &packets[1..].iter().flat_map(|next| &next[headers_len..]).copied().collect::<Vec<_>>()].concat();
    let train = SuperPacket::parse(&header, &joined).expect("what was joined can be cut");
    assert_ne!(header.segmentation, Segmentation::None);
    assert_eq!((train.segments(), train.headers_len()), (packets.len(), headers_len));
    for (index, packet) in packets.iter().enumerate() {
        let mut segment = vec![0; train.segment_len(index)];
        train.write_segment(index, &mut segment);
        assert_eq!(segment.len(), packet.len(), "segment {index}");
        let differs = segment.iter().zip(packet).enumerate().filter(|(_, (new, old))| new != old).map(|(at, _)| at);
        let checksum_at = usize::from(header.checksum_start + header.checksum_offset);
        for at in differs {
            // The identification of a packet with DF has no meaning.
            let is_id = packet[0] >> 4 == 4 && (4..6).contains(&at) && packet[6] & 0x40 != 0;
            let is_sum = packet[0] >> 4 == 4 && (10..12).contains(&at) || (checksum_at..checksum_at + 2).contains(&at);
            // The urgent pointer has no meaning without URG, and packets with URG are never joined.
            let tcp_at = usize::from(header.checksum_start);
            let is_urgent = header.segmentation != Segmentation::Udp && (tcp_at + 18..tcp_at + 20).contains(&at);
            assert!(is_id || is_sum || is_urgent, "segment {index} differs at {at}");
        }
    }
}

/// A datagram: determines its kind, and parses it.
pub fn wireguard(data: &[u8]) {
    let kind = wireguard::kind(data);
    let Ok(message) = Message::parse(data) else { return };
    assert_eq!(kind, wireguard::Kind::WireGuard);
    let expected = match message {
        Message::Initiation(_) => 148,
        Message::Response { .. } => 92,
        Message::CookieReply { .. } => 64,
        Message::Data { .. } => data.len().max(32),
    };
    assert_eq!(data.len(), expected);
}

/// An inner packet: parses it as a control frame, and checks that the frame survives being written and parsed again.
pub fn control(data: &[u8]) {
    let Ok(frame) = Frame::parse(data) else { return };
    assert!(control::is_control(data));
    let packet = Packet::parse(data).expect("a frame is a packet");
    let mut written = vec![0xee; frame.len() + 1];
    let len = frame.write(&mut written);
    assert_eq!((len, written.pop()), (written.len(), Some(0xee)), "nothing is written behind a frame");
    assert_eq!(Frame::parse(&written), Ok(frame));
    let again = Packet::parse(&written).expect("a frame is a packet");
    assert!(again.len() <= packet.len(), "what was parsed had at most padding in addition");
    let is_probe = matches!(frame, Frame::Probe { .. });
    assert!(!is_probe || again.len() == packet.len());
    // Verifies the checksum, as a UDP receiver without a session would.
    let offset = again.upper().expect("UDP").offset;
    let len = again.len() - offset;
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (again.source(), again.destination()) else { unreachable!() };
    let sum = checksum::pseudo_v6(source, destination, ip::UDP, len) + checksum::sum(&written[offset..]);
    assert_eq!(checksum::fold(sum), 0xffff, "a wrong checksum");
}
