//! What goes into tunnels and comes out of them, and what a world remembers of it.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use overlay_wire::offload::VirtioHeader;

use super::World;
use crate::host::{Host, HostId};
use crate::packet::{Echo, Ends};
use crate::record::{Kind, Received, Sent};

/// How long [`World::ping`] waits for an answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The program that pings.
const PING_IDENTIFIER: u16 = 77;

impl World {
    /// A packet that the host's kernel routes into the tunnel.
    pub fn send(&mut self, from: HostId, mut packet: Vec<u8>) {
        self.enter(from, &VirtioHeader::NONE, &mut packet);
    }

    /// The same with a virtio header: a super-packet, or one without its checksum.
    pub fn send_super(&mut self, from: HostId, header: &VirtioHeader, mut packet: Vec<u8>) {
        self.enter(from, header, &mut packet);
    }

    /// Pings over IPv4 and waits up to ten seconds for the answer: the round trip.
    pub fn ping(&mut self, from: HostId, to: HostId) -> Option<Duration> {
        self.ping_between(from, self.v4(from, to))
    }

    /// Pings over IPv6.
    pub fn ping6(&mut self, from: HostId, to: HostId) -> Option<Duration> {
        self.ping_between(from, self.v6(from, to))
    }

    /// Pings between any two inner addresses.
    pub fn ping_between(&mut self, from: HostId, ends: Ends) -> Option<Duration> {
        let (began, before) = (self.now, self.received(from).len());
        let sequence = self.send_ping(from, ends);
        let is_answer = |received: &Received| {
            Echo::of(&received.packet).is_some_and(|echo| !echo.is_request && echo.sequence == sequence)
        };
        let answered = self.run_until(PING_TIMEOUT, |world| world.received(from)[before..].iter().any(is_answer));
        answered.then(|| self.now.since(began))
    }

    /// Sends a ping and does not wait: its sequence number.
    pub fn send_ping(&mut self, from: HostId, ends: Ends) -> u16 {
        self.echoes = self.echoes.wrapping_add(1);
        self.send(from, ends.echo_request(PING_IDENTIFIER, self.echoes, &[0xa5; 56]));
        self.echoes
    }

    /// How many of the host's pings were answered.
    pub fn answers(&self, host: HostId) -> usize {
        let is_reply = |received: &&Received| Echo::of(&received.packet).is_some_and(|echo| !echo.is_request);
        self.received(host).iter().filter(is_reply).count()
    }

    /// A datagram from anywhere reaches a host at this moment, whatever the links are like.
    pub fn inject(&mut self, source: SocketAddr, host: HostId, datagram: &[u8]) {
        self.inject_train(source, host, &[datagram]);
    }

    /// A datagram from anywhere with these ECN bits in its outer header.
    pub fn inject_marked(&mut self, source: SocketAddr, host: HostId, datagram: &[u8], ecn: u8) {
        let destination = self.hosts[host.0].outer.iter().find(|address| address.is_ipv4() == source.is_ipv4());
        let destination = *destination.expect("the host has an address of that family");
        self.arrive(datagram, datagram.len(), source, destination, ecn);
    }

    /// A train from anywhere: all datagrams but the last are as long as the first.
    pub fn inject_train(&mut self, source: SocketAddr, host: HostId, datagrams: &[&[u8]]) {
        let of_family = |address: &&SocketAddr| address.is_ipv4() == source.is_ipv4();
        let destination = self.hosts[host.0].outer.iter().find(of_family).copied();
        let destination = destination.expect("the host has an address of the family that it is spoken to");
        let stride = datagrams.first().map_or(0, |first| first.len());
        self.arrive(&datagrams.concat(), stride, source, destination, 0);
    }

    /// A datagram as [`World::inject`], and what the host answers to its source in that moment. The source is no host.
    pub fn ask(&mut self, source: SocketAddr, host: HostId, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.take_mail(source);
        self.inject(source, host, datagram);
        while self.flights.peek().is_some_and(|Reverse(flight)| flight.at <= self.now) {
            self.land();
        }
        self.take_mail(source)
    }

    /// All packets that came out of a host's tunnel, oldest first.
    pub fn received(&self, host: HostId) -> &[Received] {
        &self.hosts[host.0].received
    }

    /// All datagrams on the wire, oldest first.
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// What one host sent of one kind, oldest first.
    pub fn sent_by(&self, host: HostId, kind: Kind) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(move |sent| sent.from == host && sent.kind() == kind)
    }

    /// How many datagrams of one kind a host has sent.
    pub fn count(&self, host: HostId, kind: Kind) -> usize {
        self.sent_by(host, kind).count()
    }

    /// Forgets what was sent, received and told so far. Counters stay.
    pub fn forget(&mut self) {
        self.sent.clear();
        self.mail.clear();
        for host in &mut self.hosts {
            let Host { received, events, .. } = host;
            received.clear();
            events.clear();
        }
    }

    /// The whole run, a line for each datagram sent and each packet received: equal for equal seeds.
    pub fn trace(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.sent.iter().map(|sent| (sent.at, sent.to_string())).collect();
        for (number, host) in self.hosts.iter().enumerate() {
            let line = |received: &Received| {
                (received.at, format!("{:?} host {number} received {:02x?}", received.at, received.packet))
            };
            lines.extend(host.received.iter().map(line));
            lines.extend(host.events.iter().map(|(at, event)| (*at, format!("{at:?} host {number} {event:?}"))));
        }
        lines.sort_by_key(|(at, _)| *at);
        lines.into_iter().map(|(_, line)| line).collect()
    }
}
