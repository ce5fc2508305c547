//! The pairs of one peer: each of our bases with each address of the peer, and each channel of a relay.

use std::net::SocketAddr;

use super::Base;
use super::pair::Pair;
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
        self.add(from, false, now)
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
            let endpoint = Endpoint { address: *address, via: Via { local: None, channel: Some(*channel) } };
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
        let mut remotes = self.told.clone();
        for address in &self.known {
            if !remotes.contains(address) {
                remotes.push(*address);
            }
        }
        remotes.truncate(MAX_REMOTE);
        let mut wanted = Vec::new();
        for address in remotes {
            let locals: Vec<_> = bases.iter().filter(|base| base.0.is_ipv4() == address.is_ipv4()).collect();
            // With one address to send from, the kernel knows better, and follows when it changes.
            if locals.len() < 2 {
                wanted.push(Endpoint::configured(address));
            } else {
                let via = |local| Via { local: Some(local), channel: None };
                wanted.extend(locals.iter().map(|local| Endpoint { address, via: via(**local) }));
            }
        }
        self.list.retain(|pair| {
            let is_kept = pair.is_relayed() || pair.is_proven() || !pair.is_named || Some(pair.number) == primary;
            is_kept || wanted.contains(&pair.endpoint)
        });
        let mut has_new = false;
        for endpoint in wanted {
            match self.list.iter_mut().find(|pair| is_same(pair.endpoint, endpoint)) {
                Some(pair) => pair.is_named = true,
                None => has_new |= self.add(endpoint, true, now).is_some(),
            }
        }
        has_new
    }

    /// Forgets what was proven of all pairs.
    pub(super) fn forget(&mut self, primary: Option<u8>) {
        for pair in &mut self.list {
            pair.forget();
        }
        self.list.retain(|pair| pair.is_named || Some(pair.number) == primary);
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
}
