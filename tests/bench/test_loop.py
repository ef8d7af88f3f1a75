"""Proves queueproxy.bench.loop: uvloop where there is one, the standard loop elsewhere."""

import asyncio
import sys

import pytest

from queueproxy.bench.loop import run


async def running() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_it_runs_on_uvloop_and_returns_the_result() -> None:
    pytest.importorskip("uvloop")
    assert run(running()).startswith("uvloop")


def test_without_uvloop_the_standard_loop_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # what import sees when a module is not there
    assert run(running()).startswith("asyncio")
