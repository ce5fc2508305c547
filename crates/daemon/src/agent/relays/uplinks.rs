//! How each of several uplinks looks from outside.
//!
//! What is said to relays takes the uplink that the routing table prefers, so relays tell how that one is seen. Where a family has
//! several, each with a private address asks a relay for itself, by STUN. It asks again and again, which keeps its mapping alive
//! and shows when it leads nowhere.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overlay_core::Via;
use overlay_rendezvous::netcheck::{Outcome, Question};

use crate::engine::Datagram;

/// How often each asks. NATs keep a mapping for two minutes (RFC 4787 REQ-5), and with the renewals of two bindings, two uplinks
/// send six datagrams a minute.
const ASK_EVERY: Duration = Duration::from_secs(100);

/// An address of this host, and its interface.
pub(in crate::agent) type Base = (IpAddr, u32);

/// All uplinks that ask.
#[derive(Debug, Default)]
pub(super) struct Uplinks {
    all: Vec<Uplink>,
}

#[derive(Debug)]
struct Uplink {
    base: Base,
    question: Option<Question>,
    /// When it asks next, by the monotonic clock.
    ask_at: Duration,
    observed: Option<SocketAddr>,
}

impl Uplinks {
    /// The uplinks of this host are these, one address or more of each. `needs`: whether others see an address as a different one.
    /// Returns whether one that was seen is gone.
    pub(super) fn set(&mut self, bases: &[Base], needs: impl Fn(IpAddr) -> bool) -> bool {
        let mut wanted: Vec<Base> = Vec::new();
        for base in bases {
            let of_family = || bases.iter().filter(|other| other.0.is_ipv4() == base.0.is_ipv4());
            let is_one_of_several = of_family().map(|(_, link)| link).collect::<BTreeSet<_>>().len() > 1;
            let is_first = of_family().find(|other| other.1 == base.1 && needs(other.0)) == Some(base);
            if is_one_of_several && is_first {
                wanted.push(*base);
            }
        }
        let is_gone = |uplink: &Uplink| !wanted.contains(&uplink.base);
        let has_news = self.all.iter().any(|uplink| is_gone(uplink) && uplink.observed.is_some());
        self.all.retain(|uplink| !is_gone(uplink));
        for base in wanted {
            if !self.all.iter().any(|uplink| uplink.base == base) {
                self.all.push(Uplink { base, question: None, ask_at: Duration::ZERO, observed: None });
            }
        }
        has_news
    }

    /// All ask now: something about this host or its relays has changed.
    pub(super) fn hasten(&mut self, now: Duration) {
        self.all.iter_mut().for_each(|uplink| uplink.ask_at = now);
    }

    /// When something is due, by the monotonic clock.
    pub(super) fn due(&self) -> Duration {
        self.all.iter().map(Uplink::due).min().unwrap_or(Duration::MAX)
    }

    /// Does what is due. `relays`: whom to ask, the best one first. `id`: random numbers. Returns whether an uplink is no longer seen.
    pub(super) fn handle_timeout(
        &mut self,
        relays: &[SocketAddr],
        id: impl Fn() -> [u8; 11],
        now: Duration,
        out: &mut Vec<Datagram>,
    ) -> bool {
        let mut has_news = false;
        for uplink in self.all.iter_mut().filter(|uplink| uplink.due() <= now) {
            if uplink.question.is_none() {
                uplink.ask_at = now + ASK_EVERY;
                let relay = relays.iter().find(|relay| relay.is_ipv4() == uplink.base.0.is_ipv4());
                uplink.question = relay.map(|relay| Question::with_id(*relay, id(), now));
            }
            let Some(question) = &mut uplink.question else { continue };
            question.handle_timeout(now);
            let (ip, link) = uplink.base;
            while let Some(request) = question.poll_attempt(now) {
                let via = Via { is_pinned: true, ..Via::to(ip, link) };
                out.push(Datagram { remote: question.to(), via, contents: request.into() });
            }
            has_news |= uplink.settle();
        }
        has_news
    }

    /// Takes in a datagram of a relay. `None`: nobody here has asked for it. Otherwise: whether an uplink is seen differently.
    pub(super) fn handle_datagram(&mut self, datagram: &Datagram, now: Duration) -> Option<bool> {
        self.all.iter_mut().find_map(|uplink| {
            let question = uplink.question.as_mut()?;
            question.handle_datagram(datagram.remote, &datagram.contents, now).then(|| uplink.settle())
        })
    }

