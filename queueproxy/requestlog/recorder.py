"""Runs the request log: one line per finished request, gathered for one turn of the loop, written without waiting.

Lines of one turn leave together in pieces a pipe takes at once, so a busy proxy pays one system call for several lines
and a reader never sees half a line. When the reader of stdout is slow, up to 1 MiB waits in the writer's thread; what
finds no room is dropped, counted and said once (QP-354). A template that cannot be applied to a request gives
upstream's fallback line instead (QP-305).
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final, Protocol

from queueproxy.codec.headers import K_KUBELET_PROBE, K_NETWORK_PROBE, USER_AGENT
from queueproxy.codec.http1 import RequestHead
from queueproxy.log import LineWriter, Log
from queueproxy.requestlog.direct import Line
from queueproxy.requestlog.gofmt import shortest
from queueproxy.requestlog.inputs import Client, Input, Request, Revision, whole_nanoseconds
from queueproxy.requestlog.values import ExecutionError

_PIECE: Final = select.PIPE_BUF
_WAITING: Final = 1 << 20  # bytes of one turn of the loop; lines are long when URLs are


class Counts(Protocol):
    """Where lost lines are counted."""

    unlogged: int


class RequestLog:
    """An observer of requests (proxy.observed). line: writes it from the bare facts, where the template allows that."""

    __slots__ = (
        "_counts", "_failed", "_line", "_lines", "_log", "_loop", "_probes", "_render", "_revision", "_size", "_told",
        "_writer",
    )  # fmt: skip

    def __init__(
        self,
        render: Callable[[Input], bytes],
        revision: Revision,
        *,
        line: Line | None = None,
        probes: bool,
        writer: LineWriter,
        loop: asyncio.AbstractEventLoop,
        log: Log,
        counts: Counts,
    ) -> None:
        self._render = render
        self._line = line
        self._revision = revision
        self._probes = probes
        self._writer = writer
        self._loop = loop
        self._log = log
        self._counts = counts
        self._lines: list[bytes] = []
        self._size = 0
        self._failed = False
        self._told = False

    def __repr__(self) -> str:
        return f"<RequestLog waiting={len(self._lines)} lost={self._counts.unlogged} {self._writer!r}>"

    def finished(
        self, client: Client, head: RequestHead, status: int, size: int, took: float, thaw_wait: float
    ) -> None:
        """One request is over."""
        special = head.special
        if not self._probes and is_probe(special):
            return
        direct = self._line
        if direct is not None:
            line = direct(head, special, client, status, size, took)
        else:
            input = Input(head, client, status, size, took, thaw_wait, self._revision)
            try:
                line = self._render(input)
            except ExecutionError as error:
                line = self._fallback(input, error)
        if self._size + len(line) > _WAITING:
            self._lost(1)
            return
        lines = self._lines
        if not lines:
            self._loop.call_soon(self.flush)
        lines.append(line)
        self._size += len(line)

    def _fallback(self, input: Input, error: ExecutionError) -> bytes:
        if not self._failed:
            self._failed = True
            self._log.warning("The request log template cannot be applied to a request.", error=str(error))
        return b"Invalid request log template: method: %b, response code: %d, latency: %b, url: %b\n" % (
            input.head.method, input.status, shortest(whole_nanoseconds(input.took)), Request(input).url().string(),
        )  # fmt: skip

    # -- getting it out

    def flush(self) -> None:
        """Hands on what this turn of the loop brought."""
        lines, self._lines, self._size = self._lines, [], 0
        if not lines:
            return
        piece: list[bytes] = []
        size = 0
        for line in lines:
            if piece and size + len(line) > _PIECE:
                self._write(piece)
                piece, size = [], 0
            piece.append(line)
            size += len(line)
        self._write(piece)

    def _write(self, piece: list[bytes]) -> None:
        data = piece[0] if len(piece) == 1 else b"".join(piece)
        if not self._writer.write(data, len(piece)):
            self._lost(len(piece))

    def _lost(self, lines: int) -> None:
        self._counts.unlogged += lines
        if not self._told:
            self._told = True
            self._log.warning("Request log lines are dropped: nobody reads stdout, or not fast enough.")

    def close(self) -> None:
        """The last lines, bounded: a reader that never reads costs one second."""
        self.flush()
        self._writer.flush()
        if self._counts.unlogged:
            self._log.warning("Request log lines were dropped.", lines=self._counts.unlogged)


def is_probe(special: dict[int, bytes]) -> bool:
    """What enableProbeRequestLog decides about (contract 3.3); not what the drainer takes for a probe."""
    if USER_AGENT in special and special[USER_AGENT].startswith(b"kube-probe/"):
        return True
    return bool(special.get(K_KUBELET_PROBE) or special.get(K_NETWORK_PROBE))
