//! Other processes: which one is connected to a socket, holds a lock, or is still alive. Also starts processes that
//! outlive their parent.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::ptr;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, setsid, test_kill_process};
use rustix::thread::clear_ambient_capability_set;

/// The user or group ID that stands for "none".
const NOBODY: u32 = u32::MAX;

/// The process that connected to a unix socket, as the kernel recorded it at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process ID.
    pub pid: i32,
    /// Effective user ID.
    pub uid: u32,
    /// Effective group ID.
    pub gid: u32,
}

/// The process at the other end of a connected unix socket. Its process ID is 0 if it lives in a PID namespace that is
/// not visible from ours.
///
/// # Errors
/// `NotConnected` if the socket is not connected or not a unix socket.
pub fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    // If nobody is connected, the kernel fills in these values.
    let mut credentials = libc::ucred { pid: 0, uid: NOBODY, gid: NOBODY };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `credentials`, and both live across the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if credentials.uid == NOBODY {
        return Err(io::ErrorKind::NotConnected.into());
    }
    Ok(PeerCredentials { pid: credentials.pid, uid: credentials.uid, gid: credentials.gid })
}

/// The supplementary groups of the process that connected to a unix socket, as the kernel recorded them at that moment.
///
/// # Errors
/// Fails on a kernel before 4.13, or if this is not a unix socket.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut len = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes, the size of `groups`, and both live across the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let count = len as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // The kernel reports how much space it needs.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// The ID of the group with this name, from whatever group database the system uses.
pub fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut entry =
        libc::group { gr_name: ptr::null_mut(), gr_passwd: ptr::null_mut(), gr_gid: 0, gr_mem: ptr::null_mut() };
    let mut found = ptr::null_mut();
    // Space for the text of one entry. A group with thousands of members needs more.
    let mut text = vec![0; 1024];
    loop {
        // SAFETY: every pointer is to a live local, `text` is passed with its true length, and `name` is
        // NUL-terminated.
        let error = unsafe { libc::getgrnam_r(name.as_ptr(), &mut entry, text.as_mut_ptr(), text.len(), &mut found) };
        if error != libc::ERANGE || text.len() >= 1 << 20 {
            return (!found.is_null()).then_some(entry.gr_gid);
        }
        text.resize(text.len() * 2, 0);
    }
}

/// The ID of the user with this name, from whatever user database the system uses.
pub fn user_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: every pointer is to a live local, `text` is passed with its true length, and `name` is NUL-terminated.
    look_up_user(|entry, text, found| unsafe {
        libc::getpwnam_r(name.as_ptr(), entry, text.as_mut_ptr(), text.len(), found)
    })
    .map(|(uid, _)| uid)
}

/// The name of the user with this ID.
pub fn user_name(uid: u32) -> Option<String> {
    // SAFETY: every pointer is to a live local, and `text` is passed with its true length.
    look_up_user(|entry, text, found| unsafe { libc::getpwuid_r(uid, entry, text.as_mut_ptr(), text.len(), found) })
        .map(|(_, name)| name)
}

/// Looks up a user, with more and more space for its text until that is enough.
fn look_up_user(
    ask: impl Fn(&mut libc::passwd, &mut [libc::c_char], &mut *mut libc::passwd) -> i32,
) -> Option<(u32, String)> {
    let mut entry = libc::passwd {
        pw_name: ptr::null_mut(),
        pw_passwd: ptr::null_mut(),
        pw_uid: 0,
        pw_gid: 0,
        pw_gecos: ptr::null_mut(),
        pw_dir: ptr::null_mut(),
        pw_shell: ptr::null_mut(),
    };
    let mut found = ptr::null_mut();
    let mut text: Vec<libc::c_char> = vec![0; 1024];
    loop {
        let error = ask(&mut entry, &mut text, &mut found);
        if error == libc::ERANGE && text.len() < 1 << 20 {
            text.resize(text.len() * 2, 0);
            continue;
        }
        if found.is_null() {
            return None;
        }
        // SAFETY: on success the name is a NUL-terminated string in `text`, which is still alive.
        let name = unsafe { std::ffi::CStr::from_ptr(entry.pw_name) };
        return Some((entry.pw_uid, name.to_string_lossy().into_owned()));
    }
}

/// Whether a process with this ID exists. A zombie counts.
pub fn is_alive(pid: i32) -> bool {
    let Some(pid) = Some(pid).filter(|&pid| pid > 0).and_then(Pid::from_raw) else {
        return false;
    };
    match test_kill_process(pid) {
        Ok(()) => true,
        // EPERM means that it exists and belongs to another user.
        Err(error) => error == Errno::PERM,
    }
}

/// Takes the exclusive lock of an open file. It lasts until the file is closed in every process that inherited it.
/// Returns `false` if it is already held elsewhere.
///
/// # Errors
/// Fails if the file system does not support locks.
pub fn try_lock_exclusive(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Changes the user and group that own a file. `None` leaves the current one.
///
/// # Errors
/// `NotFound` if the file does not exist, `PermissionDenied` without CAP_CHOWN.
pub fn chown(path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    std::os::unix::fs::chown(path, uid, gid)
}

/// Starts `command` in a session of its own: it has no terminal, and neither Ctrl-C nor the end of the caller's session
/// reaches it. The caller decides where its input and output go.
///
/// # Errors
/// Those of [`Command::spawn`].
pub fn spawn_detached(command: &mut Command) -> io::Result<Child> {
    // SAFETY: only async-signal-safe calls are allowed between fork and exec. setsid is one, and it allocates nothing.
    unsafe { command.pre_exec(|| setsid().map(drop).map_err(io::Error::from)) };
    command.spawn()
}

/// Makes `command` ignore the signals that ask a program to end, from its start on.
pub fn without_ends(command: &mut Command) {
    let ignore = || {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: the call takes numbers alone, and SIG_IGN is no function that could run.
            if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: only async-signal-safe calls are allowed between fork and exec. signal is one, and it allocates nothing.
    unsafe { command.pre_exec(ignore) };
}

/// Makes `command` start without the capabilities that a service manager has told this process to hand on.
pub fn without_ambient(command: &mut Command) {
    // SAFETY: only async-signal-safe calls are allowed between fork and exec. prctl is one, and it allocates nothing.
    unsafe { command.pre_exec(|| clear_ambient_capability_set().map_err(io::Error::from)) };
}

#[cfg(test)]
mod tests;
