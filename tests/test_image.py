"""The image: what the platform relies on without ever saying so. Nothing here can build it, so the recipe is read."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile as (instruction, argument) per stage, continuation lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    stages: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest.strip()))
    return stages


def _last(word: str) -> str:
    return [rest for seen, rest in _stages()[-1] if seen == word][-1]


@pytest.mark.qp("QP-001")
def test_the_entry_point_is_the_server_and_needs_no_shell_or_argument() -> None:
    assert json.loads(_last("ENTRYPOINT")) == ["queueproxy", "serve"]
    assert not [word for word, _ in _stages()[-1] if word == "CMD"]


@pytest.mark.qp("QP-001", "QP-002")
def test_every_step_is_in_exec_form() -> None:
    for stage in _stages():
        for word, rest in stage:
            if word in ("RUN", "ENTRYPOINT"):
                assert isinstance(json.loads(rest), list)


@pytest.mark.qp("QP-002")
def test_the_user_is_a_number_other_than_zero() -> None:
    # By name, the kubelet could not tell whether it is root and would refuse to start the container.
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", _last("USER"))
    assert _last("USER") == "65532:65532"


@pytest.mark.qp("QP-003")
def test_bytecode_is_made_at_build_time_and_never_after() -> None:
    words = [word for word, _ in _stages()[-1]]
    environment = dict(pair.split("=", 1) for pair in _last("ENV").split())
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["PYTHONNOUSERSITE"] == "1"  # no look at HOME
    compiling = [rest for word, rest in _stages()[-1] if word == "RUN" and "compileall" in rest]
    assert len(compiling) == 1 and "unchecked-hash" in compiling[0]
    assert words.index("RUN") < words.index("USER")


@pytest.mark.qp("QP-002", "QP-003")
def test_nothing_depends_on_a_home_or_a_writable_place() -> None:
    assert not [word for word, _ in _stages()[-1] if word in ("VOLUME", "HEALTHCHECK")]
    assert _last("WORKDIR") == "/"


def test_build_and_run_stages_share_one_interpreter() -> None:
    first, last = _stages()
    assert first[0][1].split()[0] == last[0][1].split()[0] == "python:3.11-slim-bookworm"


def test_the_build_context_holds_what_the_recipe_copies_and_little_else() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for word, rest in _stages()[0] if word == "COPY" for name in rest.split()[:-1]}
    assert copied == kept
    assert (ROOT / ".dockerignore").read_text().splitlines()[0] == "*"
