"""Proves queueproxy.bench.events: which lines are changes of state, and what the metrics say about phases."""

import pytest

from queueproxy.bench.events import Moved, moved, phase_means_ms


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            '{"event":"state","from":"RUNNING","to":"FROZEN","reason":"idle","generation":3,"took_us":210}',
            Moved("frozen", 210.0),
        ),
        ('{"event":"state","from":"frozen","to":"running","reason":"request"}', Moved("running", None)),
        ('{"to":"running","took_us":null}', Moved("running", None)),
        ('{"event":"summary","wakes":3}', None),
        ('{"to":3}', None),
        ("[1]", None),
        ("a line of the app", None),
        ("", None),
    ],
    ids=["frozen", "running", "no time", "summary", "odd", "list", "text", "empty"],
)
def test_only_changes_of_state_are_read(line: str, expected: Moved | None) -> None:
    assert moved(line) == expected


def test_the_mean_of_each_phase_is_sum_over_count() -> None:
    text = """\
# TYPE kn_serving_thaw_wait_seconds histogram
kn_serving_thaw_wait_seconds_bucket{le="0.001",phase="thaw"} 4.0
kn_serving_thaw_wait_seconds_count{phase="thaw"} 4.0
kn_serving_thaw_wait_seconds_sum{phase="thaw"} 0.002
kn_serving_thaw_wait_seconds_count{phase="dial"} 0.0
kn_serving_thaw_wait_seconds_sum{phase="dial"} 0.0
kn_serving_pause_state{state="frozen"} 1.0
"""
    assert phase_means_ms(text) == {"thaw": pytest.approx(0.5)}


def test_no_metrics_is_no_phases() -> None:
    assert phase_means_ms("") == {}
