"""The flags of local mode as the policy's settings. What `Serving` does with real apps: tests/behaviour/test_run_*."""

import pytest

from queueproxy.local.flags import parse_run
from queueproxy.local.serving import idle_settings


@pytest.mark.parametrize(
    ("flags", "freeze", "throttle", "running"),
    [
        pytest.param([], 1.0, None, 0.25, id="defaults"),
        pytest.param(["--freeze-after", "50ms"], 0.05, None, 0.05, id="a short delay is not stretched by hysteresis"),
        pytest.param(["--freeze-after", "0"], 0.0, None, 0.0, id="at once"),
        pytest.param(["--mode", "throttle"], None, 1.0, 0.25, id="throttle"),
        pytest.param(["--throttle-after", "100ms"], 1.0, 0.1, 0.1, id="both rungs"),
        pytest.param(["--freeze-after", "off"], None, None, 0.25, id="never"),
    ],
)
def test_delays_mean_what_they_say(
    flags: list[str], freeze: float | None, throttle: float | None, running: float
) -> None:
    settings = idle_settings(parse_run([*flags, "--", "app"]))
    assert (settings.freeze_after, settings.throttle_after, settings.min_running) == (freeze, throttle, running)
    assert (settings.min_between_freezes, settings.grace_cap) == (0.0, 0.0)


def test_shadow_and_uptime_are_handed_on() -> None:
    settings = idle_settings(parse_run(["--mode", "shadow", "--min-uptime", "3s", "--", "app"]))
    assert (settings.shadow, settings.min_uptime) == (True, 3.0)
