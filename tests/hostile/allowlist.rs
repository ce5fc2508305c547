//! Attacks on the allowlist with whole packets: ports and protocols that are not listed, lengths that lie, and errors
//! about flows that never existed.

use super::bytes::{ACK, Ends, FIN, ICMP, ICMPV6, PSH, RST, SYN, TCP, UDP, URG, ends, with};
use super::siege::{Application, Attacker, Knock, MALLORY, Siege};

/// A port in the kernel's ephemeral range. A flow that a program of the victim begins there is certainly the victim's.
const OUR_PORT: u16 = 40_000;

const ALLOW: &[&str] = &["tcp/22", "udp/7000-7010", "icmp"];

/// The offset of the upper header in a packet without options or extension headers.
fn upper_at(ends: Ends) -> usize {
    if ends.is_v4() { 20 } else { 40 }
}

#[test]
fn what_is_not_listed_is_dropped_whatever_it_looks_like() {
    let Some(mut siege) = Siege::with_allowlist("not listed", ALLOW) else { return };
    let open = siege.application(7005);
    let closed = siege.application(7011);
    let mut mallory = siege.attacker(MALLORY);
    for ends in MALLORY.both_families() {
        let all_flags = [0, SYN, ACK, FIN, RST, SYN | ACK, FIN | ACK, RST | ACK, PSH | ACK, URG, SYN | FIN, 0x3f, 0xff];
        // Without SYN, this could be the middle of a connection that we opened. But we did not open any.
        let tcp = |port| all_flags.map(|flags| ends.tcp(50_000, port, flags));
        for port in [0, 21, 23, 80, 7000, 65_535] {
            siege.refuses(&mut mallory, "not_allowed", "TCP", &tcp(port));
        }
        siege.refuses(
            &mut mallory,
            "not_allowed",
            "from the open port",
            &[ends.tcp(22, 80, ACK), ends.tcp(22, 80, SYN)],
        );
        siege.delivers(&mut mallory, "TCP", &tcp(22));

        let udp = |port| ends.udp(50_000, port, b"hello");
        let denied = [0, 22, 53, 6999, 7011, 65_535].map(udp);
        siege.refuses(&mut mallory, "not_allowed", "UDP", &denied);
        siege.refuses(&mut mallory, "not_allowed", "from an open port", &[ends.udp(7005, 7011, b"hello")]);
        siege.delivers(&mut mallory, "UDP", &[7000, 7005, 7010].map(udp));
        assert_eq!(open.receives(), b"hello", "the kernel has taken it");
        siege.delivers(&mut mallory, "ping", &[ends.echo_request(1, 1, b"hello")]);
    }
    closed.has_received_nothing();
}

#[test]
fn protocols_that_are_not_listed_are_dropped_also_where_their_bytes_look_like_open_ports() {
    let Some(mut siege) = Siege::with_allowlist("protocols", ALLOW) else { return };
    let mut mallory = siege.attacker(MALLORY);
    let [v4, v6] = MALLORY.both_families();
    // The bytes look like an open UDP port, but the packet has a different protocol.
    let payload = |ends: Ends| ends.udp_bytes(7000, 7000, &[0; 24]);
    let of_v4: Vec<_> = (0..=255).filter(|number| ![ICMP, TCP, UDP].contains(number)).collect();
    let packets: Vec<_> = of_v4.iter().map(|number| v4.ip(*number, &payload(v4))).collect();
    siege.refuses(&mut mallory, "not_allowed", "IPv4", &packets);
    // 253 and 254 may be extension headers. Other tests attack the known extension headers.
    let extensions = [0, 43, 44, 51, 60, 135, 139, 140];
    let of_v6: Vec<_> = (0..253).filter(|number| ![ICMPV6, TCP, UDP].contains(number)).collect();
    let of_v6 = of_v6.into_iter().filter(|number| !extensions.contains(number)).chain([255]);
    let packets: Vec<_> = of_v6.map(|number| v6.ip(number, &payload(v6))).collect();
    siege.refuses(&mut mallory, "not_allowed", "IPv6", &packets);
    siege.refuses(&mut mallory, "extension_headers", "IPv6", &[253, 254].map(|number| v6.ip(number, &payload(v6))));
    siege.delivers(&mut mallory, "as what it is", &[v4.ip(UDP, &payload(v4)), v6.ip(UDP, &payload(v6))]);
}

