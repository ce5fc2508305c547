//! Takes away from the daemon, for good, system calls that it does not make and write access to files that are not its
//! own.
//!
//! Both restrictions also hold for the programs that it starts, so everything that `nft` needs stays allowed, fork and
//! exec included. A refused call fails with an error and does not kill the process: if a library tries a new call and
//! can do without it, the tunnel must not end.
//!
//! Reading files is not restricted, because a `reload` may name a key in a folder that is not known in advance.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// System calls that neither we nor `nft` make. They change the machine, look into other processes, or are frequent
/// sources of kernel vulnerabilities.
const REFUSED: &[libc::c_long] = &[
    // Access to other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    // Loading code into the kernel.
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    // Changes to the machine as a whole.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
    libc::SYS_personality,
    // Keys of the kernel.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Changing to a different user.
    libc::SYS_setuid,
    libc::SYS_setreuid,
    libc::SYS_setresuid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// System calls by which a process reaches something new.
const OPENING: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_openat,
    libc::SYS_openat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    // A signal to the daemon would end it.
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
];

/// The socket families that we open.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The flags of `clone` that create a namespace.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Inserts characters into the input of a terminal.
const TIOCSTI: u64 = 0x5412;
/// Can do the same on a console, among other things.
const TIOCLINUX: u64 = 0x541c;

/// Makes the kernel refuse, with EPERM and for good, the calls that this program does not use. This applies to all
/// threads. It must be called after [`crate::privileges::keep_only`], which needs some of those calls.
///
/// # Errors
/// Fails if the kernel has no seccomp, or if this processor architecture is not supported.
pub fn refuse_system_calls() -> io::Result<()> {
    seccompiler::apply_filter_all_threads(&refusals()?).map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&unreadable_clone()?).map_err(io::Error::other)
}

/// Takes away from this process everything but the files and sockets that are open: it opens no file, connects to nothing,
/// listens on nothing new and starts no program. The file part applies to the calling thread and those that it starts, so
/// this must be called before there is a second thread.
///
/// # Errors
/// Fails if the kernel lacks seccomp or Landlock. What it has is in force then.
pub fn open_nothing() -> io::Result<()> {
    let calls = OPENING.iter().map(|call| (*call, Vec::new())).collect();
    let refused = refuse_system_calls();
    let opening = program(calls, libc::EPERM)
        .and_then(|program| seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other));
    read_and_write_nothing().and(opening).and(refused)
}

fn read_and_write_nothing() -> io::Result<()> {
    let all = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .map_err(io::Error::other)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V3))
        .map_err(io::Error::other)?;
    all.create().and_then(|ruleset| ruleset.restrict_self()).map(drop).map_err(io::Error::other)
}

fn refusals() -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let families = FAMILIES.map(|family| condition(0, SeccompCmpOp::Ne, family as u64));
    rules.insert(libc::SYS_socket, vec![rule(families.into_iter().collect::<io::Result<_>>()?)?]);
    let namespaces = NAMESPACES.map(|flag| {
        let flag = flag as u32 as u64;
        rule(vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])
    });
    rules.insert(libc::SYS_clone, namespaces.into_iter().collect::<io::Result<_>>()?);
    let terminals = [TIOCSTI, TIOCLINUX].map(|request| rule(vec![condition(1, SeccompCmpOp::Eq, request)?]));
    rules.insert(libc::SYS_ioctl, terminals.into_iter().collect::<io::Result<_>>()?);
    program(rules, libc::EPERM)
}

