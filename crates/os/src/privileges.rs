//! The privileges of this process, and the protection of its memory.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Gid, Resource, Rlimit, geteuid, getgroups, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs, set_thread_groups,
};

/// A capability: one part of root's privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Configuring interfaces, addresses, routes, marks and packet filters.
    NetAdmin,
    /// Binding ports below 1024.
    NetBindService,
    /// Receiving notices about other network namespaces.
    NetBroadcast,
    /// Raising scheduling priority.
    SysNice,
    /// Reading files regardless of their owner and mode.
    DacReadSearch,
}

impl Capability {
    fn flag(self) -> CapabilitySet {
        match self {
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::NetBindService => CapabilitySet::NET_BIND_SERVICE,
            Self::NetBroadcast => CapabilitySet::NET_BROADCAST,
            Self::SysNice => CapabilitySet::SYS_NICE,
            Self::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
        }
    }
}

/// Gives up, for good, every capability and every group that is not listed. Programs started from then on cannot regain
/// them, not even set-user-id programs.
///
/// The kernel keeps this state separately for each thread, so this must be called before a process starts its second
/// one.
///
/// # Errors
/// Returns the kernel's error. Privileges given up before the error stay given up.
pub fn keep_only(keep: &[Capability], groups: &[u32]) -> io::Result<()> {
    let keep = keep.iter().fold(CapabilitySet::empty(), |set, capability| set | capability.flag());
    let mut sets = capabilities(None)?;
    if sets.effective.contains(CapabilitySet::SETGID) {
        let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
        if getgroups()? != groups {
            set_thread_groups(&groups)?;
        }
    }
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        // This includes capabilities of newer kernels, which have no name here yet.
        for bit in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            // The first capability that the kernel does not know marks the end of the list.
            let Ok(is_there) = capability_is_in_bounding_set(capability) else { break };
            if is_there && !keep.contains(capability) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    // The kernel drops ambient capabilities that are no longer permitted or inheritable.
    let kept = CapabilitySets {
        effective: sets.effective & keep,
        permitted: sets.permitted & keep,
        inheritable: sets.inheritable & keep,
    };
    if (kept.effective, kept.permitted, kept.inheritable) != (sets.effective, sets.permitted, sets.inheritable) {
        sets = kept;
        set_capabilities(None, sets)?;
    }
    Ok(set_no_new_privs(true)?)
}

/// Runs `act` on a thread whose access to files is limited to what their owner and mode allow, and returns the result.
/// Returns `None` if this process has no privileges to override them, or if the thread cannot be set up.
pub fn without_override<T: Send>(act: impl FnOnce() -> T + Send) -> Option<T> {
    let over = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    let sets = capabilities(None).ok()?;
    if !sets.effective.intersects(over) {
        return None;
    }
    let give_up_and_act = || {
        let effective = sets.effective & !over;
        let permitted = sets.permitted & !over;
        let inheritable = sets.inheritable & !over;
        set_capabilities(None, CapabilitySets { effective, permitted, inheritable }).ok()?;
        Some(act())
    };
    std::thread::scope(|scope| scope.spawn(give_up_and_act).join()).ok().flatten()
}

/// Whether this thread may read the file. True if the file does not exist. A pipe is not opened.
pub fn may_read(path: &Path) -> bool {
    !matches!(access(path, Access::READ_OK), Err(Errno::ACCESS | Errno::PERM))
}

/// Whether CAP_NET_ADMIN is effective, which is needed to create interfaces, addresses and routes.
pub fn has_net_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// The effective user ID. 0 is root.
pub fn effective_uid() -> u32 {
    geteuid().as_raw()
}

/// Keeps keys out of core dumps, and keeps other processes of the same user from attaching to this one.
///
/// # Errors
/// Linux is not known to return any.
pub fn harden() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Lets this process open as many files as the administrator allows, and returns that number. Most systems start programs
/// with 1,024.
///
/// # Errors
/// Linux is not known to return any.
pub fn raise_file_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_line(name: &str) -> String {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line that every kernel writes");
        line[name.len()..].trim().to_owned()
    }

    #[test]
    fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
        let allowed = raise_file_limit().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!((limit.current, limit.maximum), (Some(allowed), Some(allowed)));
    }

    #[test]
    fn a_root_without_override_may_not_read_what_is_another_users() {
        crate::netns::isolated(|| {
            let folder = tempfile::tempdir().unwrap();
            let theirs = folder.path().join("theirs");
            std::fs::write(&theirs, "").unwrap();
            std::os::unix::fs::chown(&theirs, Some(4242), Some(4242)).unwrap();
            std::fs::set_permissions(&theirs, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            assert!(may_read(&theirs), "root reads all");
            assert_eq!(without_override(|| may_read(&theirs)), Some(false));
            assert_eq!(without_override(|| may_read(&folder.path().join("missing"))), Some(true), "nothing is refused");
        });
    }

    #[test]
    fn net_admin_is_bit_12_of_the_effective_capabilities() {
        let effective = u64::from_str_radix(&status_line("CapEff:"), 16).unwrap();
        assert_eq!(has_net_admin(), effective & (1 << 12) != 0);
    }

    #[test]
    fn a_thread_without_capabilities_has_no_net_admin() {
        crate::netns::isolated(|| {
            assert!(has_net_admin());
            crate::netns::drop_capabilities();
            assert!(!has_net_admin());
        });
    }

    #[test]
    fn what_is_not_kept_is_gone_for_good_and_for_programs_too() {
        crate::netns::isolated(|| {
            let before = capabilities(None).unwrap();
            assert_eq!(without_override(|| capabilities(None).unwrap().effective & before.effective), {
                let over = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
                before.effective.intersects(over).then_some(before.effective & !over)
            });
            keep_only(&[Capability::NetAdmin, Capability::NetBindService], &[4242]).unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
            let kept = format!("{:016x}", (1u64 << 12) | (1 << 10));
            for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
                assert_eq!(line(set), kept, "{set}");
            }
            assert_eq!((line("NoNewPrivs:"), line("Groups:")), ("1".to_owned(), "4242".to_owned()));
            let child = std::process::Command::new("cat").arg("/proc/self/status").output().unwrap();
            let child = String::from_utf8(child.stdout).unwrap();
            assert!(child.contains(&format!("CapEff:\t{kept}\n")), "{child}");
            // A second call has nothing left to give up.
            keep_only(&[Capability::NetAdmin, Capability::NetBindService], &[4242]).unwrap();
            assert_eq!(without_override(|| ()), None);
        });
    }

    #[test]
    fn the_effective_user_is_the_second_of_four() {
        assert_eq!(effective_uid().to_string(), status_line("Uid:").split_whitespace().nth(1).unwrap());
    }

    #[test]
    fn a_hardened_process_leaves_no_core_dump() {
        harden().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
