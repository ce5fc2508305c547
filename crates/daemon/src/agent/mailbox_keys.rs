//! The keys of the mailbox change every month, so that old letters cannot be opened for ever.
//!
//! New keys are on disk before the record with them is registered. The ones before still open what was sealed for them. When a
//! peer has new keys, what is kept for it or waits for its answer is sealed anew.

use overlay_rendezvous::protocol::Slot;
use overlay_rendezvous::sealed::{MailboxKeys, SECRET_LEN};
use overlay_wire::Malformed;
use overlay_wire::signed::PublicKey;
use zeroize::Zeroizing;

use super::post::Post;
use super::time::unix_now;
use super::trust::Effect;
use super::{Agent, Changed, NOTHING};
use crate::failure::{ExitKind, Failure};

const DAY: u64 = 24 * 3_600 * 1_000;
/// The age at which mailbox keys are replaced, in milliseconds.
const MAILBOX_REPLACED: u64 = 30 * DAY;
/// The age at which they are deleted. A record is fresh for 7 days and a letter waits for 7 days, so nothing that was
/// sealed by a fresh record comes later than 14 days after they were replaced.
const MAILBOX_DELETED: u64 = 45 * DAY;

impl Agent {
    /// Does what is due for the mailbox keys. Called twice a minute.
    pub(super) fn tend_mailbox(&mut self) -> Changed {
        let now = unix_now();
        let due = due_for_mailbox(self.keys.mailbox_since, self.keys.former_mailbox.is_some(), now);
        match self.change_mailbox(due, now) {
            Ok(()) if due == MailboxDue::Replace => self.sign_record(self.record.ipv4),
            Ok(()) => NOTHING,
            Err(failure) => {
                tracing::error!("{failure}");
                NOTHING
            }
        }
    }

    /// Changes the mailbox keys, on disk first.
    fn change_mailbox(&mut self, due: MailboxDue, now: u64) -> Result<(), Failure> {
        let copy = |keys: &MailboxKeys| MailboxKeys::from_secret(keys.secret());
        let (present, since, former) = match due {
            MailboxDue::Nothing => return Ok(()),
            MailboxDue::Note => (copy(&self.keys.mailbox), now, None),
            MailboxDue::Delete => (copy(&self.keys.mailbox), self.keys.mailbox_since.unwrap_or(now), None),
            MailboxDue::Replace => (new_mailbox_keys()?, now, Some(copy(&self.keys.mailbox))),
        };
        let failed = |_: Malformed| Failure::new(ExitKind::Other, "the keys of the mailbox cannot be used");
        let (present, former) = (present.map_err(failed)?, former.transpose().map_err(failed)?);
        self.state.set_mailbox_keys(&present, since, former.as_ref())?;
        let post = (copy(&present).map_err(failed)?, former.as_ref().map(copy).transpose().map_err(failed)?);
        self.post = Post::new(self.config.network_key, self.book.me(), post.0, post.1);
        (self.keys.mailbox, self.keys.former_mailbox, self.keys.mailbox_since) = (present, former, Some(since));
        match due {
            MailboxDue::Replace => tracing::info!("the keys of the mailbox were replaced"),
            MailboxDue::Delete => tracing::info!("the former keys of the mailbox were deleted"),
            MailboxDue::Note | MailboxDue::Nothing => {}
        }
        Ok(())
    }

    /// The key for which short letters to a peer are sealed.
    pub(super) fn mailbox_of(&self, peer: &PublicKey) -> Option<[u8; 32]> {
        self.book.relation(peer).and_then(|relation| relation.newest_record()).map(|record| record.mailbox_x25519)
    }

    /// Seals anew what is kept for a peer or waits for its answer, because the peer has new mailbox keys. It deletes the
    /// ones before.
    pub(super) fn on_new_mailbox(&mut self, peer: &PublicKey) {
        self.tell_again(peer);
        for effect in self.book.repeat(&self.record, self.moment()) {
            match effect {
                Effect::Send { to, id, letter } if to == *peer => self.send(to, id, &letter),
                Effect::Keep { to, letter } if to == *peer => self.keep(to, Slot::Word, &letter),
                _ => {}
            }
        }
    }
}

/// What is due for the mailbox keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MailboxDue {
    Nothing,
    /// Note the time, from which their age counts.
    Note,
    /// Replace them, and keep them as the former ones.
    Replace,
    /// Delete the former ones.
    Delete,
}

/// What is due for mailbox keys that were made at `since`. The former ones, if there are any, are a month older. A clock
/// that was set back makes nothing due.
fn due_for_mailbox(since: Option<u64>, has_former: bool, now: u64) -> MailboxDue {
    let Some(since) = since else { return MailboxDue::Note };
    let age = now.saturating_sub(since);
    if age >= MAILBOX_REPLACED {
        MailboxDue::Replace
    } else if has_former && age >= MAILBOX_DELETED - MAILBOX_REPLACED {
        MailboxDue::Delete
    } else {
        MailboxDue::Nothing
    }
}

fn new_mailbox_keys() -> Result<Result<MailboxKeys, Malformed>, Failure> {
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    overlay_os::random::fill(&mut secret[..])
        .map_err(|error| Failure::new(ExitKind::Other, "cannot get randomness from the kernel").with_cause(error))?;
    Ok(MailboxKeys::from_secret(&secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailbox_keys_are_replaced_at_30_days_and_deleted_at_45() {
        let made = 1_795_824_000_000;
        let table = [
            (None, false, 0, MailboxDue::Note),
            (Some(made), false, 0, MailboxDue::Nothing),
            (Some(made), false, 30 * DAY - 1, MailboxDue::Nothing),
            (Some(made), false, 30 * DAY, MailboxDue::Replace),
            (Some(made), true, 15 * DAY - 1, MailboxDue::Nothing),
            (Some(made), true, 15 * DAY, MailboxDue::Delete),
            (Some(made), true, 30 * DAY, MailboxDue::Replace),
            (Some(made), false, 20 * DAY, MailboxDue::Nothing),
        ];
        for (since, has_former, age, due) in table {
            assert_eq!(due_for_mailbox(since, has_former, made + age), due, "{since:?} {has_former} {age}");
        }
        assert_eq!(due_for_mailbox(Some(made), true, made - DAY), MailboxDue::Nothing, "the clock was set back");
    }
}
