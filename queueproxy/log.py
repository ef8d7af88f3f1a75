"""Writes the process log: one line per event, zap's keys in JSON for the sidecar, plain text for `queueproxy run`.

Two parts. `Log` turns an event into a line: level, fields, sampling, and a form that fits one pipe write. `LineWriter`
gets lines out of a file descriptor that may be a full pipe nobody reads (QP-354). It asks the kernel first, and only
when a write would block does it start its one daemon thread and queue there. The queue is bounded; lines that find no
room are counted, and the next line of the process log that goes out carries the count as `droppedLines`. The descriptor
is never set non-blocking, because that would change it for every process that shares it. The request log uses the same
writer (requestlog.recorder), so that two logs on one descriptor do not write into each other's lines.

`logging` is not used: it costs 22 ms at import, and a lock plus a blocking write per line.
"""

import json
import os
import select
import threading
import time
from collections import deque
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

__all__ = ["JSON", "PLAIN", "Format", "Level", "LineWriter", "Log", "settings"]

_LINE_MAX = select.PIPE_BUF  # a longer write to a pipe is not atomic and may block half-way
_QUEUE_BYTES = 1 << 20  # ours; some thousand lines of either log
_FLUSH_FOR = 1.0  # at exit
_SAMPLING = (100, 100)  # zap's production setting: the first and every further, per second and message (contract 8.2)


class Level(IntEnum):
    """Knative's severities."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50
    ALERT = 60
    EMERGENCY = 70


# zap's names, as config-logging spells them: lower case on input, and on output when an encoder asks for it.
_ZAP_LEVELS = {
    "debug": Level.DEBUG, "info": Level.INFO, "warn": Level.WARNING, "error": Level.ERROR,
    "dpanic": Level.CRITICAL, "panic": Level.ALERT, "fatal": Level.EMERGENCY,
}  # fmt: skip
_ZAP_NAMES = {level: name for name, level in _ZAP_LEVELS.items()}
_ZAP_COLOURS = {Level.DEBUG: 35, Level.INFO: 34, Level.WARNING: 33}  # red for the others


class Format(NamedTuple):
    """How a line looks: the part of zap's encoder configuration that operators set (QP-308). An empty key hides it."""

    plain: bool = False  # `HH:MM:SS level message key=value`, local time
    console: bool = False  # zap's tab-separated form
    time_key: str = "timestamp"
    level_key: str = "severity"
    name_key: str = "logger"
    message_key: str = "message"
    name: str = "queueproxy"
    levels: str = "knative"  # or lowercase, capital, color, capitalColor
    times: str = "rfc3339nano"  # or iso8601, rfc3339, epoch, millis, nanos
    line_ending: str = "\n"
    sampling: tuple[int, int] | None = _SAMPLING

    def encode(self, level: Level, message: str, fields: Mapping[str, object], wall_ns: int) -> bytes:
        """The whole line, shortened until it fits into one atomic write."""
        for longest in (0, 1024, 256, 64):
            line = self._line(level, *_shortened(message, fields, longest), wall_ns)
            if len(line) <= _LINE_MAX:
                return line
        return self._line(level, message[:256], {"truncated": True}, wall_ns)

    def _line(self, level: Level, message: str, fields: Mapping[str, object], wall_ns: int) -> bytes:
        if self.plain:
            text = f"{_stamp('%H:%M:%S', wall_ns, local=True)} {level.name.lower():<7} {message}"
            text += "".join(f" {key}={_plain(value)}" for key, value in fields.items())
            return _printable(text).encode("utf-8", "backslashreplace") + b"\n"
        at, severity = self._time(wall_ns), self._level(level)
        if self.console:
            columns = [str(part) for key, part in ((self.time_key, at), (self.level_key, severity)) if key]
            columns += [part for key, part in ((self.name_key, self.name), (self.message_key, message)) if key]
            text = "\t".join(columns) + (f"\t{_json(fields)}" if fields else "")
        else:
            record: dict[str, object] = {}
            for key, part in (
                (self.level_key, severity), (self.time_key, at), (self.name_key, self.name), (self.message_key, message)
            ):  # fmt: skip
                if key:
                    record[key] = part
            # A field may not overwrite what every reader of the log relies on.
            record |= {key: value for key, value in fields.items() if key not in record}
            text = _json(record)
        return (text + self.line_ending).encode("utf-8", "backslashreplace")

    def _level(self, level: Level) -> str:
        if self.levels == "knative":
            return level.name
        name = _ZAP_NAMES[level].upper() if self.levels.startswith("capital") else _ZAP_NAMES[level]
        if self.levels.lower().endswith("color"):
            return f"\x1b[{_ZAP_COLOURS.get(level, 31)}m{name}\x1b[0m"
        return name

    def _time(self, wall_ns: int) -> str | float | int:
        if self.times == "rfc3339nano":
            return f"{_stamp('%Y-%m-%dT%H:%M:%S', wall_ns)}.{wall_ns % 1_000_000_000:09d}Z"
        if self.times == "iso8601":
            return f"{_stamp('%Y-%m-%dT%H:%M:%S', wall_ns)}.{wall_ns % 1_000_000_000 // 1_000_000:03d}Z"
        if self.times == "rfc3339":
            return f"{_stamp('%Y-%m-%dT%H:%M:%S', wall_ns)}Z"
        if self.times == "nanos":
            return wall_ns
        return wall_ns / (1e6 if self.times == "millis" else 1e9)


