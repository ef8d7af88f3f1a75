"""Opens a network namespace for the whole run, because a queue-proxy's side ports (8022, 9090) are fixed."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

__all__ = ["enter_private_network"]

_CLONE_NEWNET = 0x40000000  # sched.h
_SIOCSIFFLAGS = 0x8914  # sockios.h
_IFF_UP = 0x1
_IFREQ = "16sH22x"  # struct ifreq: name, flags, the rest of the union


def enter_private_network() -> None:
    """Moves this process, and so every child it starts from now on, into its own network with only a loopback.

    Needs root; raises OSError otherwise. The namespace ends with the last of these processes.
    """
    # os.unshare came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack(_IFREQ, b"lo", _IFF_UP))
