//! What the engine tells the control thread: events, datagrams of relays, and its own end.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Event, PeerTag};
use tokio::sync::{Notify, mpsc, oneshot};

use super::datagrams::{self, Datagram, Incoming};

/// How many events may wait for control. Further ones are merged.
const MAX_EVENTS: usize = 256;
/// Merged events are offered to control this often.
const OFFER_AGAIN: Duration = Duration::from_millis(20);

/// A report of the engine.
pub enum Report {
    /// An event of the node.
    Event(Event),
    /// A datagram of a relay that belongs to no peer.
    Foreign(Datagram),
    /// This process was copied while it ran. All sessions have ended.
    Copied,
    /// Why the engine ended by itself. Nothing follows.
    Ended(io::Error),
}

/// The receiver of reports, which control holds.
pub struct Reports {
    events: mpsc::Receiver<Event>,
    foreign: mpsc::Receiver<Datagram>,
    copied: Arc<Notify>,
    ended: oneshot::Receiver<io::Result<()>>,
}

/// Creates the sender of events, the sender of the result with which the engine ends, and the receiver of both.
pub(super) fn channel() -> (Events, oneshot::Sender<io::Result<()>>, Reports) {
    let (sender, events) = mpsc::channel(MAX_EVENTS);
    let (incoming, foreign) = datagrams::incoming();
    let (end, ended) = oneshot::channel();
    let copied = Arc::<Notify>::default();
    let told = Events { sender, merged: BTreeMap::new(), copied: Arc::clone(&copied), incoming };
    (told, end, Reports { events, foreign, copied, ended })
}

impl Reports {
    /// Waits for the next report. Can be cancelled. Not to be called again after [`Report::Ended`].
    pub async fn next(&mut self) -> Report {
        tokio::select! {
            () = self.copied.notified() => Report::Copied,
            Some(event) = self.events.recv() => Report::Event(event),
            Some(datagram) = self.foreign.recv() => Report::Foreign(datagram),
            ended = &mut self.ended => Report::Ended(match ended {
                Ok(Err(error)) => error,
                Ok(Ok(())) | Err(_) => io::Error::other("the engine thread has ended"),
            }),
        }
    }
}

/// Events on their way to control. What does not fit the queue waits here, one event of a kind for each peer.
pub(super) struct Events {
    sender: mpsc::Sender<Event>,
    merged: BTreeMap<(PeerTag, u8), Event>,
    copied: Arc<Notify>,
    /// Beside the events: a stranger may fill it.
    pub(super) incoming: Incoming,
}

impl Events {
    /// Returns how long the engine may sleep: not without a limit while merged events wait for control.
    pub(super) fn patience(&self) -> Option<Duration> {
        (!self.merged.is_empty()).then_some(OFFER_AGAIN)
    }

    /// Queues an event. Returns false if it replaced an older one of its kind.
    pub(super) fn push(&mut self, event: Event) -> bool {
        if self.merged.is_empty() {
            let Err(error) = self.sender.try_send(event) else { return true };
            return self.merge(error.into_inner());
        }
        self.merge(event)
    }

    fn merge(&mut self, event: Event) -> bool {
        let kind = match &event {
            Event::HandshakeCompleted(..) => 0,
            Event::EndpointChanged(..) => 1,
            Event::HandshakeFailed(_) => 2,
            Event::PathMtu(..) => 3,
            Event::Answering(..) => 4,
            Event::Word(..) => 5,
            Event::PresharedKeyProven(_) => 6,
            Event::KnowsPresentKey(_) => 7,
            Event::Parcel(..) => 8,
            Event::Unreachable(_) => 9,
        };
        self.merged.insert((event.peer(), kind), event).is_none()
    }

    /// Tells control that the process was copied. Control hears it once, however often it happens before control looks.
    pub(super) fn tell_copied(&self) {
        self.copied.notify_one();
    }

    pub(super) fn flush(&mut self) {
        while let Some((key, event)) = self.merged.pop_first() {
            if let Err(error) = self.sender.try_send(event) {
                self.merged.insert(key, error.into_inner());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::Instant;

    use super::*;

    #[test]
    fn events_that_control_does_not_take_are_merged_by_peer_and_kind() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut events =
            Events { sender, merged: BTreeMap::new(), copied: Arc::default(), incoming: datagrams::incoming().0 };
        let peer = PeerTag::from_bits(1);
        let completed = |seconds| Event::HandshakeCompleted(peer, Instant::from_start(Duration::from_secs(seconds)));
        assert!(events.push(completed(1)));
        assert!(events.push(completed(2)));
        assert!(!events.push(completed(3)), "replaces the one that waits");
        assert!(events.push(Event::HandshakeFailed(peer)));
        assert_eq!(receiver.try_recv(), Ok(completed(1)));
        events.flush();
        assert_eq!(receiver.try_recv(), Ok(completed(3)), "the last one counts");
        events.flush();
        assert_eq!(receiver.try_recv(), Ok(Event::HandshakeFailed(peer)));
    }
}
