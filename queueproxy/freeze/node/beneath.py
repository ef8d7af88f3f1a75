"""Opens a directory at exactly the path given: no symlink is followed, no dotted component accepted, no root escaped.

What it touches: nothing but directory descriptors. openat2 does it in one call; where a kernel, a seccomp profile or
a rename under our feet will not have it, the path is walked component by component under the same rules (FZ-132,
T-12).
"""

import ctypes
import errno
import os

__all__ = ["NotACgroup", "filesystem_magic", "open_absolute", "open_beneath"]

# linux/openat2.h; the call has the same number on every architecture Knative is built for.
SYS_OPENAT2 = 437
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x01, 0x02, 0x04, 0x08

# What an old kernel (ENOSYS), an old seccomp profile (EPERM) or a rename under our feet (EAGAIN) answers to openat2.
WALK_INSTEAD = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN})

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotACgroup(Exception):
    """The directory exists but is not what we may handle: wrong filesystem, unsafe path, no such controller."""


def open_absolute(path: str) -> int:
    """A descriptor of the directory at an absolute path; it may lie on any mounted filesystem."""
    if not path.startswith("/"):
        raise NotACgroup(f"{path!r}: not an absolute path")
    parts = _components(path[1:])
    root = os.open("/", DIRECTORY)
    try:
        return _resolve(root, parts, RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS)
    finally:
        os.close(root)


def open_beneath(root: int, path: str) -> int:
    """A descriptor of the directory at a relative path, on the root's own filesystem and inside it."""
    return _resolve(
        root, _components(path), RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
    )


def filesystem_magic(fd: int) -> int:
    """`f_type` of the filesystem a descriptor is on (linux/magic.h); os.statvfs does not tell."""
    answer = ctypes.create_string_buffer(256)  # struct statfs is 120 bytes on 64-bit; f_type comes first
    if _libc.fstatfs(ctypes.c_int(fd), answer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    word = ctypes.c_uint if os.uname().machine == "s390x" else ctypes.c_long
    return int(word.from_buffer(answer).value)


def _components(path: str) -> list[str]:
    """Split a path; anything that could mean another place than it says is refused before the kernel sees it."""
    parts = path.split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in path:
        raise NotACgroup(f"{path!r}: empty, dotted or broken path component")
    return parts


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
