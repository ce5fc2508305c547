"""Runs a program for which the kernel refuses some system calls, as kernels do that this machine does not run.

    refusing.py CALL ARGUMENT ABOVE ERROR PROGRAM [ARGUMENTS]

    refusing.py writev 2 2 EINVAL overlay up     every writev with more than two pieces fails with EINVAL

It uses a seccomp filter, so that the real binary gets the error at the real system call, in all threads.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

CALLS = {"writev": {"x86_64": 20, "aarch64": 66}}

# linux/prctl.h, linux/seccomp.h, linux/bpf_common.h
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
LOAD, JUMP_EQUAL, JUMP_GREATER, RETURN = 0x20, 0x15, 0x25, 0x06


def main():
    call, argument, above, error, program, *arguments = sys.argv[1:]
    instructions = [
        (LOAD, 0, 0, 0),
        (JUMP_EQUAL, 0, 3, CALLS[call][platform.machine()]),
        (LOAD, 0, 0, 16 + 8 * int(argument)),
        (JUMP_GREATER, 0, 1, int(above)),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | getattr(errno, error)),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in instructions))
    filter_ = struct.pack("@HP", len(instructions), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value, pointer in [
        (PR_SET_NO_NEW_PRIVS, 1, None),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_),
    ]:
        if libc.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
            sys.exit(f"prctl({option}): {os.strerror(ctypes.get_errno())}")
    os.execv(program, [program, *arguments])


main()
