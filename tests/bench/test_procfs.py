"""Proves queueproxy.bench.procfs on what Linux writes, and on this very process."""

import os
import time

import pytest

from queueproxy.bench.procfs import cpu_ticks, resident_kb, scheduled_ns

STAT = (
    "4711 {name} S 1 4711 4711 0 -1 4194560 5000 0 3 0 1234 567 8 9 20 0 4 0 123456 100000000 6000 "
    "18446744073709551615 1 1 0 0 0 0 0 16781312 17474 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0"
)


@pytest.mark.parametrize(
    "name", ["(queue)", "(a b)", "(tricky) S 1 (x)", "())"], ids=["plain", "space", "parens", "paren"]
)
def test_cpu_time_is_user_plus_system_whatever_the_command_is_called(name: str) -> None:
    assert cpu_ticks(STAT.format(name=name)) == 1234 + 567


def test_children_waited_for_are_not_counted() -> None:
    assert cpu_ticks(STAT.format(name="(x)").replace(" 8 9 20 ", " 800 900 20 ")) == 1801


def test_memory_is_the_resident_set() -> None:
    assert resident_kb("Name:\tqueue\nVmHWM:\t   40000 kB\nVmRSS:\t   33210 kB\nRssAnon:\t  1 kB\n") == 33210


def test_a_process_without_memory_is_an_error() -> None:
    with pytest.raises(ValueError, match="VmRSS"):
        resident_kb("Name:\tkthreadd\n")


def test_time_on_the_run_queue_is_the_first_number() -> None:
    assert scheduled_ns("264520 129050 2\n") == 264520


def test_the_kernel_agrees_with_the_clock_about_this_process() -> None:
    def used() -> float:
        with open("/proc/self/stat") as file:
            return cpu_ticks(file.read()) / os.sysconf("SC_CLK_TCK")

    before, clock_before = used(), time.process_time()
    while time.process_time() < clock_before + 0.2:
        pass
    assert used() - before == pytest.approx(0.2, abs=0.05)
    with open("/proc/self/status") as file:
        assert 5_000 < resident_kb(file.read()) < 5_000_000