    /// How they are seen.
    pub(super) fn observed(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().filter_map(|uplink| uplink.observed)
    }
}

impl Uplink {
    fn due(&self) -> Duration {
        self.question.as_ref().map_or(self.ask_at, |question| question.deadline().unwrap_or_default())
    }

    /// Takes what became of the question. Returns whether the uplink is seen differently now.
    fn settle(&mut self) -> bool {
        let observed = match self.question.as_ref().map(Question::outcome) {
            None | Some(Outcome::Asking) => return false,
            Some(Outcome::Answered { mapped, .. }) => Some(mapped),
            Some(_) => None,
        };
        self.question = None;
        std::mem::replace(&mut self.observed, observed) != observed
    }
}

#[cfg(test)]
mod tests {
    use overlay_rendezvous::stun::{self, Gate};

    use super::*;

    const CABLE: Base = (IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 2)), 2);
    const MOBILE: Base = (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)), 3);

    fn relay(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 7447).into()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Lets all ask, and returns from which base each asks which relay.
    fn ask(uplinks: &mut Uplinks, relays: &[SocketAddr], now: Duration) -> Vec<(Base, Datagram)> {
        let (mut out, number) = (Vec::new(), std::cell::Cell::new(now.as_secs() as u8));
        let id = || [number.replace(number.get() + 100); 11];
        uplinks.handle_timeout(relays, id, now, &mut out);
        assert!(out.iter().all(|datagram| datagram.via.is_pinned));
        out.into_iter().map(|datagram| (datagram.via.local.expect("a base"), datagram)).collect()
    }

    /// The relay answers that it sees the sender there.
    fn answer(uplinks: &mut Uplinks, asked: &Datagram, seen: SocketAddr, now: Duration) -> Option<bool> {
        let answer = stun::answer(&asked.contents, seen, now, &mut Gate::default()).expect("an answer");
        uplinks.handle_datagram(&Datagram { remote: asked.remote, via: Via::ANY, contents: answer.into() }, now)
    }

    #[test]
    fn each_of_several_uplinks_learns_how_it_is_seen() {
        let mut uplinks = Uplinks::default();
        let private = |ip: IpAddr| ip.is_ipv4();
        uplinks.set(&[CABLE, ("2001:db8::2".parse().unwrap(), 2), ("2001:db8:1::2".parse().unwrap(), 3)], private);
        assert_eq!(uplinks.due(), Duration::MAX, "one of IPv4, and public ones");

        uplinks.set(&[CABLE, ("192.168.1.3".parse().unwrap(), 2), MOBILE], private);
        let asked = ask(&mut uplinks, &["[2001:db8::9]:7447".parse().unwrap(), relay(9)], at(1));
        let bases: Vec<_> = asked.iter().map(|(base, datagram)| (*base, datagram.remote)).collect();
        assert_eq!(bases, [(CABLE, relay(9)), (MOBILE, relay(9))], "one address of each");
        let seen: [SocketAddr; 2] = ["198.51.100.7:51820".parse().unwrap(), "203.0.113.7:40000".parse().unwrap()];
        for ((_, datagram), seen) in asked.iter().zip(seen) {
            assert_eq!(answer(&mut uplinks, datagram, seen, at(1)), Some(true));
            assert_eq!(answer(&mut uplinks, datagram, seen, at(1)), None, "once");
        }
        assert_eq!(uplinks.observed().collect::<Vec<_>>(), seen);

        assert_eq!(uplinks.due(), at(101));
        let asked = ask(&mut uplinks, &[relay(9)], at(101));
        assert_eq!(answer(&mut uplinks, &asked[0].1, seen[0], at(101)), Some(false), "as before");
        for second in 102..=107 {
            ask(&mut uplinks, &[relay(9)], at(second));
        }
        assert_eq!(uplinks.observed().collect::<Vec<_>>(), [seen[0]], "the other one leads nowhere");
        assert!(uplinks.set(&[CABLE], private));
        assert_eq!(uplinks.observed().count(), 0);
    }

    #[test]
    fn without_a_relay_of_the_family_nobody_is_asked_until_one_is_known() {
        let mut uplinks = Uplinks::default();
        uplinks.set(&[CABLE, MOBILE], |_| true);
        assert_eq!(ask(&mut uplinks, &["[2001:db8::9]:7447".parse().unwrap()], at(1)), []);
        assert_eq!(uplinks.due(), at(101));
        uplinks.hasten(at(2));
        assert_eq!(ask(&mut uplinks, &[relay(9)], at(2)).len(), 2);
    }
}
