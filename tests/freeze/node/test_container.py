"""One container: found, remembered, adopted, and its problems as text. On trees of files."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.node.container import Container
from queueproxy.freeze.node.hierarchy import Mounts
from queueproxy.freeze.node.inventory import ContainerFacts
from queueproxy.freeze.node.locate import Tree
from queueproxy.freeze.node.naming import candidates
from queueproxy.freeze.node.transition import Outcome
from queueproxy.freeze.vocabulary import Rung
from tests.support.cgroupfs import tree_cpu, tree_v2
from tests.support.kubepods import descriptors

UID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
ID = "0123456789abcdef" * 4
FACTS = ContainerFacts("app", ID, "containerd")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A container's cgroup, limited to half a core."""
    path = tmp_path / "v2/kubepods.slice" / next(candidates("kubepods.slice", UID, "burstable", ID))
    return tree_cpu(tree_v2(path), cpu__max="50000 100000")


@pytest.fixture
def tree(tmp_path: Path, path: Path) -> Iterator[Tree]:
    tree = Tree(Mounts(f"{tmp_path}/v2", {}, {}), {}, roots=["kubepods.slice"], require_cgroupfs=False)
    yield tree
    tree.close()


def opened(tree: Tree, facts: ContainerFacts = FACTS) -> Container:
    container = Container(facts, may_sleep=True)
    assert container.open(tree, UID, "burstable") == ""
    return container


def test_a_container_that_cannot_be_opened_says_why_and_one_that_is_gone_says_so(tree: Tree, path: Path) -> None:
    wrong = Container(FACTS._replace(id="nonsense"), may_sleep=True)
    assert wrong.open(tree, UID, "burstable") == "cannot be opened: 'nonsense' is no container id"
    assert not wrong.gone
    other = Container(FACTS._replace(id="f" * 64), may_sleep=True)
    assert other.open(tree, UID, "burstable") == ""
    assert other.gone
    assert other.held() is None
    assert repr(other) == "<Container app None gone>"


def test_a_container_that_was_gone_is_looked_for_again(tree: Tree, path: Path) -> None:
    container = Container(FACTS, may_sleep=True)
    path.rename(path.with_name("elsewhere"))
    container.open(tree, UID, "burstable")
    assert container.gone
    path.with_name("elsewhere").rename(path)
    container.open(tree, UID, "burstable")
    assert not container.gone
    container.close()


def test_what_is_not_held_does_nothing(tree: Tree) -> None:
    container = Container(FACTS, may_sleep=True)
    container.freeze()
    container.thaw()
    assert container.transition is None
    assert container.restore() == ""
    assert container.squeeze() == "no cpu controller"
    assert container.seen() is Rung.RUNNING
    assert not container.is_stop_pending("/proc")
    assert not container.is_blind
    container.close()


@pytest.mark.fz("FZ-076", "FZ-082")
@pytest.mark.parametrize(
    ("wish", "limit", "owned", "previous"),
    [
        pytest.param("0", "50000 100000", True, "50000 100000", id="running"),
        pytest.param("0", "max 100000", True, "max 100000", id="without-a-limit"),
        pytest.param("0", "1000 100000", True, None, id="as-tight-as-ours-already"),
        pytest.param("1", "50000 100000", False, "50000 100000", id="frozen-by-someone-else"),
        pytest.param("0", "nonsense", True, None, id="unreadable-limit"),
    ],
)
def test_what_is_remembered_before_a_move_is_what_undoes_it(
    tree: Tree, path: Path, wish: str, limit: str, owned: bool, previous: str | None
) -> None:
    tree_v2(path, freeze=wish, frozen=wish)
    (path / "cpu.max").write_text(limit)
    container = opened(tree)
    held = container.held()
    assert held is not None
    assert (held.name, held.id, held.owned, held.previous) == ("app", ID, owned, previous)
    assert held.squeezed == (None if previous is None else "1000 100000")
    assert held.freezer.inode == path.stat().st_ino
    container.close()


@pytest.mark.fz("FZ-082")
def test_while_it_is_squeezed_the_limit_before_is_what_is_remembered(tree: Tree, path: Path) -> None:
    container = opened(tree)
    assert container.squeeze() == ""
    held = container.held()
    assert held is not None
    assert (held.previous, held.squeezed) == ("50000 100000", "1000 100000")
    assert container.seen() is Rung.THROTTLED
    successor = Container(FACTS, may_sleep=True)
    successor.adopt(tree, held)
    assert successor.seen() is Rung.THROTTLED
    assert successor.restore() == ""
    assert (path / "cpu.max").read_text() == "50000 100000"
    assert successor.seen() is Rung.RUNNING
    for one in (container, successor):
        one.close()


@pytest.mark.fz("FZ-082")
@pytest.mark.parametrize("limit", ["50000 100000", "70000 100000"], ids=["as-it-was", "resized"])
def test_a_limit_that_was_never_squeezed_is_forgotten_at_adoption(tree: Tree, path: Path, limit: str) -> None:
    container = opened(tree)
    held = container.held()
    assert held is not None
    (path / "cpu.max").write_text(limit)
    successor = Container(FACTS, may_sleep=True)
    successor.adopt(tree, held)
    assert successor.leaf is not None
    assert successor.leaf.throttle is not None
    assert not successor.leaf.throttle.is_squeezed
    assert (path / "cpu.max").read_text() == limit
    for one in (container, successor):
        one.close()


@pytest.mark.fz("FZ-076")
@pytest.mark.parametrize("owned", [True, False])
def test_a_freeze_found_is_ours_only_when_the_journal_says_so(tree: Tree, path: Path, owned: bool) -> None:
    container = opened(tree)
    held = container.held()
    assert held is not None
    tree_v2(path, freeze="1", frozen="1")
    successor = Container(FACTS, may_sleep=True)
    successor.adopt(tree, held._replace(owned=owned))
    assert successor.seen() is Rung.FROZEN
    successor.thaw()
    assert successor.transition is not None
    successor.transition.step(0.0)
    assert (path / "cgroup.freeze").read_text().strip() == ("0" if owned else "1")
    assert successor.transition.outcome is (Outcome.PENDING if owned else Outcome.FOREIGN)
    for one in (container, successor):
        one.close()


def test_a_container_gone_at_adoption_or_at_a_squeeze_is_gone(tree: Tree, path: Path) -> None:
    container = opened(tree)
    held = container.held()
    assert held is not None
    shutil.rmtree(path)
    assert container.squeeze() == "the cgroup is gone"
    assert container.gone
    assert container.held() is None
    successor = Container(FACTS, may_sleep=True)
    successor.adopt(tree, held)
    assert successor.gone
    assert successor.leaf is None
    container.close()


def test_processes_out_of_sight_make_it_blind(tree: Tree, path: Path) -> None:
    (path / "cgroup.procs").write_text("0\n")
    container = opened(tree)
    assert not container.is_stop_pending("/proc")
    assert container.is_blind
    container.close()


def test_closing_leaves_nothing_open(tree: Tree, path: Path) -> None:
    status = f"/proc/{os.getppid()}/status"
    container = opened(tree)
    (path / "cgroup.procs").write_text(f"{os.getppid()}\n")
    container.is_stop_pending("/proc")
    container.freeze()
    transition = container.transition
    assert transition is not None
    assert descriptors(str(path)) == [str(path)]
    assert descriptors(status) == [status]
    container.close()
    container.close()
    assert descriptors(str(path)) == descriptors(status) == []
    assert transition.outcome is Outcome.ABANDONED
