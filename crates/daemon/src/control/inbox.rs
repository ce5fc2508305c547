//! What others ask of the control thread, in the order in which they ask.

use std::future::pending;

use tokio::sync::mpsc;

/// Messages that wait for their turn, a bounded number. A sender that finds no room waits.
pub(crate) struct Inbox<T>(mpsc::Receiver<T>);

impl<T> Inbox<T> {
    /// An inbox with room for so many messages, and the end that fills it.
    pub(crate) fn new(room: usize) -> (mpsc::Sender<T>, Self) {
        let (sender, receiver) = mpsc::channel(room);
        (sender, Self(receiver))
    }

    /// An inbox that nobody fills.
    pub(crate) fn closed() -> Self {
        Self::new(1).1
    }

    /// Waits for the next message; for ever where nobody can send one. Can be cancelled.
    pub(crate) async fn next(&mut self) -> T {
        match self.0.recv().await {
            Some(message) => message,
            None => pending().await,
        }
    }
}
