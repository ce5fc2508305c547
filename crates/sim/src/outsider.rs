//! A peer that is not a node: the handwritten initiator, with an address and a clock of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use overlay_core::{PeerConfig, PeerKey};
use rand_core::RngCore as _;

use crate::host::{HostId, inner_addresses};
use crate::initiator::{Initiator, Pending, Session, Timestamp};
use crate::packet::Ends;
use crate::world::World;

/// A peer that sends what the test wants.
pub struct Outsider {
    /// The peer's keys and handshakes.
    pub initiator: Initiator,
    /// The outer address that it sends from. May be changed at any time.
    pub address: SocketAddr,
    /// The peer's virtual IPs.
    pub inner: [IpAddr; 2],
    /// The host that it is a peer of.
    pub host: HostId,
    /// The peer's clock: the time of the last initiation in seconds.
    pub seconds: u64,
    /// The sender index for the next initiation.
    pub next_index: u32,
}

/// A private key made of this byte, and its public key.
pub fn key_pair(byte: u8) -> ([u8; 32], PeerKey) {
    ([byte; 32], PeerKey(Initiator::new([byte; 32], [0; 32], 0).public_key()))
}

impl Outsider {
    /// The key by which the host knows it.
    pub fn key(&self) -> PeerKey {
        PeerKey(self.initiator.public_key())
    }

    /// Makes an initiation that is newer than all earlier ones.
    pub fn initiate(&mut self) -> Pending {
        self.seconds += 1;
        self.next_index += 1;
        self.initiator.initiate(Timestamp::from_unix_seconds(self.seconds), self.next_index)
    }
}

impl World {
    /// Adds a peer of `host` with virtual IPs like those of a host, at `203.0.113.n:51820`. The host does not know its
    /// endpoint until the peer sends something.
    pub fn outsider(&mut self, host: HostId) -> Outsider {
        self.outsider_with(host, |_| {})
    }

    /// Like [`World::outsider`], with an edited configuration at the host.
    pub fn outsider_with(&mut self, host: HostId, edit: impl FnOnce(&mut PeerConfig)) -> Outsider {
        self.numbered += 1;
        let mut private = [0; 32];
        self.rng.fill_bytes(&mut private);
        let mut initiator = Initiator::new(private, self.key(host).0, self.rng.next_u64());
        let (v4, v6) = inner_addresses(self.numbered);
        let inner = [v4.into(), v6.into()];
        let mut config = PeerConfig {
            allowed_ips: inner.map(IpNet::from).to_vec(),
            ..PeerConfig::of(PeerKey(initiator.public_key()))
        };
        edit(&mut config);
        if let Some(preshared_key) = &config.preshared_key {
            initiator = initiator.with_preshared_key(**preshared_key);
        }
        self.configure(host, config).expect("a random key is taken");
        let address = SocketAddr::from((Ipv4Addr::new(203, 0, 113, self.numbered), 51820));
        Outsider { initiator, address, inner, host, seconds: 1_700_000_000, next_index: 0 }
    }

    /// Completes a handshake with the outsider's host and confirms it with a keepalive.
    pub fn connect(&mut self, outsider: &mut Outsider) -> Session {
        let mut session = self.handshake(outsider);
        self.inject(outsider.address, outsider.host, &session.seal(&[]));
        session
    }

    /// A handshake with the outsider's host. The host does not know yet that the outsider got its response.
    pub fn handshake(&mut self, outsider: &mut Outsider) -> Session {
        let pending = outsider.initiate();
        let answers = self.ask(outsider.address, outsider.host, &pending.message);
        let [response] = &answers[..] else { panic!("{} answers to an initiation", answers.len()) };
        outsider.initiator.complete(&pending, response).expect("a good response")
    }

    /// The inner IPv4 addresses for a packet from the outsider to its host.
    pub fn from_outsider(&self, outsider: &Outsider) -> Ends {
        Ends::new(outsider.inner[0], self.v4(outsider.host, outsider.host).source)
    }
}
