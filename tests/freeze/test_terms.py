"""A pod's policy in the words of the idle policy."""

import pytest

from queueproxy.freeze.annotations import DEFAULTS, Mode
from queueproxy.freeze.settings import IdleSettings
from queueproxy.freeze.terms import settings, spoken_to_old

BASE = IdleSettings(min_running=0.7)
FULL = DEFAULTS._replace(freeze_after_s=3.0, throttle_after_s=1.0, min_uptime_s=4.0)


@pytest.mark.fz("FZ-080", "FZ-085", "FZ-110", "FZ-113")
@pytest.mark.parametrize(
    ("mode", "throttle", "rungs", "shadow"),
    [
        (Mode.FREEZE, 1.0, (1.0, 3.0), False), (Mode.FREEZE, None, (None, 3.0), False),
        (Mode.THROTTLE, 1.0, (1.0, None), False), (Mode.THROTTLE, None, (3.0, None), False),
        (Mode.SHADOW, 1.0, (1.0, 3.0), True), (Mode.OFF, 1.0, (None, None), False),
    ],
)  # fmt: skip
def test_the_mode_decides_the_rungs(
    mode: Mode, throttle: float | None, rungs: tuple[float | None, float | None], shadow: bool
) -> None:
    found = settings(FULL._replace(mode=mode, throttle_after_s=throttle), BASE)
    assert (found.throttle_after, found.freeze_after) == rungs and found.shadow is shadow
    assert found.min_uptime == 4.0 and found.min_running == 0.7


@pytest.mark.fz("FZ-069")
def test_a_daemon_of_old_can_only_freeze() -> None:
    assert spoken_to_old(FULL) == FULL._replace(throttle_after_s=None)
    off = spoken_to_old(FULL._replace(mode=Mode.THROTTLE))
    assert off.mode is Mode.OFF and "cannot throttle" in off.reason
