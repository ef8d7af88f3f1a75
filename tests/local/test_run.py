"""What a run refuses before anything of it exists. Runs that start: tests/behaviour/test_run_*."""

import socket

import pytest

from queueproxy.local.flags import parse_run
from queueproxy.local.run import run


def test_a_taken_port_ends_it_before_anything_else_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(parse_run(["--port", str(port), "--", "app"])) == 1
    output = capfd.readouterr()
    assert f"listen tcp 127.0.0.1:{port}: bind: address already in use" in output.err
    assert output.out == ""


def test_with_json_the_refusal_is_an_event_as_well(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(parse_run(["--json", "--host", "192.0.2.1", "--port", "0", "--", "app"])) == 1
    output = capfd.readouterr()
    assert '"event":"fatal"' in output.out
    assert "cannot assign requested address" in output.err
