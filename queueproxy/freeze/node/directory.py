"""Opens and holds one cgroup directory by descriptor, without following symlinks; reads and writes its files by openat.

What it touches: one directory and the small files in it. A path, a descriptor number and a pid can all be recycled; the
descriptor we hold cannot be redirected, and the inode tells a namesake from the original. A cgroup that disappears
while we hold it is an ordinary answer (`None` from `read`, `False` from `write`), every other failure is an
`OSError`.

This is the only module that knows the names of the kernel's files (FZ-132, T-12).
"""

import errno
import os
import stat
from enum import IntEnum
from typing import Self

from queueproxy.freeze.node.beneath import NotACgroup, filesystem_magic, open_absolute, open_beneath

__all__ = ["Cgroup", "NotACgroup", "Version", "Where", "keyed"]

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

# A removed cgroup: openat in it says ENOENT, a descriptor opened before says ENODEV.
VANISHED = frozenset({errno.ENOENT, errno.ENODEV})

# O_NONBLOCK changes nothing on cgroupfs and keeps a FIFO planted in a hostile tree from hanging us.
FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# 100,000 pids of seven digits fit; a file that goes on for longer is not the kernel's.
READ_LIMIT = 1 << 20
PAGE = 4096
# The kernel fills a page with whole lines of pids, each shorter than this: less than a page means that was all.
LONGEST_LINE = 16

Where = str | os.PathLike[str] | tuple[int, str]


class Version(IntEnum):
    """Which kernel interface a directory speaks. FILES: an ordinary directory, allowed only when asked for."""

    FILES = 0
    V1 = 1
    V2 = 2


class Cgroup:
    """One held cgroup directory. Not for use after `close`."""

    __slots__ = ("_kept", "_writable", "device", "fd", "inode", "name", "version")

    def __init__(self, fd: int, name: str, version: Version) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self.name = name
        self.version = version
        self.inode = status.st_ino
        self.device = status.st_dev
        self._kept: dict[str, int] = {}
        self._writable: dict[str, int] = {}  # those of `_kept` that may be written

    @classmethod
    def open(cls, where: Where, *, require_cgroupfs: bool = True, inode: int | None = None) -> Self:
        """Hold the cgroup at an absolute path, or at a path beneath an open directory `(root_fd, relative)`.

        Neither form follows a symlink anywhere; the second also never leaves the root or its filesystem. `inode` is
        the one a journal remembers: another inode under the same name is a namesake, and the cgroup meant is gone.
        Raises FileNotFoundError when it is not there (any more), NotACgroup, or another OSError.
        """
        if isinstance(where, tuple):
            name = where[1]
            fd = open_beneath(*where)
        else:
            name = os.fspath(where)
            fd = open_absolute(name)
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
        data = self.raw(name)
        return None if data is None else data.decode("ascii", "replace").strip()

    def raw(self, name: str) -> bytes | None:
        """The same as the kernel wrote it."""
        kept = self._kept.get(name)
        if kept is not None:
            try:
                data = os.pread(kept, PAGE, 0)
                return data if len(data) < PAGE - LONGEST_LINE else data + _rest(kept, len(data), name)
            except OSError as error:
                self._unless_vanished(error, name)
                return None
        try:
            fd = os.open(name, os.O_RDONLY | FILE, dir_fd=self.fd)
        except OSError as error:
            self._unless_vanished(error, name)
            return None
        try:
            return _read_all(fd, name)
        except OSError as error:
            self._unless_vanished(error, name)
            return None
        finally:
            os.close(fd)

    def write(self, name: str, text: str) -> bool:
        """Write the file in one call; False when the cgroup is gone."""
        kept = self._writable.get(name)
        if kept is not None:
            return self._write_kept(kept, name, text)
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

    def swap(self, written: str, text: bytes, read: str) -> bytes:
        """Write one kept file, read another: nothing but the two system calls. Raises OSError (ENOENT when one of
        them is not kept for that, ENODEV when the cgroup is gone)."""
        writable, kept = self._writable, self._kept
        if written not in writable or read not in kept:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), self.name)
        os.pwrite(writable[written], text, 0)
        return os.pread(kept[read], 4096, 0)

    def keep(self, *names: str, writable: bool = False) -> None:
        """Keep these small files open from now on, where they exist: opening is most of the price of a look.

        Measured: open, read, close 9.5 us; pread 1.3 us. On cgroupfs only, where a name cannot come to mean another
        file and a descriptor of a removed cgroup says so. What is kept for reading is written by name. Not v1's
        `cgroup.procs`: read again through one descriptor, it may show a list that is a second old.
        """
        if self.version is Version.FILES:
            return
        for name in names:
            if name in self._kept or (name == CGROUP_PROCS and self.version is Version.V1):
                continue
            try:
                flags = FILE | (os.O_RDWR if writable else os.O_RDONLY)
                self._kept[name] = os.open(name, flags, dir_fd=self.fd)
            except OSError:
                continue  # the next look opens it by name and reports what is wrong
            if writable:
                self._writable[name] = self._kept[name]

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
        return tuple(map(int, (self.raw(CGROUP_PROCS) or b"").split()))

    def has_pid(self, pid: int) -> bool:
        """Whether this process of our pid namespace lives here."""
        return b"%d" % pid in (self.raw(CGROUP_PROCS) or b"").split()

    def close(self) -> None:
        """Let go; a second call does nothing."""
        self._writable.clear()
        while self._kept:
            os.close(self._kept.popitem()[1])
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _write_kept(self, fd: int, name: str, text: str) -> bool:
        try:
            os.pwrite(fd, text.encode("ascii"), 0)
        except OSError as error:
            self._unless_vanished(error, name)
            return False
        return True

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


def _version(fd: int) -> Version:
    """By the filesystem's magic: names of files can be imitated, a superblock cannot."""
    magic = filesystem_magic(fd)
    if magic == CGROUP2_SUPER_MAGIC:
        return Version.V2
    return Version.V1 if magic == CGROUP_SUPER_MAGIC else Version.FILES


def keyed(data: bytes, key: bytes) -> int | None:
    """The number after `key`, which ends with its blank, in a flat-keyed file; None when there is no such line."""
    at = data.find(key)
    while at > 0 and data[at - 1] != 10:  # the end of a longer name
        at = data.find(key, at + 1)
    if at < 0:
        return None
    value = data[at + len(key) :].partition(b"\n")[0]
    return int(value) if value.isdigit() else None


def _read_all(fd: int, name: str) -> bytes:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)
    text = os.read(fd, PAGE)
    if len(text) < PAGE and name != CGROUP_PROCS:
        return text  # every small file of cgroupfs comes whole in one read
    return text + _rest(fd, len(text), name)


def _rest(fd: int, at: int, name: str) -> bytes:
    pieces = []
    while more := os.pread(fd, 65536, at):
        pieces.append(more)
        at += len(more)
        if at > READ_LIMIT:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    return b"".join(pieces)
