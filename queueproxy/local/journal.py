"""Holds what a killed run leaves to be mended: one small file per run, written before anything of it can sleep.

Touches one directory, mode 0700 and ours alone: `/run/queueproxy` for root, `$XDG_RUNTIME_DIR/queueproxy`,
`/tmp/queueproxy-<uid>` — the first that works. A record names the run, its owner and app by pid *and* start time, the
cgroups made for it and the CPU quota found there. Files are replaced by rename, so a reader sees a whole record or
none. All these places vanish with a reboot, as frozen processes do; a record that survives one all the same is known
by its boot id.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from queueproxy.local import procfs
from queueproxy.local.procfs import Identity

__all__ = [
    "NAME",
    "Journal",
    "JournalError",
    "Record",
    "decode",
    "encode",
    "open_journal",
    "open_journals",
    "places",
    "run_name",
]

# queueproxy-<pid>-<start time>-<random>, both hex: also the name of the run's cgroups, so the owner can be told from
# a directory alone.
NAME = re.compile(r"queueproxy-([1-9][0-9]{0,9})-([0-9a-f]{1,16})-([0-9a-f]{4})")
_SUFFIX = ".json"
_LARGEST = 65_536  # a record is a few hundred bytes; a long command line makes it longer, nothing makes it this long


class JournalError(Exception):
    """No directory of ours to write to, or a record that cannot be one."""


@dataclass(frozen=True, slots=True)
class Record:
    """One run. Paths are cgroup directories we created; None when the run has none."""

    name: str
    owner: Identity
    boot: str
    pids: str
    mechanism: str
    app: Identity | None = None
    guardian: int | None = None
    freezer: str | None = None
    cpu: str | None = None
    cpu_before: str | None = None
    others: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def with_(self, **changed: object) -> Record:
        return replace(self, **changed)  # type: ignore[arg-type]

    @property
    def cgroups(self) -> tuple[str, ...]:
        """Every directory made for the run, once each."""
        return tuple(dict.fromkeys(path for path in (self.freezer, self.cpu, *self.others) if path))


def run_name(owner: Identity) -> str:
    """A name for a new run."""
    return f"queueproxy-{owner.pid}-{owner.started:x}-{os.urandom(2).hex()}"


def encode(record: Record) -> bytes:
    fields = {name: getattr(record, name) for name in Record.__slots__}
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def decode(data: bytes) -> Record:
    """Read a record, believing nothing: it decides what a later root process writes to and signals."""
    try:
        raw = json.loads(data)
        record = Record(
            name=_text(raw["name"]),
            owner=Identity(*map(_number, raw["owner"])),
            boot=_text(raw["boot"]),
            pids=_text(raw["pids"]),
            mechanism=_text(raw["mechanism"]),
            app=None if raw["app"] is None else Identity(*map(_number, raw["app"])),
            guardian=None if raw["guardian"] is None else _number(raw["guardian"]),
            freezer=_optional(raw["freezer"]),
            cpu=_optional(raw["cpu"]),
            cpu_before=_optional(raw["cpu_before"]),
            others=tuple(map(_text, raw["others"])),
            command=tuple(map(_text, raw["command"])),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise JournalError(f"not a record: {error!r}") from None
    if not NAME.fullmatch(record.name):
        raise JournalError(f"not a run's name: {record.name!r}")
    for path in record.cgroups:
        # Only what we create is ever touched: an absolute, plain path that ends in the run's own name (FZ-132).
        if not path.startswith("/") or os.path.normpath(path) != path or os.path.basename(path) != record.name:
            raise JournalError(f"not a cgroup of {record.name}: {path!r}")
    if record.app is not None and record.app.pid <= 1:
        raise JournalError(f"not an app's pid: {record.app.pid}")
    return record


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _optional(value: object) -> str | None:
    return None if value is None else _text(value)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a number")
    return value


def places(uid: int, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where journals of this user may lie, the preferred one first."""
    found = ["/run/queueproxy"] if uid == 0 else []
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        found.append(os.path.join(runtime, "queueproxy"))
    found.append(f"/tmp/queueproxy-{uid}")
    return tuple(dict.fromkeys(found))


class Journal:
    """One journal directory, held by descriptor so that nobody can swap it under us."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str, *, create: bool) -> None:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.path = path
        found = os.fstat(self._fd)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            os.close(self._fd)
            raise JournalError(f"{path} is not ours alone (owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o})")

    def __repr__(self) -> str:
        return f"<Journal {self.path}>"

    def write(self, record: Record) -> None:
        """Put the record in place, replacing an older one of the same run."""
        draft = f".{record.name}.{os.getpid()}"
        fd = os.open(
            draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd
        )
        try:
            os.write(fd, encode(record))
        finally:
            os.close(fd)
        os.rename(draft, record.name + _SUFFIX, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def read(self, name: str) -> Record | None:
        """The record of a run; None when there is none."""
        try:
            fd = os.open(name + _SUFFIX, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        try:
            return decode(os.read(fd, _LARGEST))
        finally:
            os.close(fd)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name + _SUFFIX, dir_fd=self._fd)

    def records(self) -> Iterator[Record | tuple[str, str]]:
        """Every record, or (file name, why not) for what does not read as one."""
        for entry in sorted(os.listdir(self._fd)):
            name = entry.removesuffix(_SUFFIX)
            if name == entry or not NAME.fullmatch(name):
                continue
            try:
                record = self.read(name)
                if record is not None and record.name != name:
                    raise JournalError(f"holds the record of {record.name}")
            except (JournalError, OSError) as error:
                yield entry, str(error)
                continue
            if record is not None:
                yield record

    def close(self) -> None:
        os.close(self._fd)


def open_journal(uid: int, environ: Mapping[str, str]) -> Journal:
    """The journal to write to: the first place that is, or can be made, ours alone."""
    refused = []
    for path in places(uid, environ):
        try:
            return Journal(path, create=True)
        except (OSError, JournalError) as error:
            refused.append(str(error))
    raise JournalError("no place for the journal of what is frozen: " + "; ".join(refused))


def open_journals(uid: int, environ: Mapping[str, str]) -> list[Journal]:
    """Every journal that exists and is ours alone."""
    found = []
    for path in places(uid, environ):
        with contextlib.suppress(OSError, JournalError):
            found.append(Journal(path, create=False))
    return found


def owner_lives(record: Record) -> bool:
    """Whether the process that wrote the record still runs."""
    return record.boot == procfs.boot_id() and procfs.identity(record.owner.pid) == record.owner
