"""Lines on their way to a reader: whole, in order, and never waited for."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from queueproxy.codec.http1 import RequestHead
from queueproxy.log import LineWriter, Log
from queueproxy.requestlog.compiler import compiled
from queueproxy.requestlog.recorder import RequestLog, is_probe
from tests.support.request_log import REVISION, parsed, with_headers

PLAIN = with_headers()


class Out:
    """A request log into a real pipe of one page, and a process log that is read back."""

    def __init__(self, template: str = "{{.Request.RequestURI}}\n", *, probes: bool = False) -> None:
        self.reader, self.fd = os.pipe()
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, 4096)
        self.told, self._telling = os.pipe()
        self.loop = asyncio.new_event_loop()
        self.counts = SimpleNamespace(unlogged=0)
        self.writer = LineWriter(self.fd)
        self.log = RequestLog(
            compiled(template), REVISION, probes=probes, writer=self.writer, loop=self.loop,
            log=Log(LineWriter(self._telling)), counts=self.counts,
        )  # fmt: skip

    def finished(self, raw: bytes = PLAIN, head: RequestHead | None = None) -> None:
        client = SimpleNamespace(remote=b"10.0.0.9:1", tls=None, heads=SimpleNamespace(raw=raw))
        self.log.finished(client, head or parsed(raw), 200, 5, 0.001, 0.0)

    def turn(self) -> None:
        """What is scheduled runs."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += os.read(self.reader, size - len(data))
        return data

    def warnings(self) -> list[str]:
        if not select.select([self.told], [], [], 0)[0]:
            return []
        return [json.loads(line)["message"] for line in os.read(self.told, 1 << 16).splitlines()]

    def close(self) -> None:
        os.close(self.reader)  # first: a thread that still has lines gets EPIPE and comes to rest
        assert self.writer.flush(10.0)
        for fd in (self.fd, self.told, self._telling):
            os.close(fd)
        self.loop.close()


@pytest.fixture
def out() -> Iterator[Out]:
    out = Out()
    yield out
    out.close()


@pytest.mark.qp("QP-300")
def test_lines_of_one_turn_leave_together_and_in_order(out: Out) -> None:
    for n in range(20):
        out.finished(with_headers(target=f"/{n}"))
    assert not select.select([out.reader], [], [], 0)[0], "nothing is written while requests are served"
    out.turn()
    assert os.read(out.reader, 4096) == b"".join(b"/%d\n" % n for n in range(20))


@pytest.mark.qp("QP-300")
def test_a_piece_ends_with_a_line(out: Out) -> None:
    target = "/" + "x" * 1500
    for _ in range(5):
        out.finished(with_headers(target=target))
    out.turn()
    heard = [os.read(out.reader, 4096) for _ in range(3)]
    assert all(piece.endswith(b"\n") and len(piece) <= select.PIPE_BUF for piece in heard)
    assert b"".join(heard) == (target.encode() + b"\n") * 5


@pytest.mark.qp("QP-300", "QP-354")
def test_a_line_longer_than_a_pipe_is_written_whole_and_between_others(out: Out) -> None:
    long = "/" + "y" * 20_000
    for target in ("/a", long, "/b"):
        out.finished(with_headers(target=target))
    out.turn()  # returns although nobody has read
    assert out.read(20_008) == f"/a\n{long}\n/b\n".encode()


@pytest.mark.qp("QP-354")
def test_a_reader_that_does_not_read_costs_lines_and_not_requests(out: Out) -> None:
    target = "/" + "z" * 3998  # with its newline: a page
    for _ in range(400):
        out.finished(with_headers(target=target))
        out.turn()
    lost = out.counts.unlogged
    assert 100 < lost < 300, "1 MiB waits, the rest is dropped"
    assert out.warnings() == ["Request log lines are dropped: nobody reads stdout, or not fast enough."]
    reader = threading.Thread(target=lambda: heard.append(out.read((400 - lost) * 4000)))
    heard: list[bytes] = []
    reader.start()
    reader.join(20.0)
    assert heard == [(target.encode() + b"\n") * (400 - lost)]
    out.log.close()
    assert out.warnings() == ["Request log lines were dropped."]


def test_one_turn_cannot_hold_more_than_a_slow_reader_may(out: Out) -> None:
    target = "/" + "u" * 300_000
    raw = with_headers(target=target)
    head = parsed(raw)
    for _ in range(5):
        out.finished(raw, head)
    assert out.counts.unlogged == 2


@pytest.mark.qp("QP-354")
def test_a_reader_that_left_is_counted_and_said_once(out: Out) -> None:
    reader, fd = os.pipe()
    os.close(reader)
    out.log._writer = LineWriter(fd)
    for _ in range(3):
        out.finished()
        out.turn()
    assert out.counts.unlogged == 3
    assert len(out.warnings()) == 1
    os.close(fd)


@pytest.mark.qp("QP-305")
def test_a_template_that_does_not_fit_gives_the_fallback_line_and_one_warning() -> None:
    out = Out("{{.Request.Nope}}\n")
    try:
        for _ in range(2):
            out.finished(with_headers(target="/a%20b?x", method="PUT"))
        out.turn()
        line = b"Invalid request log template: method: PUT, response code: 200, latency: 0.001, url: /a%20b?x\n"
        assert out.read(2 * len(line)) == line * 2
        assert out.warnings() == ["The request log template cannot be applied to a request."]
    finally:
        out.close()


@pytest.mark.qp("QP-300")
def test_the_last_lines_leave_with_the_process(out: Out) -> None:
    out.finished()
    out.log.close()
    assert os.read(out.reader, 4096) == b"/\n"
    assert out.warnings() == []


@pytest.mark.qp("QP-304")
@pytest.mark.parametrize(
    ("line", "probe"),
    [
        ("User-Agent: kube-probe/1.31", True), ("User-Agent: kube-probe", False),
        ("User-Agent: Knative-Activator-Probe", False),
        ("K-Network-Probe: anything", True), ("K-Network-Probe:", False), ("K-Kubelet-Probe: x", True), ("X: y", False),
    ],
)  # fmt: skip
def test_probes_are_lines_only_where_they_are_wanted(line: str, probe: bool) -> None:
    raw = with_headers(line)
    assert is_probe(parsed(raw).special) is probe
    for wanted in (False, True):
        out = Out(probes=wanted)
        try:
            out.finished(raw)
            out.turn()
            assert bool(select.select([out.reader], [], [], 0)[0]) is (wanted or not probe)
        finally:
            out.close()
