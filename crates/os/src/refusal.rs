//! For tests: a kernel that refuses a system call.
//!
//! Some errors come only from kernels, drivers or transformations that a test machine does not have. A seccomp filter
//! makes the kernel return them to one thread, at the very system call that the code under test makes.

use std::io;

/// Offset of the first argument in `struct seccomp_data`.
const ARGUMENTS: u32 = 16;

/// The condition for refusing a system call.
#[derive(Clone, Copy)]
pub(crate) enum Argument {
    /// The argument has this value.
    Is(u32),
    /// The argument is larger than this.
    Above(u32),
}

/// Makes every system call of the calling thread with this number fail with `errno` if its argument at `position` (0 to 5)
/// matches. This cannot be undone.
pub(crate) fn refuse(call: libc::c_long, position: u32, argument: Argument, errno: i32) {
    let load = |k| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, k);
    let compare = match argument {
        Argument::Is(value) => instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, value),
        Argument::Above(value) => instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 0, 1, value),
    };
    // On little-endian machines the lower half of an argument comes first.
    let half = if cfg!(target_endian = "big") { 4 } else { 0 };
    let mut program = [
        load(0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, call as u32),
        load(ARGUMENTS + 8 * position + half),
        compare,
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the call changes a flag of the thread and touches no memory.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel copies the program, which lives across the call and has the length given in `filter`.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}
