"""The cgroup driver's own suite, as anybody runs it: without root it skips and says so, with root it takes a minute."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "tests" / "freeze" / "node"
SUITE = [NODE / f"test_{name}.py" for name in ("cgroup", "throttle", "mover", "stopsign", "transition")]
pytestmark = pytest.mark.slow


def run(folder: Path, *before: str) -> tuple[dict[str, int], str, float]:
    """What came of the suite: counts by outcome, what it printed, CPU seconds."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'own'}"]
    done = subprocess.run(
        [*before, *pytest_, *map(str, SUITE)],
        cwd=ROOT, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=600,
    )  # fmt: skip
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    last = done.stdout.splitlines()[-1]
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)}
    assert done.returncode == 0, done.stdout[-4000:]
    return counts, done.stdout, ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


@pytest.mark.fz("FZ-141")
def test_without_root_what_needs_it_is_skipped_and_said(tmp_path: Path) -> None:
    # A user namespace without a mapping: nobody to the tests, and still allowed to read this checkout.
    nobody = ["unshare", "--user"] if os.geteuid() == 0 else []
    if nobody and (not shutil.which("unshare") or subprocess.run([*nobody, "true"], capture_output=True).returncode):
        pytest.skip("NOT PROVEN HERE: no user namespaces")
    counts, said, _ = run(tmp_path, *nobody)
    assert counts["skipped"] > 100 and counts["passed"] > 100
    assert "not proven on this machine" in said and "needs root" in said


@pytest.mark.root
@pytest.mark.long
@pytest.mark.fz("FZ-141")
def test_with_root_it_takes_less_than_a_minute(tmp_path: Path) -> None:
    """Of CPU: what else this machine does meanwhile is no property of the suite."""
    counts, _, cpu_s = run(tmp_path)
    assert counts["passed"] > 300 and cpu_s < 60.0
