"""Opens and holds one cgroup directory by descriptor, without following symlinks; reads and writes its files by openat.

What it touches: one directory and the small files in it. A path, a descriptor number and a pid can all be recycled; the
descriptor we hold cannot be redirected, and the inode tells a namesake from the original. A cgroup that disappears
while we hold it is an ordinary answer (`None` from `read`, `False` from `write`), every other failure is an
`OSError`.

This is the only module that knows the names of the kernel's files (FZ-132, T-12).
"""

import ctypes
import errno
import os
import stat
from enum import IntEnum
from typing import Self

__all__ = ["Cgroup", "NotACgroup", "Version", "Where"]

CGROUP_PROCS = "cgroup.procs"
CGROUP_EVENTS = "cgroup.events"  # v2: "populated 0|1", "frozen 0|1"
CGROUP_FREEZE = "cgroup.freeze"  # v2: the wish, "0" or "1"
CGROUP_KILL = "cgroup.kill"  # v2, kernel 5.14
CGROUP_STAT_LOCAL = "cgroup.stat.local"  # v2, seen on 6.18: "frozen_usec N"
FREEZER_STATE = "freezer.state"  # v1: THAWED, FREEZING, FROZEN
FREEZER_SELF = "freezer.self_freezing"
FREEZER_PARENT = "freezer.parent_freezing"
CPU_MAX = "cpu.max"  # v2: "<quota|max> <period>"
CPU_STAT = "cpu.stat"  # v2: "usage_usec N", there even without the cpu controller
CPU_QUOTA = "cpu.cfs_quota_us"  # v1
CPU_PERIOD = "cpu.cfs_period_us"
CPUACCT_USAGE = "cpuacct.usage"  # v1: nanoseconds

# linux/magic.h
CGROUP_SUPER_MAGIC = 0x0027E0EB
CGROUP2_SUPER_MAGIC = 0x63677270

# linux/openat2.h; the call has the same number on every architecture Knative is built for.
SYS_OPENAT2 = 437
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x01, 0x02, 0x04, 0x08

# What an old kernel (ENOSYS), an old seccomp profile (EPERM) or a rename under our feet (EAGAIN) answer to openat2.
WALK_INSTEAD = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN})
# A removed cgroup: openat in it says ENOENT, a descriptor opened before says ENODEV.
VANISHED = frozenset({errno.ENOENT, errno.ENODEV})

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK changes nothing on cgroupfs and keeps a FIFO planted in a hostile tree from hanging us.
FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# 100,000 pids of seven digits fit; a file that goes on for longer is not the kernel's.
READ_LIMIT = 1 << 20

Where = str | os.PathLike[str] | tuple[int, str]


class NotACgroup(Exception):
    """The directory exists but is not what we may handle: wrong filesystem, unsafe path, no such controller."""


class Version(IntEnum):
    """Which kernel interface a directory speaks. FILES: an ordinary directory, allowed only when asked for."""

    FILES = 0
    V1 = 1
    V2 = 2


