"""The flags as values, and durations as people write them."""

import pytest

from queueproxy.local.settings import RunSettings, duration, duration_or_off


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("500ms", 0.5, id="milliseconds"),
        pytest.param("1s", 1.0, id="seconds"),
        pytest.param("1m30s", 90.0, id="compound"),
        pytest.param("1.5h", 5400.0, id="fraction"),
        pytest.param("2", 2.0, id="bare number"),
        pytest.param(".5", 0.5, id="bare fraction"),
        pytest.param("0", 0.0, id="zero"),
        pytest.param("250us", 0.00025, id="microseconds"),
        pytest.param(" 1s ", 1.0, id="space around"),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1x", "1s2", "-1s", "1 s", "1e3", "soon", "off", "nan", "inf"])
def test_what_is_no_duration_is_refused_with_the_text_in_the_message(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


def test_off_means_never() -> None:
    assert duration_or_off("off") is None
    assert duration_or_off("2s") == 2.0


def test_only_a_rung_that_squeezes_needs_a_cpu_controller() -> None:
    assert not RunSettings(("app",)).needs_cpu
    assert RunSettings(("app",), mode="throttle").needs_cpu
    assert RunSettings(("app",), throttle_after=0.5).needs_cpu
