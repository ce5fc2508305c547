//! A relay that lies. It may keep datagrams and nothing more: no packet arrives twice, or at the wrong agent, or changed, and
//! nothing is sent to an address that the relay chooses.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use overlay_sim::nat::Kind;
use overlay_sim::{Agents, HostId, Link, Passing, millis, seconds};
use overlay_wire::relay::{self, Channel, ECHO_LEN, Reply};

/// Three agents at one relay, and what they have sent.
struct Lied {
    agents: Agents,
    /// Each packet, with its receiver.
    sent: Vec<(HostId, Vec<u8>)>,
}

impl Lied {
    fn new() -> Self {
        let mut agents = Agents::started(7, &[Kind::Strict, Kind::Strict, Kind::Strict], 1);
        agents.world.run_for(seconds(2));
        Self { agents, sent: Vec::new() }
    }

    fn tamper(&mut self, tamper: impl FnMut(Passing) -> Vec<Passing> + 'static) {
        let relay = self.agents.relays[0];
        self.agents.world.tamper(relay, tamper);
    }

    /// Each agent sends each other one a packet every 100 ms.
    fn talk(&mut self, for_millis: u64) {
        for _ in 0..for_millis / 100 {
            for from in self.agents.hosts.clone() {
                for to in self.agents.hosts.clone().into_iter().filter(|to| *to != from) {
                    let number = self.sent.len() as u32;
                    let packet = self.agents.world.v4(from, to).udp(&number.to_be_bytes());
                    self.sent.push((to, packet.clone()));
                    self.agents.world.send(from, packet);
                }
            }
            self.agents.world.run_for(millis(100));
        }
    }

    /// Requires that every packet arrived once at most, and only where it should. Returns how many did.
    fn judge(&self) -> usize {
        let sent: BTreeMap<_, _> = self.sent.iter().map(|(to, packet)| (packet.clone(), *to)).collect();
        let mut arrived = BTreeMap::<Vec<u8>, HostId>::new();
        for host in &self.agents.hosts {
            for received in self.agents.world.received(*host) {
                assert_eq!(sent.get(&received.packet), Some(host), "nobody sent this to it");
                assert_eq!(arrived.insert(received.packet.clone(), *host), None, "it comes twice");
            }
        }
        let relay = self.agents.world.relay_addresses(self.agents.relays[0])[0];
        let reached = self
            .agents
            .world
            .sent()
            .iter()
            .filter(|sent| !self.is_known(sent.destination) && sent.destination != relay);
        assert_eq!(reached.map(|sent| sent.destination).collect::<Vec<_>>(), [], "somewhere that the relay chose");
        arrived.len()
    }

    /// Whether agents told each other this address.
    fn is_known(&self, address: SocketAddr) -> bool {
        self.agents.hosts.iter().any(|host| self.agents.world.candidates(*host).contains(&address))
    }

    /// Requires that everything works again once the relay is honest, within a minute.
    fn recovers(&mut self) {
        let relay = self.agents.relays[0];
        self.agents.world.stop_tampering(relay);
        self.talk(60_000);
        self.agents.world.run_for(seconds(1));
        let before = self.judge();
        self.talk(3_000);
        self.agents.world.run_for(seconds(1));
        assert_eq!(self.judge() - before, 180, "six packets every 100 ms");
    }
}

/// Whether it is data of a channel.
fn is_data(passing: &Passing) -> bool {
    relay::kind(&passing.bytes) == relay::Kind::Data
}

#[test]
fn an_honest_relay_delivers_everything_once() {
    let mut lied = Lied::new();
    lied.talk(10_000);
    lied.agents.world.run_for(seconds(1));
    assert_eq!(lied.judge(), lied.sent.len());
}

#[test]
fn what_is_dropped_or_held_is_only_lost_or_late() {
    let mut lied = Lied::new();
    lied.talk(2_000);
    let mut count = 0;
    lied.tamper(move |passing| {
        count += 1;
        match count % 4 {
            0 => vec![],
            1 => vec![Passing { held: millis(400), ..passing }],
            _ => vec![passing],
        }
    });
    lied.talk(20_000);
    lied.agents.world.run_for(seconds(1));
    let (arrived, sent) = (lied.judge(), lied.sent.len());
    assert!(arrived > sent / 2 && arrived < sent, "{arrived} of {sent}");
    lied.recovers();
}

