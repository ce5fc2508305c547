//! The pairs of one peer: each of our bases with each address of the peer, and each channel of a relay.

use std::net::{IpAddr, SocketAddr};

use super::Agent;
use super::pair::Pair;
use crate::path::endpoint::Endpoint;
use crate::{Base, Instant, Remote, Via};

/// The most pairs of one peer, and the most addresses of it that were only heard.
const MAX_PAIRS: usize = 64;
const MAX_HEARD: usize = 8;
/// The most candidates of one peer, from both sources together.
const MAX_REMOTE: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Pairs {
    list: Vec<Pair>,
    /// The number of the next pair.
    next: u8,
    /// The candidates that control knows, and those that the peer has told in the session.
    known: Vec<SocketAddr>,
    told: Vec<SocketAddr>,
    /// The addresses of ours that datagrams may leave from.
    bases: Vec<Base>,
}

impl Pairs {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Pair> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pair> {
        self.list.iter_mut()
    }

    pub(super) fn numbers(&self) -> Vec<u8> {
        self.list.iter().map(|pair| pair.number).collect()
    }

    pub(super) fn get(&self, number: u8) -> Option<&Pair> {
        self.list.iter().find(|pair| pair.number == number)
    }

    pub(super) fn get_mut(&mut self, number: u8) -> Option<&mut Pair> {
        self.list.iter_mut().find(|pair| pair.number == number)
    }

    /// The pair that a datagram from there belongs to: that of the base it came to, or else one whose base the kernel chooses.
    pub(super) fn at_mut(&mut self, from: Endpoint) -> Option<&mut Pair> {
        let pairs = self.list.iter_mut().filter(|pair| is_same(pair.endpoint, from));
        pairs.min_by_key(|pair| pair.endpoint.via.local != from.via.local)
    }

    /// The number of the pair that a datagram from there belongs to. It is made if there is room.
    pub(super) fn ensure(&mut self, from: Endpoint, now: Instant) -> Option<u8> {
        if let Some(pair) = self.at_mut(from) {
            return Some(pair.number);
        }
        let heard = |pair: &Pair| !pair.is_named && !pair.is_proven();
        if self.list.iter().filter(|pair| heard(pair)).count() >= MAX_HEARD {
            let oldest = self.list.iter().position(heard)?;
            self.list.remove(oldest);
        }
        self.add(Endpoint { via: self.pinned(from.via), ..from }, false, now)
    }

