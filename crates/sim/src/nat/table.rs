//! The behaviour table: for each kind of NAT, which datagrams pass after which. The simulator and the namespace lab are
//! both held to it, by the same observations.

use std::net::{IpAddr, SocketAddr};

use super::behaviour::Dependence;
use super::kind::Kind;

/// What is true of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The kind.
    pub kind: Kind,
    /// Whether a datagram passes to a socket that has never sent anything.
    pub unsolicited: bool,
    /// Whether the peer that we wrote to can answer.
    pub answer: bool,
    /// Whether a different port of that peer's address can write to us then.
    pub same_address: bool,
    /// Whether a different address can.
    pub other_address: bool,
    /// What our outside endpoint depends on, as the peers see it.
    pub mapping: Dependence,
    /// Whether the outside port is the inside port.
    pub keeps_port: bool,
    /// Whether a peer's datagram that arrives before ours leaves moves us to a different port.
    pub is_trap: bool,
    /// The least TTL with which an opener, which no peer receives, lets the peer's datagram in afterwards. Then ours
    /// leaves by the inside port. `None`: no opener does.
    pub opener_ttl: Option<u8>,
    /// Whether a neighbour reaches us by our outside address.
    pub hairpins: bool,
}

/// The table. A firewall or router that translates nothing never has to hairpin.
#[rustfmt::skip]
pub const TABLE: [Row; 9] = {
    use Dependence::{AddressAndPortDependent as Dependent, EndpointIndependent as Independent};
    [
        //                                  without a question | answers from: peer, its address, elsewhere | endpoint depends on
        row(Kind::None,              true,  [true, true,  true ], Independent, true,  false, Some(1), true),
        row(Kind::Open,              false, [true, true,  true ], Independent, true,  false, Some(2), false),
        row(Kind::AddressRestricted, false, [true, true,  false], Independent, true,  false, Some(2), false),
        row(Kind::Moderate,          false, [true, false, false], Independent, true,  false, Some(2), false),
        row(Kind::Linux,             false, [true, false, false], Independent, true,  true,  Some(2), false),
        row(Kind::Strict,            false, [true, false, false], Dependent,   false, false, None,    false),
        row(Kind::CarrierGrade,      false, [true, false, false], Independent, true,  false, Some(3), false),
        row(Kind::OneToOne,          true,  [true, true,  true ], Independent, true,  false, Some(1), false),
        row(Kind::Ipv6Firewall,      false, [true, false, false], Independent, true,  false, Some(2), true),
    ]
};

#[expect(clippy::too_many_arguments, reason = "the columns of a table")]
const fn row(
    kind: Kind,
    unsolicited: bool,
    [answer, same_address, other_address]: [bool; 3],
    mapping: Dependence,
    keeps_port: bool,
    is_trap: bool,
    opener_ttl: Option<u8>,
    hairpins: bool,
) -> Row {
    Row { kind, unsolicited, answer, same_address, other_address, mapping, keeps_port, is_trap, opener_ttl, hairpins }
}

/// Where a socket of an observation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind the NAT.
    Inside,
    /// On a second host behind the same NAT.
    Neighbour,
    /// On the other side.
    Peer,
    /// On the peer's host, at a different port.
    PeerSecond,
    /// On a second host on the other side.
    Stranger,
}

/// The longest TTL with which an observation sends an opener. It reaches no peer.
const LONGEST_OPENER: u8 = 4;
/// The TTL of everything else.
const FAR: u8 = 64;

/// A network with one NAT in it: in the simulator, or in namespaces.
pub trait Ground {
    /// The NAT forgets everything, and all places get sockets with ports that were not used before.
    fn renew(&mut self);

    /// The address and port of a place, in its own network.
    fn address(&self, place: Place) -> SocketAddr;

    /// The address that the NAT's inside has on the other side.
    fn outside(&self) -> IpAddr;

    /// Sends a datagram.
    fn send(&mut self, from: Place, to: SocketAddr, ttl: u8);

    /// Waits for the next datagram, and returns its source. `None` if nothing comes.
    fn hear(&mut self, at: Place) -> Option<SocketAddr>;
}

/// Finds out what is true of the NAT.
pub fn observe(kind: Kind, ground: &mut impl Ground) -> Row {
    let mut all = Observer { ground };

    all.ground.renew();
    let unsolicited = all.knocks();

    all.ground.renew();
    let seen = all.seen_by(Place::Peer).expect("the first datagram leaves");
    let keeps_port = seen == all.expected();
    let [answer, same_address, other_address] = OUTSIDE.map(|place| all.passes(place, seen));

    all.ground.renew();
    let [first, second, third] = OUTSIDE.map(|place| all.seen_by(place));
    let mapping = match (first == second, first == third) {
        (true, true) => Dependence::EndpointIndependent,
        (true, false) => Dependence::AddressDependent,
        (false, _) => Dependence::AddressAndPortDependent,
    };

    all.ground.renew();
    all.knocks();
    let is_trap = keeps_port && all.seen_by(Place::Peer) != Some(all.expected());

    let opener_ttl = (1..=LONGEST_OPENER).find(|ttl| {
        all.ground.renew();
        all.ground.send(Place::Inside, all.ground.address(Place::Peer), *ttl);
        assert_eq!(all.ground.hear(Place::Peer), None, "an opener of TTL {ttl} arrives");
        all.knocks() && all.seen_by(Place::Peer) == Some(all.expected())
    });

    all.ground.renew();
    let seen = all.seen_by(Place::Peer).expect("the first datagram leaves");
    let hairpins = all.passes(Place::Neighbour, seen);

    Row { kind, unsolicited, answer, same_address, other_address, mapping, keeps_port, is_trap, opener_ttl, hairpins }
}

/// The places on the other side.
const OUTSIDE: [Place; 3] = [Place::Peer, Place::PeerSecond, Place::Stranger];

struct Observer<'a, G> {
    ground: &'a mut G,
}

impl<G: Ground> Observer<'_, G> {
    /// Our outside endpoint, if the NAT keeps the port.
    fn expected(&self) -> SocketAddr {
        SocketAddr::new(self.ground.outside(), self.ground.address(Place::Inside).port())
    }

    /// Whether the peer reaches us at the expected endpoint.
    fn knocks(&mut self) -> bool {
        self.passes(Place::Peer, self.expected())
    }

    /// Whether a datagram to this endpoint of ours passes.
    fn passes(&mut self, from: Place, to: SocketAddr) -> bool {
        self.ground.send(from, to, FAR);
        self.ground.hear(Place::Inside).is_some()
    }

    /// The endpoint of ours that a place sees.
    fn seen_by(&mut self, place: Place) -> Option<SocketAddr> {
        self.ground.send(Place::Inside, self.ground.address(place), FAR);
        self.ground.hear(place)
    }
}
