"""The freezer's budget (design 7): 250 pods, 1,000 state changes a second on one core, 80 MB."""

import pytest

from tests.bench.bench_freezer import measure
from tests.support.cgroupfs import real_cgroups

pytestmark = [*real_cgroups(""), pytest.mark.long, pytest.mark.timeout(300)]

# A core of the reference machine runs a thousand of these a second with half its time to spare; instructions are the
# same on every machine, seconds are not. Measured: 0.6 million.
MOST_INSTRUCTIONS = 850_000


def test_250_pods_and_a_thousand_changes_a_second_fit_into_one_core_and_80_megabytes() -> None:
    for _ in range(3):  # a machine that gives its cores to others bills us for it: one good round of three
        found = measure(250, 1000.0, 5.0)
        print(found)
        assert found["rss_mb"] <= 80
        assert found["instructions_per_change"] <= MOST_INSTRUCTIONS
        if found["failed"] == 0 and found["changes_per_core_second"] >= 1000:
            return
    raise AssertionError(f"fewer than 1,000 changes for a second of CPU, or failures: {found}")