    fn add(&mut self, endpoint: Endpoint, is_named: bool, now: Instant) -> Option<u8> {
        if self.list.len() >= MAX_PAIRS {
            return None;
        }
        while self.get(self.next).is_some() {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.list.push(Pair::new(number, endpoint, is_named, now));
        Some(number)
    }

    /// Takes what control knows. Returns whether there are new pairs.
    pub(super) fn set_remote(&mut self, remote: &Remote, bases: &[Base], primary: Option<u8>, now: Instant) -> bool {
        self.known.clone_from(&remote.candidates);
        self.known.truncate(MAX_REMOTE);
        let is_there = |pair: &Pair| {
            let Some(channel) = pair.endpoint.via.channel else { return true };
            remote.relayed.contains(&(pair.endpoint.address, channel))
        };
        self.list.retain(is_there);
        let mut has_new = false;
        for (address, channel) in &remote.relayed {
            let endpoint = Endpoint { address: *address, via: Via { channel: Some(*channel), ..Via::ANY } };
            if self.at_mut(endpoint).is_none() {
                has_new |= self.add(endpoint, true, now).is_some();
            }
        }
        self.set_bases(bases, primary, now) | has_new
    }

    /// Takes what the peer has told. Returns whether there are new pairs.
    pub(super) fn set_told(&mut self, told: &[SocketAddr], bases: &[Base], primary: Option<u8>, now: Instant) -> bool {
        self.told = told.iter().take(MAX_REMOTE).copied().collect();
        self.set_bases(bases, primary, now)
    }

    /// Makes the pairs of these bases with all candidates. Pairs that are proven or in use, or were only heard, stay.
    pub(super) fn set_bases(&mut self, bases: &[Base], primary: Option<u8>, now: Instant) -> bool {
        bases.clone_into(&mut self.bases);
        let mut remotes = self.told.clone();
        for address in &self.known {
            if !remotes.contains(address) {
                remotes.push(*address);
            }
        }
        remotes.truncate(MAX_REMOTE);
        // A tunnel may have become the way out, or an uplink the only one.
        let vias: Vec<_> = self.list.iter().map(|pair| self.pinned(pair.endpoint.via)).collect();
        self.list.iter_mut().zip(vias).for_each(|(pair, via)| pair.endpoint.via = via);
        let wanted: Vec<_> = remotes.into_iter().flat_map(|address| self.endpoints_to(address)).collect();
        self.list.retain(|pair| {
            let is_kept = pair.is_relayed() || pair.is_proven() || !pair.is_named || Some(pair.number) == primary;
            is_kept || wanted.contains(&pair.endpoint)
        });
        let mut has_new = false;
        for endpoint in wanted {
            let serves = |pair: &Pair| match pair.endpoint.via.local {
                Some(local) => is_same(pair.endpoint, endpoint) && bases.iter().any(|base| base.local == local),
                None => is_same(pair.endpoint, endpoint) && !endpoint.via.is_pinned,
            };
            match self.list.iter_mut().find(|pair| serves(pair)) {
                Some(pair) => pair.is_named = true,
                None => has_new |= self.add(endpoint, true, now).is_some(),
            }
        }
        has_new
    }

    /// A pair whose base the kernel chooses has got an answer by one of several uplinks. It is the pair of that uplink from now on,
    /// and the only one.
    pub(super) fn settle_base(&mut self, number: u8, via: Via, primary: Option<u8>) {
        let via = self.pinned(via);
        let Some(pair) = self.get_mut(number).filter(|pair| via.is_pinned && pair.endpoint.via.local.is_none()) else {
            return;
        };
        pair.endpoint.via = via;
        let endpoint = pair.endpoint;
        let twin = self.list.iter().find(|pair| pair.number != number && pair.endpoint == endpoint);
        if let Some(twin) = twin.map(|pair| pair.number) {
            let gone = if Some(twin) == primary { number } else { twin };
            self.list.retain(|pair| pair.number != gone);
        }
    }

    /// The endpoints of pairs with this address of the peer. With one address to send from, the kernel knows better, and
    /// follows when it changes.
    fn endpoints_to(&self, address: SocketAddr) -> Vec<Endpoint> {
        let bases: Vec<_> = self.bases_of(address.ip()).collect();
        if bases.len() < 2 {
            return vec![Endpoint::configured(address)];
        }
        let over = |Base { local: (ip, interface), .. }| Endpoint { address, via: self.pinned(Via::to(ip, interface)) };
        bases.into_iter().map(over).collect()
    }

    fn bases_of(&self, family: IpAddr) -> impl Iterator<Item = Base> {
        self.bases.iter().copied().filter(move |base| base.local.0.is_ipv4() == family.is_ipv4())
    }

    /// The same way. It is pinned if it leaves directly through one of several uplinks.
    fn pinned(&self, via: Via) -> Via {
        let is_one_of_several = |local: (IpAddr, u32)| {
            let uplinks = || self.bases_of(local.0).filter(|base| base.is_uplink);
            uplinks().any(|base| base.local == local) && uplinks().any(|base| base.local.1 != local.1)
        };
        let is_pinned = via.channel.is_none() && via.local.is_some_and(is_one_of_several);
        Via { is_pinned, ..via }
    }

    /// Forgets what was proven of all pairs.
    pub(super) fn forget(&mut self, primary: Option<u8>) {
        for pair in &mut self.list {
            pair.forget();
        }
        self.list.retain(|pair| pair.is_named || Some(pair.number) == primary);
    }
}

impl Agent {
    /// The way back to where a datagram came from.
    pub(crate) fn way_back(&self, from: Endpoint) -> Endpoint {
        Endpoint { via: self.pairs.pinned(from.via), ..from }
    }
}

/// Whether a datagram from `from` belongs to the pair. A base that the kernel chooses matches any.
pub(super) fn is_same(pair: Endpoint, from: Endpoint) -> bool {
    let is_same_base = match (pair.via.local, from.via.local) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => true,
    };
    pair.far() == from.far() && is_same_base
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::Remote;
    use crate::path::agent::{Agent, Step};

    #[test]
    fn a_reply_proves_the_pair_that_was_asked_and_only_over_it() {
        let now = Instant::from_start(Duration::from_secs(1));
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        let bases = uplinks(["192.168.1.2", "198.51.100.18"]);
        let mut agent = Agent::new(&mut rng);
        let candidates = vec!["203.0.113.1:51820".parse().unwrap()];
        agent.set_remote(&Remote { candidates, ..Remote::default() }, &bases, now);
        let [first, second] = [0, 1].map(|at| agent.pairs.list[at].endpoint);
        assert_eq!([first, second].map(|pair| pair.via.local), bases.map(|base| Some(base.local)));

        agent.ask(agent.pairs.list[1].number, &mut rng, now);
        let Some(Step::Probe { id, to, .. }) = agent.steps.pop_back() else { panic!("a probe") };
        assert_eq!(to, second);
        let elsewhere = Endpoint { address: "203.0.113.2:51820".parse().unwrap(), ..second };
        for wrong in [first, elsewhere] {
            assert!(agent.on_reply((id, 1), wrong, Duration::ZERO, now).is_none(), "{wrong:?}");
        }
        assert!(!agent.pairs.iter().any(Pair::is_proven));
        assert!(agent.on_reply((id, 1), second, Duration::ZERO, now).is_some());
        let proven: Vec<_> = agent.pairs.iter().filter(|pair| pair.is_proven()).map(|pair| pair.endpoint).collect();
        assert_eq!(proven, [second]);
    }

