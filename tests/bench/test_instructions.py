"""Proves queueproxy.bench.instructions: perf's report is read, and a machine without a counter is told apart."""

import os

import pytest

from queueproxy.bench.instructions import Counter, available, counted


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("# started on Sat\n\n632328,,instructions,1023456,100.00,,\n", 632328),
        ("632328,,instructions:u,1023456,100.00,,\n", 632328),
        ("<not supported>,,instructions,0,100.00,,\n", None),
        ("<not counted>,,instructions,0,0.00,,\n", None),
        ("12,,cycles,1,100.00,,\n", None),
        ("", None),
    ],
    ids=["counted", "user only", "not supported", "not counted", "other event", "nothing"],
)
def test_the_count_is_read_from_its_line(report: str, expected: int | None) -> None:
    assert counted(report) == expected


def test_what_is_the_codes_own_is_told_from_the_kernels() -> None:
    both = "1164629,,instructions,1586809,100.00,,\n288063,,instructions:u,1586809,100.00,,\n"
    assert (counted(both), counted(both, "instructions:u")) == (1164629, 288063)
    only = "288063,,instructions:u,1586809,100.00,,\n288063,,instructions:u,1586809,100.00,,\n"
    assert (counted(only), counted(only, "instructions:u")) == (288063, 288063)
    assert counted("288063,,instructions,1,1,,\n", "instructions:u") is None


def test_without_perf_there_is_nothing_to_count_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert available() is False


@pytest.mark.slow
def test_more_work_is_more_instructions() -> None:
    if not available():
        pytest.skip("perf cannot count instructions on this machine")

    def instructions(rounds: int) -> int:
        with Counter(os.getpid()) as counter:
            sum(range(rounds))
        assert 0 < counter.user <= counter.instructions
        return counter.instructions

    little, much = instructions(10_000), instructions(1_000_000)
    assert much > 1_000_000 * 5  # a byte code loop needs several per round
    assert much > 3 * little


@pytest.mark.slow
def test_a_process_that_is_gone_counts_nothing() -> None:
    if not available():
        pytest.skip("perf cannot count instructions on this machine")
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    with Counter(pid) as counter:
        pass
    assert counter.instructions == 0
