"""What the idle policy may be told."""

import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from queueproxy.freeze.settings import IdleSettings

NAMES = [field.name for field in fields(IdleSettings)]
NUMBERS = [name for name in NAMES if not isinstance(getattr(IdleSettings(), name), bool)]
ZERO_ALLOWED = {
    "freeze_after", "throttle_after", "min_uptime", "min_running", "min_between_freezes", "grace_cap", "adaptive_floor",
    "wait_weight", "quiesce_for", "thaw_retries", "thaw_retry_after", "breaker_backoff", "breaker_cap",
}  # fmt: skip


@pytest.mark.fz("FZ-011", "FZ-020", "FZ-023", "FZ-024")
def test_the_defaults_are_the_documented_ones() -> None:
    settings = IdleSettings()
    assert (settings.freeze_after, settings.throttle_after) == (2.0, None)
    assert (settings.min_uptime, settings.min_running) == (10.0, 0.25)
    assert (settings.flap_limit, settings.flap_window) == (20, 60.0)
    assert (settings.adaptive, settings.shadow, settings.look_first, settings.quiesce_cpu) == (False, False, True, None)


@pytest.mark.fz("FZ-046")
def test_by_default_a_hanging_thaw_is_given_up_within_two_seconds() -> None:
    settings = IdleSettings()
    pauses = [settings.thaw_retry_after * 2**attempt for attempt in range(settings.thaw_retries)]
    assert (settings.thaw_retries + 1) * settings.thaw_deadline + sum(pauses) < 2.0


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"out of range: {name}="):
        IdleSettings(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_zero_is_allowed_where_it_means_something(name: str) -> None:
    if name in ZERO_ALLOWED:
        assert getattr(IdleSettings(**{name: 0}), name) == 0
    else:
        with pytest.raises(ValueError, match=name):
            IdleSettings(**{name: 0})


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(ValueError, match="freeze_after=-1, min_uptime=-2"):
        IdleSettings(freeze_after=-1, min_uptime=-2)


@pytest.mark.parametrize("name", ["freeze_after", "throttle_after", "quiesce_cpu"])
def test_none_switches_off(name: str) -> None:
    assert getattr(IdleSettings(**{name: None}), name) is None


def test_settings_cannot_change_under_a_running_policy() -> None:
    with pytest.raises(FrozenInstanceError):
        IdleSettings().freeze_after = 1.0  # type: ignore[misc]


def test_the_document_lists_every_setting_with_its_default() -> None:
    text = (Path(__file__).parents[2] / "docs" / "idle-policy.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| ([\w.]+) \| (?:FZ-\d{3}|-) \|", text, re.M)
    assert listed == [(name, str(getattr(IdleSettings(), name))) for name in NAMES]
