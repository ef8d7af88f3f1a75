"""The real machine: Debian's kernel, cgroup v2 alone, the driver's tests in there; what `make test-v2-vm` does."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.vm.debian import missing

CHECKOUT = Path(__file__).resolve().parents[2]
NO_MACHINE = 2


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_driver_keeps_its_contract_where_v2_has_the_cpu_controller(capsys: pytest.CaptureFixture[str]) -> None:
    if what := missing():
        pytest.skip(f"NOT PROVEN HERE: a machine with cgroup v2 alone needs {what}")
    with capsys.disabled():  # it takes minutes, and says how far it is
        print()
        status = subprocess.run([sys.executable, "-m", "tests.vm"], cwd=CHECKOUT).returncode
    if status == NO_MACHINE:
        pytest.skip("NOT PROVEN HERE: a machine with cgroup v2 alone: what is missing is said above")
    assert status == 0
