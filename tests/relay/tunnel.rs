//! Channels of a relay as paths of daemons that know nothing of relays: between a daemon and its agent there is loopback.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use overlay_os::udp::{BindOptions, ReceiveBatch, Transmit, UdpSocket};
use overlay_wire::relay::Channel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::agent::Agent;
use crate::lab::{Host, inside};

/// The longest datagram of a tunnel that is worth carrying.
const LONGEST: usize = 9_000;

/// One end.
pub(crate) struct Tunnel {
    agent: Agent,
    channel: Channel,
    /// What the daemon takes for its peer.
    near: UdpSocket,
    batch: ReceiveBatch,
}

impl Tunnel {
    /// The peer's endpoint in a daemon's config.
    pub(crate) const ENDPOINT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6_000);
    const DAEMON: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 51_820);

    pub(crate) fn new(host: &Host, agent: Agent, channel: Channel) -> Self {
        let options = BindOptions {
            port: Self::ENDPOINT.port(),
            fwmark: None,
            receive_buffer: 4 << 20,
            send_buffer: 4 << 20,
            segmentation: true,
            coalescing: true,
        };
        let near = inside(host, || UdpSocket::bind_at((*Self::ENDPOINT.ip()).into(), &options).expect("a free port"));
        Self { agent, channel, near, batch: ReceiveBatch::new(16) }
    }

    /// Carries what there is in both directions.
    fn turn(&mut self) {
        let head = self.channel.head();
        while self.near.receive(&mut self.batch, 16).expect("a socket that can be read") > 0 {
            for received in self.batch.iter_mut() {
                // The head makes a train longer than the kernel sends at once.
                for some in received.contents.chunks(received.stride * 40) {
                    let train: Vec<u8> = some.chunks(received.stride).flat_map(|it| [&head[..], it].concat()).collect();
                    if received.stride <= LONGEST {
                        // What our own interface refuses is lost, as on any path.
                        let _ =
                            self.agent.socket.send(&transmit(self.agent.relay, &train, received.stride + head.len()));
                    }
                }
            }
        }
        self.agent.turn();
        let (arrived, strides) = (std::mem::take(&mut self.agent.arrived), std::mem::take(&mut self.agent.strides));
        let mut rest = &arrived[..];
        for (len, stride) in self.agent.lens.drain(..).zip(strides) {
            let (train, behind) = rest.split_at(len);
            let inner: Vec<u8> =
                train.chunks(stride).flat_map(|it| it.get(head.len()..).unwrap_or_default()).copied().collect();
            let _ = self.near.send(&transmit(Self::DAEMON.into(), &inner, stride - head.len()));
            rest = behind;
        }
    }

    fn run(&mut self, stop: &AtomicBool) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        while !stop.load(Relaxed) {
            self.turn();
            let mut both = [PollFd::new(&self.near, PollFlags::IN), PollFd::new(&self.agent.socket, PollFlags::IN)];
            poll(&mut both, Some(&timeout)).expect("no signal");
        }
    }
}

/// Runs tunnels, each on a thread of its own, while `act` runs.
pub(crate) fn carry<T>(tunnels: &mut [Tunnel], act: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for tunnel in tunnels {
            scope.spawn(|| tunnel.run(&stop));
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        stop.store(true, Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn transmit(destination: SocketAddr, contents: &[u8], segment_size: usize) -> Transmit<'_> {
    Transmit { dont_fragment: true, ..Transmit::to(destination, contents, segment_size) }
}
