"""Tells what the process is and holds now: threads' stacks, timers, tasks, objects by type, memory by line.

No values are shown, only places in the code and names of types: what a client sent stays with the client.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import traceback
import tracemalloc
from collections import Counter
from typing import Final

from queueproxy.admin.profiling_samples import shortened

_TIMERS: Final = "TimerHandle"  # of both loops; uvloop's type is not importable by name
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * _PAGE


def stacks(loop: asyncio.AbstractEventLoop) -> str:
    """Every thread's stack, outermost first; then what the loop will call, and the tasks it runs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    me = threading.get_ident()
    lines: list[str] = []
    # All frames are walked before any source line is read: reading lets the threads run on, and a coroutine that is
    # suspended meanwhile no longer knows who called it.
    stacks = {ident: list(traceback.walk_stack(frame)) for ident, frame in sys._current_frames().items() if ident != me}
    for ident, frames in stacks.items():
        stack = traceback.StackSummary.extract(reversed(frames))
        lines += [f"thread {names.get(ident, ident)}\n", *_frames(stack), "\n"]
    timers = Counter(_called_by(held) for held in gc.get_objects() if type(held).__name__ == _TIMERS)
    lines += ["timers\n", *(f"  {count} {name}\n" for name, count in sorted(timers.items()))]
    lines.append("\ntasks\n")
    for task in asyncio.all_tasks(loop):
        lines += [f"  {task.get_name()}\n", *(f"    {_place(frame.f_code)}\n" for frame in task.get_stack())]
    return "".join(lines)


def _frames(frames: traceback.StackSummary) -> list[str]:
    return [f"  {shortened(each.filename)}:{each.lineno} {each.name}: {each.line}\n" for each in frames]


def _place(code: object) -> str:
    return f"{getattr(code, 'co_qualname', '?')} ({shortened(getattr(code, 'co_filename', '?'))})"


def _called_by(timer: object) -> str:
    """The function's name alone: the stdlib handle's repr would show its arguments."""
    if timer.__class__.__module__.startswith("asyncio"):
        function = getattr(timer, "_callback", None)
        return "(cancelled)" if function is None else getattr(function, "__qualname__", type(function).__name__)
    said = repr(timer)  # "<TimerHandle name>", with more words when cancelled or in debug mode
    return "(cancelled)" if " cancelled" in said else said[1:-1].split(" ")[1]


def objects(top: int) -> str:
    """Objects that the collector knows, by type. What start-up froze is only counted: it never changes."""
    held = gc.get_objects()
    counts = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in held)
    total = len(held)
    del held
    lines = [f"resident {resident()} bytes\n", f"objects {total}, and {gc.get_freeze_count()} from before serving\n"]
    lines += [f"{count:9d} {name}\n" for name, count in counts.most_common(top)]
    return "".join(lines)


class Memory:
    """What is allocated between start and report, and still held then, by line. Slows allocation down meanwhile."""

    def __init__(self) -> None:
        self._ours = False

    def __repr__(self) -> str:
        return f"<Memory tracing={tracemalloc.is_tracing()}>"

    def start(self, depth: int) -> None:
        """depth: frames to remember for each allocation."""
        self._ours = not tracemalloc.is_tracing()  # PYTHONTRACEMALLOC: somebody wants it for good
        if self._ours:
            tracemalloc.start(depth)

    def report(self, top: int) -> str:
        snapshot = tracemalloc.take_snapshot()
        now, peak = tracemalloc.get_traced_memory()
        depth = tracemalloc.get_traceback_limit()
        self.stop()  # before the long part, which would be traced as well
        found = snapshot.filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)]).statistics(
            "traceback" if depth > 1 else "lineno"
        )
        lines = [f"held {now} bytes, at most {peak}; resident {resident()} bytes\n"]
        for each in found[:top]:
            lines.append(f"{each.size:10d} bytes in {each.count} blocks\n")
            lines += [f"    {shortened(frame.filename)}:{frame.lineno}\n" for frame in each.traceback]
        return "".join(lines)

    def stop(self) -> None:
        if self._ours:
            self._ours = False
            tracemalloc.stop()
