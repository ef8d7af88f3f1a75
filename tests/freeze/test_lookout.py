"""The looks before sleep."""

from math import inf

import pytest

from queueproxy.freeze.lookout import Lookout
from queueproxy.freeze.settings import IdleSettings
from queueproxy.freeze.vocabulary import Look


@pytest.mark.fz("FZ-028")
def test_each_look_has_a_number_of_its_own_also_across_idle_periods() -> None:
    lookout = Lookout(IdleSettings(look_deadline=1.0, recheck_after=0.5))
    assert lookout.number == 0 and lookout.again_at == -inf
    assert lookout.look(10.0) == Look(1, True, None)
    assert lookout.again_at == 11.0
    lookout.obstructed(10.2, "backlog")
    assert (lookout.number, lookout.again_at, lookout.obstacle) == (0, 10.7, "backlog")
    lookout.forget()
    assert (lookout.number, lookout.again_at, lookout.obstacle) == (0, -inf, "")
    assert lookout.look(20.0) == Look(2, True, None)


@pytest.mark.fz("FZ-028", "FZ-110")
def test_numbers_go_on_over_a_change_of_settings() -> None:
    """A late answer to an old look must not meet a new look of the same number."""
    lookout = Lookout(IdleSettings())
    assert lookout.look(10.0) == Look(1, True, None)
    lookout.configured(IdleSettings(look_first=True, quiesce_cpu=0.1))
    assert lookout.number == 0
    assert lookout.look(11.0) == Look(2, True, 0.1)


@pytest.mark.fz("FZ-027")
def test_cpu_matters_only_for_so_long_from_the_first_look() -> None:
    lookout = Lookout(IdleSettings(quiesce_cpu=0.1, quiesce_for=60.0))
    assert lookout.look(100.0) == Look(1, True, 0.1)
    assert lookout.look(159.9) == Look(2, True, 0.1)
    assert lookout.look(160.0) == Look(3, True, None)
    lookout.forget()
    assert lookout.look(161.0) == Look(4, True, 0.1)


@pytest.mark.fz("FZ-027", "FZ-028")
def test_when_there_is_nothing_to_look_for_no_look_is_taken() -> None:
    assert Lookout(IdleSettings(look_first=False)).look(0.0) is None
    lookout = Lookout(IdleSettings(look_first=False, quiesce_cpu=0.1, quiesce_for=1.0))
    assert lookout.look(0.0) == Look(1, False, 0.1)
    assert lookout.look(1.0) is None


def test_the_repr_shows_what_is_out() -> None:
    lookout = Lookout(IdleSettings())
    lookout.look(1.0)
    assert repr(lookout) == "<Lookout number=1 again_at=2 obstacle=''>"
