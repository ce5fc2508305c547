//! The start of most tests of hostile peers: a host, and a hand-written peer that has a session with it. Also how a test puts
//! a host under load, and how a peer proves its address then.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use overlay_core::PeerConfig;

use crate::host::{HostId, HostOptions};
use crate::initiator::{Initiator, Session, Timestamp};
use crate::outsider::Outsider;
use crate::packet::Ends;
use crate::seconds;
use crate::world::World;

/// How many initiations of strangers a host looks at in a second before it asks for cookies.
const ALLOWANCE: u16 = 256;

/// A host, and a peer of it that has a session and says what it likes.
pub struct Scene {
    /// Where both live.
    pub world: World,
    /// The host.
    pub alice: HostId,
    /// The peer.
    pub carol: Outsider,
    /// Carol's end of the session.
    pub session: Session,
}

impl Scene {
    /// A host and a peer like any other.
    #[expect(clippy::new_without_default, reason = "a scene has no default: a test says that it begins one")]
    pub fn new() -> Self {
        Self::with(HostOptions::default(), |_| {})
    }

    /// A host with these options, where carol is configured as `edit` says.
    pub fn with(options: HostOptions, edit: impl FnOnce(&mut PeerConfig)) -> Self {
        Self::begin(options, edit, World::connect)
    }

    /// The same before carol has sent any data: the host cannot know yet that she has the session, and no counter was used.
    pub fn unconfirmed(options: HostOptions, edit: impl FnOnce(&mut PeerConfig)) -> Self {
        Self::begin(options, edit, World::handshake)
    }

    fn begin(
        options: HostOptions,
        edit: impl FnOnce(&mut PeerConfig),
        connect: impl FnOnce(&mut World, &mut Outsider) -> Session,
    ) -> Self {
        let mut world = World::new(7);
        let alice = world.host_with(options);
        let mut carol = world.outsider_with(alice, edit);
        let session = connect(&mut world, &mut carol);
        Self { world, alice, carol, session }
    }

    /// Inner IPv4 addresses from carol to alice.
    pub fn ends(&self) -> Ends {
        self.world.from_outsider(&self.carol)
    }

    /// Inner IPv6 addresses from carol to alice.
    pub fn ends_v6(&self) -> Ends {
        Ends { source: self.carol.inner[1], destination: self.world.v6(self.alice, self.alice).source }
    }

    /// A message as it is reaches alice, from carol's address.
    pub fn inject(&mut self, message: &[u8]) {
        self.world.inject(self.carol.address, self.alice, message);
    }

    /// A packet in the session reaches alice.
    pub fn say(&mut self, packet: &[u8]) {
        let message = self.session.seal(packet);
        self.inject(&message);
    }

    /// The packets that alice has taken so far.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.world.received(self.alice).iter().map(|received| received.packet.clone()).collect()
    }

    /// What alice has dropped so far.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.world.drops(self.alice)
    }

    /// Requires that data still passes both ways, through this session and no other.
    pub fn assert_alive(&mut self) {
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

impl World {
    /// A world with two hosts that have a session.
    pub fn connected() -> (Self, HostId, HostId) {
        let mut world = Self::new(7);
        let (one, other) = world.pair();
        assert!(world.ping(one, other).is_some(), "nothing is in the way");
        (world, one, other)
    }

    /// Uses up this second's allowance of `host` with initiations of strangers from many addresses: it is under load.
    pub fn load(&mut self, host: HostId) {
        let message = self.stranger(host, 9).1;
        for n in 0..ALLOWANCE {
            let source = SocketAddr::from(([198, 18, (n >> 8) as u8, n as u8], 1_000));
            assert!(self.ask(source, host, &message).is_empty(), "the {n}th is within the allowance");
        }
    }

    /// A stranger to `host`, and an initiation from it. The number stands for the private key.
    pub fn stranger(&self, host: HostId, number: u8) -> (Initiator, Vec<u8>) {
        let mut stranger = Initiator::new([number; 32], self.key(host).0, 1);
        let message = stranger.initiate(Timestamp::from_unix_seconds(1), 1).message;
        (stranger, message)
    }

    /// Asks `host`, which is under load, with this message and signs it with the cookie that comes back. Returns the cookie.
    pub fn prove(&mut self, sender: &Initiator, from: SocketAddr, host: HostId, message: &mut [u8]) -> [u8; 16] {
        let reply = self.ask(from, host, message).remove(0);
        let cookie = sender.cookie(message, &reply).expect("a cookie for this message");
        sender.sign(message, Some(&cookie));
        cookie
    }

    /// Asks for a cookie for the outsider from `host`, which is under load.
    pub fn cookie(&mut self, outsider: &mut Outsider) -> [u8; 16] {
        let mut message = outsider.initiate().message;
        self.prove(&outsider.initiator, outsider.address, outsider.host, &mut message)
    }
}
