"""Real samplers on real work: CPU time by signal, all threads by a thread; both leave nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from queueproxy.admin.profiling_sampler import CpuSampler, WallSampler

ENOUGH = 20.0  # seconds for a handful of samples on an overloaded machine


@pytest.fixture(autouse=True)
def sigprof() -> Iterator[None]:
    """As it was: other tests have their own ideas about this signal."""
    before = signal.getsignal(signal.SIGPROF)
    yield
    signal.signal(signal.SIGPROF, before)


def burning(sampler: CpuSampler, samples: int) -> None:
    """Computes until that many samples were taken."""
    until = time.monotonic() + ENOUGH
    while sampler.samples.taken < samples and time.monotonic() < until:
        sum(range(1000))


def test_cpu_time_is_counted_where_it_is_used() -> None:
    sampler = CpuSampler()
    sampler.start(0.005)
    try:
        burning(sampler, 10)
    finally:
        sampler.stop()
    assert sampler.samples.taken >= 10
    lines = sampler.samples.collapsed().splitlines()
    counted = sum(int(line.rpartition(" ")[2]) for line in lines if ";burning (" in line)
    assert counted >= 0.8 * sampler.samples.taken
    assert f"{sampler.samples.taken} in" in repr(sampler)


@pytest.mark.slow
@pytest.mark.parametrize("hz", [20, 2000], ids=["as-asked", "faster-than-any-kernel-ticks"])
def test_samples_stand_for_the_time_that_was_used(hz: int) -> None:
    sampler = CpuSampler()
    used = time.process_time()
    sampler.start(1 / hz)
    try:
        burning(sampler, 10)
    finally:
        sampler.stop()
    used = time.process_time() - used
    assert sampler.period * sampler.samples.taken == pytest.approx(used, rel=0.2, abs=0.02)


def test_waiting_is_not_counted_as_cpu_time() -> None:
    sampler = CpuSampler()
    sampler.start(0.005)
    try:
        before = sampler.samples.taken
        signal.sigtimedwait([signal.SIGUSR2], 0.5)
        assert sampler.samples.taken - before < 10, "waiting was sampled"  # half a second is a hundred periods
        burning(sampler, before + 5)
    finally:
        sampler.stop()
    assert sampler.samples.taken >= before + 5, "it does not sample at all"


def test_stopped_there_is_no_timer_and_no_handler() -> None:
    sampler = CpuSampler()
    sampler.start(0.005)
    burning(sampler, 1)
    sampler.stop()
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    assert signal.getsignal(signal.SIGPROF) is signal.SIG_IGN
    taken = sampler.samples.taken
    signal.raise_signal(signal.SIGPROF)  # one that was on its way
    assert sampler.samples.taken == taken


def test_somebody_elses_handler_comes_back() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGPROF, lambda number, frame: heard.append(number))
    sampler = CpuSampler()
    sampler.start(0.005)
    sampler.stop()
    signal.raise_signal(signal.SIGPROF)
    assert heard == [signal.SIGPROF]


@pytest.mark.slow
@pytest.mark.parametrize("began", [True, False], ids=["in-the-middle", "control"])
def test_a_process_that_ends_in_the_middle_keeps_its_exit_status(began: bool) -> None:
    """The control shows what it is about: the timer alone, without our care, kills the ending process."""
    begin = (
        "CpuSampler().start(0.001)"
        if began
        else "signal.signal(signal.SIGPROF, lambda *a: None); signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)"
    )
    program = (
        "import signal\n"
        "from queueproxy.admin.profiling_sampler import CpuSampler\n"
        # Many objects to free at the end, after handlers are given back.
        "held = [[str(n)] for n in range(2_000_000)]\n"
        f"{begin}\n"
    )
    run = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert run.returncode == (0 if began else -signal.SIGPROF), run.stderr


def test_all_threads_are_seen_wherever_they_wait() -> None:
    enough = threading.Event()

    def waiting_for_it() -> None:
        enough.wait()

    thread = threading.Thread(target=waiting_for_it, name="worker")
    thread.start()
    sampler = WallSampler()
    began = time.monotonic()
    sampler.start(0.002)
    until = time.monotonic() + ENOUGH
    while sampler.samples.taken < 20 and time.monotonic() < until:
        enough.wait(0.005)
    sampler.stop()
    passed = time.monotonic() - began
    enough.set()
    thread.join()
    lines = sampler.samples.collapsed().splitlines()
    assert any(line.startswith("[worker] ") and "waiting_for_it (" in line for line in lines)
    assert any(line.startswith("[MainThread] ") and "test_all_threads_are_seen" in line for line in lines)
    assert not any("wall profile" in line for line in lines), "it samples itself"
    mine = sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith("[MainThread] "))
    assert mine * sampler.period == pytest.approx(passed, rel=0.3, abs=0.05)
    assert not any(thread.name == "wall profile" for thread in threading.enumerate()), "it is still there"
    assert f"{sampler.samples.taken} in" in repr(sampler)


def test_stopped_before_it_began() -> None:
    sampler = WallSampler()
    sampler.stop()
    sampler.start(10)
    sampler.stop()
    assert sampler.samples.taken == 0