    /// An uplink for each address.
    fn uplinks<const N: usize>(addresses: [&str; N]) -> [Base; N] {
        let mut interface = 1;
        addresses.map(|ip| {
            interface += 1;
            Base { local: (ip.parse().unwrap(), interface), is_uplink: true }
        })
    }

    fn of(bases: &[Base]) -> (Pairs, Instant) {
        let (mut pairs, now) = (Pairs::default(), Instant::from_start(Duration::from_secs(1)));
        let candidates = vec!["203.0.113.1:51820".parse().unwrap()];
        assert!(pairs.set_remote(&Remote { candidates, ..Remote::default() }, bases, None, now));
        (pairs, now)
    }

    fn vias(pairs: &Pairs) -> Vec<Via> {
        pairs.iter().map(|pair| pair.endpoint.via).collect()
    }

    #[test]
    fn a_pair_is_pinned_to_its_base_where_there_are_several_of_its_family() {
        let mut bases = uplinks(["192.168.1.2", "198.51.100.18", "2001:db8::2"]);
        let way = |at: usize, is_pinned| Via { is_pinned, local: Some(bases[at].local), ..Via::ANY };
        let (mut pairs, now) = of(&bases);
        assert_eq!(vias(&pairs), [way(0, true), way(1, true)]);
        for (at, is_pinned) in [(1, true), (2, false)] {
            let address = if is_pinned { "203.0.113.7:4000" } else { "[2001:db8::7]:4000" }.parse().unwrap();
            let heard = pairs.ensure(Endpoint { address, via: way(at, false) }, now).unwrap();
            assert_eq!(pairs.get(heard).unwrap().endpoint.via, way(at, is_pinned));
        }
        assert_eq!(vias(&of(&bases[1..]).0), [Via::ANY], "the kernel chooses where there is one");
        bases[0].is_uplink = false;
        assert!(vias(&of(&bases).0).iter().all(|via| !via.is_pinned), "and between an uplink and a tunnel");
    }

    #[test]
    fn an_address_is_tried_again_when_its_base_is_gone() {
        let bases = uplinks(["192.168.1.2", "198.51.100.18"]);
        let (mut pairs, now) = of(&bases);
        pairs.list[1].on_proof(now);
        let kept = pairs.list[1].endpoint.via;
        assert!(pairs.set_bases(&bases[..1], None, now));
        let kept = Via { is_pinned: false, ..kept };
        assert_eq!(vias(&pairs), [kept, Via::ANY], "what is proven stays, and the address is tried anew");
        assert!(!pairs.set_bases(&bases[..1], None, now), "once");
    }

    #[test]
    fn a_second_uplink_is_tried_beside_the_path_in_use() {
        let bases = uplinks(["192.168.1.2", "198.51.100.18"]);
        let (mut pairs, now) = of(&bases[..1]);
        pairs.list[0].on_proof(now);
        let primary = pairs.list[0].number;
        assert!(pairs.set_bases(&bases, Some(primary), now));
        let way = |at: usize| Via { is_pinned: true, local: Some(bases[at].local), ..Via::ANY };
        assert_eq!(vias(&pairs), [Via::ANY, way(0), way(1)]);
        let from = Endpoint { address: pairs.list[0].endpoint.address, via: Via { is_pinned: false, ..way(1) } };
        assert_eq!(pairs.at_mut(from).unwrap().endpoint.via, way(1), "the exact base comes first");
    }

    #[test]
    fn the_path_in_use_is_that_of_the_uplink_by_which_it_is_answered() {
        let (mut rng, now) = (ChaCha8Rng::from_seed([1; 32]), Instant::from_start(Duration::from_secs(1)));
        let bases = uplinks(["192.168.1.2", "198.51.100.18"]);
        let way = |at: usize| Via { is_pinned: true, local: Some(bases[at].local), ..Via::ANY };
        for primary in [0, 1] {
            let mut agent = Agent::new(&mut rng);
            let candidates = vec!["203.0.113.1:51820".parse().unwrap()];
            agent.set_remote(&Remote { candidates, ..Remote::default() }, &bases[..1], now);
            agent.pairs.list[0].on_proof(now);
            agent.pairs.set_bases(&bases, None, now);
            assert_eq!(vias(&agent.pairs), [Via::ANY, way(0), way(1)]);
            let number = agent.pairs.list[0].number;
            agent.primary = Some(agent.pairs.list[primary].number);
            agent.ask(number, &mut rng, now);
            let Some(Step::Probe { id, to, .. }) = agent.steps.pop_back() else { panic!("a probe") };
            let from = Endpoint { via: Via { is_pinned: false, ..way(0) }, ..to };
            assert!(agent.on_reply((id, 1), from, Duration::ZERO, now).is_some());
            assert_eq!(vias(&agent.pairs), [way(0), way(1)]);
            assert!(agent.primary().is_some(), "packets go where they went");
        }
    }
}
