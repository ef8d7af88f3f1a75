"""A fixed rate is kept, and a late answer is counted against whoever was late."""

import asyncio

import pytest

from queueproxy.bench.origin import Origin
from queueproxy.bench.pace import paced
from tests.support.loaded import loaded

pytestmark = pytest.mark.slow  # real time


def test_a_pace_is_kept_over_all_connections_whatever_an_answer_takes() -> None:
    load, took = loaded(lambda: Origin({}), connections=5, seconds=1.0, made=paced(200))
    assert load.errors == 0 and took < 3
    assert 150 <= load.histogram.total <= 201, "200 in a second; fewer only where the machine stood still"
    assert load.histogram.percentile(50) < 5000


def test_what_waits_for_a_late_answer_counts_from_when_it_was_due() -> None:
    class Slow(Origin):
        """Keeps the first answer back for 0.3 s."""

        kept = False

        def on_message_complete(self) -> None:
            if Slow.kept:
                super().on_message_complete()
            else:
                Slow.kept = True
                asyncio.get_running_loop().call_later(0.3, super().on_message_complete)

    load, _ = loaded(lambda: Slow({}), connections=1, seconds=0.6, made=paced(100))
    # Thirty were due meanwhile, each 10 ms later than the one before: 300, 290 ... of at most sixty.
    assert 100_000 <= load.histogram.percentile(75) <= 200_000
    assert load.histogram.percentile(99) >= 250_000
