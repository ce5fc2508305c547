//! Messages from other tasks to the control thread, in order.

use std::future::pending;

use tokio::sync::mpsc;

/// A bounded number of messages that wait for their turn. A sender that finds no room waits.
pub(crate) struct Inbox<T>(mpsc::Receiver<T>);

impl<T> Inbox<T> {
    /// An inbox with room for `room` messages, and its sender.
    pub(crate) fn new(room: usize) -> (mpsc::Sender<T>, Self) {
        let (sender, receiver) = mpsc::channel(room);
        (sender, Self(receiver))
    }

    /// An inbox without a sender.
    pub(crate) fn closed() -> Self {
        Self::new(1).1
    }

    /// Waits for the next message; for ever without a sender. Can be cancelled.
    pub(crate) async fn next(&mut self) -> T {
        match self.0.recv().await {
            Some(message) => message,
            None => pending().await,
        }
    }
}
