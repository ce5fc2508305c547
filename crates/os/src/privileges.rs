//! What this process may do, and keeping its memory out of the wrong hands.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, geteuid, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Whether CAP_NET_ADMIN is effective: with it interfaces, addresses and routes can be made.
pub fn has_net_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// The effective user: 0 for root.
pub fn effective_uid() -> u32 {
    geteuid().as_raw()
}

/// Keeps keys out of core dumps, and keeps processes of the same user from attaching to this one.
///
/// # Errors
/// None that Linux is known to give.
pub fn harden() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
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
