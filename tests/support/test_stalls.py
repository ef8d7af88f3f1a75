"""What the plugin does with a failure, shown on runs of their own; the machine's stall is a witness held by SIGSTOP."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.stalls import STALL, Witness

ROOT = Path(__file__).parents[2]
# Two of them stop the clock of the machine, as the witness sees it, while they fail.
FILE = """
import os, signal, subprocess, time
from pathlib import Path
import pytest

def attempt(name):
    tries = Path(__file__).with_name(name)
    seen = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (seen + 1))
    return seen

@pytest.fixture
def stall(pytestconfig):
    witness = pytestconfig.pluginmanager.getplugin("stalls").witness.pid
    os.kill(witness, signal.SIGSTOP)
    time.sleep(0.1)
    os.kill(witness, signal.SIGCONT)
    time.sleep(0.1)

@pytest.mark.clock
def test_once(stall):
    assert attempt("once"), "too early"

@pytest.mark.clock
@pytest.mark.skipif(not Path("/proc/pressure/cpu").exists(), reason="the kernel does not count")
def test_crowded():
    if not attempt("crowded"):
        crowd = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 * os.cpu_count())]
        time.sleep(0.5)
        for one in crowd:
            one.kill()
            one.wait()
        raise AssertionError("no room")

@pytest.mark.clock
def test_always(stall):
    attempt("always")
    raise AssertionError("wrong")

def test_promise(stall):
    attempt("promise")
    raise AssertionError("lost")

@pytest.mark.clock
def test_calm():
    attempt("calm")
    raise AssertionError("wrong as well")
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "divided"])
def test_what_fails_during_a_stall_is_asked_again_and_named_and_nothing_else_is(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "test_it.py").write_text(FILE)
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.stalls", "-c", os.devnull]
    command += ["--rootdir", str(tmp_path), *options, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    once, always, promise, calm = (len((tmp_path / name).read_text()) for name in ("once", "always", "promise", "calm"))
    said = ran.stdout
    assert (ran.returncode, once, always, promise) == (1, 2, 3, 1), said
    assert "3 failed, " in said
    summary = said[said.index("asked again: the machine stood still") :]
    assert "test_it.py::test_once (stalled for " in summary and "too early" in summary
    assert not Path("/proc/pressure/cpu").exists() or "test_it.py::test_crowded (stalled for " in summary
    # The machine itself may stall while that one fails; then it is named too.
    assert summary.count("test_it.py::test_calm (stalled for ") == calm - 1


def test_the_witness_says_for_how_long_and_ends_with_its_worker() -> None:
    witness = Witness()
    os.kill(witness.pid, signal.SIGSTOP)
    time.sleep(0.06)
    os.kill(witness.pid, signal.SIGCONT)
    noted: list[float] = []
    until = time.monotonic() + 10.0
    while not any(gap >= 0.06 for gap in noted):
        assert time.monotonic() < until, noted
        noted += witness.stalls()
    assert max(noted) >= STALL
    witness.close()
    while Path(f"/proc/{witness.pid}").exists() and "zombie" not in Path(f"/proc/{witness.pid}/status").read_text():
        assert time.monotonic() < until
        time.sleep(0.005)
