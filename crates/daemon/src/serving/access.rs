//! The caller of a local socket, and what it may do.
//!
//! The mode of the socket already keeps strangers out. Asking the kernel again enforces the rule even if somebody
//! widened that mode, and distinguishes callers that may read from callers that may change something.

use std::os::fd::AsFd as _;

use tokio::net::UnixStream;

use crate::failure::{ExitKind, Failure};

/// The group whose members may look.
pub(crate) const GROUP: &str = "overlay";

/// The process at the other end of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Root, or the user that the daemon runs as.
    Owner,
    /// A member of the group `overlay`.
    Member,
    /// Any other user, or the kernel does not say.
    Stranger,
}

/// The user id of the process at the other end, for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uid(pub(crate) u32);

impl Caller {
    /// Identifies the caller by what the kernel reports.
    pub(crate) fn of(stream: &UnixStream) -> Self {
        let Ok(credentials) = stream.peer_cred() else { return Self::Stranger };
        let group = overlay_os::process::group_id(GROUP);
        // SO_PEERCRED reports only the primary group.
        let groups = || overlay_os::process::peer_groups(stream.as_fd()).unwrap_or_default();
        Self::classify(credentials.uid(), credentials.gid(), overlay_os::privileges::effective_uid(), group, groups)
    }

    fn classify(uid: u32, gid: u32, own_uid: u32, group: Option<u32>, groups: impl Fn() -> Vec<u32>) -> Self {
        if uid == 0 || uid == own_uid {
            return Self::Owner;
        }
        match group {
            Some(group) if gid == group || groups().contains(&group) => Self::Member,
            _ => Self::Stranger,
        }
    }

    pub(crate) fn is_owner(self) -> bool {
        self == Self::Owner
    }

    pub(crate) fn may_read(self) -> Result<(), Failure> {
        match self {
            Self::Owner | Self::Member => Ok(()),
            Self::Stranger => Err(may_not_read().with_cause("the caller is neither root nor the daemon's own user")),
        }
    }

    pub(crate) fn may_change(self) -> Result<(), Failure> {
        match self {
            Self::Owner => Ok(()),
            Self::Member | Self::Stranger => {
                Err(may_not_change().with_cause("the caller is neither root nor the daemon's own user"))
            }
        }
    }
}

/// The error for a stranger that wants to read. The hint mentions the group if this host has it.
pub(crate) fn may_not_read() -> Failure {
    Failure::new(ExitKind::Permission, "reading the daemon's state needs root")
        .with_hint(hint_to_look(overlay_os::process::group_id(GROUP).is_some()))
}

fn hint_to_look(has_group: bool) -> String {
    let by_group = format!("; to need no sudo from the next login on: sudo usermod -aG {GROUP} $USER");
    format!("run the same command with sudo{}", if has_group { by_group.as_str() } else { "" })
}

/// The error for a caller that may not change the daemon.
pub(crate) fn may_not_change() -> Failure {
    Failure::new(ExitKind::Permission, "changing the daemon needs root").with_hint("run the same command with sudo")
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn root_and_the_daemons_own_user_own_it_members_look_and_strangers_do_neither() {
        let of = |uid, gid, groups: &[u32]| Caller::classify(uid, gid, 500, Some(990), || groups.to_vec());
        assert_eq!(of(0, 0, &[]), Caller::Owner);
        assert_eq!(of(500, 500, &[]), Caller::Owner);
        assert_eq!(of(1000, 990, &[]), Caller::Member);
        assert_eq!(of(1000, 1000, &[27, 100, 990]), Caller::Member);
        assert_eq!(of(1000, 1000, &[27, 100, 991]), Caller::Stranger);
        assert_eq!(of(1000, 1000, &[]), Caller::Stranger);
        assert_eq!(Caller::classify(1000, 990, 500, None, || vec![990]), Caller::Stranger);

        assert!(Caller::Owner.may_change().is_ok() && Caller::Owner.may_read().is_ok());
        assert!(Caller::Member.may_change().is_err() && Caller::Member.may_read().is_ok());
        assert!(Caller::Stranger.may_change().is_err() && Caller::Stranger.may_read().is_err());
    }

    #[test]
    fn a_stranger_is_sent_to_sudo_and_to_the_group_only_where_there_is_one() {
        golden("without the group", hint_to_look(false));
        golden("with the group", hint_to_look(true));
    }
}
