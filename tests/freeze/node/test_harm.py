"""Whose processes died after a thaw, and which revisions are spared for a while."""

from math import inf

import pytest

from queueproxy.freeze.node.harm import WINDOW, Fallback, Harm


@pytest.mark.fz("FZ-084")
def test_a_process_that_is_gone_five_seconds_after_the_thaw_was_harmed() -> None:
    harm = Harm()
    harm.thawed(10.0, "pod", {100, 101, 102})
    assert (harm.next_at(), harm.due(14.9), harm.due(15.0)) == (15.0, [], ["pod"])
    assert harm.looked("pod", {100, 150, 151}) == "2 of 3 processes died within 5 s of a thaw"
    assert harm.next_at() == inf and harm.looked("pod", set()) == ""


@pytest.mark.fz("FZ-084")
def test_new_processes_are_no_harm() -> None:
    harm = Harm()
    harm.thawed(0.0, "pod", {100})
    assert harm.looked("pod", {100, 101}) == ""


def test_what_falls_asleep_again_or_ends_is_not_looked_at() -> None:
    harm = Harm()
    harm.thawed(0.0, "pod", {100})
    harm.forget("pod")
    assert len(harm) == 0 and harm.due(99.0) == [] and harm.looked("pod", set()) == ""
    harm.forget("never seen")


def test_each_thaw_starts_a_window_of_its_own() -> None:
    harm = Harm()
    harm.thawed(0.0, "a", {1})
    harm.thawed(1.0, "b", {2})
    harm.thawed(2.0, "a", {1})
    assert harm.due(6.5) == ["b"] and harm.due(2.0 + WINDOW) == ["b", "a"]
    harm.thawed(3.0, "b", set())
    assert harm.due(99.0) == ["a"], "nothing to compare with"


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


def test_reprs_count() -> None:
    harm, fallback = Harm(), Fallback(1.0)
    harm.thawed(0.0, "pod", {1})
    assert (repr(harm), repr(fallback)) == ("<Harm watches 1>", "<Fallback 0 revisions>")
