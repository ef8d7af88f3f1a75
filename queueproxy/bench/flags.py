"""Runs `queueproxy bench`: flags, the order of things, where the results go, the exit status."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from queueproxy.bench import table
from queueproxy.bench.drive import SCENARIOS, Driver, LoadError
from queueproxy.bench.environment import METRICS_PORT, environment
from queueproxy.bench.features import CONNECTIONS, measure_features
from queueproxy.bench.figures import BODIES, Measure, Ruling, judge, measures, ratio, spread
from queueproxy.bench.instructions import available
from queueproxy.bench.namespace import enter_private_network
from queueproxy.bench.rounds import Plan, Rounds, origin
from queueproxy.bench.subject import StartError, Subject, command_for
from queueproxy.bench.wake import Sleeper, measure_wakes

__all__ = ["bench_main", "parser"]

PORT = 8012  # the contract's request port; the origin listens where Knative puts the app by default
USER_PORT = 8080
SETTLE_REQUESTS = 100_000  # design section 7: idle RSS after 100k requests
EX_USAGE = 64

_EXAMPLES = """\
examples:
  queueproxy bench --quick                       a minute, to see whether it works
  queueproxy bench --peer ./queue --peer-name go three rounds beside Knative's own binary
  queueproxy bench --json result.json --budget   for machines; exit 1 when over a budget
  queueproxy bench --subjects wake --wakes 500   only the wake latency of local mode
  queueproxy bench --subjects features           only what metrics, request log and traces add to a request
  queueproxy bench --scenarios bodies            large bodies both ways, and WebSocket echo

As root everything runs in a network namespace of its own; otherwise on the host's ports 8012, 8080, 8022 and 9090,
which must be free. Figures of one machine and run belong together: quote the ratios.

exit status: 0 done, 1 failed or (with --budget) over a budget, 64 wrong flags."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(EX_USAGE, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and 0 < int(part) <= 1024 for part in parts):
        raise argparse.ArgumentTypeError(f"numbers from 1 to 1024 with commas between, not {text!r}")
    return tuple(int(part) for part in parts)


def _names(known: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None) -> Any:
    def names(text: str) -> tuple[str, ...]:
        parts = tuple(name for part in text.split(",") for name in (groups or {}).get(part, (part,)))
        unknown = [part for part in parts if part not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"not {', '.join(unknown)!r} but some of {','.join(known)}")
        return parts

    return names


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"seconds, more than 0: {text!r}")
    return value


def _calibrator() -> str | None:
    """The bare pair, in a source tree."""
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.path.join(top, "tests", "bench", "bare_pair.py")
    return path if os.path.exists(path) else None


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog="queueproxy bench",
        description="Measure this queue-proxy: CPU per request, throughput, latency, memory, start and wake.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    subjects = ("ours", "bare", "peer", "features", "wake")
    add(
        "--subjects",
        type=_names(subjects),
        default=subjects,
        metavar="A,B",
        help="what to measure (default: all there is)",
    )
    add("--peer", metavar="PATH", help="another queue-proxy that takes the same environment (a program, or a .py file)")
    add("--peer-name", default="peer", metavar="NAME", help="its column's heading")
    add(
        "--calibrator", default=_calibrator(), metavar="PATH", help="the bare relay (default: tests/bench/bare_pair.py)"
    )
    add("--connections", type=_counts, default=(1, 32), metavar="N,M", help="loads, by open connections (default 1,32)")
    scenarios = tuple(SCENARIOS)
    add(
        "--scenarios",
        type=_names(scenarios, {"bodies": BODIES}),
        default=("small", "paced"),
        metavar="A,B",
        help=f"some of {','.join(scenarios)}; `bodies` is {','.join(BODIES)}",
    )
    add("--duration", type=_positive, default=3.0, metavar="S", help="seconds per load (default 3)")
    add("--rounds", type=int, choices=range(1, 101), default=3, metavar="N", help="alternating rounds (default 3)")
    add("--concurrency", type=int, default=100, metavar="N", help="CONTAINER_CONCURRENCY, 0: no limit (default 100)")
    add("--no-metrics", action="store_true", help="leave request metrics off")
    add(
        "--generator", choices=("auto", "wrk", "own"), default="auto", help="load generator (default: wrk when on PATH)"
    )
    add("--instructions", action="store_true", help="count instructions with perf as well, where it works")
    add(
        "--settle",
        type=int,
        default=SETTLE_REQUESTS,
        metavar="N",
        help="requests before memory is read (default 100000; 0 for more rounds of something else)",
    )
    add("--idle", type=float, default=0.0, metavar="S", help="measure idle CPU for so long at the end of each round")
    add("--wakes", type=int, choices=range(1, 100_001), default=100, metavar="N", help="wakes to measure (default 100)")
    add("--driver", choices=("v2", "v1", "signal", "auto"), default="v2", help="how local mode freezes (default v2)")
    add("--quick", action="store_true", help="one round of a second each, 10 wakes; RSS after what that served")
    add("--budget", action="store_true", help="exit 1 when over a budget")
    add("--json", metavar="FILE", help="write everything measured there")
    return made


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _subjects(flags: argparse.Namespace) -> list[Subject]:
    setting = environment(PORT, USER_PORT, concurrency=flags.concurrency, metrics=not flags.no_metrics)
    commands = {"ours": [sys.executable, "-m", "queueproxy", "serve"]}
    if flags.calibrator is not None:
        commands["bare"] = command_for(flags.calibrator)
    elif "bare" in flags.subjects:
        _say("no bare pair here (it lives in the source tree): ratios to it are left out")
    if flags.peer is not None:
        commands["peer"] = command_for(flags.peer)
    return [Subject(name, command, setting, PORT) for name, command in commands.items() if name in flags.subjects]


