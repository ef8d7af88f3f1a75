"""Looks for the server certificate and its key where the platform mounts them, and reads both (contract 9, QP-320).

What it touches: two small files of a Secret volume. What happens when that breaks: neither file there means that TLS is
not wanted; any other trouble is a `TlsFailed`, whose words are upstream's.
"""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple, Self

from queueproxy.env import quoted

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
LARGEST: Final = 1 << 20  # bytes; what a Kubernetes Secret may hold


class TlsFailed(Exception):
    """TLS is wanted and cannot be had. message: for the log; reason: its `error`."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(f"{message}: {reason}")
        self.message = message
        self.reason = reason


class Contents(NamedTuple):
    """PEM, as it stands in the files."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"<Contents {len(self.certificate)} and {len(self.key)} bytes>"  # a key is never printed


class KeyPair(NamedTuple):
    """Paths of the two files."""

    certificate: str
    key: str

    @classmethod
    def mounted(cls, directory: str) -> Self | None:
        """None unless both exist; a directory entry that cannot be looked at is fatal (contract 1.4)."""
        pair = cls(os.path.join(directory, CERTIFICATE), os.path.join(directory, KEY))
        return pair if all(_exists(path) for path in pair) else None

    def read(self) -> Contents:
        """Both files. Raises OSError, and ValueError for what cannot be a file of a Secret."""
        return Contents(_read(self.certificate), _read(self.key))


def complaint(doing: str, path: str, error: OSError) -> str:
    """What Go makes of it: `open /x: no such file or directory`."""
    return f"{doing} {path}: {os.strerror(error.errno).lower() if error.errno else error}"


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise TlsFailed(f"Failed to verify the file path {quoted(path)}", complaint("stat", path, error)) from error
    return True


def _read(path: str) -> bytes:
    # Not blocking: opening a FIFO that nobody writes to would stop the event loop.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise ValueError(f"read {path}: not a regular file")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"read {path}: larger than {LARGEST} bytes")
    return data
