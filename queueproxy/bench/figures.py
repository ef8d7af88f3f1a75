"""Counts what rounds measured: medians, spread, ratios side by side, and whether a budget is kept.

Theory of operation: a round measures every subject once, one right after the other; it yields a number per `Measure`
and subject. The machine's noise is slow (other tenants, clock speed) and so common to a round: a ratio is taken
inside each round and the median of those ratios is reported, not the ratio of the medians. Spread is the lowest and
the highest round, nothing cleverer, since there are only a handful.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

__all__ = ["BODIES", "BUDGETS", "Budget", "Measure", "Ruling", "Spread", "judge", "measures", "ratio", "spread"]


class Measure(NamedTuple):
    """One row of the table. `scenario` and `connections` are empty for what has no load."""

    name: str
    scenario: str = ""
    connections: int = 0

    @property
    def key(self) -> str:
        """Its name in JSON."""
        return f"{self.name}/{self.scenario}/{self.connections}" if self.scenario else self.name


Round = Mapping[Measure, float]


class Spread(NamedTuple):
    median: float
    low: float
    high: float
    rounds: int


def measures(rounds: Mapping[str, Sequence[Round]]) -> list[Measure]:
    """Every row any subject has, in the order first seen."""
    rows: dict[Measure, None] = {}
    for each in rounds.values():
        for figures in each:
            rows.update(dict.fromkeys(figures))
    return list(rows)


def spread(rounds: Sequence[Round], measure: Measure) -> Spread | None:
    values = [figures[measure] for figures in rounds if measure in figures]
    return Spread(median(values), min(values), max(values), len(values)) if values else None


def ratio(ours: Sequence[Round], other: Sequence[Round], measure: Measure) -> float | None:
    """Median over the rounds of ours / other in the same round."""
    pairs = [
        mine[measure] / theirs[measure]
        for mine, theirs in zip(ours, other, strict=False)
        if measure in mine and theirs.get(measure)
    ]
    return median(pairs) if pairs else None


@dataclass(frozen=True, slots=True)
class Budget:
    """A promise: `measure` of ours is at most `limit`, or at most `limit` times that of `against`.

    floor: at least, not at most.
    """

    measure: Measure
    limit: float
    against: str | None = None
    floor: bool = False


@dataclass(frozen=True, slots=True)
class Ruling:
    budget: Budget
    seen: float

    @property
    def kept(self) -> bool:
        return self.seen >= self.budget.limit if self.budget.floor else self.seen <= self.budget.limit


# Design section 7 and the issue that made the request path whole, with the first milestone's 150 ms to listening where
# the final figure is 120.
BODIES = ("64k", "1m", "up64k", "up1m", "ws1k", "ws64k")  # scenarios that are about bytes, not requests
_BYTES = [Measure("body_mb_cpu_s", name, connections) for name in BODIES for connections in (1, 32)]
BUDGETS = (
    Budget(Measure("cpu_us", "small", 32), 1.8, "bare"),
    Budget(Measure("cpu_us", "small", 32), 0.5, "peer"),
    Budget(Measure("p99_ms", "small", 32), 1.3, "bare"),
    Budget(Measure("p99_ms", "small", 32), 0.5, "peer"),
    Budget(Measure("p99_ms", "paced", 32), 1.3, "bare"),
    Budget(Measure("p99_ms", "paced", 32), 1.0, "peer"),
    *(Budget(measure, 0.7, "bare", floor=True) for measure in _BYTES),
    *(Budget(measure, 1.0, "peer", floor=True) for measure in _BYTES),
    # 8 us on the machine where a request takes 33; here it may take 33 or 150.
    Budget(Measure("log_instructions_ratio"), 1 + 8 / 33),
    Budget(Measure("traces_instructions_ratio"), 1.05),
    Budget(Measure("rss_mb"), 33.0),
    Budget(Measure("listening_ms"), 150.0),
    Budget(Measure("wake_added_p50_ms"), 0.5),
)


def judge(
    rounds: Mapping[str, Sequence[Round]], budgets: Sequence[Budget] = BUDGETS, ours: str = "ours"
) -> list[Ruling]:
    """Rules on each budget whose figures were measured; the others are not mentioned."""
    rulings = []
    for budget in budgets:
        mine = rounds.get(ours, ())
        if budget.against is None:
            found = spread(mine, budget.measure)
            seen = found.median if found else None
        else:
            seen = ratio(mine, rounds.get(budget.against, ()), budget.measure)
        if seen is not None:
            rulings.append(Ruling(budget, seen))
    return rulings
