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
# A test that fails the first `fails` times, and stops the clock of the machine, as the witness sees it, while it does.
FILE = """
import os, signal, time
from pathlib import Path

def test_it(pytestconfig):
    tries = Path(__file__).with_name("tries")
    seen = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (seen + 1))
    if {stall}:
        witness = pytestconfig.pluginmanager.getplugin("stalls").witness.pid
        os.kill(witness, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(witness, signal.SIGCONT)
        time.sleep(0.1)
    assert seen >= {fails}, "too early"
"""
# Without a stall of its own a run here must not see one of the machine's either.
BLIND = "import tests.support.stalls as stalls\nstalls.STALL = float('inf')\n"


def outcome(where: Path, *options: str, stall: bool, fails: int) -> tuple[int, int, str]:
    (where / "test_it.py").write_text(FILE.format(stall=stall, fails=fails))
    (where / "conftest.py").write_text("" if stall else BLIND)
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.stalls", "-c", os.devnull, "--rootdir", str(where)]
    ran = subprocess.run(
        [*command, *options, str(where)], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    return ran.returncode, len((where / "tries").read_text()), ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "divided"])
def test_a_failure_during_a_stall_is_asked_again_and_named(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, tries, said = outcome(tmp_path, *options, stall=True, fails=1)
    assert (code, tries) == (0, 2), said
    summary = said[said.index("asked again: the machine stood still") :]
    assert "test_it.py::test_it (for " in summary and "too early" in summary


@pytest.mark.slow
def test_a_failure_that_comes_back_stands(tmp_path: Path) -> None:
    code, tries, said = outcome(tmp_path, stall=True, fails=99)
    assert (code, tries) == (1, 3), said


@pytest.mark.slow
def test_a_failure_without_a_stall_stands_at_once(tmp_path: Path) -> None:
    code, tries, said = outcome(tmp_path, stall=False, fails=1)
    assert (code, tries) == (1, 1) and "asked again" not in said, said


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
