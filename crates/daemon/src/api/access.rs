//! Who is calling, and what that allows.
//!
//! The mode of the socket keeps strangers out already; asking the kernel again makes the rule hold where the socket was
//! opened up by hand, and tells those who may look from those who may change.

use std::fs;

use tokio::net::UnixStream;

use crate::failure::{ExitKind, Failure};

/// The group whose members may look.
pub const GROUP: &str = "overlay";

/// The process at the other end of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Root, or the user the daemon runs as.
    Owner,
    /// A member of the group `overlay`.
    Member,
    /// Anybody else, or the kernel does not say.
    Stranger,
}

impl Caller {
    /// As the kernel names it.
    pub(crate) fn of(stream: &UnixStream) -> Self {
        let Ok(credentials) = stream.peer_cred() else { return Self::Stranger };
        let group = overlay_os::process::group_id(GROUP);
        // SO_PEERCRED names the primary group alone. A process id may have been reused by now, but only by somebody
        // whom the socket's mode let in as well.
        let groups = || match credentials.pid() {
            Some(pid) => fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(),
            None => String::new(),
        };
        Self::classify(credentials.uid(), credentials.gid(), overlay_os::privileges::effective_uid(), group, groups)
    }

    fn classify(uid: u32, gid: u32, own_uid: u32, group: Option<u32>, process: impl Fn() -> String) -> Self {
        if uid == 0 || uid == own_uid {
            return Self::Owner;
        }
        match group {
            Some(group) if gid == group || supplementary_groups(&process()).any(|id| id == group) => Self::Member,
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

/// What a stranger is told who asks how the daemon is. That a group may ask is said where there is such a group.
pub(crate) fn may_not_read() -> Failure {
    Failure::new(ExitKind::Permission, "looking at the daemon needs root")
        .with_hint(hint_to_look(overlay_os::process::group_id(GROUP).is_some()))
}

fn hint_to_look(has_group: bool) -> String {
    let by_group = format!("; or, from the next login on without sudo: sudo usermod -aG {GROUP} $USER");
    format!("sudo overlay status{}", if has_group { by_group.as_str() } else { "" })
}

/// What a stranger is told who wants the daemon to do something.
pub(crate) fn may_not_change() -> Failure {
    Failure::new(ExitKind::Permission, "changing the daemon needs root").with_hint("run the same command with sudo")
}

/// The group ids in the `Groups:` line of `/proc/PID/status`.
fn supplementary_groups(status: &str) -> impl Iterator<Item = u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|id| id.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tcurl\nUid:\t1000\t1000\t1000\t1000\nGroups:\t27 100 990 \nVmPeak:\t990 kB\n";

    #[test]
    fn root_and_the_daemons_own_user_own_it_members_look_and_strangers_do_neither() {
        let of = |uid, gid, process: &str| Caller::classify(uid, gid, 500, Some(990), || process.to_owned());
        assert_eq!(of(0, 0, ""), Caller::Owner);
        assert_eq!(of(500, 500, ""), Caller::Owner);
        assert_eq!(of(1000, 990, ""), Caller::Member);
        assert_eq!(of(1000, 1000, STATUS), Caller::Member);
        assert_eq!(of(1000, 1000, &STATUS.replace(" 990 \n", " 991 \n")), Caller::Stranger);
        assert_eq!(of(1000, 1000, ""), Caller::Stranger);
        assert_eq!(Caller::classify(1000, 990, 500, None, || STATUS.to_owned()), Caller::Stranger);

        assert!(Caller::Owner.may_change().is_ok() && Caller::Owner.may_read().is_ok());
        assert!(Caller::Member.may_change().is_err() && Caller::Member.may_read().is_ok());
        assert!(Caller::Stranger.may_change().is_err() && Caller::Stranger.may_read().is_err());
    }

    #[test]
    fn a_stranger_is_sent_to_sudo_and_to_the_group_only_where_there_is_one() {
        assert_eq!(hint_to_look(false), "sudo overlay status");
        assert_eq!(
            hint_to_look(true),
            "sudo overlay status; or, from the next login on without sudo: sudo usermod -aG overlay $USER"
        );
    }
}
