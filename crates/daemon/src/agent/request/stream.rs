//! The two ends of a stream of events: the agent's, and that of the server of the local API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::{mpsc, oneshot};

use super::event::{AgentEvent, Happened};

/// How many events wait for one reader.
pub const MAX_WAITING: usize = 256;

/// The agent's end of a stream.
#[derive(Clone, Debug)]
pub struct EventSender {
    queue: mpsc::Sender<AgentEvent>,
    is_lost: Arc<AtomicBool>,
    /// Dropped with the last clone, which tells the server that nothing more comes.
    _end: Arc<oneshot::Sender<()>>,
}

/// The server's end of a stream.
#[derive(Debug)]
pub struct EventReceiver {
    pub(crate) queue: mpsc::Receiver<AgentEvent>,
    is_lost: Arc<AtomicBool>,
    /// Ends when the agent has dropped the stream.
    pub(crate) end: Option<oneshot::Receiver<()>>,
}

impl EventSender {
    /// Makes a stream.
    pub fn new() -> (Self, EventReceiver) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let is_lost = Arc::new(AtomicBool::new(false));
        let (end, ended) = oneshot::channel();
        let sender = Self { queue: sender, is_lost: Arc::clone(&is_lost), _end: Arc::new(end) };
        (sender, EventReceiver { queue: receiver, is_lost, end: Some(ended) })
    }

    /// Whether the reader has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Returns false if the stream has ended.
    pub(crate) fn send(&self, event: &AgentEvent) -> bool {
        match self.queue.try_send(event.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.is_lost.store(true, Relaxed);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

impl PartialEq for EventSender {
    fn eq(&self, other: &Self) -> bool {
        self.queue.same_channel(&other.queue)
    }
}

impl Eq for EventSender {}

impl EventReceiver {
    /// The last event of the stream, once the queue has ended.
    pub(crate) fn last(&self, now: u64) -> AgentEvent {
        if self.is_lost.load(Relaxed) {
            AgentEvent::says(Happened::Dropped, now, format!("the reader was {MAX_WAITING} events behind"))
        } else {
            AgentEvent::says(Happened::Ended, now, "the daemon is stopping".to_owned())
        }
    }
}