#[test]
fn lying_lengths_open_no_port() {
    let Some(mut siege) = Siege::with_allowlist("lengths", ALLOW) else { return };
    let closed = siege.application(9999);
    let mut mallory = siege.attacker(MALLORY);
    for ends in MALLORY.both_families() {
        let at = upper_at(ends);
        let udp = ends.udp(50_000, 7000, &[0x55; 24]);
        let tcp = ends.ip(TCP, &ends.tcp_bytes(50_000, 22, 1, ACK, &[0x55; 24]));
        siege.delivers(&mut mallory, "what is bent below", &[udp.clone(), tcp.clone()]);

        // UDP whose length is smaller than its header, or larger than its packet.
        let udp_says = |len: u16| with(udp.clone(), at + 4, &len.to_be_bytes());
        siege.refuses(&mut mallory, "not_allowed", "UDP", &[0, 1, 7, 33, 34, 1000, 0x7fff, 0xffff].map(udp_says));
        siege.delivers(&mut mallory, "UDP with something behind", &[8, 9, 31].map(udp_says));
        // TCP whose header length is smaller than a header, or larger than its packet.
        let tcp_says = |words: u8| with(tcp.clone(), at + 12, &[words << 4]);
        siege.refuses(&mut mallory, "not_allowed", "TCP", &[0, 1, 2, 3, 4, 12, 13, 14, 15].map(tcp_says));
        siege.delivers(&mut mallory, "TCP with options", &[5, 6, 11].map(tcp_says));

        // Packets that end within their ports or headers. The bytes behind are present, but are padding.
        let ip_says = |packet: &[u8], upper_len: u16| {
            let (field, len) = if ends.is_v4() { (2, at as u16 + upper_len) } else { (4, upper_len) };
            with(packet.to_vec(), field, &len.to_be_bytes())
        };
        let short = (0..32).map(|len| ip_says(&udp, len)).collect::<Vec<_>>();
        siege.refuses(&mut mallory, "not_allowed", "UDP cut short", &short);
        let short = (0..20).map(|len| ip_says(&tcp, len)).collect::<Vec<_>>();
        siege.refuses(&mut mallory, "not_allowed", "TCP cut short", &short);
        let icmp = ends.echo_request(1, 1, &[0; 8]);
        let short = (0..8).map(|len| ip_says(&icmp, len)).collect::<Vec<_>>();
        siege.refuses(&mut mallory, "not_allowed", "ICMP cut short", &short);
        // A denied port that the length would hide behind an open one.
        let denied = ends.udp(50_000, 9999, &[0; 24]);
        siege.refuses(&mut mallory, "not_allowed", "denied", &[ip_says(&denied, 32), ip_says(&denied, 8)]);
        let longer = [33, 48, 0xff00].map(|len| ip_says(&udp, len));
        for packet in &longer {
            let message = mallory.session.seal_as_is(mallory.session.next_counter, packet);
            mallory.session.next_counter += 1;
            siege.strike(&mut mallory, &[message]).is("longer", &[], &[("inbound_malformed", 1)]);
        }
    }

    // A longer header moves the ports. The ports behind the options count, as they do for the kernel.
    let [v4, _] = MALLORY.both_families();
    let moved = |seen: u16, meant: u16| {
        let [high, low] = seen.to_be_bytes();
        // One word of no-operation options stands in place of the ports, which follow it.
        let option = [1, 1, high, low];
        let packet = v4.ip(UDP, &[&option[..], &v4.udp_bytes(50_000, meant, &[0; 24])].concat());
        with(packet, 0, &[0x46])
    };
    siege.refuses(&mut mallory, "not_allowed", "IHL", &[moved(7000, 9999)]);
    siege.delivers(&mut mallory, "IHL", &[moved(9999, 7000)]);
    let denied = v4.udp(7000, 9999, &[0; 40]);
    let lying = (5..16).map(|words| with(denied.clone(), 0, &[0x40 | words])).collect::<Vec<_>>();
    siege.refuses(&mut mallory, "not_allowed", "IHL", &lying);
    // A jumbogram has a length field of zero.
    let [_, v6] = MALLORY.both_families();
    let jumbo = [&[UDP, 0, 0xc2, 4, 0, 0, 0, 40][..], &v6.udp_bytes(50_000, 7000, &[0; 24])].concat();
    let jumbo = with(v6.ip(0, &jumbo), 4, &[0, 0]);
    siege.refuses(&mut mallory, "not_allowed", "jumbogram", &[jumbo]);
    closed.has_received_nothing();
}

/// The same source with a different destination.
fn ends_of(before: Ends, destination: &str) -> Ends {
    ends(&before.source.to_string(), destination)
}

/// An error of this type. It quotes the packet's IP header and `len` bytes after it.
fn error_about(ends: Ends, kind: u8, quoted: &[u8], len: usize) -> Vec<u8> {
    let quote = &quoted[..upper_at(ends) + len];
    ends.icmp(kind, 1, [0; 4], quote)
}

