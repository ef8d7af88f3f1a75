"""The soft limit on descriptors goes up to the hard one, and a refusal is lived with."""

import resource
from collections.abc import Iterator

import pytest

from queueproxy.net.descriptors import raise_limit

LIMIT = resource.RLIMIT_NOFILE


@pytest.fixture
def hard() -> Iterator[int]:
    """The hard limit, with a lower soft one; both as before afterwards."""
    soft, hard = resource.getrlimit(LIMIT)
    resource.setrlimit(LIMIT, (hard // 2, hard))
    yield hard
    resource.setrlimit(LIMIT, (soft, hard))


@pytest.mark.qp("QP-204")
def test_the_soft_limit_becomes_the_hard_one(hard: int) -> None:
    assert raise_limit() == hard
    assert resource.getrlimit(LIMIT) == (hard, hard)


def test_a_second_time_changes_nothing(hard: int) -> None:
    raise_limit()
    assert raise_limit() == hard


@pytest.mark.parametrize("refusal", [OSError(1, "not permitted"), ValueError("too high")], ids=["forbidden", "high"])
def test_a_refusal_leaves_what_there_is(hard: int, refusal: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise refusal

    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refuse)
        assert raise_limit() == hard // 2
