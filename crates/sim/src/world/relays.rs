//! The relays of a world: the state machines of a relay and of a STUN server at addresses of the Internet, as in
//! `server/relay`.
//!
//! A relay has an address of each family. Its links are those of one party. It may be killed, begun again, and made hostile:
//! a hook says what it sends instead of each datagram.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use overlay_core::Instant;
use overlay_rendezvous::relay::{Config, Leg, Limits, Members, Relay, Stats, Train, Transmit};
use overlay_rendezvous::stun::{self, Gate};
use overlay_wire::signed::{PublicKey, SecretKey};
use overlay_wire::wireguard;
use rand_core::RngCore as _;

use super::network::Parcel;
use super::{MAX_TTL, World};
use crate::clocks;
use crate::place::{Realm, RelayId, Socket};
use crate::relay::{Passing, Tamper};

/// The port of every relay.
const PORT: u16 = 7_447;

/// A relay and its host.
pub(super) struct RelayHost {
    pub(super) key: PublicKey,
    /// Its IPv4 socket and its IPv6 socket.
    sockets: [Socket; 2],
    limits: Limits,
    /// `None`: it was killed.
    machine: Option<Machine>,
    tamper: Option<Tamper>,
}

/// What a relay's program holds in memory.
struct Machine {
    relay: Relay,
    stun: Gate,
}

impl RelayHost {
    /// When it has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.machine.as_ref()?.relay.poll_timeout().map(Instant::from_start)
    }
}

impl World {
    /// Adds a relay for everybody. The n-th has the addresses `203.0.113.n:7447` and `[2001:db8:7::n]:7447`.
    pub fn relay(&mut self) -> RelayId {
        self.relay_with(Limits::default())
    }

