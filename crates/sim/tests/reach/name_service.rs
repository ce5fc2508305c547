//! The control side of a node: it asks a name service whenever the node reports that a peer does not answer.

use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::{Event, Instant, PeerKey};
use overlay_sim::{HostId, World, millis};

/// How long a look-up takes.
const LOOK_UP: Duration = millis(50);
/// How often the control side checks for events.
const PACE: Duration = millis(20);

/// One host's view of one peer's name.
pub(crate) struct Resolver {
    host: HostId,
    peer: PeerKey,
    /// The addresses that the name has now.
    pub(crate) addresses: Vec<SocketAddr>,
    /// How many events have been seen.
    seen: usize,
    /// When the answer to a look-up arrives.
    pending: Option<Instant>,
    /// How many look-ups have been made.
    pub(crate) asked: usize,
}

impl Resolver {
    /// Creates the view. The name was resolved to `addresses` when the host came up.
    pub(crate) fn new(world: &mut World, host: HostId, peer: PeerKey, addresses: Vec<SocketAddr>) -> Self {
        world.resolve(host, peer, &addresses).expect("the peer is there");
        Self { host, peer, addresses, seen: 0, pending: None, asked: 0 }
    }

    /// Runs the world until `is_done`. Returns how long that took, or `None` after `limit`.
    pub(crate) fn run_until(
        &mut self,
        world: &mut World,
        limit: Duration,
        mut is_done: impl FnMut(&mut World) -> bool,
    ) -> Option<Duration> {
        let began = world.now();
        while world.now().since(began) < limit {
            if is_done(world) {
                return Some(world.now().since(began));
            }
            world.run_for(PACE);
            self.look(world);
        }
        None
    }

    /// Runs the world for `span`.
    pub(crate) fn run(&mut self, world: &mut World, span: Duration) {
        self.run_until(world, span, |_| false);
    }

    /// Does what the control side does between two events.
    pub(crate) fn look(&mut self, world: &mut World) {
        let events = world.events(self.host);
        // The record may have been cleared.
        self.seen = self.seen.min(events.len());
        let peer = world.tag(self.host, self.peer);
        let is_silent = |event: &Event| *event == Event::Answering(peer, false);
        if events[self.seen..].iter().any(|(_, event)| is_silent(event)) {
            self.asked += 1;
            self.pending = Some(world.now() + LOOK_UP);
        }
        self.seen = events.len();
        if self.pending.take_if(|at| *at <= world.now()).is_some() {
            world.resolve(self.host, self.peer, &self.addresses).expect("the peer is there");
        }
    }
}

/// What `host` reported about whether its peer answers.
pub(crate) fn answering(world: &World, host: HostId, peer: PeerKey) -> Vec<bool> {
    let peer = world.tag(host, peer);
    let reported = world.events(host).iter().filter_map(|(_, event)| match event {
        Event::Answering(of, answers) if *of == peer => Some(*answers),
        _ => None,
    });
    reported.collect()
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}
