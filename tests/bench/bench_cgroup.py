"""How long a confirmed freeze and thaw take, on real cgroups of both versions. Prints JSON. Root.

    python tests/bench/bench_cgroup.py [--cycles N] [--tasks 1,16,200]

`spin` is the schedule of `Transition` as `run` drives it. `pollpri` is the loser, kept because it teaches: the same
writes, waiting for nothing but POLLPRI on cgroup.events. The kernel holds notifications of one file back to 100 per
second, so whenever the first look comes too early the answer takes its next slot, about 9 ms away. v1 has no such
file, hence no such column. `missed` is how often the look right after the write came too early, and
`freeze_when_missed` how long those freezes took: the difference between the two ways.

Budget (FZ-070): p50 <= 1 ms for 1-16 tasks, p99 <= 10 ms for 200.
"""

import argparse
import json
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from queueproxy.clock import monotonic
from queueproxy.freeze.node.cgroup import Freezer, Outcome, Transition, open_freezer, run
from tests.support.cgroupfs import Lab, Workload, place_of

PAUSE = 0.002  # between two moves, so that the tasks are back in their ordinary life


def by_spin(transition: Transition, events: int | None) -> Outcome:
    return run(transition)


def by_pollpri(transition: Transition, events: int | None) -> Outcome:
    """Look only when the kernel says that something has changed."""
    assert events is not None
    poll = select.poll()
    poll.register(events, select.POLLPRI)
    os.pread(events, 64, 0)
    while transition.step(monotonic()) is not None:
        poll.poll(1000)
        os.pread(events, 64, 0)
    return transition.outcome


def cycles(freezer: Freezer, drive: Callable[[Transition, int | None], Outcome], count: int) -> dict[str, object]:
    taken: dict[str, list[float]] = {"freeze": [], "thaw": []}
    events = freezer.open_events()
    idle = select.poll()
    missed: list[float] = []
    failed = 0
    for _ in range(count):
        for verb, start in (("freeze", freezer.freeze), ("thaw", freezer.thaw)):
            idle.poll(PAUSE * 1000)
            transition = start()
            looks = Counting(transition)
            began_at = monotonic()
            outcome = drive(looks, events)
            taken[verb].append(monotonic() - began_at)
            if looks.steps > 1 and verb == "freeze":
                missed.append(taken[verb][-1])
            failed += outcome not in (Outcome.FROZEN, Outcome.THAWED)
    if events is not None:
        os.close(events)
    report: dict[str, object] = {verb: figures(times) for verb, times in taken.items()}
    return report | {"missed": len(missed) / count, "freeze_when_missed": figures(missed), "failed": failed}


class Counting(Transition):
    """The same transition; `step` counts."""

    def __init__(self, inner: Transition) -> None:
        self.inner = inner
        self.subject = inner.subject
        self.steps = 0

    def step(self, now: float) -> float | None:
        self.steps += 1
        pause = self.inner.step(now)
        self.outcome = self.inner.outcome
        return pause


def figures(times: list[float]) -> dict[str, float]:
    ordered = sorted(times) or [0.0]
    at = {"p50_us": 0.5, "p99_us": 0.99, "max_us": 1.0}
    return {name: round(ordered[min(int(part * len(ordered)), len(ordered) - 1)] * 1e6, 1) for name, part in at.items()}


def measure(controller: str, mode: str, tasks: int, count: int) -> dict[str, object]:
    with Lab(controller) as lab:
        path = lab.make("app")
        work: Workload = lab.run(path, mode, tasks)
        freezer = open_freezer(path)
        row: dict[str, object] = {"version": freezer.mechanism, "tasks": tasks, "mode": mode}
        row["spin"] = cycles(freezer, by_spin, count)
        if freezer.open_events() is not None:
            row["pollpri"] = cycles(freezer, by_pollpri, max(count // 4, 20))
        assert work.is_alive()
        return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--tasks", default="1,16,200")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root: real cgroups", file=sys.stderr)
        return 77
    rows = []
    for controller in ("", "freezer"):
        if place_of(controller) is None:
            continue
        for tasks in map(int, args.tasks.split(",")):
            for mode in ("sleeping", "ticking", *(["busy"] if tasks == 1 else [])):
                rows.append(measure(controller, mode, tasks, args.cycles))
    report = {"kernel": os.uname().release, "cores": os.cpu_count(), "cycles": args.cycles, "rows": rows}
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
