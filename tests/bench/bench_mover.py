"""How long moving a whole pod takes, and what it costs the node daemon. Real cgroups; prints JSON. Root.

    python tests/bench/bench_mover.py [--cycles N] [--containers 1,3]

`took` is from the call of `move` to the kernel's last confirmation, `cpu` the CPU time of our thread meanwhile,
`at_once` the share of moves that were confirmed before `move` returned. `first_progress` is from the ask to the first
count of a busy task whose quota is used up, beside the same for a task that was never put to sleep: what the machine's
scheduler adds is in both. The looks at the end are per pod, in CPU time.

Budgets, on a quiet machine: the kernel's part of a wake <= 150 us of CPU for one container; first progress <= 5 ms at
p99 (FZ-083); a look for stop signals <= 60 us (FZ-055).
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import uvloop

from queueproxy.clock import monotonic
from queueproxy.freeze.node.mover import Moved, PodMover
from queueproxy.freeze.vocabulary import Rung
from tests.support.cgroupfs import place_of
from tests.support.kubepods import Node

WORLDS = {"v2": ("",), "hybrid": ("", "cpu"), "v1": ("freezer", "cpu", "cpuacct")}
PAUSE = 0.002  # between two moves, so that the tasks are back in their ordinary life
FRESH = 0.02  # long enough for a task at 1 % of a core to use its quota up
POLL = 0.00005
LOOKS = 500


class Bench:
    """One pod, its mover and the loop under it."""

    def __init__(self, node: Node, containers: int, mode: str) -> None:
        pod = node.pod([f"c{number}" for number in range(containers)])
        self.works = [node.run(path, mode) for path in pod.paths]
        self.loop = uvloop.new_event_loop()
        self.mover = PodMover(self.loop, node.tree(), pod.containers, pod.uid, pod.qos)

    def move(self, rung: Rung) -> tuple[Moved, float, bool]:
        """What came of it, the CPU it took, and whether it was over at once."""
        answers: list[Moved] = []

        def done(moved: Moved) -> None:
            answers.append(moved)
            if self.loop.is_running():
                self.loop.stop()

        began = time.thread_time()
        self.mover.move(rung, done)
        at_once = bool(answers)
        if not at_once:
            self.loop.run_forever()
        cpu = time.thread_time() - began
        assert answers[0].rung is rung, answers[0]
        return answers[0], cpu, at_once

    def close(self) -> None:
        self.mover.close()
        self.loop.close()


def moves(bench: Bench, cycles: int) -> dict[str, object]:
    report: dict[str, object] = {}
    rows: dict[Rung, list[tuple[Moved, float, bool]]] = {Rung.FROZEN: [], Rung.RUNNING: []}
    for _ in range(cycles):
        for rung, seen in rows.items():
            time.sleep(PAUSE)
            seen.append(bench.move(rung))
    for rung, seen in rows.items():
        report["freeze" if rung is Rung.FROZEN else "thaw"] = {
            "took": figures([moved.took for moved, _, _ in seen]),
            "cpu": figures([cpu for _, cpu, _ in seen]),
            "at_once": round(sum(at_once for _, _, at_once in seen) / cycles, 3),
        }
    return report


def first_progress(bench: Bench, asleep: Rung, cycles: int) -> dict[str, float]:
    waited = []
    for _ in range(cycles):
        if asleep is not Rung.RUNNING:
            bench.move(Rung.THROTTLED)
            time.sleep(FRESH)
            bench.move(asleep)
        before = bench.works[0].counts()
        began_at = monotonic()
        bench.move(Rung.RUNNING)
        while bench.works[0].counts() == before:
            time.sleep(POLL)
        waited.append(monotonic() - began_at)
    return figures(waited)


def looks(bench: Bench) -> dict[str, float]:
    bench.move(Rung.FROZEN)
    acts: dict[str, Callable[[], object]] = {
        "stop_pending": bench.mover.stop_pending,
        "seen": bench.mover.seen,
        "held": bench.mover.held,
        "cpu_usec": bench.mover.cpu_usec,
        "frozen_usec": bench.mover.frozen_usec,
    }
    report = {}
    for name, act in acts.items():
        act()
        began = time.thread_time()
        for _ in range(LOOKS):
            act()
        report[f"{name}_us"] = round((time.thread_time() - began) / LOOKS * 1e6, 1)
    bench.move(Rung.RUNNING)
    return report


def figures(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    at = {"p50_us": 0.5, "p99_us": 0.99, "max_us": 1.0}
    return {name: round(ordered[min(int(part * len(ordered)), len(ordered) - 1)] * 1e6, 1) for name, part in at.items()}


def measure(world: str, containers: int, cycles: int) -> dict[str, object]:
    row: dict[str, object] = {"world": world, "containers": containers}
    with Node(*WORLDS[world]) as node:
        bench = Bench(node, containers, "ticking")
        row |= moves(bench, cycles) | looks(bench)
        bench.close()
    if containers == 1 and world != "v2":
        with Node(*WORLDS[world]) as node:
            bench = Bench(node, 1, "busy")
            row["first_progress"] = {
                rung.name.lower(): first_progress(bench, rung, max(cycles // 3, 20))
                for rung in (Rung.THROTTLED, Rung.FROZEN, Rung.RUNNING)
            }
            bench.close()
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--containers", default="1,3")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root: real cgroups", file=sys.stderr)
        return 77
    rows = [
        measure(world, containers, args.cycles)
        for world, controllers in WORLDS.items()
        if all(place_of(controller) is not None for controller in controllers)
        for containers in map(int, args.containers.split(","))
    ]
    report = {"kernel": os.uname().release, "cores": os.cpu_count(), "load": os.getloadavg()[0], "rows": rows}
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
