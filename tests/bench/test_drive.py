"""Proves queueproxy.bench.drive: a generator is found, told the right things, and never believed when it fails."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.bench import drive
from queueproxy.bench.drive import SCENARIOS, Driver, LoadError
from queueproxy.bench.subject import wait_for_port
from queueproxy.bench.wrk import Report


@pytest.fixture
def port() -> Iterator[int]:
    """Where the real origin listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = int(taken.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-m", "queueproxy.bench.origin", f"--port={number}"])
    assert wait_for_port(number, time.monotonic() + 10)
    yield number
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_our_own_generator_measures_a_real_origin(port: int, name: str) -> None:
    report = Driver(None).run(port, SCENARIOS[name], 2, 0.3)
    assert report.requests > 10
    assert report.errors == 0
    assert 0 < report.p50_us <= report.p99_us
    assert report.seconds >= 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "echo", "up1m"])
def test_wrk_measures_a_real_origin(port: int, name: str) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    report = Driver.found("wrk").run(port, SCENARIOS[name], 2, 1)
    assert (report.errors, report.requests > 10) == (0, True)


def test_errors_are_reported_and_not_hidden_in_a_rate() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = int(taken.getsockname()[1])
    report = Driver(None).run(number, SCENARIOS["small"], 1, 0.1)
    assert report.requests == 0
    assert report.errors > 0


def program(directory: Path, text: str) -> Driver:
    """A stand-in for wrk, to see what a broken one would do."""
    path = directory / "wrk"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Driver(str(path))


def test_a_generator_that_fails_gives_no_figure(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="status 3: no luck"):
        program(tmp_path, "echo no luck >&2; exit 3").run(1, SCENARIOS["small"], 1, 1)


def test_a_generator_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "SLACK_S", 0.1)
    driver = program(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with pytest.raises(LoadError, match="did not end"):
        driver.run(1, SCENARIOS["small"], 1, 0.3)
    with contextlib.suppress(FileNotFoundError), pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIG_DFL)


def test_a_body_is_sent_through_a_script_that_is_gone_afterwards(tmp_path: Path) -> None:
    driver = program(
        tmp_path,
        f'echo "$@" > {tmp_path}/argv\ncp "$6" {tmp_path}/script\n'
        "printf '  50%%  1.00ms\\n  99%%  2.00ms\\n  10 requests in 1.00s, 1MB read\\n'",
    )
    assert driver.run(1, SCENARIOS["echo"], 2, 1) == Report(10, 0, 1.0, 1000.0, 2000.0)
    assert "string.rep" in (tmp_path / "script").read_text()
    named = re.search(r"-s (\S+)", (tmp_path / "argv").read_text())
    assert named is not None
    assert not Path(named[1]).exists()


@pytest.mark.slow
def test_a_websocket_is_never_given_to_wrk(port: int, tmp_path: Path) -> None:
    driver = program(tmp_path, "exit 3")
    assert driver.run(port, SCENARIOS["ws1k"], 1, 0.2).errors == 0


def test_wrk_is_used_when_it_is_there_and_missed_only_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Driver.found("auto").name == "own"
    with pytest.raises(LoadError, match="not on PATH"):
        Driver.found("wrk")
    program(tmp_path, "")
    assert Driver.found("auto").name == "wrk"
    assert Driver.found("own").name == "own"
