"""Runs a command on a kernel that lacks what gVisor or an old guest kernel lacks, by a seccomp filter.

    python -m tests.support.odd_kernel COMMAND...

Missing system calls answer ENOSYS, as they do there; netlink sockets other than the routing one cannot be made, and
TCP_NOTSENT_LOWAT is unknown. No root needed. The filter is inherited by everything the command starts.
"""

import ctypes
import errno
import os
import struct
import sys

# asm/unistd: these numbers are the same on all 64-bit architectures, being younger than 2019.
MISSING = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "pidfd_open": 434, "openat2": 437,
    "pidfd_getfd": 438, "process_madvise": 440, "epoll_pwait2": 441, "landlock_create_ruleset": 444,
    "memfd_secret": 447, "futex_waitv": 449,
}  # fmt: skip
# asm/unistd on x86-64 and on everything younger: setsockopt and socket.
_OWN = {"x86_64": (0xC000003E, 54, 41), "aarch64": (0xC00000B7, 208, 198)}
_IPPROTO_TCP, _TCP_NOTSENT_LOWAT = 6, 25
_AF_NETLINK, _NETLINK_ROUTE = 16, 0

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h: LD|W|ABS, JMP|JEQ|K, RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # linux/seccomp.h
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # struct seccomp_data; little-endian, so the low half comes first


def program() -> bytes:
    """The filter: struct sock_filter after struct sock_filter."""
    architecture, setsockopt, socket = _OWN[os.uname().machine]
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for number in MISSING.values():
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    lines += [  # each second and third figure: how many lines to skip when equal, and when not
        (_EQUAL, 0, 6, setsockopt),
        (_LOAD, 0, 0, _ARGUMENTS + 8),
        (_EQUAL, 0, 3, _IPPROTO_TCP),
        (_LOAD, 0, 0, _ARGUMENTS + 16),
        (_EQUAL, 0, 1, _TCP_NOTSENT_LOWAT),
        (_RETURN, 0, 0, _ERRNO | errno.ENOPROTOOPT),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, 5, socket),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_EQUAL, 0, 3, _AF_NETLINK),
        (_LOAD, 0, 0, _ARGUMENTS + 16),
        (_EQUAL, 1, 0, _NETLINK_ROUTE),
        (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def install() -> None:
    code = program()
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    given = Program(len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(given), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    install()
    os.execvp(sys.argv[1], sys.argv[1:])
