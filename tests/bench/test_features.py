"""Proves queueproxy.bench.features: what was added is taken inside each round, and a whole run has real sidecars."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from queueproxy.bench.features import CONNECTIONS, FEATURES, SCENARIO, Feature, _subjects, added, rows_of
from queueproxy.bench.figures import Measure
from queueproxy.bench.table import describe
from queueproxy.observability import DEFAULT_REQUEST_LOG_TEMPLATE

LOG = Feature("log", "request log", "metrics")


def figures(**values: float) -> dict[Measure, float]:
    return {Measure(name, SCENARIO.name, CONNECTIONS): value for name, value in values.items()}


def test_where_instructions_are_counted_they_say_what_was_added() -> None:
    without = figures(cpu_us=100.0, instructions=200_000, user_instructions=150_000)
    with_it = figures(cpu_us=250.0, instructions=999_999, user_instructions=170_000)
    assert added(LOG, with_it, without) == {
        Measure("log_added_instructions"): 20_000,
        Measure("log_instructions_ratio"): 1.1,
        Measure("log_added_us"): 10.0,  # at half a nanosecond an instruction, whatever the second time was
    }


def test_where_they_are_not_times_must_do() -> None:
    rows = added(LOG, figures(cpu_us=110.0), figures(cpu_us=100.0))
    assert rows == {Measure("log_added_us"): 10.0, Measure("log_cpu_ratio"): 1.1}
    # Somebody who may not watch the kernel has one count, and it is the code's own.
    assert added(LOG, figures(instructions=2.0), figures(instructions=1.0)) == {}


def test_each_round_has_its_rows_and_what_was_left_out_has_none() -> None:
    rounds = {
        "plain": [figures(cpu_us=10.0), figures(cpu_us=20.0)],
        "metrics": [figures(cpu_us=11.0), figures(cpu_us=23.0)],
        "request log": [figures(cpu_us=13.0), figures(cpu_us=24.0)],
    }
    rows = rows_of(rounds, 2)
    assert [each[Measure("metrics_added_us")] for each in rows] == [1.0, 3.0]
    assert [each[Measure("log_added_us")] for each in rows] == [2.0, 1.0]
    assert not any(measure.name.startswith("traces") for each in rows for measure in each)


def test_every_row_has_a_name_of_its_own() -> None:
    rows = [f"{f.name}_{kind}" for f in FEATURES for kind in ("added_us", "added_instructions", "instructions_ratio")]
    assert len({describe(Measure(row)) for row in rows} - set(rows)) == len(rows)


def test_each_sidecar_differs_from_its_twin_in_one_thing() -> None:
    seen = {subject.name: json.loads(subject.environment["OBSERVABILITY_CONFIG"]) for subject in _subjects(8012, 8080)}

    def differs(one: str, other: str) -> set[str]:
        return {key for key in seen[one] if seen[one][key] != seen[other][key]}

    assert differs("metrics", "plain") == {"requestMetrics", "metrics"}
    assert differs("request log", "metrics") == {"enableRequestLog"}
    assert differs("traces", "metrics") == {"tracing"}
    assert seen["traces"]["tracing"]["samplingRate"] == 0.01
    assert seen["request log"]["requestLogTemplate"] == DEFAULT_REQUEST_LOG_TEMPLATE


@pytest.mark.long
@pytest.mark.root
def test_a_run_with_real_sidecars_has_a_row_for_each(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    program = "import sys; from queueproxy.bench.flags import bench_main; sys.exit(bench_main(sys.argv[1:]))"
    argv = [sys.executable, "-c", program, "--subjects", "features", "--quick", "--json", str(result)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=110)
    assert ran.returncode == 0, ran.stderr
    for feature in ("request metrics add, us", "request log adds, us", "traces of 1 % add, us"):
        assert feature in ran.stdout
    summary = json.loads(result.read_text())["subjects"]["ours"]["summary"]
    assert {f"{feature.name}_added_us" for feature in FEATURES} <= summary.keys()
