"""The language between the policy and its door."""

import re
from pathlib import Path

import pytest

from queueproxy.freeze.vocabulary import NOTHING, TRANSITIONS, Rung, State

ASLEEP = {State.THROTTLED, State.FROZEN}


def test_rungs_are_ordered_by_depth() -> None:
    assert sorted(Rung) == [Rung.RUNNING, Rung.THROTTLED, Rung.FROZEN]


def test_every_state_has_its_edges() -> None:
    assert set(TRANSITIONS) == set(State)


@pytest.mark.fz("FZ-050")
def test_terminating_is_reached_from_everywhere_and_left_to_nowhere() -> None:
    assert not TRANSITIONS[State.TERMINATING]
    assert all(State.TERMINATING in to for state, to in TRANSITIONS.items() if state is not State.TERMINATING)


@pytest.mark.fz("FZ-033")
def test_sleep_is_entered_only_from_grace_and_left_only_through_waking() -> None:
    assert {state for state, to in TRANSITIONS.items() if to & ASLEEP} - ASLEEP == {State.GRACE}
    for state in ASLEEP:
        assert TRANSITIONS[state] - ASLEEP == {State.WAKING, State.TERMINATING}


def test_nothing_is_one_object_and_empty() -> None:
    assert NOTHING == () and not NOTHING


DOCUMENT = (Path(__file__).parents[2] / "docs" / "idle-policy.md").read_text()


def test_the_document_lists_every_edge() -> None:
    rows = re.findall(r"^\| `([A-Z]+)` \|((?: `[A-Z]+`,?)*) \|$", DOCUMENT, re.M)
    assert {State[origin]: {State[to] for to in re.findall("[A-Z]+", tos)} for origin, tos in rows} == TRANSITIONS


def test_the_picture_shows_every_edge_but_termination() -> None:
    drawn = set(re.findall(r"^ +([A-Z]+) --> ([A-Z]+):", DOCUMENT, re.M))
    edges = {(origin.name, to.name) for origin, tos in TRANSITIONS.items() for to in tos}
    assert drawn == {edge for edge in edges if edge[1] != "TERMINATING"}
