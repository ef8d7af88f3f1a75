"""Runs the rounds: every subject started, loaded and ended in turn, A B C, B C A, ... one at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from queueproxy.bench.drive import SCENARIOS, Driver, LoadError, Scenario
from queueproxy.bench.figures import Measure
from queueproxy.bench.instructions import Counter
from queueproxy.bench.subject import StartError, Subject, require_free, wait_for_port
from queueproxy.bench.wrk import Report

__all__ = ["Plan", "Rounds", "origin", "turns"]

WARM_UP_S = 1.0  # connections open, pools filled, allocator settled
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    scenarios: tuple[Scenario, ...]
    connections: tuple[int, ...]
    seconds: float
    rounds: int
    settle_requests: int  # RSS is read after at least this many (design section 7: 100k)
    idle_s: float  # 0: idle CPU is not measured
    instructions: bool
    warm_up_s: float = WARM_UP_S


@contextmanager
def origin(port: int) -> Iterator[None]:
    """The app behind every subject, the same process for the whole run."""
    require_free(port)
    argv = [sys.executable, "-m", "queueproxy.bench.origin", f"--port={port}"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        if not wait_for_port(port, time.monotonic() + 10, process) or process.poll() is not None:
            raise StartError(f"the origin does not listen on 127.0.0.1:{port}")
        yield
    finally:
        process.kill()
        process.wait()


def turns(subjects: Sequence[Subject], round_number: int) -> list[Subject]:
    """This round's order: rotated, so that nobody always runs on what the same neighbour left behind."""
    first = round_number % len(subjects)
    return [*subjects[first:], *subjects[:first]]


class Rounds:
    """Figures by subject and round, as they come."""

    def __init__(self, subjects: Sequence[Subject], driver: Driver, plan: Plan, say: Say) -> None:
        self.subjects = subjects
        self.driver = driver
        self.plan = plan
        self.say = say
        self._prefix = ""
        self.figures: dict[str, list[dict[Measure, float]]] = {subject.name: [] for subject in subjects}

    def __repr__(self) -> str:
        done = {name: len(rounds) for name, rounds in self.figures.items()}
        return f"<Rounds {done} of {self.plan.rounds}>"

    def run(self) -> None:
        for subject in self.subjects:
            self.say(f"{subject.name}: first start, not counted (fills the page cache and writes byte code)")
            self._once(subject, lambda subject: {})
        for number in range(self.plan.rounds):
            for subject in turns(self.subjects, number):
                self.figures[subject.name].append(self._once(subject, self._measure, number))

    def _once(
        self, subject: Subject, work: Callable[[Subject], dict[Measure, float]], number: int | None = None
    ) -> dict[Measure, float]:
        self._prefix = subject.name if number is None else f"round {number + 1}/{self.plan.rounds}, {subject.name}"
        try:
            subject.start()
            return work(subject)
        finally:
            subject.stop()

    def _measure(self, subject: Subject) -> dict[Measure, float]:
        plan = self.plan
        figures = {
            Measure("listening_ms"): subject.listening_s * 1e3,
            Measure("answering_ms"): subject.answering_s * 1e3,
            Measure("start_cpu_ms"): subject.exact_cpu_s() * 1e3,
            Measure("rss_start_mb"): subject.rss_mb(),
        }
        served = 0
        for scenario in plan.scenarios:
            for connections in plan.connections:
                self.say(f"{self._prefix}: {scenario.name}, {connections} connection(s), {plan.seconds:g} s")
                served += self._load(subject, scenario, connections, self._warm_up_s()).requests
                served += self._stretch(subject, scenario, connections, figures)
        while served < plan.settle_requests:
            self.say(f"{self._prefix}: {served} of {plan.settle_requests} requests before memory is read")
            served += self._load(subject, SCENARIOS["small"], max(plan.connections), plan.seconds).requests
        figures[Measure("rss_mb")] = subject.rss_mb()
        if plan.idle_s:
            self.say(f"{self._prefix}: idle for {plan.idle_s:g} s")
            before, began = subject.exact_cpu_s(), time.monotonic()
            time.sleep(plan.idle_s)
            used = subject.exact_cpu_s() - before
            figures[Measure("idle_cpu_percent")] = 100 * used / (time.monotonic() - began)
        return figures

    def _warm_up_s(self) -> float:
        """The usual one need not be longer than what follows; a longer one is asked for on purpose."""
        longest = self.plan.warm_up_s
        return longest if longest > WARM_UP_S else min(longest, self.plan.seconds)

    def _load(self, subject: Subject, scenario: Scenario, connections: int, seconds: float) -> Report:
        report = self.driver.run(subject.port, scenario, connections, seconds)
        if report.errors or not report.requests:
            raise LoadError(
                f"{subject.name}: {report.errors} errors and {report.requests} answers ({scenario.name}, {connections} "
                f"connections); figures of failing requests mean nothing\n{subject.last_words()}"
            )
        return report

    def _stretch(self, subject: Subject, scenario: Scenario, connections: int, figures: dict[Measure, float]) -> int:
        """One measured stretch of load. Returns the requests served."""
        cpu_before = subject.cpu_s()
        report = self._load(subject, scenario, connections, self.plan.seconds)
        cpu_s = subject.cpu_s() - cpu_before

        def put(name: str, value: float) -> None:
            figures[Measure(name, scenario.name, connections)] = value

        put("cpu_us", cpu_s * 1e6 / report.requests)
        put("req_s", report.requests / report.seconds)
        put("p50_ms", report.p50_us / 1e3)
        put("p99_ms", report.p99_us / 1e3)
        if scenario.carried and cpu_s:
            put("body_mb_cpu_s", scenario.carried * report.requests / 1e6 / cpu_s)
        if not self.plan.instructions or subject.process is None:
            return report.requests
        # A stretch of its own: being counted costs the process a little.
        with Counter(subject.process.pid) as counter:
            counted = self._load(subject, scenario, connections, self._warm_up_s()).requests
        put("instructions", counter.instructions / counted)
        if counter.user:
            put("user_instructions", counter.user / counted)
        return report.requests + counted
