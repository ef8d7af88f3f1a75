"""Proves queueproxy.bench.figures: medians, paired ratios, budgets."""

import pytest

from queueproxy.bench.drive import SCENARIOS
from queueproxy.bench.figures import BODIES, BUDGETS, Budget, Measure, Spread, judge, measures, ratio, spread

CPU = Measure("cpu_us", "small", 32)
RSS = Measure("rss_mb")


def test_a_spread_is_median_lowest_highest() -> None:
    assert spread([{CPU: 30.0}, {CPU: 50.0}, {CPU: 31.0}], CPU) == Spread(31.0, 30.0, 50.0, 3)


def test_rounds_that_lack_a_measure_do_not_count() -> None:
    assert spread([{CPU: 30.0}, {}], CPU) == Spread(30.0, 30.0, 30.0, 1)
    assert spread([{}], CPU) is None


def test_a_ratio_is_taken_inside_each_round() -> None:
    # The machine was three times slower in the second round: the ratio of the medians would say 1.33.
    ours = [{CPU: 40.0}, {CPU: 120.0}, {CPU: 40.0}]
    bare = [{CPU: 20.0}, {CPU: 60.0}, {CPU: 30.0}]
    assert ratio(ours, bare, CPU) == 2.0


@pytest.mark.parametrize(
    ("ours", "other"),
    [([{CPU: 1.0}], []), ([], [{CPU: 1.0}]), ([{CPU: 1.0}], [{RSS: 1.0}]), ([{CPU: 1.0}], [{CPU: 0.0}])],
    ids=["no other", "no ours", "not measured", "zero"],
)
def test_without_a_pair_there_is_no_ratio(ours: list[dict[Measure, float]], other: list[dict[Measure, float]]) -> None:
    assert ratio(ours, other, CPU) is None


def test_rows_are_in_the_order_first_seen() -> None:
    assert measures({"ours": [{RSS: 1.0}], "bare": [{CPU: 1.0, RSS: 1.0}]}) == [RSS, CPU]


def test_keys_tell_load_from_no_load() -> None:
    assert (CPU.key, RSS.key) == ("cpu_us/small/32", "rss_mb")


@pytest.mark.parametrize(("mine", "kept"), [(33.0, True), (33.1, False)], ids=["at the limit", "over"])
def test_an_absolute_budget_is_kept_up_to_its_limit(mine: float, kept: bool) -> None:
    (ruling,) = judge({"ours": [{RSS: mine}]}, [Budget(RSS, 33.0)])
    assert (ruling.kept, ruling.seen) == (kept, mine)


@pytest.mark.parametrize(("mine", "kept"), [(40.0, True), (41.0, False)], ids=["at the limit", "over"])
def test_a_relative_budget_is_judged_on_the_ratio(mine: float, kept: bool) -> None:
    (ruling,) = judge({"ours": [{CPU: mine}], "bare": [{CPU: 20.0}]}, [Budget(CPU, 2.0, "bare")])
    assert ruling.kept is kept


@pytest.mark.parametrize(("mine", "kept"), [(70.0, True), (69.0, False)], ids=["at the limit", "under"])
def test_a_floor_is_kept_from_its_limit_on(mine: float, kept: bool) -> None:
    bytes_ = Measure("body_mb_cpu_s", "1m", 32)
    (ruling,) = judge({"ours": [{bytes_: mine}], "bare": [{bytes_: 100.0}]}, [Budget(bytes_, 0.7, "bare", floor=True)])
    assert ruling.kept is kept


def test_every_scenario_of_bytes_exists_and_counts_them() -> None:
    assert all(SCENARIOS[name].carried for name in BODIES)


def test_what_was_not_measured_is_not_judged() -> None:
    assert judge({"bare": [{CPU: 1.0, RSS: 1.0}]}) == []
    assert [ruling.budget.against for ruling in judge({"ours": [{CPU: 30.0}], "bare": [{CPU: 20.0}]})] == ["bare"]


def test_the_budgets_are_those_of_the_design() -> None:
    floors = {(budget.measure.key, budget.limit, budget.against) for budget in BUDGETS if budget.floor}
    assert floors == {
        (f"body_mb_cpu_s/{name}/{connections}", limit, against)
        for name in ("64k", "1m", "up64k", "up1m", "ws1k", "ws64k")
        for connections in (1, 32)
        for limit, against in ((0.7, "bare"), (1.0, "peer"))
    }
    assert {(budget.measure.key, budget.limit, budget.against) for budget in BUDGETS if not budget.floor} == {
        ("cpu_us/small/32", 1.8, "bare"),
        ("cpu_us/small/32", 0.5, "peer"),
        ("p99_ms/small/32", 1.3, "bare"),
        ("p99_ms/small/32", 0.5, "peer"),
        ("p99_ms/paced/32", 1.3, "bare"),
        ("p99_ms/paced/32", 1.0, "peer"),
        ("log_instructions_ratio", 1 + 8 / 33, None),
        ("traces_instructions_ratio", 1.05, None),
        ("rss_mb", 33.0, None),
        ("listening_ms", 150.0, None),
        ("wake_added_p50_ms", 0.5, None),
    }
