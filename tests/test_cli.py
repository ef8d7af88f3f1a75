"""The command line as its users meet it: exit codes, and what is said where."""

import os
import re
import subprocess
import sys

import pytest

from queueproxy import __version__
from queueproxy.bench.environment import environment
from queueproxy.cli import EX_USAGE, SERVE_USAGE, USAGE, main


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        pytest.param([], EX_USAGE, "", USAGE, id="nothing"),
        pytest.param(["--help"], 0, USAGE, "", id="--help"),
        pytest.param(["-h"], 0, USAGE, "", id="-h"),
        pytest.param(["help"], 0, USAGE, "", id="help"),
        pytest.param(["--version"], 0, f"queueproxy {__version__}\n", "", id="--version"),
        pytest.param(["serv"], EX_USAGE, "", f"queueproxy: unknown command 'serv'\n\n{USAGE}", id="unknown command"),
        pytest.param(["serve", "--help"], 0, SERVE_USAGE, "", id="serve --help"),
        *(
            pytest.param(["serve", *wrong], EX_USAGE, "",
                         f"queueproxy serve: wrong argument {wrong[0]!r}\n\n{SERVE_USAGE}",
                         id=" ".join(["serve", *wrong]))
            for wrong in (["--loop"], ["--loop", "twisted"], ["--loop=x"], ["now"], ["--port=1"])
        ),
    ],
)  # fmt: skip
def test_what_is_said_and_how_it_ends(
    arguments: list[str], code: int, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert capsys.readouterr() == (out, err)


def test_every_command_of_the_usage_exists_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^  ([a-z-]+)  ", USAGE, re.MULTILINE)
    assert "serve" in commands and "run" in commands
    for command in commands:
        try:
            code = main([command, "--help"])
        except SystemExit as ended:  # argparse's way
            code = int(ended.code or 0)
        said = capsys.readouterr()
        assert (code, said.err) == (0, "") and f"queueproxy {command}" in said.out


def serve(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`queueproxy serve` with nothing but this in its environment; it must end by itself."""
    path = {"PATH": os.environ.get("PATH", "")}
    return subprocess.run(
        [sys.executable, "-m", "queueproxy", "serve"], env=path | environ, capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
@pytest.mark.qp("QP-010", "QP-020")
def test_every_missing_variable_is_named_on_stderr_at_once() -> None:
    ended = serve({})
    assert (ended.returncode, ended.stdout) == (1, "")
    required = re.findall(r"^required key (\w+) missing value$", ended.stderr, re.MULTILINE)
    assert set(required) == {
        "CONTAINER_CONCURRENCY", "QUEUE_SERVING_PORT", "QUEUE_SERVING_TLS_PORT", "USER_PORT",
        "REVISION_TIMEOUT_SECONDS", "SERVING_LOGGING_CONFIG",
        "SERVING_LOGGING_LEVEL", "SERVING_NAMESPACE", "SERVING_CONFIGURATION",
        "SERVING_REVISION", "SERVING_POD", "SERVING_POD_IP",
    }  # fmt: skip
    assert len(required) == len(ended.stderr.splitlines()), "and nothing else is said"


@pytest.mark.slow
@pytest.mark.qp("QP-010", "QP-022", "QP-027")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REVISION_TIMEOUT_SECONDS", "ten",
         r"^envconfig\.Process: assigning REVISION_TIMEOUT_SECONDS to RevisionTimeoutSeconds: "
         r"converting 'ten' to type int\. details: "),
        ("CONTAINER_CONCURRENCY", "", r"^envconfig\.Process: assigning CONTAINER_CONCURRENCY "),
        ("SERVING_READINESS_PROBE", "[]", r"Queue container failed to parse readiness probe"),
    ],
    ids=["a word for a number", "empty number", "probe of the wrong shape"],
)  # fmt: skip
def test_a_wrong_value_ends_the_start_with_its_reason(name: str, value: str, said: str) -> None:
    ended = serve(environment(1, 2) | {name: value})
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.search(said, ended.stderr, re.MULTILINE), ended.stderr


@pytest.mark.slow
def test_an_unknown_command_is_64_in_a_real_process() -> None:
    ended = subprocess.run([sys.executable, "-m", "queueproxy", "nonsense"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (64, "") and "unknown command 'nonsense'" in ended.stderr
