//! A peer with good keys that sends control frames of the test's choice to a host that searches for its path's MTU.

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

/// Sends control frames as the peer, and inspects the results.
pub(crate) trait Frames {
    /// Sends a packet. Returns the immediate answers of the host, without keepalives.
    fn ask(&mut self, packet: &[u8]) -> Vec<Vec<u8>>;

    /// Opens the messages that can be opened, without keepalives.
    fn open(&self, messages: &[Vec<u8>]) -> Vec<Vec<u8>>;

    /// Sends a frame. Returns the immediate answers of the host.
    fn send_frame(&mut self, frame: Frame<'_>) -> Vec<Vec<u8>>;

    /// Sends a hello with this MTU. Returns the immediate answers of the host.
    fn hello(&mut self, mtu: u16) -> Vec<Vec<u8>>;

    /// Lets time pass. Returns the probes that came meanwhile, as id and size.
    fn probes(&mut self, millis: u64) -> Vec<(u32, u16)>;

    /// The path MTU to carol that was last reported to control.
    fn known(&self) -> Option<PathMtu>;

    /// Sends the packet in fragments of `room` bytes. Returns the answers of the host.
    fn pieces(&mut self, id: u32, packet: &[u8], room: usize) -> Vec<Vec<u8>>;

    /// Counts the datagrams that the host sent to anyone, as long as a probe or longer, since the records were cleared.
    fn large(&self) -> usize;

    /// Counts the events of a kind that the node reported to control.
    fn count_events(&self, is_one: impl Fn(&Event) -> bool) -> usize;
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

    fn send_frame(&mut self, frame: Frame<'_>) -> Vec<Vec<u8>> {
        self.ask(&encoded(frame))
    }

    fn hello(&mut self, mtu: u16) -> Vec<Vec<u8>> {
        self.send_frame(Frame::Hello { nonce: 7, understands: Abilities::FRAGMENTS, mtu })
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
            answers.extend(self.send_frame(Frame::Fragment { id, offset: (index * room) as u16, total, bytes }));
        }
        answers
    }

    fn large(&self) -> usize {
        self.world.sent().iter().filter(|sent| sent.from == self.alice && sent.bytes.len() >= 1_200).count()
    }

    fn count_events(&self, is_one: impl Fn(&Event) -> bool) -> usize {
        self.world.events(self.alice).iter().filter(|(_, event)| is_one(event)).count()
    }
}

/// Encodes a frame.
pub(crate) fn encoded(frame: Frame<'_>) -> Vec<u8> {
    let mut packet = vec![0; frame.len()];
    frame.write(&mut packet);
    packet
}
