"""Reads what containers and daemons print, in one thread: lines with the moment they came.

Pipes and FIFOs alike; nobody polls, and a test waits on the lines themselves.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Listener", "Log"]

PATIENCE = 20.0


class Log:
    """What one program has said: (moment, line)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[tuple[float, str]] = []
        self.news = threading.Condition()
        self.echo: Callable[[str], None] | None = None  # for each line as it comes
        self._tail = b""

    def __repr__(self) -> str:
        return f"<Log {self.name} {len(self.lines)} lines, last {[line for _, line in self.lines[-4:]]}>"

    def add(self, data: bytes) -> None:
        now = time.monotonic()
        *lines, self._tail = (self._tail + data).split(b"\n")
        with self.news:
            self.lines += [(now, line.decode(errors="replace")) for line in lines]
            self.news.notify_all()
        if self.echo is not None:
            for line in lines:
                self.echo(line.decode(errors="replace"))

    def find(self, text: str, *, since: int = 0) -> tuple[float, str] | None:
        """The first line that contains it."""
        return next((entry for entry in self.lines[since:] if text in entry[1]), None)

    def said(self, text: str) -> list[str]:
        """The lines that contain it."""
        return [line for _, line in self.lines if text in line]

    def all(self, start: str, *, since: int = 0) -> list[str]:
        """What follows `start` in each line that begins so."""
        return [line.removeprefix(start).strip() for _, line in self.lines[since:] if line.startswith(start)]

    def until(self, what: Callable[[], Any], within: float = PATIENCE) -> Any:
        """Waits for lines until `what` is true; its value."""
        with self.news:
            happened = self.news.wait_for(what, within)
        assert happened, f"not within {within} s: {self!r}"
        return happened

    def heard(self, text: str, *, since: int = 0, within: float = PATIENCE) -> tuple[float, str]:
        """That line, waiting for it."""
        entry: tuple[float, str] = self.until(lambda: self.find(text, since=since), within)
        return entry


class Listener:
    """The thread. Close it last."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._closing: list[int] = []
        self._open = True
        self._started: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def fifo(self, path: str, log: Log) -> int:
        """Make a FIFO and read it; we hold both ends, so a writer may come and go. Give the number to `forget`."""
        os.mkfifo(path, 0o600)
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(fd, selectors.EVENT_READ, log)
        return fd

    def popen(self, args: list[str], log: Log, **options: Any) -> subprocess.Popen[bytes]:
        """A process whose output and errors go to the log."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=write, stderr=write, **options)
        finally:
            os.close(write)
        self._started.append(process)
        os.set_blocking(read, False)
        self._selector.register(read, selectors.EVENT_READ, log)
        return process

    def forget(self, fd: int) -> None:
        """What is in it has been read by the time it is closed."""
        with self._lock:
            self._closing.append(fd)
        os.write(self._wake, b"x")

    def close(self) -> None:
        """Whoever ended the processes, they are our children: take their status."""
        for process in self._started:
            process.wait(PATIENCE)
        self._open = False
        os.write(self._wake, b"x")
        self._thread.join(PATIENCE)
        for fd in (self._wake, self._wake_read):
            os.close(fd)

    def _run(self) -> None:
        while self._open:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(key.fd, 4096)
                else:
                    self._read(key.fd, key.data)
            with self._lock:
                closing, self._closing = self._closing, []
            for fd in closing:
                self._read(fd, self._selector.get_key(fd).data)
                self._drop(fd)
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                self._drop(key.fd)
        self._selector.close()

    def _read(self, fd: int, log: Log) -> None:
        try:
            while data := os.read(fd, 65536):
                log.add(data)
        except BlockingIOError:
            return
        except OSError:
            pass
        if fd in self._selector.get_map():
            self._drop(fd)  # end of file: a pipe whose process has ended

    def _drop(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
            os.close(fd)
