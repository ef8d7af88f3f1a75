"""Proves queueproxy.bench.wake with the real local mode: the app sleeps before each question, and figures add up."""

import os
import socket
import subprocess
import sys

import pytest

from queueproxy.bench.figures import Measure
from queueproxy.bench.subject import StartError
from queueproxy.bench.wake import Sleeper, measure_wakes

# A run mends what older ones left, so those who make orphans on purpose must not meet one by chance.
pytestmark = pytest.mark.xdist_group("runs")


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [int(each.getsockname()[1]) for each in taken]
    for each in taken:
        each.close()
    return numbers


@pytest.mark.slow
@pytest.mark.root
def test_every_wake_is_measured_from_sleep_and_nothing_is_left() -> None:
    port, app_port, metrics_port = free_ports(3)
    sleeper = Sleeper(port, app_port, metrics_port, "auto")
    said: list[str] = []
    figures = measure_wakes(sleeper, 5, said.append)
    asleep, awake = figures[Measure("wake_asleep_p50_ms")], figures[Measure("wake_awake_p50_ms")]
    assert awake > 0
    assert 0 < asleep <= figures[Measure("wake_asleep_p99_ms")]
    assert figures[Measure("wake_added_p50_ms")] == pytest.approx(asleep - awake, abs=1e-6)
    # The kernel's confirmation is part of what the client waits for.
    assert 0 < figures[Measure("phase_ask_to_confirmed_p50_ms")] < figures[Measure("wake_asleep_p99_ms")]
    assert said[0] == "wake: 1/5"
    assert sleeper.process is not None
    assert sleeper.process.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", app_port)) != 0


@pytest.mark.slow
@pytest.mark.root
def test_an_app_that_is_kept_awake_is_an_error_and_not_a_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queueproxy.bench.wake.ASLEEP_WITHIN_S", 0.5)
    sleeper = Sleeper(*free_ports(3), "auto")
    sleeper.command = [part.replace("--mode=freeze", "--mode=shadow") for part in sleeper.command]
    with sleeper, pytest.raises(StartError, match="did not fall asleep"):
        sleeper.wait_until_frozen()


@pytest.mark.slow
def test_a_run_that_ends_is_noticed_while_waiting_for_sleep() -> None:
    sleeper = Sleeper(*free_ports(3), "auto")
    sleeper.process = subprocess.Popen([sys.executable, "-c", 'print(\'{"event":"started"}\')'], stdout=subprocess.PIPE)
    os.set_blocking(sleeper._events.fileno(), False)
    with pytest.raises(StartError, match="ended with status 0"):
        sleeper.wait_until_frozen()
    sleeper.process.stdout.close()  # type: ignore[union-attr]


def test_a_port_somebody_holds_is_an_error_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sleeper = Sleeper(int(taken.getsockname()[1]), 1, 0, "auto")
        with pytest.raises(StartError, match="somebody else listens"), sleeper:
            pass
    assert sleeper.process is None
