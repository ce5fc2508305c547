//! STUN: a datagram of a stranger at a server, and datagrams of a server, or of somebody in its place, at a client.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overlay_rendezvous::netcheck::{MAX_SERVERS, Netcheck, Socket};
use overlay_rendezvous::stun::{Gate, LONGEST_PLAIN, Place, answer, answer_at};
use overlay_wire::stun::{Answer, Message};

use super::Input;

/// What a client may send in one check: each server is asked four times, and the guide of each family at six more places.
const MOST_SENT: usize = 4 * (MAX_SERVERS + 2 * 6);

/// The first byte of the input says which side gets the rest.
pub fn stun(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 2 {
        0 => server(&mut input),
        _ => client(&mut input),
    }
}

/// A source, then a datagram. An answer goes to the source and nowhere else, tells it, and is no longer than it may be.
fn server(input: &mut Input<'_>) {
    let (from, datagram) = (source(input), input.take(usize::MAX));
    let place = Place { at: address([192, 0, 2, 1], 3478), other: address([192, 0, 2, 2], 3479) };
    let mut gate = Gate::default();
    let plain = answer(datagram, from, Duration::ZERO, &mut gate);
    let full = answer_at(datagram, from, place, Duration::ZERO, &mut gate).map(|(bytes, _)| bytes);
    for bytes in [plain, full].iter().flatten() {
        let Ok(Message::Answer(answer)) = Message::parse(bytes) else { panic!("not an answer: {bytes:02x?}") };
        assert_eq!(answer.mapped, SocketAddr::new(from.ip().to_canonical(), from.port()));
        assert!(bytes.len() <= LONGEST_PLAIN.max(datagram.len()), "{} for {}", bytes.len(), datagram.len());
    }
    if let Ok(Message::Answer(read)) = Message::parse(datagram) {
        let mut written = Vec::new();
        read.write(&mut written);
        assert_eq!(written.len(), read.written_len());
        assert_eq!(Message::parse(&written), Ok(Message::Answer(read)));
    }
}

/// Each step is a source and a datagram, which is either the rest of the step, or an answer to our last request that names
/// addresses of the input. The check ends whatever it hears, and sends a bounded number of datagrams.
fn client(input: &mut Input<'_>) {
    let servers = [address([192, 0, 2, 1], 3478), "[2001:db8::1]:3478".parse().expect("an address")];
    let mut check = Netcheck::new(&servers, [7; 32], Duration::ZERO);
    let (mut sent, mut now) = (0, Duration::ZERO);
    loop {
        let mut last = None;
        while let Some(transmit) = check.poll_transmit(now) {
            sent += 1;
            last = Some(transmit);
        }
        let how = input.byte();
        let socket = if how & 1 == 0 { Socket::Mapping } else { Socket::Filtering };
        match last.filter(|_| how & 2 != 0) {
            Some(last) => {
                let Ok(Message::Request(request)) = Message::parse(&last.contents) else { panic!("not a request") };
                let (mapped, other) = (source(input), Some(source(input)));
                let mut bytes = Vec::new();
                Answer { id: request.id, mapped, origin: None, other }.write(&mut bytes);
                check.handle_datagram(last.socket, last.to, &bytes, now);
            }
            None => {
                let (from, datagram) = (source(input), input.part());
                check.handle_datagram(socket, from, datagram, now);
            }
        }
        let Some(deadline) = check.poll_timeout() else { break };
        now = now.max(deadline);
        check.handle_timeout(now);
    }
    let _ = check.report();
    assert!(sent <= MOST_SENT, "{sent} datagrams");
}

/// An address of either family.
fn source(input: &mut Input<'_>) -> SocketAddr {
    let port = input.word();
    let ip: IpAddr =
        if port & 1 == 0 { [0; 4].map(|_: u8| input.byte()).into() } else { [0; 8].map(|_: u16| input.word()).into() };
    SocketAddr::new(ip, port)
}

fn address(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}
