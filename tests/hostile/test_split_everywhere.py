"""How a hostile stream is cut into reads never changes what comes of it."""

import random
from itertools import pairwise

import pytest

from tests.hostile.corpus import Case, Outcome, corpus
from tests.hostile.reading import outcomes_of

CASES = corpus("requests")
SMALL = [pytest.param(case, id=case.name) for case in CASES if not case.large]
LARGE = [pytest.param(case, id=case.name) for case in CASES if case.large]


def cut(data: bytes, *at: int) -> list[bytes]:
    edges = [0, *sorted(set(at) - {0, len(data)}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@pytest.mark.qp("QP-053")
@pytest.mark.parametrize("case", SMALL)
def test_at_any_one_byte_and_at_all(case: Case) -> None:
    data = case.data
    whole: list[Outcome] = outcomes_of([data])
    for at in range(1, len(data)):
        assert outcomes_of(cut(data, at)) == whole, data[:at]
    assert outcomes_of(data[i : i + 1] for i in range(len(data))) == whole


@pytest.mark.slow
@pytest.mark.qp("QP-053")
@pytest.mark.parametrize("case", LARGE)
def test_around_the_ends_and_in_segments(case: Case) -> None:
    data = case.data
    whole: list[Outcome] = outcomes_of([data])
    for at in (*range(1, 60, 7), *range(len(data) - 20, len(data), 5)):
        assert outcomes_of(cut(data, at)) == whole, at
    assert outcomes_of(cut(data, *range(0, len(data), 65536))) == whole
    if len(data) < 100_000:
        assert outcomes_of(cut(data, *range(0, len(data), 1448))) == whole


@pytest.mark.qp("QP-053")
def test_at_random_places() -> None:
    rng = random.Random(1)
    for case in CASES:
        if not case.large:
            places = [rng.randrange(len(case.data)) for _ in range(5)]
            assert outcomes_of(cut(case.data, *places)) == outcomes_of([case.data]), (case.name, places)
