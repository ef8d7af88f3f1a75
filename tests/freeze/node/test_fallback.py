"""Which revisions are spared for a while."""

import pytest

from queueproxy.freeze.node.fallback import Fallback


@pytest.mark.fz("FZ-084")
def test_a_revision_is_spared_for_an_hour() -> None:
    fallback = Fallback(3600.0)
    fallback.harmed(0.0, "default/a", "why")
    assert fallback.why(3599.9, "default/a") == "why" and fallback.why(1.0, "default/b") == ""
    assert fallback.why(3600.0, "default/a") == "" and len(fallback) == 0


def test_new_harm_starts_a_new_hour() -> None:
    fallback = Fallback(3600.0)
    fallback.harmed(0.0, "a", "first")
    fallback.harmed(3000.0, "a", "second")
    assert fallback.why(6000.0, "a") == "second"


def test_the_table_is_bounded_and_the_one_that_has_served_longest_makes_room() -> None:
    fallback = Fallback(3600.0, largest=2)
    for now, revision in enumerate(("a", "b", "a", "c")):
        fallback.harmed(float(now), revision, "why")
    assert [fallback.why(5.0, revision) for revision in "abc"] == ["why", "", "why"]
    assert repr(fallback) == "<Fallback 2 revisions>"
