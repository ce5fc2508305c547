//! The packets that go into tunnels and come out of them, and the records of a world.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use overlay_wire::offload::VirtioHeader;

use super::network::Parcel;
use super::{MAX_TTL, World};
use crate::host::{Host, HostId};
use crate::packet::{Echo, Ends};
use crate::record::{Dropped, Kind, Received, Sent};

/// How long [`World::ping`] waits for an answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The identifier of the program that pings.
const PING_IDENTIFIER: u16 = 77;

impl World {
    /// Sends a packet that the host's kernel routes into the tunnel.
    pub fn send(&mut self, from: HostId, mut packet: Vec<u8>) {
        self.enter(from, &VirtioHeader::NONE, &mut packet);
    }

    /// Like [`World::send`], with a virtio header: a super-packet, or a packet with an unfinished checksum.
    pub fn send_super(&mut self, from: HostId, header: &VirtioHeader, mut packet: Vec<u8>) {
        self.enter(from, header, &mut packet);
    }

    /// Pings over IPv4 and waits for up to ten seconds. Returns the round-trip time.
    pub fn ping(&mut self, from: HostId, to: HostId) -> Option<Duration> {
        self.ping_between(from, self.v4(from, to))
    }

    /// Pings over IPv6, otherwise like [`World::ping`].
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

    /// Sends a ping without waiting. Returns its sequence number.
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

    /// Delivers a datagram from any source to a host now, regardless of links and routers.
    pub fn inject(&mut self, source: SocketAddr, host: HostId, datagram: &[u8]) {
        self.inject_train(source, host, &[datagram]);
    }

    /// Delivers a datagram from any source with these ECN bits in its outer header.
    pub fn inject_marked(&mut self, source: SocketAddr, host: HostId, datagram: &[u8], ecn: u8) {
        let destination = self.hosts[host.0].outer.iter().find(|address| address.is_ipv4() == source.is_ipv4());
        let destination = *destination.expect("the host has an address of that family");
        let parcel = self.direct(source, host, destination);
        self.arrive(datagram, datagram.len(), &parcel, ecn);
    }

    /// Delivers a train from any source. All datagrams except the last have the same length as the first.
    pub fn inject_train(&mut self, source: SocketAddr, host: HostId, datagrams: &[&[u8]]) {
        let of_family = |address: &&SocketAddr| address.is_ipv4() == source.is_ipv4();
        let destination = self.hosts[host.0].outer.iter().find(of_family).copied();
        let destination = destination.expect("the host has an address of the family that it is spoken to");
        let stride = datagrams.first().map_or(0, |first| first.len());
        let parcel = self.direct(source, host, destination);
        self.arrive(&datagrams.concat(), stride, &parcel, 0);
    }

    /// The last step of a datagram to a host.
    fn direct(&self, source: SocketAddr, host: HostId, destination: SocketAddr) -> Parcel {
        Parcel { realm: self.hosts[host.0].realm(destination), source, destination, ttl: MAX_TTL }
    }

    /// Delivers a datagram like [`World::inject`], and returns what the host answers at once. The source must not be a
    /// host.
    pub fn ask(&mut self, source: SocketAddr, host: HostId, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.take_mail(source);
        self.inject(source, host, datagram);
        while self.flights.peek().is_some_and(|Reverse(flight)| flight.at <= self.now) {
            self.land();
        }
        self.take_mail(source)
    }

    /// All packets that came out of the host's tunnel, oldest first.
    pub fn received(&self, host: HostId) -> &[Received] {
        &self.hosts[host.0].received
    }

    /// All datagrams on the wire, oldest first.
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// All datagrams of one kind that a host sent, oldest first.
    pub fn sent_by(&self, host: HostId, kind: Kind) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(move |sent| sent.from == host && sent.kind() == kind)
    }

    /// All datagrams that routers dropped, oldest first.
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// How many datagrams of one kind a host has sent.
    pub fn count(&self, host: HostId, kind: Kind) -> usize {
        self.sent_by(host, kind).count()
    }

    /// Forgets all records of datagrams, packets and events so far. Counters stay.
    pub fn forget(&mut self) {
        self.sent.clear();
        self.dropped.clear();
        self.mail.clear();
        for host in &mut self.hosts {
            let Host { received, events, .. } = host;
            received.clear();
            events.clear();
        }
    }

    /// A trace of the whole run, with a line for each datagram that a host sent or a router dropped, and for each packet and
    /// event of a node. Equal seeds give equal traces.
    pub fn trace(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.sent.iter().map(|sent| (sent.at, sent.to_string())).collect();
        lines.extend(self.dropped.iter().map(|dropped| (dropped.at, dropped.to_string())));
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
