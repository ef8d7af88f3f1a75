"""What a move has come to is a plain value, and one that a pure module may import."""

import pytest

from queueproxy.freeze.node import mover
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.vocabulary import Rung


def test_the_mover_tells_this_very_type() -> None:
    assert mover.Moved is Moved


def test_a_move_is_told_by_name_and_compared_by_value() -> None:
    moved = Moved(rung=Rung.FROZEN, mechanism="cgroup2", took=0.0002, detail="", gone=False)
    assert moved == (Rung.FROZEN, "cgroup2", 0.0002, "", False)
    assert moved._replace(rung=None, detail="app: timed out") != moved
    with pytest.raises(AttributeError):
        moved.rung = Rung.RUNNING  # type: ignore[misc]