JSON = Format()
PLAIN = Format(plain=True)


class LineWriter:
    """Gets whole lines out of one file descriptor without ever stopping the caller."""

    __slots__ = ("_bytes", "_gate", "_poll", "_queue", "_queueing", "_thread", "fd", "lost")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._gate = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._bytes = 0  # of them, the piece that is being written included
        self._queueing = False  # the thread owns the descriptor, so that lines keep their order
        self._thread: threading.Thread | None = None
        self.lost = 0  # lines that found no room since the last one that did

    def __repr__(self) -> str:
        return f"<LineWriter fd={self.fd} queued={len(self._queue)} lost={self.lost}>"

    def write(self, data: bytes, lines: int = 1) -> bool:
        """Takes one or more whole lines. True when they went out or wait their turn, False when they were lost."""
        with self._gate:
            # What is longer than a pipe takes at once might block half-way, however ready the pipe is.
            if not self._queueing and len(data) <= _LINE_MAX and self._poll.poll(0):
                rest = _put(self.fd, data)
                if not rest:
                    return rest is not None
                data = rest  # half a line is out: the other half must follow
            elif self._bytes + len(data) > _QUEUE_BYTES:
                self.lost += lines
                return False
            self._queue.append(data)
            self._bytes += len(data)
            self._queueing = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._gate.notify_all()
            return True

    def flush(self, within: float = _FLUSH_FOR) -> bool:
        """Waits until the queue is empty, at most `within` seconds."""
        with self._gate:
            return self._gate.wait_for(lambda: not self._queueing, within)

    def _run(self) -> None:
        while True:
            with self._gate:
                while not self._queue:
                    self._queueing = False
                    self._gate.notify_all()
                    self._gate.wait()
                data = self._queue.popleft()
            rest: bytes | None = data
            while rest:
                self._poll.poll()  # somebody may have made the shared descriptor non-blocking: wait here, not in write
                rest = _put(self.fd, rest)
            with self._gate:
                self._bytes -= len(data)


