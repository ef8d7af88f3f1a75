"""The demo shows what is true, ends by itself in time, and fails when it is not true."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("runs")

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# A machine without usable cgroups: an empty directory covers them, in a mount namespace of its own.
NO_CGROUPS = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none /sys/fs/cgroup && exec "$@"', "sh"]


@pytest.mark.slow
@pytest.mark.fz("FZ-142")
@pytest.mark.parametrize(
    ("around", "mechanism"),
    [
        pytest.param([], "cgroup v2 freezer" if os.geteuid() == 0 else "", id="as we are"),
        pytest.param(NO_CGROUPS, "SIGSTOP and SIGCONT", id="without cgroups", marks=pytest.mark.root),
    ],
)
def test_the_demo_ends_by_itself_in_time_and_in_success(around: list[str], mechanism: str) -> None:
    began = time.monotonic()
    done = subprocess.run([*around, sys.executable, str(DEMO)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 30
    assert mechanism in done.stdout
    assert "0 ticks. Awake it would have ticked 8 times." in done.stdout
    assert "\x1b" not in done.stdout  # colours are for terminals


def verdict(ticks: list[float], naps: list[list[float]], status: int = 0) -> int:
    module = load()
    demo = module.Demo.__new__(module.Demo)
    demo.coloured = False
    demo.began = time.monotonic()
    demo.events, demo.ticks, demo.naps, demo.broken = [], ticks, naps, []
    demo.process = subprocess.CompletedProcess([], status)
    return int(demo.check())


def test_a_tick_while_asleep_fails_the_demo() -> None:
    assert verdict([1.0, 9.0], [[2.0, 8.0]]) == 0
    assert verdict([1.0, 5.0, 9.0], [[2.0, 8.0]]) == 1


def test_a_run_that_ends_badly_fails_the_demo() -> None:
    assert verdict([], [], status=1) == 1
