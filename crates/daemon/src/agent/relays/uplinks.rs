//! How each of several uplinks looks from outside.
//!
//! What is said to relays takes the uplink that the routing table prefers, so relays tell how that one is seen, and bindings keep
//! its mapping alive. Where a family has several uplinks, each other one with a private address asks a relay for itself, by STUN, as
//! often as a binding is renewed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overlay_core::Via;
use overlay_rendezvous::netcheck::{Outcome, Question};

use crate::engine::Datagram;

/// How often each asks.
const ASK_EVERY: Duration = Duration::from_secs(25);
/// How many questions in a row are lost before an uplink counts as one that leads nowhere.
const MAX_LOST: usize = 2;

/// An address of this host, and its interface.
type Base = (IpAddr, u32);

/// All uplinks that ask.
#[derive(Debug, Default)]
pub(super) struct Uplinks {
    all: Vec<Uplink>,
    /// Where to ask, when that was told last.
    relays: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Uplink {
    base: Base,
    question: Option<Question>,
    /// When it asks next, by the monotonic clock.
    ask_at: Duration,
    observed: Option<SocketAddr>,
    /// How many questions in a row were lost.
    lost: usize,
    /// Which relay is asked: a different one after each loss.
    turn: usize,
}

impl Uplinks {
    /// Replaces the uplinks: one address or more of each. `is_translated`: whether an address is private, so that others see a
    /// different one. Returns whether one that was seen is gone.
    pub(super) fn set(&mut self, bases: &[Base], is_translated: impl Fn(IpAddr) -> bool) -> bool {
        let is_wanted = |base: &&Base| {
            let mut of_family = bases.iter().filter(|other| other.0.is_ipv4() == base.0.is_ipv4());
            let is_one_of_several = of_family.clone().any(|other| other.1 != base.1);
            let first = of_family.find(|other| other.1 == base.1 && is_translated(other.0));
            is_one_of_several && first == Some(*base)
        };
        let wanted: Vec<_> = bases.iter().filter(is_wanted).copied().collect();
        let is_gone = |uplink: &Uplink| !wanted.contains(&uplink.base);
        let has_news = self.all.iter().any(|uplink| is_gone(uplink) && uplink.observed.is_some());
        self.all.retain(|uplink| !is_gone(uplink));
        for base in wanted {
            if !self.all.iter().any(|uplink| uplink.base == base) {
                self.all.push(Uplink {
                    base,
                    question: None,
                    ask_at: Duration::ZERO,
                    observed: None,
                    lost: 0,
                    turn: 0,
                });
            }
        }
        has_news
    }

    /// All ask now: something about this host has changed.
    pub(super) fn hasten(&mut self, now: Duration) {
        self.all.iter_mut().for_each(|uplink| uplink.ask_at = now);
    }

    /// When something is due, by the monotonic clock.
    pub(super) fn due(&self) -> Duration {
        self.all.iter().map(Uplink::due).min().unwrap_or(Duration::MAX)
    }

    /// Does what is due. `relays`: where to ask, the best one first. `known`: how relays see us, so that nobody has to ask. `id`:
    /// random numbers. Returns whether an uplink is no longer seen.
    pub(super) fn handle_timeout(
        &mut self,
        (relays, known): (&[SocketAddr], &[SocketAddr]),
        id: impl Fn() -> [u8; 11],
        now: Duration,
        out: &mut Vec<Datagram>,
    ) -> bool {
        if self.relays != relays {
            relays.clone_into(&mut self.relays);
            self.all.iter_mut().filter(|uplink| uplink.observed.is_none()).for_each(|uplink| uplink.ask_at = now);
        }
        let mut has_news = false;
        for uplink in self.all.iter_mut().filter(|uplink| uplink.due() <= now) {
            if uplink.question.is_none() {
                uplink.ask_at = now + ASK_EVERY;
                let is_preferred = uplink.observed.is_some_and(|observed| known.contains(&observed));
                uplink.question =
                    uplink.relay(relays).filter(|_| !is_preferred).map(|relay| Question::with_id(relay, id(), now));
            }
            let Some(question) = &mut uplink.question else { continue };
            question.handle_timeout(now);
            let (ip, link) = uplink.base;
            while let Some(request) = question.poll_attempt(now) {
                let via = Via { is_pinned: true, ..Via::to(ip, link) };
                out.push(Datagram { remote: question.to(), via, contents: request.into() });
            }
            has_news |= uplink.settle(now);
        }
        has_news
    }

