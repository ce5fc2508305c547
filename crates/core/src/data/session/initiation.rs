//! What may be asked of our initiation that is under way.

use super::Session;

impl Session {
    /// Whether an initiation is out and may still be answered.
    pub(crate) fn is_initiating(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether a response that bears this receiver index would answer our last initiation.
    pub(crate) fn awaits(&self, receiver_index: u32) -> bool {
        self.in_flight.is_some() && self.last_initiation == Some(receiver_index)
    }
}