#[test]
fn icmp_errors_pass_only_if_they_quote_a_flow_that_we_opened() {
    // `icmp` must not be listed: it would allow the peer to send every error.
    let Some(mut siege) = Siege::with_allowlist("errors", &["tcp/22"]) else { return };
    let program = siege.application(OUR_PORT);
    // A ping would be refused.
    let mut mallory = siege.attacker_who_knocks(MALLORY, Knock::Syn(22));
    for ends in MALLORY.both_families() {
        let errors: &[u8] = if ends.is_v4() { &[3, 4, 5, 11, 12] } else { &[1, 2, 3, 4, 100, 127] };
        let redirect = if ends.is_v4() { 5 } else { 137 };
        let ours = ends.reversed();
        // Packets that we could have sent, but did not: each protocol, to ports of her choice.
        let never_sent = [
            ours.udp(OUR_PORT, 6000, &[0; 8]),
            ours.udp(53, 53, &[0; 8]),
            ours.tcp(OUR_PORT, 443, ACK),
            ours.tcp(OUR_PORT, 443, SYN),
            ours.echo_request(1, 1, &[]),
            ours.ip(47, &[0; 8]),
        ];
        let about =
            |packet: &Vec<u8>| errors.iter().map(|kind| error_about(ends, *kind, packet, 8)).collect::<Vec<_>>();
        let made_up: Vec<_> = never_sent.iter().flat_map(about).collect();
        siege.refuses(&mut mallory, "not_allowed", "about nothing", &made_up);
        let no_errors: &[u8] =
            if ends.is_v4() { &[0, 8, 9, 10, 13, 14, 17, 40] } else { &[128, 129, 133, 134, 135, 136, 137] };
        let others: Vec<_> = no_errors.iter().map(|kind| ends.icmp(*kind, 0, [0; 4], &[0; 16])).collect();
        siege.refuses(&mut mallory, "not_allowed", "no error", &others);

        // Now we do send, from our port to port 6000.
        let sent = says(&mut siege, &program, &mut mallory, ends);
        assert_eq!(sent[upper_at(ends)..upper_at(ends) + 4], [0x9c, 0x40, 0x17, 0x70]);
        let kind = errors[0];
        let quote = &sent[..];
        let to_another_port = with(sent.clone(), upper_at(ends) + 2, &6001u16.to_be_bytes());
        let from_another_port = with(sent.clone(), upper_at(ends), &(OUR_PORT + 1).to_be_bytes());
        let another_protocol = with(sent.clone(), if ends.is_v4() { 9 } else { 6 }, &[TCP]);
        let reversed = ends.udp(6000, OUR_PORT, &[0; 8]);
        let elsewhere = ends_of(ours, if ends.is_v4() { "10.77.0.5" } else { "fd77::5" }).udp(OUR_PORT, 6000, &[0; 8]);
        let other_family = MALLORY.both_families()[usize::from(ends.is_v4())].reversed().udp(OUR_PORT, 6000, &[0; 8]);
        let bent = [to_another_port, from_another_port, another_protocol, reversed, elsewhere, other_family];
        let mut bent: Vec<_> =
            bent.iter().map(|packet| ends.icmp(kind, 1, [0; 4], &packet[..packet.len().min(48)])).collect();
        bent.extend((0..8).map(|len| error_about(ends, kind, quote, len)));
        bent.push(error_about(ends, redirect, quote, 8));
        siege.refuses(&mut mallory, "not_allowed", "about something else", &bent);

        // The honest error passes, and the kernel reports it to the program.
        let honest = error_about(ends, kind, quote, 8);
        siege.delivers(&mut mallory, "about what we sent", &[honest]);
        // Answers pass too, but only from that port.
        siege.refuses(&mut mallory, "not_allowed", "from elsewhere", &[ends.udp(6001, OUR_PORT, b"hello")]);
        siege.delivers(&mut mallory, "an answer", &[ends.udp(6000, OUR_PORT, b"hello")]);
        assert_eq!(program.receives(), b"hello");
    }
}

/// A program on the victim sends a datagram from its port to port 6000. Returns the packet as it leaves the tunnel.
fn says(siege: &mut Siege, program: &Application, attacker: &mut Attacker, ends: Ends) -> Vec<u8> {
    let to = if ends.is_v4() { format!("[::ffff:{}]:6000", ends.source) } else { format!("[{}]:6000", ends.source) };
    program.socket.send_to(b"hello", to.as_str()).expect("a route into the tunnel");
    let opened = attacker.session.open(&attacker.wire.receive()).expect("data for the attacker");
    let outcome = siege.outcome(attacker);
    assert_eq!(outcome.delivered.len(), 0);
    let len = upper_at(ends) + 8 + 5;
    opened.plaintext[..len].to_vec()
}

#[test]
fn a_flow_that_we_opened_ends_when_our_kernel_says_that_nobody_listens() {
    let Some(mut siege) = Siege::with_allowlist("unreachable", &["tcp/22"]) else { return };
    let mut mallory = siege.attacker_who_knocks(MALLORY, Knock::Syn(22));
    for ends in MALLORY.both_families() {
        let program = siege.application(OUR_PORT);
        says(&mut siege, &program, &mut mallory, ends);
        let late = ends.udp(6000, OUR_PORT, b"late");
        siege.delivers(&mut mallory, "while it listens", std::slice::from_ref(&late));
        drop(program);
        siege.delivers(&mut mallory, "the kernel refuses it", std::slice::from_ref(&late));
        siege.refuses(&mut mallory, "not_allowed", "after that", &[late]);
    }
}
