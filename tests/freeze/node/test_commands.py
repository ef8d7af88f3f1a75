"""The command lines of the node: what is accepted, what is said, how it ends."""

from pathlib import Path

import pytest

from queueproxy.freeze.node.commands import EX_USAGE, doctor_main, freezer_main, status_main

GOOD = 'node = "n"\n[listen]\nplain-http = true\noperators = "127.0.0.1:1"\n'


def ends(main: object, *arguments: str) -> int:
    assert callable(main)
    try:
        return int(main(list(arguments)))
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize("main", [freezer_main, status_main, doctor_main])
@pytest.mark.parametrize("wrong", [["now"], ["--conf", "x"], ["--port=1"]])
def test_a_wrong_flag_is_64_and_points_at_the_help(
    main: object, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(main, *wrong) == EX_USAGE
    said = capsys.readouterr()
    assert said.out == "" and "--help" in said.err


def test_a_wrong_configuration_is_64_with_every_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "freezer.toml"
    config.write_text("a = 1\nb = 2\n")
    assert ends(freezer_main, "--config", str(config)) == EX_USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3 and all(line.startswith(f"{config}: ") for line in lines)


@pytest.mark.parametrize("content", [pytest.param(None, id="no file"), pytest.param(b"\xff", id="no text")])
def test_a_file_that_cannot_be_read_is_64(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "freezer.toml"
    if content is not None:
        config.write_bytes(content)
    assert ends(freezer_main, "--config", str(config)) == EX_USAGE
    assert str(config) in capsys.readouterr().err


def test_checking_says_what_deserves_a_look_and_starts_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "freezer.toml"
    config.write_text(GOOD)
    assert ends(freezer_main, "--config", str(config), "--check") == 0
    assert "tokens cross the node unencrypted" in capfd.readouterr().err


def test_watching_wants_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(status_main, "--watch") == EX_USAGE
    assert "draws on a terminal" in capsys.readouterr().err


def test_status_finds_the_freezer_through_its_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "freezer.toml"
    for operators, called in (("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1")):
        config.write_text(GOOD.replace("127.0.0.1:1", operators))
        assert ends(status_main, "--config", str(config)) == 1
        assert f"no freezer at {called}" in capsys.readouterr().err
    assert ends(status_main, "--operators", "127.0.0.1:2") == 1
    assert "no freezer at 127.0.0.1:2" in capsys.readouterr().err
    assert ends(status_main, "--operators", "there") == EX_USAGE
    config.write_text("x = 1")
    assert ends(status_main, "--config", str(config)) == EX_USAGE
    assert ends(doctor_main, "--config", str(tmp_path / "none")) == EX_USAGE