    /// Takes in a datagram of a relay. `None`: nobody here has asked for it. Otherwise: whether an uplink is seen differently.
    pub(super) fn handle_datagram(&mut self, datagram: &Datagram, now: Duration) -> Option<bool> {
        // What comes in by a different uplink was sent over that one, so it says nothing of this one.
        let mut asked = self.all.iter_mut().filter(|uplink| Some(uplink.base) == datagram.via.local);
        asked.find_map(|uplink| {
            let question = uplink.question.as_mut()?;
            question.handle_datagram(datagram.remote, &datagram.contents, now).then(|| uplink.settle(now))
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

    /// Where it asks next: a relay of its family, and the next one if that has not answered.
    fn relay(&self, relays: &[SocketAddr]) -> Option<SocketAddr> {
        let of_family: Vec<_> = relays.iter().filter(|relay| relay.is_ipv4() == self.base.0.is_ipv4()).collect();
        of_family.get(self.turn % of_family.len().max(1)).copied().copied()
    }

    /// Takes what became of the question. Returns whether the uplink is seen differently now.
    fn settle(&mut self, now: Duration) -> bool {
        let observed = match self.question.as_ref().map(Question::outcome) {
            None | Some(Outcome::Asking) => return false,
            Some(Outcome::Answered { mapped, .. }) => {
                self.lost = 0;
                Some(mapped)
            }
            Some(_) => {
                self.lost += 1;
                self.turn = self.turn.wrapping_add(1);
                if self.lost < MAX_LOST {
                    self.ask_at = now;
                }
                self.observed.filter(|_| self.lost < MAX_LOST)
            }
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

    /// Lets all ask, and returns what they send.
    fn ask(uplinks: &mut Uplinks, relays: &[SocketAddr], known: &[SocketAddr], now: Duration) -> Vec<Datagram> {
        let (mut out, number) = (Vec::new(), std::cell::Cell::new(now.as_secs() as u8));
        let id = || [number.replace(number.get() + 100); 11];
        uplinks.handle_timeout((relays, known), id, now, &mut out);
        assert!(out.iter().all(|datagram| datagram.via.is_pinned));
        out
    }

    fn asked(out: &[Datagram]) -> Vec<(Option<Base>, SocketAddr)> {
        out.iter().map(|datagram| (datagram.via.local, datagram.remote)).collect()
    }

    /// The relay answers that it sees the sender there.
    fn answer(
        uplinks: &mut Uplinks,
        asked: &Datagram,
        (seen, over): (SocketAddr, Base),
        now: Duration,
    ) -> Option<bool> {
        let answer = stun::answer(&asked.contents, seen, now, &mut Gate::default()).expect("an answer");
        let via = Via::to(over.0, over.1);
        uplinks.handle_datagram(&Datagram { remote: asked.remote, via, contents: answer.into() }, now)
    }

    fn seen() -> [SocketAddr; 2] {
        ["198.51.100.7:51820".parse().unwrap(), "203.0.113.7:40000".parse().unwrap()]
    }

    #[test]
    fn only_uplinks_with_a_private_address_ask_and_only_where_there_are_several() {
        let mut uplinks = Uplinks::default();
        let private = |ip: IpAddr| ip.is_ipv4();
        uplinks.set(&[CABLE, ("2001:db8::2".parse().unwrap(), 2), ("2001:db8:1::2".parse().unwrap(), 3)], private);
        assert_eq!(uplinks.due(), Duration::MAX, "one of IPv4, and public ones");
        uplinks.set(&[CABLE, ("192.168.1.3".parse().unwrap(), 2)], private);
        assert_eq!(uplinks.due(), Duration::MAX, "two addresses of one");
        uplinks.set(&[CABLE, ("192.168.1.3".parse().unwrap(), 2), MOBILE], private);
        let out = ask(&mut uplinks, &["[2001:db8::9]:7447".parse().unwrap(), relay(9)], &[], at(1));
        assert_eq!(asked(&out), [(Some(CABLE), relay(9)), (Some(MOBILE), relay(9))], "one address of each");
    }

    #[test]
    fn each_learns_how_it_is_seen_and_the_preferred_one_asks_no_more() {
        let mut uplinks = Uplinks::default();
        uplinks.set(&[CABLE, MOBILE], |_| true);
        let out = ask(&mut uplinks, &[relay(9)], &[], at(1));
        assert_eq!(answer(&mut uplinks, &out[1], (seen()[0], CABLE), at(1)), None, "it left over the other one");
        for (datagram, (seen, over)) in out.iter().zip(seen().into_iter().zip([CABLE, MOBILE])) {
            assert_eq!(answer(&mut uplinks, datagram, (seen, over), at(1)), Some(true));
            assert_eq!(answer(&mut uplinks, datagram, (seen, over), at(1)), None, "once");
        }
        assert_eq!(uplinks.observed().collect::<Vec<_>>(), seen());

        assert_eq!(uplinks.due(), at(26));
        uplinks.hasten(at(3));
        assert_eq!(uplinks.due(), at(3), "the network has changed");
        let out = ask(&mut uplinks, &[relay(9)], &seen()[..1], at(26));
        assert_eq!(asked(&out), [(Some(MOBILE), relay(9))]);
        assert_eq!(answer(&mut uplinks, &out[0], (seen()[1], MOBILE), at(26)), Some(false), "as before");
        assert!(uplinks.set(&[CABLE], |_| true));
        assert_eq!(uplinks.observed().count(), 0);
    }

    #[test]
    fn two_relays_have_to_be_silent_before_an_uplink_counts_as_lost() {
        let mut uplinks = Uplinks::default();
        uplinks.set(&[CABLE, MOBILE], |_| true);
        let out = ask(&mut uplinks, &[relay(9)], &[], at(1));
        answer(&mut uplinks, &out[1], (seen()[1], MOBILE), at(1));
        let mut asked_at = Vec::new();
        for second in 26..=40 {
            let relays = [relay(9), relay(8)];
            let out = ask(&mut uplinks, &relays, &[], at(second));
            let of_mobile = out.iter().filter(|datagram| datagram.via.local == Some(MOBILE));
            asked_at.extend(of_mobile.map(|datagram| datagram.remote));
            assert_eq!(uplinks.observed().count(), usize::from(second < 39), "at {second} s");
        }
        asked_at.dedup();
        assert_eq!(asked_at, [relay(9), relay(8)]);
    }

    #[test]
    fn without_a_relay_of_the_family_nobody_is_asked_until_one_is_known() {
        let mut uplinks = Uplinks::default();
        uplinks.set(&[CABLE, MOBILE], |_| true);
        assert_eq!(ask(&mut uplinks, &["[2001:db8::9]:7447".parse().unwrap()], &[], at(1)), []);
        assert_eq!(uplinks.due(), at(26));
        assert_eq!(ask(&mut uplinks, &[relay(9)], &[], at(2)).len(), 2, "a relay has come");
    }
}