/// Refuses `clone3` with ENOSYS, because a filter cannot look at its flags. The C library then falls back to `clone`.
fn unreadable_clone() -> io::Result<BpfProgram> {
    program(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> io::Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let refuse = SeccompAction::Errno(errno as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(io::Error::other)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).map_err(io::Error::other)
}

/// Restricts the calling thread, and everything that it starts from now on, to creating, writing and removing files in and
/// below `places`. Places that do not exist are skipped. Files that are already open stay open.
///
/// # Errors
/// Fails if the kernel has no Landlock, or only version 1, which would forbid renaming files between those places.
pub fn write_only_below<'a>(places: impl IntoIterator<Item = &'a Path>) -> io::Result<()> {
    let write = AccessFs::from_write(ABI::V3);
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_write(ABI::V2))
        .map_err(io::Error::other)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(write)
        .map_err(io::Error::other)?;
    let mut ruleset = ruleset.create().map_err(io::Error::other)?;
    for place in places {
        let Ok(file) = PathFd::new(place) else { continue };
        let access = if place.is_dir() { write } else { write & AccessFs::from_file(ABI::V3) };
        ruleset = ruleset.add_rule(PathBeneath::new(file, access)).map_err(io::Error::other)?;
    }
    ruleset.restrict_self().map(drop).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::FromRawFd;
    use std::process::Command;

    use super::*;

    /// Runs the test on a separate thread, since a restriction lasts as long as its thread.
    fn apart(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(test).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    fn refuse_on_this_thread() {
        rustix::thread::set_no_new_privs(true).unwrap();
        seccompiler::apply_filter(&refusals().unwrap()).unwrap();
        seccompiler::apply_filter(&unreadable_clone().unwrap()).unwrap();
    }

    fn errno_of(call: libc::c_long, argument: libc::c_long) -> Option<i32> {
        // SAFETY: the filter refuses the call, or it fails because of these arguments. It touches no memory.
        let result = unsafe { libc::syscall(call, argument, 0, 0, 0, 0, 0) };
        (result == -1).then(|| io::Error::last_os_error().raw_os_error().unwrap())
    }

    #[test]
    fn what_we_never_call_is_refused_and_what_we_do_call_is_not() {
        apart(|| {
            refuse_on_this_thread();
            for call in REFUSED {
                assert_eq!(errno_of(*call, -1), Some(libc::EPERM), "system call {call}");
            }
            assert_eq!(errno_of(libc::SYS_clone3, 0), Some(libc::ENOSYS));
            assert_eq!(errno_of(libc::SYS_clone, libc::CLONE_NEWUSER.into()), Some(libc::EPERM));
            for (family, kind, refused) in [
                (libc::AF_PACKET, libc::SOCK_DGRAM, true),
                (libc::AF_ALG, libc::SOCK_SEQPACKET, true),
                (libc::AF_INET, libc::SOCK_DGRAM, false),
                (libc::AF_NETLINK, libc::SOCK_RAW, false),
            ] {
                // SAFETY: the call takes no pointers.
                let socket = unsafe { libc::socket(family, kind, 0) };
                let error = io::Error::last_os_error().raw_os_error();
                if refused {
                    assert_eq!((socket, error), (-1, Some(libc::EPERM)), "family {family}");
                } else {
                    assert!(socket >= 0, "family {family}: {error:?}");
                    // SAFETY: the descriptor was opened just above and has no other owner.
                    drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(socket) });
                }
            }
            // Threads and programs still start, even programs that start others.
            std::thread::spawn(|| ()).join().unwrap();
            let said = Command::new("sh").args(["-c", "cat /proc/self/status | grep ^Seccomp:"]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stdout), "Seccomp:\t2\n", "{said:?}");
        });
    }

    #[test]
    fn a_process_that_opens_nothing_goes_on_with_what_it_has() {
        let mut open = fs::File::open("/proc/self/status").unwrap();
        apart(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            if let Err(error) = read_and_write_nothing() {
                eprintln!("not applicable: this kernel has no Landlock: {error}");
                return;
            }
            let calls = OPENING.iter().map(|call| (*call, Vec::new())).collect();
            seccompiler::apply_filter(&program(calls, libc::EPERM).unwrap()).unwrap();
            for call in OPENING {
                assert_eq!(errno_of(*call, -1), Some(libc::EPERM), "system call {call}");
            }
            assert_eq!(fs::read("/etc/passwd").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(fs::read_dir("/").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            let mut text = String::new();
            io::Read::read_to_string(&mut open, &mut text).unwrap();
            assert!(text.contains("Seccomp"));
        });
    }

    #[test]
    fn files_are_written_in_the_places_that_were_named_and_read_everywhere() {
        let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = other.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        apart(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            let places = [ours.path(), Path::new("/dev/null"), Path::new("/there/is/no/such/place")];
            if let Err(error) = write_only_below(places) {
                eprintln!("not applicable: this kernel has no Landlock: {error}");
                return;
            }
            for made in [
                fs::write(&victim, ""),
                fs::remove_file(&victim),
                fs::create_dir(other.path().join("folder")),
                fs::rename(&victim, ours.path().join("taken")),
            ] {
                let kind = made.expect_err("it is not one of the places").kind();
                assert!(matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::CrossesDevices), "{kind}");
            }
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
            // A socket is made like this: in a folder that is removed once the socket is in its place.
            let workshop = ours.path().join(".workshop");
            fs::create_dir(&workshop).unwrap();
            drop(std::os::unix::net::UnixListener::bind(workshop.join("s")).unwrap());
            fs::rename(workshop.join("s"), ours.path().join("s")).unwrap();
            fs::remove_dir(&workshop).unwrap();
            fs::write("/dev/null", "nothing").unwrap();
        });
    }
}
