//! A peer with good keys that speaks in control frames of its own choice, to a host that searches for its path's MTU.

use overlay_core::{Event, PathMtu};
use overlay_sim::{HostOptions, Scene};
use overlay_wire::control::{Abilities, Frame};

use crate::scene::options;

/// A host that searches for the MTU, and a peer that sends what the test wants.
pub(crate) fn scene() -> Scene {
    scene_with(options())
}

/// The same with other options.
pub(crate) fn scene_with(options: HostOptions) -> Scene {
    Scene::with(options, |peer| peer.mtu_discovery = true)
}

/// What a peer says in control frames, and what comes of it.
pub(crate) trait Frames {
    /// What the host answers in that moment, keepalives apart.
    fn ask(&mut self, packet: &[u8]) -> Vec<Vec<u8>>;

    /// What of these messages can be opened, keepalives apart.
    fn open(&self, messages: &[Vec<u8>]) -> Vec<Vec<u8>>;

    /// What the host answers to this frame.
    fn tell(&mut self, frame: Frame<'_>) -> Vec<Vec<u8>>;

    /// What the host answers to a hello of this MTU.
    fn hello(&mut self, mtu: u16) -> Vec<Vec<u8>>;

    /// Lets time pass: the probes that came meanwhile, with their ids.
    fn probes(&mut self, millis: u64) -> Vec<(u32, u16)>;

    /// What control was told last of the path to carol.
    fn known(&self) -> Option<PathMtu>;

    /// The packet in fragments of so many bytes.
    fn pieces(&mut self, id: u32, packet: &[u8], room: usize) -> Vec<Vec<u8>>;

    /// Datagrams as long as a probe or longer that were sent since the last time everything was forgotten, to anybody.
    fn large(&self) -> usize;

    /// How many events of a kind control was told.
    fn told(&self, is_one: impl Fn(&Event) -> bool) -> usize;
}

impl Frames for Scene {
    fn ask(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let message = self.session.seal(packet);
        let answers = self.world.ask(self.carol.address, self.alice, &message);
        self.open(&answers)
    }

    fn open(&self, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let opened = messages.iter().filter_map(|message| self.session.open(message).ok());
        opened.map(|opened| opened.plaintext).filter(|plaintext| !plaintext.is_empty()).collect()
    }

    fn tell(&mut self, frame: Frame<'_>) -> Vec<Vec<u8>> {
        self.ask(&written(frame))
    }

    fn hello(&mut self, mtu: u16) -> Vec<Vec<u8>> {
        self.tell(Frame::Hello { nonce: 7, understands: Abilities::FRAGMENTS, mtu })
    }

    fn probes(&mut self, millis: u64) -> Vec<(u32, u16)> {
        self.world.run_for(overlay_sim::millis(millis));
        let mail = self.world.take_mail(self.carol.address);
        let probe = |packet: &Vec<u8>| match Frame::parse(packet) {
            Ok(Frame::Probe { id, size }) => Some((id, size)),
            _ => None,
        };
        self.open(&mail).iter().filter_map(probe).collect()
    }

    fn known(&self) -> Option<PathMtu> {
        self.world.events(self.alice).iter().rev().find_map(|(_, event)| match event {
            Event::PathMtu(_, known) => Some(*known),
            _ => None,
        })
    }

    fn pieces(&mut self, id: u32, packet: &[u8], room: usize) -> Vec<Vec<u8>> {
        let total = packet.len() as u16;
        let mut answers = Vec::new();
        for (index, bytes) in packet.chunks(room).enumerate() {
            answers.extend(self.tell(Frame::Fragment { id, offset: (index * room) as u16, total, bytes }));
        }
        answers
    }

    fn large(&self) -> usize {
        self.world.sent().iter().filter(|sent| sent.from == self.alice && sent.bytes.len() >= 1_200).count()
    }

    fn told(&self, is_one: impl Fn(&Event) -> bool) -> usize {
        self.world.events(self.alice).iter().filter(|(_, event)| is_one(event)).count()
    }
}

/// A frame as it is sent.
pub(crate) fn written(frame: Frame<'_>) -> Vec<u8> {
    let mut packet = vec![0; frame.len()];
    frame.write(&mut packet);
    packet
}