#[test]
fn what_is_replayed_arrives_once() {
    let mut lied = Lied::new();
    lied.talk(2_000);
    lied.tamper(|passing| {
        let held = [millis(0), millis(30), millis(2_000), seconds(20)];
        held.map(|held| Passing { held, ..passing.clone() }).to_vec()
    });
    lied.talk(30_000);
    lied.agents.world.run_for(seconds(30));
    assert_eq!(lied.judge(), lied.sent.len(), "each packet came once, whatever came with it");
    let replays = |host: &HostId| lied.agents.world.drops(*host).get("replay").copied().unwrap_or_default();
    assert!(lied.agents.hosts.iter().all(|host| replays(host) > 1_500));
    lied.recovers();
}

#[test]
fn what_is_reflected_is_not_taken_for_the_peers() {
    let mut lied = Lied::new();
    lied.talk(2_000);
    lied.tamper(|passing| {
        let back = passing.from.map(|from| Passing { to: from, ..passing.clone() });
        [Some(passing), back].into_iter().flatten().collect()
    });
    lied.talk(20_000);
    lied.agents.world.run_for(seconds(1));
    assert_eq!(lied.judge(), lied.sent.len());
    lied.recovers();
}

#[test]
fn what_is_delivered_to_a_different_agent_is_not_taken_by_it() {
    let mut lied = Lied::new();
    lied.talk(2_000);
    // Everything goes to all three, and in all channels that the relay has seen so far.
    let (mut agents, mut channels) = (Vec::<SocketAddr>::new(), Vec::<Channel>::new());
    lied.tamper(move |passing| {
        if !agents.contains(&passing.to) {
            agents.push(passing.to);
        }
        let Some((channel, inside)) = relay::open_data(&passing.bytes) else { return vec![passing] };
        if !channels.contains(&channel) {
            channels.push(channel);
        }
        let everywhere = agents.iter().flat_map(|to| channels.iter().map(move |channel| (*to, *channel)));
        let copies = everywhere.map(|(to, channel)| {
            let bytes = [&channel.head()[..], inside].concat();
            Passing { to, bytes, ..passing.clone() }
        });
        copies.collect()
    });
    lied.talk(20_000);
    lied.agents.world.run_for(seconds(1));
    assert!(lied.judge() > lied.sent.len() / 2, "{} of {}", lied.judge(), lied.sent.len());
    let astray = lied.agents.hosts.iter().map(|host| lied.agents.world.stats(*host).path_replies_astray.value());
    assert!(astray.sum::<u64>() > 0, "some replies came first in a channel that was not asked");
    lied.recovers();
}

#[test]
fn what_is_changed_does_not_arrive() {
    let mut lied = Lied::new();
    lied.talk(2_000);
    lied.agents.world.run_for(seconds(1));
    let before = lied.judge();
    assert_eq!(before, lied.sent.len());
    let mut count = 0;
    lied.tamper(move |mut passing| {
        count += 1;
        if is_data(&passing) {
            let at = 4 + count % (passing.bytes.len() - 4);
            passing.bytes[at] ^= 1 << (count % 8);
        }
        vec![passing]
    });
    lied.talk(20_000);
    lied.agents.world.run_for(seconds(1));
    // Three bytes behind the type of a message are reserved. To change the first byte of a message makes it no message.
    assert_eq!(lied.judge(), before);
    lied.recovers();
}

#[test]
fn a_peer_that_is_said_to_be_gone_is_only_asked_for_again() {
    let mut lied = Lied::new();
    lied.talk(2_000);
    lied.tamper(|passing| {
        let Some(echo) = passing.bytes.first_chunk::<ECHO_LEN>().filter(|_| is_data(&passing)) else {
            return vec![passing];
        };
        let bytes = Reply::Unbound { echo: *echo }.datagram();
        let lie = passing.from.map(|to| Passing { to, bytes, ..passing.clone() });
        [Some(passing), lie].into_iter().flatten().collect()
    });
    lied.talk(20_000);
    lied.agents.world.run_for(seconds(1));
    assert!(lied.judge() > lied.sent.len() / 2, "{} of {}", lied.judge(), lied.sent.len());
    // Each agent follows a hint a second.
    let stats = lied.agents.world.relay_stats(lied.agents.relays[0]).expect("it lives");
    assert!(stats.renewed + stats.bound < 3 * 30, "{stats:?}");
    lied.recovers();
}

/// The round trip through an honest relay, against one that holds everything.
#[test]
fn a_slow_relay_is_slow_and_nothing_else() {
    let mut lied = Lied::new();
    let (alice, bob) = lied.agents.pair();
    lied.talk(1_000);
    lied.tamper(|passing| vec![Passing { held: millis(300), ..passing }]);
    lied.talk(20_000);
    assert_eq!(lied.agents.world.ping(alice, bob), Some(4 * Link::default().latency + millis(600)));
}