class Log:
    """The process log. `debug_on` is for callers that would otherwise build fields for nothing."""

    __slots__ = ("_fields", "_format", "_level", "_sample", "debug_on", "writer")

    def __init__(
        self,
        writer: LineWriter,
        fields: Mapping[str, object] | None = None,
        *,
        level: Level = Level.INFO,
        format: Format = JSON,
        sample: "_Sample | None" = None,
    ) -> None:
        self.writer = writer
        self._fields = dict(fields or {})
        self._level = level
        self._format = format
        self._sample = sample or _Sample(format.sampling)
        self.debug_on = level <= Level.DEBUG

    def __repr__(self) -> str:
        return f"<Log {self._level.name} {self._fields} {self.writer!r}>"

    def with_(self, **fields: object) -> "Log":
        """The same log with more fields on every line."""
        return Log(self.writer, self._fields | fields, level=self._level, format=self._format, sample=self._sample)

    def debug(self, message: str, /, **fields: object) -> None:
        if self.debug_on:
            self._write(Level.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._write(Level.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._write(Level.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        self._write(Level.ERROR, message, fields)

    def critical(self, message: str, /, **fields: object) -> None:
        self._write(Level.CRITICAL, message, fields)

    def emergency(self, message: str, /, **fields: object) -> None:
        """What upstream calls fatal: the caller exits next."""
        self._write(Level.EMERGENCY, message, fields)

    def close(self) -> None:
        """Last words, bounded: a reader that never reads costs one second."""
        if self.writer.flush() and self.writer.lost:
            self.warning("log lines were dropped")

    def _write(self, level: Level, message: str, fields: Mapping[str, object]) -> None:
        if level < self._level:
            return
        wall_ns = time.time_ns()
        if not self._sample.passes(level, message, wall_ns):
            return
        lost = self.writer.lost
        fields = {**self._fields, **fields, "droppedLines": lost} if lost else {**self._fields, **fields}
        if self.writer.write(self._format.encode(level, message, fields, wall_ns)) and lost:
            self.writer.lost -= lost


class _Sample:
    """The first hundred lines of a message in each second, then every hundredth; or what was configured."""

    __slots__ = ("_counts", "_second", "_setting")

    def __init__(self, setting: tuple[int, int] | None) -> None:
        self._setting = setting
        self._second = 0
        self._counts: dict[tuple[Level, str], int] = {}

    def passes(self, level: Level, message: str, wall_ns: int) -> bool:
        if self._setting is None:
            return True
        first, every = self._setting
        second = wall_ns // 1_000_000_000
        if second != self._second:
            self._second = second
            self._counts.clear()
        count = self._counts[level, message] = self._counts.get((level, message), 0) + 1
        return count <= first or (every > 0 and (count - first) % every == 0)


def settings(config: str, level: str) -> tuple[Format, Level, int, str]:
    """`SERVING_LOGGING_CONFIG` and `SERVING_LOGGING_LEVEL` -> format, threshold, file descriptor, warning or "".

    Nothing here is ever fatal (QP-309): what cannot be read is left at its default.
    """
    format, threshold, fd, warning = JSON, Level.INFO, 2, ""
    if config:
        try:
            zap = json.loads(config)
            if not isinstance(zap, dict):
                raise ValueError("not an object")
            format, fd = _zap_format(zap), _zap_output(zap)
            wanted = zap.get("level") or "info"
            if not isinstance(wanted, str) or wanted.lower() not in _ZAP_LEVELS:
                raise ValueError(f"unrecognized level: {wanted!r}")
            threshold = _ZAP_LEVELS[wanted.lower()]
        except (ValueError, RecursionError) as error:
            format, fd = Format(name="fallback-logger.queueproxy"), 2
            warning = f"failed to parse SERVING_LOGGING_CONFIG, using the default: {error}"
    return format, _ZAP_LEVELS.get(level.lower(), threshold), fd, warning


def _zap_format(zap: Mapping[str, object]) -> Format:
    encoder = zap.get("encoderConfig")
    keys: dict[str, str] = {k: v for k, v in encoder.items() if isinstance(v, str)} if isinstance(encoder, dict) else {}
    levels = keys.get("levelEncoder", JSON.levels)
    times = keys.get("timeEncoder", JSON.times).lower()
    encoding = zap.get("encoding", "json")
    if encoding not in ("json", "console"):
        raise ValueError(f"no encoder registered for name {encoding!r}")
    return Format(
        console=encoding == "console",
        time_key=keys.get("timeKey", JSON.time_key),
        level_key=keys.get("levelKey", JSON.level_key),
        name_key=keys.get("nameKey", JSON.name_key),
        message_key=keys.get("messageKey", JSON.message_key),
        levels=levels if levels in ("knative", "capital", "capitalColor", "color") else "lowercase",
        times=times if times in ("rfc3339nano", "iso8601", "rfc3339", "millis", "nanos") else "epoch",
        line_ending=keys.get("lineEnding") or "\n",
        sampling=_zap_sampling(zap),
    )


def _zap_sampling(zap: Mapping[str, object]) -> tuple[int, int] | None:
    if "sampling" not in zap:
        return _SAMPLING
    found = zap["sampling"]
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ValueError("sampling is not an object")
    first, every = found.get("initial", 0), found.get("thereafter", 0)
    if type(first) is not int or type(every) is not int or first < 0 or every < 0:
        raise ValueError("sampling needs whole numbers")
    return first, every


def _zap_output(zap: Mapping[str, object]) -> int:
    paths = zap.get("outputPaths")
    # Files cannot be written in our container, so stdout and stderr are all there is.
    return 1 if isinstance(paths, list) and paths[:1] == ["stdout"] else 2


def _put(fd: int, data: bytes) -> bytes | None:
    """What is still to be written; None when the reader is gone: there is nobody to tell."""
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:  # ready a moment ago, but others write here too
        return data
    except OSError:
        return None


def _stamp(pattern: str, wall_ns: int, *, local: bool = False) -> str:
    seconds = wall_ns // 1_000_000_000
    return time.strftime(pattern, time.localtime(seconds) if local else time.gmtime(seconds))


def _json(value: Mapping[str, object]) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
    except (ValueError, RecursionError):  # not-a-number, or a container inside itself
        tame = {key: item if isinstance(item, (int, str)) else str(item) for key, item in value.items()}
        return json.dumps(tame, ensure_ascii=False, separators=(",", ":"))


def _shortened(message: str, fields: Mapping[str, object], longest: int) -> tuple[str, Mapping[str, object]]:
    if not longest:
        return message, fields
    cut: dict[str, object] = {
        key: value if isinstance(value, (bool, int, float)) or value is None else str(value)[:longest]
        for key, value in fields.items()
    }
    return message[:longest], cut | {"truncated": True}


def _plain(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n') else text


def _printable(text: str) -> str:
    """One event, one line, and no escape sequences for the terminal to obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
