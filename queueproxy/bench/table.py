"""Decides how figures read: one row per measure, one column per subject, ratios beside them, budgets below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from queueproxy.bench.figures import Measure, Round, Ruling, Spread, measures, ratio, spread

__all__ = ["describe", "render", "render_rulings"]

# name -> what it is called, digits after the point
_NAMES = {
    "cpu_us": ("CPU per request, us", 1),
    "instructions": ("instructions per request", 0),
    "user_instructions": ("  of them in user mode", 0),
    "req_s": ("requests per second", 0),
    "body_mb_cpu_s": ("body MB per CPU second", 0),
    "p50_ms": ("p50, ms", 3),
    "p99_ms": ("p99, ms", 3),
    "listening_ms": ("exec to listening, ms", 1),
    "answering_ms": ("exec to first answer, ms", 1),
    "start_cpu_ms": ("CPU from exec to first answer, ms", 1),
    "rss_start_mb": ("RSS before load, MB", 1),
    "rss_mb": ("RSS after load, MB", 1),
    "idle_cpu_percent": ("idle CPU, % of a core", 3),
    "metrics_added_us": ("request metrics add, us", 1),
    "metrics_added_instructions": ("request metrics add, instructions", 0),
    "metrics_cpu_ratio": ("request metrics, CPU, x without", 3),
    "metrics_instructions_ratio": ("request metrics, instructions, x without", 3),
    "log_added_us": ("request log adds, us", 1),
    "log_added_instructions": ("request log adds, instructions", 0),
    "log_cpu_ratio": ("request log, CPU, x without", 3),
    "log_instructions_ratio": ("request log, instructions, x without", 3),
    "traces_added_us": ("traces of 1 % add, us", 1),
    "traces_added_instructions": ("traces of 1 % add, instructions", 0),
    "traces_cpu_ratio": ("traces of 1 %, CPU, x without", 3),
    "traces_instructions_ratio": ("traces of 1 %, instructions, x without", 3),
    "wake_asleep_p50_ms": ("first byte asleep p50, ms", 3),
    "wake_asleep_p99_ms": ("first byte asleep p99, ms", 3),
    "wake_awake_p50_ms": ("first byte awake p50, ms", 3),
    "wake_awake_p99_ms": ("first byte awake p99, ms", 3),
    "wake_added_p50_ms": ("wake added p50, ms", 3),
}


def _name(measure: Measure) -> tuple[str, int]:
    if measure.name.startswith("phase_"):
        phase, _, kind = measure.name.removeprefix("phase_").removesuffix("_ms").rpartition("_")
        return f"  phase {phase} {kind}, ms", 3
    return _NAMES.get(measure.name, (measure.name, 3))


def describe(measure: Measure) -> str:
    """`CPU per request, us (small, 32 connections)`"""
    label = _name(measure)[0]
    if not measure.scenario:
        return label
    plural = "" if measure.connections == 1 else "s"
    return f"{label} ({measure.scenario}, {measure.connections} connection{plural})"


def _cell(found: Spread | None, digits: int) -> str:
    if found is None:
        return "-"
    if found.rounds == 1:
        return f"{found.median:.{digits}f}"
    return f"{found.median:.{digits}f} [{found.low:.{digits}f}..{found.high:.{digits}f}]"


def render(rounds: Mapping[str, Sequence[Round]], names: Mapping[str, str], ours: str = "ours") -> str:
    """The table. `names` are the columns' headings by subject."""
    others = [subject for subject in rounds if subject != ours and ours in rounds]
    head = ["", *(names[subject] for subject in rounds), *(f"{names[ours]}/{names[other]}" for other in others)]
    lines = [head]
    for measure in measures(rounds):
        cells = [_cell(spread(each, measure), _name(measure)[1]) for each in rounds.values()]
        ratios = [ratio(rounds[ours], rounds[other], measure) for other in others]
        lines.append([describe(measure), *cells, *("-" if found is None else f"{found:.2f}" for found in ratios)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    numbers = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([cells[0].ljust(widths[0]), *numbers]).rstrip()


def render_rulings(rulings: Sequence[Ruling], names: Mapping[str, str]) -> str:
    lines = []
    for ruling in rulings:
        budget = ruling.budget
        times = "" if budget.against is None else f" x {names[budget.against]}"
        least = "at least " if budget.floor else ""
        lines.append(
            f"{'ok  ' if ruling.kept else 'over'}  {describe(budget.measure).strip()}: "
            f"{ruling.seen:.2f}{times} (budget {least}{budget.limit:g}{times})"
        )
    return "\n".join(lines)