    /// Adds a relay for everybody that takes so much.
    pub fn relay_with(&mut self, limits: Limits) -> RelayId {
        let id = RelayId(self.relays.len());
        let number = u8::try_from(id.0 + 1).expect("a world has few relays");
        let addresses: [SocketAddr; 2] = [
            (Ipv4Addr::new(203, 0, 113, number), PORT).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, number.into()), PORT).into(),
        ];
        let sockets = addresses.map(|address| self.add_socket(Realm::Internet, address, Some(id.into())));
        let key = SecretKey::from_bytes(&self.fresh()).public();
        self.relays.push(RelayHost { key, sockets, limits, machine: None, tamper: None });
        self.begin_relay(id);
        id
    }

    /// The relay's program ends. Nothing answers at its addresses any more.
    pub fn kill_relay(&mut self, relay: RelayId) {
        self.relays[relay.0].machine = None;
    }

    /// The relay's program begins, and knows nothing of earlier times.
    pub fn begin_relay(&mut self, relay: RelayId) {
        let seed = self.fresh();
        let RelayHost { key, limits, machine, .. } = &mut self.relays[relay.0];
        let config = Config { key: *key, members: Members::Everybody, limits: *limits, seed };
        *machine = Some(Machine { relay: Relay::new(config), stun: Gate::default() });
    }

    /// Makes a relay hostile: what this returns is sent instead of each datagram.
    pub fn tamper(&mut self, relay: RelayId, tamper: impl FnMut(Passing) -> Vec<Passing> + 'static) {
        self.relays[relay.0].tamper = Some(Box::new(tamper));
    }

    /// Makes a relay honest again.
    pub fn stop_tampering(&mut self, relay: RelayId) {
        self.relays[relay.0].tamper = None;
    }

    /// The key of a relay.
    pub fn relay_key(&self, relay: RelayId) -> PublicKey {
        self.relays[relay.0].key
    }

    /// The IPv4 and the IPv6 address of a relay.
    pub fn relay_addresses(&self, relay: RelayId) -> [SocketAddr; 2] {
        self.relays[relay.0].sockets.map(|socket| self.address(socket))
    }

    /// The counters of a relay since it began. `None`: it was killed.
    pub fn relay_stats(&self, relay: RelayId) -> Option<&Stats> {
        self.relays[relay.0].machine.as_ref().map(|machine| machine.relay.stats())
    }

    /// How many requests of STUN a relay has answered since it began.
    pub fn stun_answers(&self, relay: RelayId) -> u64 {
        self.relays[relay.0].machine.as_ref().map_or(0, |machine| machine.stun.stats.answered)
    }

    /// Gives a train to the relay that has its destination. False if no relay has it.
    pub(super) fn give_to_relay(&mut self, contents: &[u8], stride: usize, parcel: &Parcel, ecn: u8) -> bool {
        let Parcel { realm, source, destination, .. } = *parcel;
        let has_it = |relay: &RelayHost| relay.sockets.iter().any(|socket| self.address(*socket) == destination);
        let Some(index) = self.relays.iter().position(has_it).filter(|_| realm == Realm::Internet) else {
            return false;
        };
        let now = clocks::both(self.now);
        let Some(Machine { relay, stun }) = &mut self.relays[index].machine else { return true };
        let leg = Leg { remote: source, local: Some((destination.ip(), 0)) };
        let stride = stride.max(1);
        // GRO joins what comes from one address, also questions of STUN with what is for the relay.
        let mut rest = contents;
        while !rest.is_empty() {
            let is_stun = |datagram: &&[u8]| wireguard::kind(datagram) == wireguard::Kind::Stun;
            let asked = rest.chunks(stride).take_while(is_stun).map(<[u8]>::len).sum();
            let (questions, behind) = rest.split_at(asked);
            for datagram in questions.chunks(stride) {
                let answer = stun::answer(datagram, source, now.monotonic, stun);
                answer.into_iter().for_each(|answer| relay.answer(answer, leg));
            }
            let relayed = behind.chunks(stride).take_while(|it| !is_stun(it)).map(<[u8]>::len).sum();
            let (contents, behind) = behind.split_at(relayed);
            relay.handle_datagrams(Train { contents, stride, ecn }, leg, now);
            rest = behind;
        }
        self.drain_relay(RelayId(index), Some(source));
        true
    }

    /// Calls every relay whose deadline has passed.
    pub(super) fn wake_relays(&mut self) {
        for id in (0..self.relays.len()).map(RelayId) {
            if self.relays[id.0].deadline().is_none_or(|at| at > self.now) {
                continue;
            }
            if let Some(machine) = &mut self.relays[id.0].machine {
                machine.relay.handle_timeout(clocks::both(self.now));
            }
            self.drain_relay(id, None);
            let deadline = self.relays[id.0].deadline();
            assert!(deadline.is_none_or(|at| at > self.now), "a relay with this deadline never sleeps: {deadline:?}");
        }
    }

    /// Carries away what a relay sends. It comes from what arrived from this address just now.
    fn drain_relay(&mut self, id: RelayId, from: Option<SocketAddr>) {
        let now = clocks::both(self.now);
        while let Some(machine) = &mut self.relays[id.0].machine
            && let Some(transmit) = machine.relay.poll_output(now)
        {
            let Transmit { leg, contents, stride, ecn } = &transmit;
            for bytes in contents.chunks(*stride) {
                let passing = Passing { from, to: leg.remote, bytes: bytes.to_vec(), held: Duration::ZERO };
                let sent = match &mut self.relays[id.0].tamper {
                    Some(tamper) => tamper(passing),
                    None => vec![passing],
                };
                sent.into_iter().for_each(|passing| self.pass(id, passing, *ecn));
            }
            if let Some(machine) = &mut self.relays[id.0].machine {
                machine.relay.recycle(transmit);
            }
        }
    }

    /// Sends a datagram from a relay, now or once it was held.
    fn pass(&mut self, from: RelayId, passing: Passing, traffic_class: u8) {
        let Passing { to, bytes, held, .. } = passing;
        let source = self.relay_addresses(from)[usize::from(to.is_ipv6())];
        let parcel = Parcel { realm: Realm::Internet, source, destination: to, ttl: MAX_TTL };
        if held.is_zero() {
            self.dispatch(from.into(), parcel, traffic_class, true, &bytes);
        } else {
            self.after(held, move |world| {
                world.dispatch(from.into(), parcel, traffic_class, true, &bytes);
            });
        }
    }

    /// 32 bytes of the world's randomness.
    pub(super) fn fresh(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}
