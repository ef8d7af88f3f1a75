"""Proves queueproxy.bench.table: what a reader sees."""

from queueproxy.bench.figures import Budget, Measure, Ruling
from queueproxy.bench.table import describe, render, render_rulings

CPU = Measure("cpu_us", "small", 32)
RSS = Measure("rss_mb")
NAMES = {"ours": "ours", "bare": "bare", "peer": "go"}


def test_the_table_has_a_column_per_subject_and_a_ratio_per_other() -> None:
    rounds = {"ours": [{CPU: 30.0, RSS: 30.0}, {CPU: 32.0}], "bare": [{CPU: 20.0}, {CPU: 16.0}], "peer": [{CPU: 60.0}]}
    assert render(rounds, NAMES).splitlines() == [
        "                                                          ours               bare    go  ours/bare  ours/go",
        "CPU per request, us (small, 32 connections)  31.0 [30.0..32.0]  18.0 [16.0..20.0]  60.0       1.75     0.50",
        "RSS after load, MB                                        30.0                  -     -          -        -",
    ]


def test_without_ours_there_are_no_ratios() -> None:
    assert render({"bare": [{RSS: 20.0}]}, NAMES).splitlines() == [
        "                    bare",
        "RSS after load, MB  20.0",
    ]


def test_one_connection_is_not_plural() -> None:
    assert describe(Measure("p50_ms", "small", 1)) == "p50, ms (small, 1 connection)"


def test_a_phase_and_an_unknown_measure_still_have_a_name() -> None:
    assert describe(Measure("phase_ask_to_confirmed_p50_ms")) == "  phase ask_to_confirmed p50, ms"
    assert describe(Measure("phase_kernel_mean_ms")) == "  phase kernel mean, ms"
    assert describe(Measure("something_new")) == "something_new"


def test_budgets_say_ok_or_over() -> None:
    bytes_ = Budget(Measure("body_mb_cpu_s", "1m", 32), 0.7, "bare", floor=True)
    rulings = [Ruling(Budget(CPU, 2.0, "bare"), 1.756), Ruling(Budget(RSS, 33.0), 40.0), Ruling(bytes_, 0.6)]
    assert render_rulings(rulings, NAMES).splitlines() == [
        "ok    CPU per request, us (small, 32 connections): 1.76 x bare (budget 2 x bare)",
        "over  RSS after load, MB: 40.00 (budget 33)",
        "over  body MB per CPU second (1m, 32 connections): 0.60 x bare (budget at least 0.7 x bare)",
    ]
