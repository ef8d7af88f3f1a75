"""`queueproxy thaw-all` on a node: after a killed freezer, beside a running one, and without any journal."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.node.config import Address
from queueproxy.freeze.node.rescue import Place, rescue
from tests.support.apiserver import ApiServer
from tests.support.cgroupfs import real_cgroups
from tests.support.freezer_process import FreezerProcess, freeze
from tests.support.kubepods import Node

pytestmark = [*real_cgroups(""), pytest.mark.xdist_group("freezer")]
ROOT = Path(__file__).resolve().parents[3]
NOBODY = Address("127.0.0.1", 1)


@pytest.fixture
def node() -> Iterator[Node]:
    with Node("") as made:
        yield made


@pytest.fixture
def freezer(node: Node, tmp_path: Path) -> Iterator[FreezerProcess]:
    with ApiServer() as api, FreezerProcess(api, node, tmp_path) as freezer:
        yield freezer.start()


def freeze_raw(node: Node, path: str) -> Path:
    file = Path(node.at(path), "cgroup.freeze")
    file.write_text("1")
    return file


def thaw_all(*flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "queueproxy", "thaw-all", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.fz("FZ-094")
def test_what_a_killed_freezer_left_is_thawed_without_one(freezer: FreezerProcess) -> None:
    apps = [freezer.add_pod() for _ in range(3)]
    for app in apps:
        sidecar, secret = freezer.sidecar(app)
        freeze(sidecar, app, secret, 1)
    unreadable = freezer.folder / "journal" / f"{apps[0].uid}.json"
    freezer.kill()
    unreadable.write_text(json.dumps(json.loads(unreadable.read_text()) | {"version": 99}))
    run = thaw_all("--config", str(freezer.config))
    assert run.returncode == 0 and not any(freezer.frozen(app) for app in apps), run.stdout + run.stderr
    assert run.stdout.count(": in the journal: thawed\n") == 2 and "an unreadable record" in run.stdout
    assert list((freezer.folder / "journal").iterdir()) == []
    again = thaw_all("--config", str(freezer.config), "--json")
    assert again.returncode == 0
    assert {json.loads(line)["event"] for line in again.stdout.splitlines()} <= {"thaw-all", "mended"}


@pytest.mark.fz("FZ-094", "FZ-111")
def test_a_running_freezer_is_asked(freezer: FreezerProcess) -> None:
    app = freezer.add_pod()
    sidecar, secret = freezer.sidecar(app)
    freeze(sidecar, app, secret, 1)
    place = Place(
        Address("127.0.0.1", freezer.operators), str(freezer.folder / "journal"), "/sys/fs/cgroup", (freezer.node.root,)
    )
    out = io.StringIO()
    assert rescue(place, out, as_json=False, force=False) == 0
    assert out.getvalue() == f"freezer at {place.operators}: running: thawed everybody\n" and not freezer.frozen(app)
    assert freezer.pods()[app.uid]["why"] == "operator"


@pytest.mark.fz("FZ-076", "FZ-094")
def test_what_is_in_no_journal_is_thawed_only_when_forced(node: Node, tmp_path: Path) -> None:
    pod = node.pod(("app", "other"))
    node.run(pod.paths[0])
    file = freeze_raw(node, pod.paths[0])
    place = Place(NOBODY, str(tmp_path / "none"), "/sys/fs/cgroup", (node.root,))
    out = io.StringIO()
    assert rescue(place, out, as_json=True, force=False) == 1
    said = json.loads(out.getvalue())
    assert said["name"] == node.at(pod.paths[0]) and said["frozen"] and "--force" in said["did"]
    assert file.read_text() == "1\n"
    assert rescue(place, io.StringIO(), as_json=False, force=True) == 0 and file.read_text() == "0\n"


def test_a_node_without_cgroups_or_journal_has_nothing_to_thaw(tmp_path: Path) -> None:
    place = Place(NOBODY, str(tmp_path / "none"), str(tmp_path), ("kubepods",))
    out = io.StringIO()
    assert (rescue(place, out, as_json=False, force=False), out.getvalue()) == (0, "")


def test_a_container_that_cannot_be_thawed_is_counted(node: Node, tmp_path: Path) -> None:
    """Its pod is frozen as a whole, by somebody else (FZ-075)."""
    pod = node.pod()
    work = node.run(pod.paths[0])
    freeze_raw(node, pod.paths[0])
    above = Path(node.pod_at(pod), "cgroup.freeze")
    above.write_text("1")
    place = Place(NOBODY, str(tmp_path / "none"), "/sys/fs/cgroup", (node.root,))
    out = io.StringIO()
    try:
        rescue(place, out, as_json=False, force=True)
        assert Path(node.at(pod.paths[0]), "cgroup.freeze").read_text() == "0\n"
    finally:
        above.write_text("0")
    work.goes_on()


@pytest.mark.fz("FZ-094")
def test_the_script_in_the_documentation_thaws_everything_with_a_shell_alone(node: Node) -> None:
    """For a node where not even Python is left."""
    text = (ROOT / "docs/operations.md").read_text()
    script = text.partition("```sh\n# thaw every container")[2].partition("```")[0]
    assert script
    pod = node.pod(("app", "other"))
    files = [freeze_raw(node, path) for path in pod.paths]
    narrowed = script.replace("/sys/fs/cgroup", os.path.dirname(node.first.root + "/x"))
    subprocess.run(["sh", "-euc", "#" + narrowed], check=True, timeout=20, env={"PATH": os.environ["PATH"]})
    assert [file.read_text() for file in files] == ["0\n", "0\n"]
