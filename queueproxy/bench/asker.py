"""Asks one request after the other on one connection, in a closed loop, and counts how long each answer took."""

from __future__ import annotations

import asyncio
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import httptools

if TYPE_CHECKING:
    from queueproxy.bench.load import Load

__all__ = ["Asker"]


class Asker(asyncio.Protocol):
    """One connection, one request at a time."""

    __slots__ = ("answering", "asked_ns", "load", "parser", "transport")

    def __init__(self, load: Load) -> None:
        self.load = load
        self.transport: Any = None
        self.parser = httptools.HttpResponseParser(self)
        self.asked_ns = 0
        self.answering = True  # a request is out

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.answering = True
        self.asked_ns = perf_counter_ns()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_complete(self) -> None:
        now_ns = perf_counter_ns()
        load = self.load
        if not 200 <= self.parser.get_status_code() < 300:
            load.errors += 1
        load.histogram.record((now_ns - self.asked_ns) // 1000)
        self.answering = False
        if now_ns >= load.until_ns or not self.parser.should_keep_alive():
            self.transport.close()
        else:
            self.next(now_ns)

    def next(self, now_ns: int) -> None:
        """It was answered: ask again."""
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.left(self, failed=self.answering)
