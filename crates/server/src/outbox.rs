//! What waits to be sent to one connection: messages that are not sealed yet, bounded in bytes. It also tells the connection
//! what became of the call that it has reported.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::end::End;

/// The queue of one connection. The registry's task fills it, the connection's task empties it.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit: usize,
    waiting: Mutex<Waiting>,
    changed: Notify,
    overflow: Notify,
    taken: Notify,
    is_one_too_many: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    end: Option<End>,
}

impl Outbox {
    /// Makes a queue that holds at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                limit,
                waiting: Mutex::default(),
                changed: Notify::new(),
                overflow: Notify::new(),
                taken: Notify::new(),
                is_one_too_many: AtomicBool::new(false),
            }),
        }
    }

    /// Adds a message. If it does not fit, the connection ends at once, and what waits is lost with it.
    pub(crate) fn push(&self, message: Vec<u8>) {
        let mut waiting = self.waiting();
        if waiting.end.is_some() {
            return;
        }
        if waiting.bytes + message.len() > self.inner.limit {
            *waiting = Waiting { end: Some(End::OutQueueFull), ..Waiting::default() };
            self.inner.overflow.notify_one();
        } else {
            waiting.bytes += message.len();
            waiting.messages.push_back(message);
        }
        self.inner.changed.notify_one();
    }

    /// Ends the connection once everything that waits is sent.
    pub(crate) fn finish(&self, end: End) {
        self.waiting().end.get_or_insert(end);
        self.inner.changed.notify_one();
    }

    /// Waits for the next message. An error is the reason to end the connection. Can be cancelled.
    pub(crate) async fn next(&self) -> Result<Vec<u8>, End> {
        loop {
            {
                let mut waiting = self.waiting();
                if let Some(message) = waiting.messages.pop_front() {
                    waiting.bytes -= message.len();
                    return Ok(message);
                }
                if let Some(end) = waiting.end {
                    return Err(end);
                }
            }
            self.inner.changed.notified().await;
        }
    }

    /// Waits until the queue overflows. From then on it is pointless to wait for the agent to read.
    pub(crate) async fn overflowed(&self) {
        self.inner.overflow.notified().await;
    }

    /// The registry has dealt with the call that the connection has reported. It may have refused it for now.
    pub(crate) fn on_taken(&self, is_refused_for_now: bool) {
        self.inner.is_one_too_many.store(is_refused_for_now, Relaxed);
        self.inner.taken.notify_one();
    }

    /// Waits until the registry has dealt with the call. Returns whether it refused it for now. Can be cancelled.
    pub(crate) async fn taken(&self) -> bool {
        self.inner.taken.notified().await;
        self.inner.is_one_too_many.load(Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_fits_is_sent_before_the_end_and_what_does_not_ends_at_once() {
        let outbox = Outbox::new(10);
        outbox.push(vec![1; 6]);
        outbox.push(vec![2; 4]);
        outbox.finish(End::Shutdown);
        outbox.push(vec![3]);
        assert_eq!(outbox.next().await, Ok(vec![1; 6]));
        assert_eq!(outbox.next().await, Ok(vec![2; 4]));
        assert_eq!(outbox.next().await, Err(End::Shutdown));

        let outbox = Outbox::new(10);
        outbox.push(vec![1; 6]);
        outbox.push(vec![2; 5]);
        outbox.overflowed().await;
        assert_eq!(outbox.next().await, Err(End::OutQueueFull));
    }
}
