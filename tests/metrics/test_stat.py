"""What 9090 answers: made by the ticker, never by the scrape."""

import pytest

from queueproxy.metrics.stat import PERIOD, StatReport
from queueproxy.metrics.window import Window
from tests.support.stat_reader import read_stat


@pytest.mark.qp("QP-136", "QP-140")
def test_before_the_first_tick_there_is_only_the_name() -> None:
    assert read_stat(StatReport("pod", Window(0.0), 0.0).encoded) == {1: "pod"}


@pytest.mark.qp("QP-134", "QP-137", "QP-140", "QP-141", "QP-133")
def test_a_tick_publishes_averages_as_they_are_and_counts_per_second() -> None:
    window = Window(100.0)
    stat = StatReport("pod", window, 100.0)
    window.arrived(104.0, False)
    window.arrived(104.5, True)
    stat.tick(105.0)
    assert PERIOD == 1.0
    assert read_stat(stat.encoded) == {
        1: "pod", 2: pytest.approx(1.5 / 5), 3: pytest.approx(0.5 / 5), 4: 2.0, 5: 1.0, 6: 5.0,
    }  # fmt: skip
    stat.tick(106.0)
    assert read_stat(stat.encoded) == {1: "pod", 2: 2.0, 3: 1.0, 6: 6.0}


@pytest.mark.qp("QP-135")
def test_scrapes_between_two_ticks_return_the_same_bytes() -> None:
    window = Window(0.0)
    stat = StatReport("pod", window, 0.0)
    stat.tick(1.0)
    first = stat.encoded
    window.arrived(1.5, False)
    assert stat.encoded is first


@pytest.mark.qp("QP-145", "QP-141")
def test_an_idle_revision_reports_nothing_but_its_uptime() -> None:
    window = Window(0.0)
    stat = StatReport("pod", window, 0.0)
    window.arrived(0.1, True)
    window.left(0.3, True)
    stat.tick(1.0)
    uptimes = []
    for second in range(2, 5):
        stat.tick(float(second))
        fields = read_stat(stat.encoded)
        assert set(fields) == {1, 6}
        uptimes.append(fields[6])
    assert uptimes == [2.0, 3.0, 4.0]


@pytest.mark.qp("QP-139")
def test_the_longest_report_fits() -> None:
    window = Window(0.0)
    stat = StatReport("p" * 253, window, 0.0)
    window.arrived(0.1, True)
    stat.tick(1.0)
    assert set(read_stat(stat.encoded)) == {1, 2, 3, 4, 5, 6} and len(stat.encoded) <= 336
