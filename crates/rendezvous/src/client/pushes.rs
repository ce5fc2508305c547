//! What a rendezvous says on its own. Only what the agent watches is passed on.

use std::time::Duration;

use super::distrust::Distrust;
use super::event::Event;
use super::{Client, LONGEST_WAIT, RECONNECT};
use crate::now::Now;
use crate::protocol::{MAX_SEALED_LEN, MAX_SLOT_LEN, Push};

impl Client {
    pub(super) fn on_push(&mut self, push: Push, now: Now) {
        let event = match push {
            Push::Message { from, message, sealed } if sealed.len() <= MAX_SEALED_LEN => {
                Some(Event::Message { from, id: message, sealed: sealed.into() })
            }
            Push::Delivered { to, message } => Some(Event::Delivered { to, id: message }),
            Push::Slot { from, slot, sealed } if sealed.len() <= MAX_SLOT_LEN && self.work.watches(&from) => {
                Some(Event::Slot { from, slot, sealed: sealed.into() })
            }
            Push::Record { record } => {
                let Some(record) = self.open(&record) else { return };
                self.work.watches(&record.identity).then(|| Event::Record(Box::new(record)))
            }
            Push::Presence { identity, is_present } if self.work.watches(&identity) => {
                Some(Event::Presence { identity, is_present })
            }
            Push::Reconnect { wait } => {
                let (shortest, _) = RECONNECT;
                let wait = Duration::from_millis(wait.into()).clamp(shortest, LONGEST_WAIT);
                return self.disconnect(now.monotonic + wait);
            }
            Push::Message { .. } => return self.distrust(Distrust::TooLong),
            Push::Slot { sealed, .. } if sealed.len() > MAX_SLOT_LEN => return self.distrust(Distrust::TooLong),
            Push::Slot { .. } | Push::Presence { .. } => None,
        };
        // What is not watched any more may still be on its way.
        match event {
            Some(event) => self.tell(event),
            None => self.distrust(Distrust::NotWatched),
        }
    }
}
