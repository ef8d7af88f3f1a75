"""Serves port 8008, where an operator looks into the process: only where the platform enables profiling (QP-046).

Paths are under Go's /debug/pprof/, what is behind them is what a Python program can say. Whatever lasts is asked for,
lasts a bounded time and runs once at a time; whatever takes long to write is written in a thread, so that requests go
on. Nothing of this is loaded where profiling is off.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable
from html import escape
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from queueproxy import __version__
from queueproxy.admin.profiling_lag import LagMeter, summary
from queueproxy.admin.profiling_sampler import CpuSampler, Sampler, WallSampler
from queueproxy.admin.profiling_state import Memory, objects, resident, stacks
from queueproxy.admin.routes import METHOD_NOT_ALLOWED, NOT_FOUND, Reply, path_of
from queueproxy.admin.server import Respond
from queueproxy.clock import monotonic
from queueproxy.codec.http1 import RequestHead

HEAD_TIMEOUT: Final = 15.0  # seconds (contract 1.1)
ROOT: Final = "/debug/pprof/"
HTML: Final = b"text/html; charset=utf-8"
JSON: Final = b"application/json"
FORMATS: Final = ("collapsed", "speedscope")


class BadQuery(Exception):
    """A parameter that means nothing."""


class Bounds(NamedTuple):
    default: int
    low: int
    high: int


# seconds: what a person waits for, and what a forgotten profile may cost. hz: 97 beats with nothing of ours, which
# happens every so many milliseconds. Above 500 more samples say nothing more.
LIMITS: Final = {
    "seconds": Bounds(10, 1, 60),
    "hz": Bounds(97, 1, 500),
    "depth": Bounds(1, 1, 25),
    "top": Bounds(50, 1, 1000),
}
PAGES: Final = {
    "profile": "where CPU time goes: <i>seconds, hz, format=collapsed|speedscope</i>",
    "wall": "where all threads are, running or waiting: <i>seconds, hz, format</i>",
    "threads": "stacks of all threads, timers and tasks, now",
    "heap": "memory allocated within some seconds and still held then: <i>seconds, depth, top</i>",
    "objects": "objects by type, now: <i>top</i>",
    "lag": "how late the event loop is: <i>seconds</i>",
    "cmdline": "the command line",
}


class Query:
    """The parameters of a target; unknown ones mean nothing here."""

    def __init__(self, target: bytes) -> None:
        text = target.partition(b"?")[2].decode("latin-1")
        self._given = dict(parse_qsl(text, keep_blank_values=True))

    def number(self, name: str) -> int:
        default, low, high = LIMITS[name]
        text = self._given.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            raise BadQuery(f"{name} must be a whole number from {low} to {high}\n")
        return int(text)

    def form(self) -> str:
        form = self._given.get("format", FORMATS[0])
        if form not in FORMATS:
            raise BadQuery(f"format must be one of {', '.join(FORMATS)}\n")
        return form


class Profiling:
    """The handler of port 8008."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._busy = ""
        self._pages: dict[str, Callable[[Query, Respond], None]] = {
            "": self._index,
            "profile": lambda query, respond: self._sample("profile", CpuSampler(), query, respond),
            "wall": lambda query, respond: self._sample("wall", WallSampler(), query, respond),
            "threads": self._threads,
            "heap": self._heap,
            "objects": self._objects,
            "lag": self._lag,
            "cmdline": lambda query, respond: respond(Reply(200, "\0".join(sys.orig_argv).encode(errors="replace"))),
        }

    def __repr__(self) -> str:
        return f"<Profiling busy={self._busy!r}>"

    def __call__(self, head: RequestHead, respond: Respond) -> None:
        path = path_of(head.target).decode("latin-1")
        page = self._pages.get(path.removeprefix(ROOT)) if path.startswith(ROOT) else None
        if page is None:
            respond(NOT_FOUND)
        elif head.method not in (b"GET", b"HEAD"):
            respond(METHOD_NOT_ALLOWED)
        else:
            try:
                page(Query(head.target), respond)
            except BadQuery as bad:
                respond(Reply(400, str(bad).encode()))

    # -- at once

    def _index(self, query: Query, respond: Respond) -> None:
        facts = (
            f"queueproxy {__version__}, Python {sys.version.split()[0]}, {type(self._loop).__module__}, "
            f"pid {os.getpid()}, {threading.active_count()} threads, {resident() >> 10} KiB resident, "
            f"collections {[each['collections'] for each in gc.get_stats()]}"
        )
        rows = "".join(f'<li><a href="{ROOT}{name}">{name}</a>: {what}</li>\n' for name, what in PAGES.items())
        page = f"<!DOCTYPE html>\n<title>{ROOT}</title>\n<p>{escape(facts)}</p>\n<ul>\n{rows}</ul>\n"
        respond(Reply(200, page.encode(), HTML))

    def _threads(self, query: Query, respond: Respond) -> None:
        """Asked from the loop, but looked at when the loop has gone on: not this call is of interest."""
        gone_on = threading.Event()
        self._loop.call_soon(gone_on.set)

        def write() -> str:
            gone_on.wait(1.0)
            return stacks(self._loop)

        self._write(write, respond)

    def _objects(self, query: Query, respond: Respond) -> None:
        top = query.number("top")
        self._write(lambda: objects(top), respond)

    # -- for a while

    def _begun(self, name: str, respond: Respond) -> bool:
        """One at a time: two would measure each other."""
        if self._busy:
            respond(Reply(409, f"{self._busy} is running, ask again when it has ended\n".encode()))
            return False
        self._busy = name
        return True

    def _sample(self, name: str, sampler: Sampler, query: Query, respond: Respond) -> None:
        seconds, hz, form = query.number("seconds"), query.number("hz"), query.form()
        if not self._begun(name, respond):
            return

        def ended() -> None:
            sampler.stop()
            self._busy = ""
            if form == "speedscope":
                self._write(lambda: sampler.samples.speedscope(f"queueproxy {name}", sampler.period), respond, JSON)
            else:
                self._write(sampler.samples.collapsed, respond)

        try:
            sampler.start(1 / hz)
        except RuntimeError as error:
            self._busy = ""
            respond(_unable(error))
            return
        self._loop.call_later(seconds, ended)

    def _heap(self, query: Query, respond: Respond) -> None:
        seconds, depth, top = query.number("seconds"), query.number("depth"), query.number("top")
        if not self._begun("heap", respond):
            return
        memory = Memory()

        def written(reply: Reply) -> None:
            memory.stop()
            self._busy = ""
            respond(reply)

        memory.start(depth)
        self._loop.call_later(seconds, lambda: self._write(lambda: memory.report(top), written))

    def _lag(self, query: Query, respond: Respond) -> None:
        seconds = query.number("seconds")
        if not self._begun("lag", respond):
            return
        meter = LagMeter(self._loop, monotonic)

        def ended() -> None:
            meter.stop()
            self._busy = ""
            respond(Reply(200, summary(meter.late).encode()))

        meter.start()
        self._loop.call_later(seconds, ended)

    def _write(self, what: Callable[[], str], respond: Respond, content_type: bytes = Reply(200).content_type) -> None:
        """Answers with a text that a thread writes: the loop gets the interpreter back every five milliseconds."""

        def run() -> None:
            try:
                reply = Reply(200, what().encode(errors="replace"), content_type)
            except Exception as error:
                reply = Reply(500, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
            try:
                self._loop.call_soon_threadsafe(respond, reply)
            except RuntimeError:
                pass  # the process ends: nobody is left to tell

        try:
            threading.Thread(target=run, name="profiling", daemon=True).start()
        except RuntimeError as error:  # the pod may have no more threads
            respond(_unable(error))


def _unable(error: Exception) -> Reply:
    return Reply(503, f"{error}\n".encode(errors="replace"))
