"""The command line of local mode: what it accepts, and what it says to what it does not."""

import pytest

from queueproxy.local.flags import parse_run, run_parser, thaw_all_main
from queueproxy.local.settings import RunSettings


def test_the_command_after_the_dashes_is_the_apps_alone() -> None:
    settings = parse_run(["--port", "0", "--", "app", "--port", "3000", "--json", "--", "x"])
    assert settings.command == ("app", "--port", "3000", "--json", "--", "x")
    assert settings.port == 0
    assert not settings.json


def test_a_command_without_dashes_is_taken_as_it_stands() -> None:
    assert parse_run(["--json", "app", "--verbose"]).command == ("app", "--verbose")


def test_without_flags_the_documented_defaults_hold() -> None:
    assert parse_run(["--", "app"]) == RunSettings(("app",))
    defaults = RunSettings(("app",))
    assert (defaults.port, defaults.freeze_after, defaults.mode, defaults.cgroup) == (8012, 1.0, "freeze", "auto")
    assert (defaults.min_uptime, defaults.start_timeout, defaults.grace, defaults.metrics_port) == (
        0.0,
        30.0,
        10.0,
        9091,
    )


def test_throttle_mode_squeezes_after_the_freeze_delay_and_never_freezes() -> None:
    settings = parse_run(["--mode", "throttle", "--freeze-after", "3s", "--", "app"])
    assert (settings.throttle_after, settings.freeze_after) == (3.0, None)


def test_a_ladder_has_both_rungs() -> None:
    settings = parse_run(["--throttle-after", "200ms", "--freeze-after", "1s", "--", "app"])
    assert (settings.throttle_after, settings.freeze_after) == (0.2, 1.0)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        pytest.param([], "no command", id="no command"),
        pytest.param(["--"], "no command", id="nothing after the dashes"),
        pytest.param(["--port", "70000", "--", "app"], "not a port", id="port too large"),
        pytest.param(["--port", "8000", "--app-port", "8000", "--", "app"], "both 8000", id="one port for two"),
        pytest.param(["--freeze-after", "soon", "--", "app"], "not a duration", id="no duration"),
        pytest.param(["--mode", "nap", "--", "app"], "invalid choice", id="unknown mode"),
        pytest.param(["--cgroup", "v3", "--", "app"], "invalid choice", id="unknown cgroup"),
        pytest.param(["--ready-path", "healthz", "--", "app"], "slash", id="relative path"),
        pytest.param(
            ["--throttle-after", "2s", "--freeze-after", "1s", "--", "app"], "never happens", id="rungs upside down"
        ),
        pytest.param(["--frobnicate", "--", "app"], "unrecognized", id="unknown flag"),
    ],
)
def test_flags_that_make_no_sense_end_with_64_and_say_why(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_run(argv)
    assert ended.value.code == 64
    assert says in capsys.readouterr().err


def test_the_help_text_names_every_flag_and_shows_examples() -> None:
    text = run_parser().format_help()
    for flag in ("--port", "--freeze-after", "--mode", "--cgroup", "--json", "--metrics-port", "--grace"):
        assert flag in text
    assert "examples:" in text


def test_thaw_all_knows_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        thaw_all_main(["everything"])
    assert ended.value.code == 64
    assert "everything" in capsys.readouterr().err