def _measure(flags: argparse.Namespace) -> tuple[dict[str, list[dict[Measure, float]]], str]:
    """Figures by subject and round, and which generator made the load."""
    driver = Driver.found(flags.generator)
    figures: dict[str, list[dict[Measure, float]]] = {}
    subjects = _subjects(flags)
    if subjects:
        instructions = flags.instructions and available()
        if flags.instructions and not instructions:
            _say("perf cannot count instructions here: left out")
        plan = Plan(
            scenarios=tuple(SCENARIOS[name] for name in flags.scenarios),
            connections=flags.connections,
            seconds=flags.duration,
            rounds=flags.rounds,
            settle_requests=flags.settle,
            idle_s=flags.idle,
            instructions=instructions,
        )
        rounds = Rounds(subjects, driver, plan, _say)
        with origin(USER_PORT):
            rounds.run()
        figures = rounds.figures
    if "features" in flags.subjects:
        with origin(USER_PORT):
            rows = measure_features(driver, PORT, USER_PORT, flags.duration, flags.rounds, _say)
        mine = figures.setdefault("ours", [{} for _ in rows])
        for each, more in zip(mine, rows, strict=True):
            each.update(more)
    if "wake" in flags.subjects:
        sleeper = Sleeper(PORT, USER_PORT, METRICS_PORT, flags.driver)
        wake = measure_wakes(sleeper, flags.wakes, _say)
        mine = figures.setdefault("ours", [{}])
        mine[0].update(wake)
    return figures, driver.name


def _as_json(
    figures: Mapping[str, Sequence[Mapping[Measure, float]]],
    names: Mapping[str, str],
    rulings: Sequence[Ruling],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    subjects = {}
    for subject, rounds in figures.items():
        summary = {measure.key: spread(rounds, measure) for measure in measures({subject: rounds})}
        subjects[subject] = {
            "name": names[subject],
            "summary": {key: found._asdict() for key, found in summary.items() if found},
            "rounds": [{measure.key: value for measure, value in each.items()} for each in rounds],
        }
    ours = figures.get("ours", ())
    ratios = {
        other: {row.key: found for row in measures({other: rounds}) if (found := ratio(ours, rounds, row)) is not None}
        for other, rounds in figures.items()
        if other != "ours" and ours
    }
    return {
        "machine": {
            "system": platform.platform(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
        },
        "settings": settings,
        "subjects": subjects,
        "ratios": ratios,  # ours / other in the same round, median
        "budgets": [
            {
                "measure": ruling.budget.measure.key,
                "against": ruling.budget.against,
                "limit": ruling.budget.limit,
                "floor": ruling.budget.floor,
                "seen": ruling.seen,
                "kept": ruling.kept,
            }
            for ruling in rulings
        ],
    }


def _footnote(flags: argparse.Namespace, generator: str, figures: Mapping[str, object]) -> str:
    """How the figures above came about."""
    parts = []
    if set(flags.subjects) & (figures.keys() | {"features"}):
        parts.append(
            f"median [lowest..highest] of {flags.rounds} round(s), {flags.duration:g} s each, load by {generator}"
            + (", WebSocket by our own" if any(name.startswith("ws") for name in flags.scenarios) else "")
        )
    if "features" in flags.subjects:
        parts.append(
            f"metrics, request log, traces: added to a request as an ingress sends it, {CONNECTIONS} connections"
        )
    if "wake" in flags.subjects:
        parts.append(f"wake: {flags.wakes} wakes in local mode, driver {flags.driver}")
    return "\n".join(parts)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)  # unwinds: what was started is ended


def bench_main(argv: list[str]) -> int:
    """`queueproxy bench`."""
    flags = parser().parse_args(argv)
    if flags.quick:
        flags.duration, flags.rounds, flags.wakes = min(flags.duration, 1.0), 1, min(flags.wakes, 10)
        flags.settle = 0
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if os.geteuid() == 0:
            enter_private_network()
        else:
            _say(f"not root: using this host's ports {PORT}, {USER_PORT}, 8022 and 9090")
        figures, generator = _measure(flags)
    except (StartError, LoadError, OSError) as error:
        _say(f"queueproxy bench: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    names = {"ours": "ours", "bare": "bare", "peer": flags.peer_name}
    rulings = judge(figures)
    print(table.render(figures, names))
    print("\n" + _footnote(flags, generator, figures))
    if rulings:
        print("\n" + table.render_rulings(rulings, names))
    if flags.json is not None:
        settings = {
            "generator": generator,
            "seconds": flags.duration,
            "rounds": flags.rounds,
            "concurrency": flags.concurrency,
            "metrics": not flags.no_metrics,
            "driver": flags.driver,
        }
        with open(flags.json, "w") as file:
            json.dump(_as_json(figures, names, rulings, settings), file, indent=2)
            file.write("\n")
    return 1 if flags.budget and not all(ruling.kept for ruling in rulings) else 0
