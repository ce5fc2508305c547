//! The pairs of one peer: each of our bases with each address of the peer, and each channel of a relay.

use std::net::{IpAddr, SocketAddr};

use super::pair::Pair;
use super::{Agent, Base};
use crate::path::endpoint::Endpoint;
use crate::{Instant, Remote, Via};

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

    /// The pair that a datagram from there belongs to.
    pub(super) fn at_mut(&mut self, from: Endpoint) -> Option<&mut Pair> {
        let at = self.list.iter().position(|pair| is_same(pair.endpoint, from))?;
        self.list.get_mut(at)
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
        let wanted: Vec<_> = remotes.into_iter().flat_map(|address| self.endpoints_to(address)).collect();
        self.list.retain(|pair| {
            let is_kept = pair.is_relayed() || pair.is_proven() || !pair.is_named || Some(pair.number) == primary;
            is_kept || wanted.contains(&pair.endpoint)
        });
        let mut has_new = false;
        for endpoint in wanted {
            let serves = |pair: &Pair| {
                is_same(pair.endpoint, endpoint) && pair.endpoint.via.local.is_none_or(|base| bases.contains(&base))
            };
            match self.list.iter_mut().find(|pair| serves(pair)) {
                Some(pair) => pair.is_named = true,
                None => has_new |= self.add(endpoint, true, now).is_some(),
            }
        }
        has_new
    }

    /// The endpoints of pairs with this address of the peer. With one address to send from, the kernel knows better, and
    /// follows when it changes.
    fn endpoints_to(&self, address: SocketAddr) -> Vec<Endpoint> {
        let bases: Vec<_> = self.bases_of(address.ip()).collect();
        if bases.len() < 2 {
            return vec![Endpoint::configured(address)];
        }
        let over = |(ip, interface)| Endpoint { address, via: self.pinned(Via::to(ip, interface)) };
        bases.into_iter().map(over).collect()
    }

    fn bases_of(&self, family: IpAddr) -> impl Iterator<Item = Base> {
        self.bases.iter().copied().filter(move |(ip, _)| ip.is_ipv4() == family.is_ipv4())
    }

    /// The same way. It is pinned if it leaves directly through one of several uplinks.
    fn pinned(&self, via: Via) -> Via {
        let is_pinned = via.channel.is_none()
            && via.local.is_some_and(|base| self.bases.contains(&base) && self.bases_of(base.0).nth(1).is_some());
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
    pub(crate) fn way_back(&self, via: Via) -> Via {
        self.pairs.pinned(via)
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
        let bases: [Base; 2] = [("192.168.1.2".parse().unwrap(), 2), ("198.51.100.18".parse().unwrap(), 3)];
        let mut agent = Agent::new(&mut rng);
        let candidates = vec!["203.0.113.1:51820".parse().unwrap()];
        agent.set_remote(&Remote { candidates, ..Remote::default() }, &bases, now);
        let [first, second] = [0, 1].map(|at| agent.pairs.list[at].endpoint);
        assert_eq!([first, second].map(|pair| pair.via.local), bases.map(Some));

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
        let bases: [Base; 3] = [("192.168.1.2", 2), ("198.51.100.18", 3), ("2001:db8::2", 2)]
            .map(|(ip, interface)| (ip.parse().unwrap(), interface));
        let way = |at: usize, is_pinned| Via { is_pinned, ..Via::to(bases[at].0, bases[at].1) };
        let (mut pairs, now) = of(&bases);
        assert_eq!(vias(&pairs), [way(0, true), way(1, true)]);
        for (at, is_pinned) in [(1, true), (2, false)] {
            let address = if is_pinned { "203.0.113.7:4000" } else { "[2001:db8::7]:4000" }.parse().unwrap();
            let heard = pairs.ensure(Endpoint { address, via: way(at, false) }, now).unwrap();
            assert_eq!(pairs.get(heard).unwrap().endpoint.via, way(at, is_pinned));
        }
        assert_eq!(vias(&of(&bases[1..]).0), [Via::ANY], "the kernel chooses where there is one");
    }

    #[test]
    fn a_pair_whose_base_is_gone_keeps_no_other_from_being_tried() {
        let bases: [Base; 2] = [("192.168.1.2".parse().unwrap(), 2), ("198.51.100.18".parse().unwrap(), 3)];
        let (mut pairs, now) = of(&bases);
        pairs.list[1].on_proof(now);
        let kept = pairs.list[1].endpoint.via;
        assert!(pairs.set_bases(&bases[..1], None, now));
        assert_eq!(vias(&pairs), [kept, Via::ANY], "what is proven stays, and the address is tried anew");
        assert!(!pairs.set_bases(&bases[..1], None, now), "once");
    }
}
