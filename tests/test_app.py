"""The sidecar's composition: which loop, which limiter, and a ticker that keeps to its grid."""

import asyncio
import subprocess
import sys
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
import uvloop

from queueproxy.app import Sidecar, build_limit, new_loop
from queueproxy.bench.environment import environment
from queueproxy.config import load
from queueproxy.log import LineWriter, Log
from tests.support.stat_reader import read_stat
from tests.support.wires import Clock, Loop


@pytest.mark.qp("QP-151", "QP-152", "QP-028")
@pytest.mark.parametrize(("concurrency", "queue"), [(-1, None), (0, None), (1, 10), (7, 70), (1000, 10_000)])
def test_the_limiter_queues_ten_times_what_may_run(concurrency: int, queue: int | None) -> None:
    limit = build_limit(concurrency)
    if queue is None:
        assert limit is None
    else:
        assert limit is not None and (limit.breaker.capacity, limit.breaker.depth) == (concurrency, queue)


@pytest.mark.parametrize(("kind", "uv"), [("auto", True), ("uvloop", True), ("asyncio", False)])
def test_the_loop_is_the_one_asked_for(kind: str, uv: bool) -> None:
    loop = new_loop(kind)
    try:
        assert isinstance(loop, uvloop.Loop) is uv
    finally:
        loop.close()


def test_without_uvloop_auto_falls_back_and_insisting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_loop()
    try:
        assert isinstance(loop, asyncio.SelectorEventLoop)
    finally:
        loop.close()
    with pytest.raises(ImportError):
        new_loop("uvloop")


@pytest.mark.fz("FZ-002")
def test_a_plain_proxy_does_not_even_load_the_freezers_client() -> None:
    program = "import queueproxy.app, sys; print([m for m in sys.modules if m.startswith('queueproxy.freeze.')])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "queueproxy.freeze.gate" in run.stdout
    for module in ("client", "session", "podsleep", "knock", "wire"):
        assert f"queueproxy.freeze.{module}'" not in run.stdout


class FakeLoop(Loop):
    """Enough of a loop to build a sidecar on."""

    def create_future(self) -> Any:
        return object()


@pytest.mark.qp("QP-134", "QP-135", "QP-140", "QP-141", "QP-356")
def test_the_ticker_reports_on_a_grid_of_seconds_and_a_stall_does_not_bunch_reports() -> None:
    clock = Clock()
    loop: Any = FakeLoop(clock)
    log = Log(LineWriter(2), {})
    with patch("queueproxy.app.monotonic", clock):
        sidecar = Sidecar(load(environment(1, 2)), (), loop, log, lambda line: None)
        assert read_stat(sidecar.stat.encoded) == {1: "bench-00001-deployment-0"}
        start = clock.now
        sidecar._next_tick = start + 1.0
        loop.call_later(1.0, sidecar._tick)
        ticks: list[float] = []
        tick = sidecar.stat.tick
        with patch.object(type(sidecar.stat), "tick", lambda _self, now: (ticks.append(now - start), tick(now))[1]):
            loop.advance(3.0)
            clock.now += 2.6  # the loop stalls
            loop.advance(2.0)
        assert ticks[:3] == [1.0, 2.0, 3.0]
        assert ticks[3] == pytest.approx(5.6), "late, once"
        assert all(later - earlier >= 0.999 for earlier, later in pairwise(ticks)), ticks
        uptime = read_stat(sidecar.stat.encoded)[6]
        assert isinstance(uptime, float) and uptime == pytest.approx(ticks[-1])
    log.close()
