"""`queueproxy doctor`: the page, the JSON and the exit code."""

import io
import json
from pathlib import Path

import pytest

from queueproxy.freeze.node.doctor import doctor
from queueproxy.freeze.node.fitness import Node


def node(tmp_path: Path, *, freezer: bool = True, readable: bool = True) -> Node:
    top = tmp_path / "cg/kubepods"
    top.mkdir(parents=True)
    (tmp_path / "mountinfo").write_text(f"36 35 0:33 / {tmp_path}/cg rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "status").write_text("CapEff:\t0\n")
    (tmp_path / "clock").write_text("tsc\n")
    if freezer:
        (top / "cgroup.freeze").write_text("0")
    return Node(
        cgroups=f"{tmp_path}/cg", journal=str(tmp_path), status=f"{tmp_path}/status",
        clocksource=f"{tmp_path}/clock", mountinfo=f"{tmp_path}/mountinfo" if readable else "/nowhere",
    )  # fmt: skip


def run(node: Node, *, as_json: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    return doctor(node, out, as_json=as_json), out.getvalue()


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)


def test_a_fit_node_is_0(tmp_path: Path) -> None:
    code, page = run(node(tmp_path))
    assert code == 0 and page.endswith("\nthis node is fit for freezing\n")
    assert "ok    freezer" in page and "poor  cpu controller" in page and "-> enable the cpu controller" in page


def test_a_node_that_cannot_freeze_is_1(tmp_path: Path) -> None:
    code, page = run(node(tmp_path, freezer=False))
    assert code == 1 and "BAD   freezer" in page and page.endswith("\nthis node is not fit for freezing\n")


def test_not_being_able_to_look_is_2(tmp_path: Path) -> None:
    code, page = run(node(tmp_path, readable=False))
    assert code == 2 and page.endswith("\ncould not look\n")


def test_machines_get_the_same_as_json(tmp_path: Path) -> None:
    code, text = run(node(tmp_path, freezer=False), as_json=True)
    said = json.loads(text)
    assert (code, said["verdict"]) == (1, "not fit")
    assert {finding["verdict"] for finding in said["findings"]} <= {"good", "poor", "bad", "unknown"}
    assert all(finding["means"] for finding in said["findings"])
