"""What the process is and holds, told from itself: places and types, never values."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import tracemalloc
from collections.abc import Callable

import pytest
import uvloop

from queueproxy.admin.profiling_state import Memory, objects, resident, stacks

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
SECRET = "c1ient-s3cret"


class Watched:
    """A type of our own."""

    def called(self, what: str) -> None:
        raise AssertionError("not within this test")


def told(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> str:
    """Stacks, told by a thread while a task waits and timers are armed."""
    loop = new_loop()
    said: list[str] = []

    async def waiting_task() -> None:
        timers = [
            loop.call_later(1000, Watched().called, SECRET),
            loop.call_later(1000, Watched().called, SECRET),
            loop.call_later(1000, lambda: None),
        ]
        gone = loop.call_later(1000, waiting_task)
        gone.cancel()
        done = loop.create_future()

        def waits_for_the_teller() -> None:
            teller = threading.Thread(target=lambda: said.append(stacks(loop)), name="teller")
            teller.start()
            teller.join()
            done.set_result(None)

        loop.call_soon(waits_for_the_teller)  # so that nothing else happens while the stacks are told
        await done
        for timer in timers:
            timer.cancel()

    try:
        loop.run_until_complete(waiting_task())
    finally:
        loop.close()
    return said[0]


@LOOPS
def test_threads_timers_and_tasks(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    said = told(new_loop)
    assert re.search(r"^thread MainThread$", said, re.M)
    assert re.search(r"test_profiling_state\.py:\d+ told: loop\.run_until_complete", said)
    assert "thread teller" not in said, "who tells is of no interest"
    timers = said.partition("\ntimers\n")[2].partition("\n\n")[0]
    assert "  2 Watched.called" in timers
    assert re.search(r"^  1 .*<lambda>$", timers, re.M)
    tasks = said.partition("\ntasks\n")[2]
    assert re.search(r"^    told\.<locals>\.waiting_task \(", tasks, re.M)


@LOOPS
def test_arguments_are_not_told(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    assert SECRET not in told(new_loop)


def test_a_thread_shows_where_it_waits() -> None:
    enough = threading.Event()
    begun = threading.Event()

    def waits_for_it() -> None:
        begun.set()
        enough.wait()

    thread = threading.Thread(target=waits_for_it, name="worker")
    thread.start()
    begun.wait(10)
    loop = asyncio.new_event_loop()
    said = stacks(loop)
    loop.close()
    enough.set()
    thread.join()
    worker = said.partition("thread worker\n")[2].partition("\n\n")[0]
    assert re.search(r"test_profiling_state\.py:\d+ waits_for_it: (enough\.wait|begun\.set)\(\)", worker), said


def test_objects_are_counted_by_type() -> None:
    held = [Watched() for _ in range(1234)]
    for each in held:
        each.__dict__["self"] = each
    said = objects(1000)
    assert len(held) == 1234
    assert re.search(rf"^ +1234 {Watched.__module__}\.Watched$", said, re.M), said[:500]
    counts = [int(line.split()[0]) for line in said.splitlines()[2:]]
    assert counts == sorted(counts, reverse=True)
    assert len(objects(5).splitlines()) == 2 + 5
    assert f"and {gc.get_freeze_count()} from before serving" in said


def test_resident_memory_is_the_kernels_figure() -> None:
    with open("/proc/self/status") as status:
        (kib,) = re.findall(r"VmRSS:\s+(\d+) kB", status.read())
    assert resident() == pytest.approx(int(kib) * 1024, rel=0.2)


def rows(said: str) -> list[tuple[int, int, list[str]]]:
    """(bytes, blocks, places) of each entry."""
    found: list[tuple[int, int, list[str]]] = []
    for line in said.splitlines()[1:]:
        entry = re.fullmatch(r" *(\d+) bytes in (\d+) blocks", line)
        if entry:
            found.append((int(entry[1]), int(entry[2]), []))
        else:
            found[-1][2].append(line.strip())
    return found


@pytest.mark.parametrize("depth", [1, 4])
def test_memory_names_the_lines_that_hold_it(depth: int) -> None:
    assert not tracemalloc.is_tracing()
    memory = Memory()
    memory.start(depth)
    held = [bytearray(1000) for _ in range(500)]
    let_go = [bytearray(1000) for _ in range(5000)]
    del let_go
    said = memory.report(1000)
    assert not tracemalloc.is_tracing()
    assert len(held) == 500
    summed = re.match(r"held (\d+) bytes, at most (\d+); resident \d+ bytes\n", said)
    assert summed is not None
    assert int(summed[1]) < 2_000_000 < 5_000_000 < int(summed[2])
    size, blocks, places = rows(said)[0]
    assert 500_000 <= size < 700_000
    assert blocks >= 500
    assert len(places) == depth
    assert re.search(r"test_profiling_state\.py:\d+$", places[-1])
    sizes = [row[0] for row in rows(said)]
    assert sizes == sorted(sizes, reverse=True)
    assert "tracemalloc.py" not in said


def test_a_report_is_as_long_as_wanted() -> None:
    memory = Memory()
    memory.start(1)
    first = [bytearray(10) for _ in range(30)]
    second = [bytearray(10) for _ in range(20)]
    third = [bytearray(10) for _ in range(10)]
    said = memory.report(2)
    # Two blocks for each bytearray, one for the list.
    assert [blocks for _, blocks, _ in rows(said)] == [2 * len(first) + 1, 2 * len(second) + 1]
    assert third


def test_tracing_that_was_on_before_stays_on() -> None:
    tracemalloc.start(3)
    try:
        memory = Memory()
        memory.start(1)
        assert "tracing=True" in repr(memory)
        assert tracemalloc.get_traceback_limit() == 3
        memory.report(1)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_stopped_without_a_report_it_traces_no_more() -> None:
    memory = Memory()
    memory.start(1)
    assert tracemalloc.is_tracing()
    memory.stop()
    memory.stop()
    assert not tracemalloc.is_tracing()
