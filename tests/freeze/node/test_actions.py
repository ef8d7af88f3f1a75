"""The ledger's language: settings that make no sense are refused, and the table names every phase."""

from dataclasses import fields
from math import inf, nan

import pytest

from queueproxy.freeze.node.actions import TRANSITIONS, Kind, LedgerSettings, Phase
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import WANTED_WORDS, Wanted


def test_every_phase_has_its_row_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert set().union(*TRANSITIONS.values()) == set(Phase)
    assert all(phase not in reachable for phase, reachable in TRANSITIONS.items())


def test_from_every_phase_there_is_a_way_to_running() -> None:
    for phase in Phase:
        seen, new = set(), {phase}
        while new:
            seen |= new
            new = set().union(*(TRANSITIONS[at] for at in new)) - seen
        assert Phase.RUNNING in seen


@pytest.mark.fz("FZ-104")
def test_what_was_wanted_and_what_was_reached_are_kinds_of_events() -> None:
    assert all(Kind[wanted.name] == word for wanted, word in WANTED_WORDS.items())
    assert {Kind[Wanted.ACTIVE.name], Kind[Rung.THROTTLED.name], Kind[Rung.FROZEN.name]} <= set(Kind)


@pytest.mark.parametrize("value", [0, -1, inf, nan])
@pytest.mark.parametrize("name", [field.name for field in fields(LedgerSettings)])
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"out of range: {name}="):
        LedgerSettings(**{name: value})


@pytest.mark.fz("FZ-090", "FZ-093")
def test_the_defaults_keep_what_is_promised() -> None:
    settings = LedgerSettings()
    assert (settings.lease_default, settings.lease_cap) == (30.0, 60.0)
    assert settings.expiry_for < 1.0, "a sleeper runs at most a second after its lease"
    assert settings.calm_for < 10.0, "a drain has ten seconds"
