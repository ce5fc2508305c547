//! The start of most tests of paths: agents behind NATs, the relays that they share, and pings that show every gap.

use std::time::Duration;

use overlay_core::Instant;

use crate::host::HostId;
use crate::nat::Kind;
use crate::packet::Echo;
use crate::place::{RelayId, RouterId};
use crate::seconds;
use crate::world::World;

/// How long [`World::pings`] waits for the last answers.
const LAST_ANSWERS: Duration = seconds(2);

/// Agents that trust each other, each behind a router of its own, and the relays of all.
pub struct Agents {
    /// Where they live.
    pub world: World,
    /// The relays.
    pub relays: Vec<RelayId>,
    /// The hosts of the agents.
    pub hosts: Vec<HostId>,
    /// The innermost router of each.
    pub routers: Vec<RouterId>,
}

impl Agents {
    /// Agents behind routers of these kinds, which have not begun. An agent has addresses of its router's family alone, and of
    /// both if there is no NAT. All want to be found at all relays; their first choices take turns.
    pub fn behind(seed: u64, kinds: &[Kind], relays: usize) -> Self {
        let mut world = World::new(seed);
        let mut relays: Vec<_> = (0..relays).map(|_| world.relay()).collect();
        let (mut hosts, mut routers) = (Vec::new(), Vec::new());
        let homes = relays.clone();
        for kind in kinds {
            let host = world.host();
            if *kind != Kind::None {
                world.keep_family(host, kind.is_ipv6());
            }
            routers.push(world.put_behind(host, *kind));
            world.agent(host, &relays);
            if !relays.is_empty() {
                relays.rotate_left(1);
            }
            hosts.push(host);
        }
        for (index, one) in hosts.iter().enumerate() {
            hosts[index + 1..].iter().for_each(|other| world.trust(*one, *other));
        }
        Self { world, relays: homes, hosts, routers }
    }

    /// The same, and all of them begin now.
    pub fn started(seed: u64, kinds: &[Kind], relays: usize) -> Self {
        let mut agents = Self::behind(seed, kinds, relays);
        agents.start(&vec![Duration::ZERO; kinds.len()]);
        agents
    }

    /// Each agent begins when so much time has passed.
    pub fn start(&mut self, after: &[Duration]) {
        for (host, span) in self.hosts.iter().copied().zip(after) {
            self.world.after(*span, move |world| world.start_agent(host));
        }
    }

    /// The first two agents.
    pub fn pair(&self) -> (HostId, HostId) {
        (self.hosts[0], self.hosts[1])
    }
}

/// One ping, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// When it was sent.
    pub sent: Instant,
    /// When its first answer came.
    pub answered: Option<Instant>,
    /// How many answers came.
    pub answers: usize,
}

/// A series of pings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pings(pub Vec<Ping>);

impl Pings {
    /// How many were not answered.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|ping| ping.answered.is_none()).count()
    }

    /// How many were answered more than once.
    pub fn doubled(&self) -> usize {
        self.0.iter().filter(|ping| ping.answers > 1).count()
    }

    /// The longest time between two answers, counted from the first ping.
    pub fn longest_gap(&self) -> Duration {
        let Some(first) = self.0.first() else { return Duration::ZERO };
        let mut answers: Vec<_> = self.0.iter().filter_map(|ping| ping.answered).collect();
        answers.sort_unstable();
        let last = self.0.last().map_or(first.sent, |last| last.sent).max(answers.last().copied().unwrap_or_default());
        let ends = answers.iter().copied().chain([last]);
        let starts = [first.sent].into_iter().chain(answers.iter().copied());
        starts.zip(ends).map(|(from, to)| to.since(from)).max().unwrap_or_default()
    }

    /// How long it took from the first ping to the first answer.
    pub fn until_first(&self) -> Option<Duration> {
        let first = self.0.iter().filter_map(|ping| ping.answered).min()?;
        Some(first.since(self.0.first()?.sent))
    }
}

impl World {
    /// Pings at this interval over IPv4 for `span`, while the world runs, and waits two seconds for the last answers.
    pub fn pings(&mut self, from: HostId, to: HostId, interval: Duration, span: Duration) -> Pings {
        let before = self.received(from).len();
        let (ends, end) = (self.v4(from, to), self.now() + span);
        let mut sent = Vec::new();
        while self.now() < end {
            let at = self.now();
            sent.push((at, self.send_ping(from, ends)));
            self.run_for(interval);
        }
        self.run_for(LAST_ANSWERS);
        let answers = self.received(from)[before..].iter().filter_map(|received| {
            let echo = Echo::of(&received.packet).filter(|echo| !echo.is_request && echo.ends == ends.reversed())?;
            Some((echo.sequence, received.at))
        });
        let answers: Vec<_> = answers.collect();
        let ping = |(sent, sequence): (Instant, u16)| {
            let of_it: Vec<_> = answers.iter().filter(|(number, _)| *number == sequence).collect();
            Ping { sent, answered: of_it.first().map(|(_, at)| *at), answers: of_it.len() }
        };
        Pings(sent.into_iter().map(ping).collect())
    }

    /// A host keeps its address of this family, and loses the other one.
    pub fn keep_family(&mut self, host: HostId, is_ipv6: bool) {
        let kept = self.outer(host).iter().filter(|address| address.is_ipv6() == is_ipv6).map(ToString::to_string);
        let kept: Vec<_> = kept.collect();
        self.roam(host, &kept.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::millis;

    #[test]
    fn the_longest_gap_counts_from_the_first_ping_to_the_last() {
        let at = |ms| Instant::from_start(millis(ms));
        let ping = |sent, answered: Option<u64>| Ping {
            sent: at(sent),
            answered: answered.map(at),
            answers: usize::from(answered.is_some()),
        };
        let pings = |list: &[(u64, Option<u64>)]| Pings(list.iter().map(|(sent, it)| ping(*sent, *it)).collect());
        assert_eq!(pings(&[(0, Some(20)), (100, Some(120)), (200, Some(220))]).longest_gap(), millis(100));
        assert_eq!(pings(&[(0, Some(250)), (200, Some(220))]).longest_gap(), millis(220));
        assert_eq!(pings(&[(0, Some(20)), (100, None), (900, None)]).longest_gap(), millis(880));
        assert_eq!(pings(&[(0, None), (500, None)]).longest_gap(), millis(500));
        let some = pings(&[(0, None), (100, Some(130))]);
        assert_eq!((some.lost(), some.doubled(), some.until_first()), (1, 0, Some(millis(130))));
    }
}
