//! A peer that does not run our software was unreachable for a long time, and returns.
//!
//! The peer is the handwritten one: it answers initiations, sends one when it has something to say, and does not know
//! what was lost in the meantime. `tests/network.rs` has the same with nodes on both sides.

use std::time::Duration;

use overlay_core::Instant;
use overlay_sim::initiator::Session;
use overlay_sim::{HostId, Outsider, World, millis, packet, seconds};

/// Outages in seconds: the promised ones (90, 300, 600), and values around the moments at which timers give up.
const OUTAGES: [u64; 14] = [20, 60, 85, 89, 90, 91, 120, 175, 181, 300, 539, 545, 600, 1_200];
const INITIATION: u8 = 1;
const DATA: u8 = 4;

/// A host, and a peer whose path can be cut.
struct Scene {
    world: World,
    alice: HostId,
    carol: Outsider,
    /// Carol's newest session.
    session: Session,
    /// What carol has received inside her sessions.
    heard: Vec<Vec<u8>>,
}

impl Scene {
    fn new(seed: u64, persistent_keepalive: Option<Duration>) -> Self {
        let mut world = World::new(seed);
        let alice = world.host();
        let mut carol = world.outsider_with(alice, |peer| peer.persistent_keepalive = persistent_keepalive);
        let session = world.connect(&mut carol);
        Self { world, alice, carol, session, heard: Vec::new() }
    }

    /// A program on alice's host sends something to carol.
    fn alice_says(&mut self) {
        let ends = self.world.from_outsider(&self.carol).reversed();
        self.world.send(self.alice, ends.udp(b"are you there"));
    }

    /// Lets time pass while everything that alice sends is lost.
    fn is_cut_for(&mut self, outage: Duration, alice_talks: bool) {
        let end = self.world.now() + outage;
        while self.world.now() < end {
            if alice_talks {
                self.alice_says();
            }
            self.world.run_for(millis(500));
            self.world.take_mail(self.carol.address);
        }
    }

    /// Carol reads her mail and answers initiations.
    fn carol_reads(&mut self) {
        for message in self.world.take_mail(self.carol.address) {
            match message[0] {
                INITIATION => {
                    self.carol.next_index += 1;
                    let answer = self.carol.initiator.answer(&message, self.carol.next_index);
                    let (response, session, _) = answer.expect("an initiation for carol");
                    self.session = session;
                    self.world.inject(self.carol.address, self.alice, &response);
                }
                DATA => self.heard.extend(self.session.open(&message).ok().map(|opened| opened.plaintext)),
                _ => {}
            }
        }
    }

    /// Runs until `is_done`, for at most `limit`. Returns how long that took, counted from `since`.
    fn until(
        &mut self,
        since: Instant,
        limit: Duration,
        mut is_done: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        while self.world.now().since(since) <= limit {
            self.carol_reads();
            if is_done(self) {
                return Some(self.world.now().since(since));
            }
            self.world.run_for(millis(50));
        }
        None
    }
}

#[test]
fn a_stock_peer_is_reached_within_six_seconds_of_its_return_by_traffic_from_here() {
    for outage in OUTAGES {
        for talks_meanwhile in [true, false] {
            for keepalive in [None, Some(seconds(25))] {
                let mut scene = Scene::new(outage, keepalive);
                scene.is_cut_for(seconds(outage), talks_meanwhile);
                let back = scene.world.now();
                let mut sent = 0;
                let after = scene.until(back, seconds(60), |scene| {
                    if sent == 0 || scene.world.now().since(back) >= seconds(sent) {
                        sent += 1;
                        scene.alice_says();
                        scene.carol_reads();
                    }
                    scene.heard.iter().any(|plaintext| packet::udp_payload(plaintext) == Some(&b"are you there"[..]))
                });
                let case = format!("{outage} s, talks meanwhile: {talks_meanwhile}, keepalive {keepalive:?}");
                assert!(after.is_some_and(|after| after <= seconds(6)), "{case}: {after:?}");
            }
        }
    }
}

#[test]
fn a_stock_peer_that_returns_and_speaks_is_heard_at_once() {
    for outage in OUTAGES {
        for talks_meanwhile in [true, false] {
            let mut scene = Scene::new(outage, None);
            scene.is_cut_for(seconds(outage), talks_meanwhile);
            scene.world.forget();
            scene.session = scene.world.connect(&mut scene.carol);
            let packet = scene.world.from_outsider(&scene.carol).udp(b"I am back");
            let message = scene.session.seal(&packet);
            scene.world.inject(scene.carol.address, scene.alice, &message);
            assert_eq!(scene.world.received(scene.alice).len(), 1, "{outage} s, {talks_meanwhile}");
            scene.alice_says();
            let back = scene.world.now();
            assert!(scene.until(back, seconds(1), |scene| !scene.heard.is_empty()).is_some(), "{outage} s");
        }
    }
}

#[test]
fn a_stock_peer_is_back_within_30_seconds_by_persistent_keepalive_alone() {
    for outage in OUTAGES {
        let mut scene = Scene::new(outage, Some(seconds(25)));
        scene.is_cut_for(seconds(outage), false);
        scene.heard.clear();
        // The peer has restarted, so only a new session counts.
        let (back, old) = (scene.world.now(), scene.session.local_index);
        if outage >= 180 {
            let after =
                scene.until(back, seconds(60), |scene| scene.session.local_index != old && !scene.heard.is_empty());
            assert!(after.is_some_and(|after| after <= seconds(30)), "{outage} s: {after:?}");
        } else {
            let after = scene.until(back, seconds(60), |scene| !scene.heard.is_empty());
            assert!(after.is_some_and(|after| after <= seconds(30)), "{outage} s: {after:?}");
        }
        let packet = scene.world.from_outsider(&scene.carol).udp(b"I can speak now");
        scene.world.forget();
        let message = scene.session.seal(&packet);
        scene.world.inject(scene.carol.address, scene.alice, &message);
        assert_eq!(scene.world.received(scene.alice).len(), 1, "{outage} s");
    }
}