class Cgroup:
    """One held cgroup directory. Not for use after `close`."""

    __slots__ = ("device", "fd", "inode", "name", "version")

    def __init__(self, fd: int, name: str, version: Version) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self.name = name
        self.version = version
        self.inode = status.st_ino
        self.device = status.st_dev

    @classmethod
    def open(cls, where: Where, *, require_cgroupfs: bool = True, inode: int | None = None) -> Self:
        """Hold the cgroup at an absolute path, or at a path beneath an open directory `(root_fd, relative)`.

        Neither form follows a symlink anywhere; the second also never leaves the root or its filesystem. `inode` is
        the one a journal remembers: another inode under the same name is a namesake, and the cgroup meant is gone.
        Raises FileNotFoundError when it is not there (any more), NotACgroup, or another OSError.
        """
        if isinstance(where, tuple):
            root, name = where
            fd = _open_beneath(root, _components(name))
        else:
            name = os.fspath(where)
            if not name.startswith("/"):
                raise NotACgroup(f"{name!r}: not an absolute path")
            fd = _open_absolute(_components(name[1:]))
        try:
            held = cls(fd, name, _version(fd))
            if require_cgroupfs and held.version is Version.FILES:
                raise NotACgroup(f"{name!r}: not on a cgroup filesystem")
            if inode is not None and held.inode != inode:
                raise FileNotFoundError(errno.ENOENT, "a namesake took the place of the cgroup meant", name)
        except BaseException:
            os.close(fd)
            raise
        return held

    def read(self, name: str) -> str | None:
        """The file's text, stripped; None when the cgroup is gone. A missing file raises FileNotFoundError."""
        try:
            fd = os.open(name, os.O_RDONLY | FILE, dir_fd=self.fd)
        except OSError as error:
            self._unless_vanished(error, name)
            return None
        try:
            return _read_all(fd, name).decode("ascii", "replace").strip()
        except OSError as error:
            self._unless_vanished(error, name)
            return None
        finally:
            os.close(fd)

    def write(self, name: str, text: str) -> bool:
        """Write the file in one call; False when the cgroup is gone."""
        try:
            # O_TRUNC only matters in trees of ordinary files: "max" must not leave the tail of "100000" behind.
            fd = os.open(name, os.O_WRONLY | os.O_TRUNC | FILE, dir_fd=self.fd)
        except OSError as error:
            self._unless_vanished(error, name)
            return False
        try:
            os.write(fd, text.encode("ascii"))
        except OSError as error:
            self._unless_vanished(error, name)
            return False
        finally:
            os.close(fd)
        return True

    def open_file(self, name: str) -> int | None:
        """A descriptor for poll(POLLPRI), the caller's to close; None when the cgroup or the file is not there."""
        try:
            return os.open(name, os.O_RDONLY | FILE, dir_fd=self.fd)
        except OSError as error:
            if error.errno in VANISHED:
                return None
            raise

    def has(self, name: str) -> bool:
        """Whether the cgroup has this file."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in VANISHED:
                return False
            raise
        return True

    @property
    def is_gone(self) -> bool:
        """Every cgroup of either version has `cgroup.procs` until it is removed."""
        return not self.has(CGROUP_PROCS)

    def pids(self) -> tuple[int, ...]:
        """Processes of this cgroup itself, none when it is gone. 0 stands for a process outside our pid namespace."""
        text = self.read(CGROUP_PROCS)
        return tuple(int(line) for line in text.split()) if text else ()

    def close(self) -> None:
        """Let go; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _unless_vanished(self, error: OSError, name: str) -> None:
        """Return when the whole cgroup has vanished; otherwise the error is a real one and goes on up."""
        if error.errno not in VANISHED or not self.is_gone:
            error.filename = f"{self.name}/{name}"
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cgroup {self.name!r} {self.version.name} inode={self.inode}{' closed' if self.fd < 0 else ''}>"


def _components(path: str) -> list[str]:
    """Split a path; anything that could mean another place than it says is refused before the kernel sees it."""
    parts = path.split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in path:
        raise NotACgroup(f"{path!r}: empty, dotted or broken path component")
    return parts


def _open_absolute(parts: list[str]) -> int:
    root = os.open("/", DIRECTORY)
    try:
        return _resolve(root, parts, RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS)
    finally:
        os.close(root)


def _open_beneath(root: int, parts: list[str]) -> int:
    return _resolve(root, parts, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)


def _resolve(root: int, parts: list[str], rules: int) -> int:
    try:
        return _openat2(root, "/".join(parts), rules)
    except OSError as error:
        if error.errno in WALK_INSTEAD:
            return _walk(root, parts, stay=bool(rules & RESOLVE_NO_XDEV))
        if error.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
            raise NotACgroup(f"{'/'.join(parts)!r}: {error.strerror}") from error
        raise


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_libc = ctypes.CDLL(None, use_errno=True)


def _openat2(root: int, path: str, rules: int) -> int:
    how = _OpenHow(DIRECTORY, 0, rules)
    call = _libc.syscall
    call.restype = ctypes.c_long
    fd: int = call(
        ctypes.c_long(SYS_OPENAT2), ctypes.c_int(root), ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)),
    )  # fmt: skip
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return fd


def _walk(root: int, parts: list[str], *, stay: bool) -> int:
    """openat2 by hand, component by component. Unlike openat2 it misses bind mounts of the same filesystem."""
    device = os.fstat(root).st_dev
    fd = os.dup(root)
    for part in parts:
        try:
            below = os.open(part, DIRECTORY, dir_fd=fd)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise NotACgroup(f"{'/'.join(parts)!r}: {part!r} is a link or no directory") from error
            raise
        finally:
            os.close(fd)
        fd = below
        if stay and os.fstat(fd).st_dev != device:
            os.close(fd)
            raise NotACgroup(f"{'/'.join(parts)!r}: {part!r} is on another filesystem")
    return fd


def _version(fd: int) -> Version:
    """By the filesystem's magic: names of files can be imitated, a superblock cannot."""
    answer = ctypes.create_string_buffer(256)  # struct statfs is 120 bytes on 64-bit; f_type comes first
    if _libc.fstatfs(ctypes.c_int(fd), answer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    word = ctypes.c_uint if os.uname().machine == "s390x" else ctypes.c_long
    magic = word.from_buffer(answer).value
    if magic == CGROUP2_SUPER_MAGIC:
        return Version.V2
    return Version.V1 if magic == CGROUP_SUPER_MAGIC else Version.FILES


def _read_all(fd: int, name: str) -> bytes:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)
    text = os.read(fd, 4096)
    if len(text) < 4096 and name != CGROUP_PROCS:
        return text  # every small file of cgroupfs comes whole in one read
    while more := os.read(fd, 65536):
        text += more
        if len(text) > READ_LIMIT:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    return text
