"""Measures what each thing an operator can switch on costs a request: metrics, the request log, traces of one per cent.

Each is a sidecar of its own beside one without it, in turns, under requests as an ingress sends them. Where
instructions can be counted, what a feature adds is what it adds in user mode: its own code. Two times of a busy machine
differ by more than a request log costs, and so do the kernel's shares, which depend on how many requests come at once.
In microseconds that is at the pace of the whole request, in the same round.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from queueproxy.bench.drive import SCENARIOS, Driver, LoadError
from queueproxy.bench.environment import environment
from queueproxy.bench.figures import Measure
from queueproxy.bench.instructions import available
from queueproxy.bench.rounds import Plan, Rounds, Say
from queueproxy.bench.subject import Subject

__all__ = ["FEATURES", "Feature", "added", "measure_features", "rows_of"]

CONNECTIONS = 32
SCENARIO = SCENARIOS["ingress"]
RATE = 0.01
# Until the exporter's libraries are loaded (half a second of CPU): that is no request's cost.
WARM_UP_S = 3.0
# The collector is the origin, which takes whatever it is sent; spans leave two or three times as often as by default,
# so that every stretch of load has its share of that.
_EXPORT = {"OTEL_BSP_SCHEDULE_DELAY": "2000"}
FAILED = "Failed to export"


@dataclass(frozen=True, slots=True)
class Feature:
    """One row and its twin: `name` of the rows, the sidecar with it, the one without."""

    name: str
    on: str
    off: str


FEATURES = (
    Feature("metrics", "metrics", "plain"),
    Feature("log", "request log", "metrics"),
    Feature("traces", "traces", "metrics"),
)


def added(feature: Feature, with_it: Mapping[Measure, float], without: Mapping[Measure, float]) -> dict[Measure, float]:
    """The rows of one round."""

    def both(name: str) -> tuple[float, float] | None:
        measure = Measure(name, SCENARIO.name, CONNECTIONS)
        return (with_it[measure], without[measure]) if measure in with_it and measure in without else None

    times, counts, own = both("cpu_us"), both("instructions"), both("user_instructions")
    rows: dict[Measure, float] = {}
    if counts is not None and own is not None:
        more = own[0] - own[1]
        rows[Measure(f"{feature.name}_added_instructions")] = more
        rows[Measure(f"{feature.name}_instructions_ratio")] = 1 + more / counts[1]
        if times is not None:
            rows[Measure(f"{feature.name}_added_us")] = more * times[1] / counts[1]
    elif times is not None:
        rows[Measure(f"{feature.name}_added_us")] = times[0] - times[1]
        rows[Measure(f"{feature.name}_cpu_ratio")] = times[0] / times[1]
    return rows


def _subjects(port: int, user_port: int) -> list[Subject]:
    collector = f"http://127.0.0.1:{user_port}/sink"
    command = [sys.executable, "-m", "queueproxy", "serve"]
    traced = environment(port, user_port, traces=RATE, collector=collector) | _EXPORT
    made = [
        Subject("plain", command, environment(port, user_port, metrics=False), port),
        Subject("metrics", command, environment(port, user_port), port),
        Subject("request log", command, environment(port, user_port, log=True), port, drained=True),
    ]
    return [*made, Subject("traces", command, traced, port)] if find_spec("opentelemetry.exporter") else made


class _Watched(Rounds):
    """Rounds of sidecars that must have done what they were measured for."""

    def _measure(self, subject: Subject) -> dict[Measure, float]:
        figures = super()._measure(subject)
        if subject.name == "request log" and not subject.drained_bytes:
            raise LoadError("the request log is on and not a line was written")
        if FAILED in subject.last_words():
            raise LoadError(f"traces were not taken, so there is no figure\n{subject.last_words()}")
        return figures


def measure_features(
    driver: Driver, port: int, user_port: int, seconds: float, rounds: int, say: Say
) -> list[dict[Measure, float]]:
    """A round's rows each. The origin listens already."""
    plan = Plan(
        scenarios=(SCENARIO,),
        connections=(CONNECTIONS,),
        seconds=seconds,
        rounds=rounds,
        settle_requests=0,
        idle_s=0.0,
        instructions=available(),
        warm_up_s=WARM_UP_S,
    )
    subjects = _subjects(port, user_port)
    if len(subjects) == len(FEATURES):
        say("OpenTelemetry's exporters are not installed (queueproxy[telemetry]): traces are left out")
    run = _Watched(subjects, driver, plan, say)
    run.run()
    return rows_of(run.figures, rounds)


def rows_of(figures: Mapping[str, Sequence[Mapping[Measure, float]]], rounds: int) -> list[dict[Measure, float]]:
    """What each feature added, round by round."""
    made: list[dict[Measure, float]] = [{} for _ in range(rounds)]
    for feature in FEATURES:
        if feature.on in figures:
            for rows, with_it, without in zip(made, figures[feature.on], figures[feature.off], strict=True):
                rows.update(added(feature, with_it, without))
    return made
