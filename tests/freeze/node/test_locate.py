"""Finding a container's cgroups: in every layout, in the three worlds of hierarchies, and in hostile trees.

Layouts are trees of ordinary files (the filesystem check is proven in its own test); the worlds are real as well.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.node.cgroup import FreezerV1, FreezerV2
from queueproxy.freeze.node.directory import NotACgroup
from queueproxy.freeze.node.held import HeldContainer
from queueproxy.freeze.node.hierarchy import Mounts
from queueproxy.freeze.node.locate import Leaf, Tree
from queueproxy.freeze.node.naming import BadName, candidates
from queueproxy.freeze.node.throttle import Limit
from tests.support.cgroupfs import PATIENCE, Lab, place_of, real_cgroups, tree_cpu, tree_v1, tree_v2, until
from tests.support.kubepods import Node, descriptors

UID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
ID = "0123456789abcdef" * 4
LIMITS = {"cpu__max": "max 100000", "cpu__stat": "usage_usec 1234"}


def path_of(root: str = "kubepods.slice", qos: str = "burstable", runtime: str = "containerd") -> str:
    return next(candidates(root, UID, qos, ID, runtime))


class World:
    """Hierarchies of ordinary files."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.trees: list[Tree] = []

    def at(self, hierarchy: str, path: str, root: str = "kubepods.slice") -> Path:
        return self.top / hierarchy / root / path

    def tree(
        self, *, roots: tuple[str, ...] = ("kubepods.slice", "kubepods"), own: dict[str, str] | None = None
    ) -> Tree:
        v1 = {
            name: str(self.top / mount)
            for name, mount in (("freezer", "freezer"), ("cpu", "cpu"), ("cpuacct", "cpuacct"))
            if (self.top / mount).exists()
        }
        v2 = str(self.top / "v2") if (self.top / "v2").exists() else None
        tree = Tree(Mounts(v2, v1, {}), own or {}, roots=roots, require_cgroupfs=False)
        self.trees.append(tree)
        return tree


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Nothing is left open, whatever was found or refused."""
    world = World(tmp_path)
    yield world
    for tree in world.trees:
        tree.close()
    assert descriptors(str(tmp_path)) == []


def limit_of(leaf: Leaf) -> Limit | None:
    return None if leaf.throttle is None else leaf.throttle.read()


@pytest.mark.fz("FZ-078", "L-01")
@pytest.mark.parametrize("root", ["kubepods.slice", "kubepods"])
@pytest.mark.parametrize("qos", ["guaranteed", "burstable", "besteffort"])
@pytest.mark.parametrize("runtime", ["containerd", "cri-o", "docker"])
@pytest.mark.parametrize("version", ["v2", "v1"])
def test_every_usual_place_is_found(world: World, root: str, qos: str, runtime: str, version: str) -> None:
    path = path_of(root, qos, runtime)
    if version == "v2":
        inode = tree_v2(tree_cpu(world.at("v2", path, root), **LIMITS)).stat().st_ino
    else:
        inode = tree_v1(world.at("freezer", path, root)).stat().st_ino
        tree_cpu(world.at("cpu", path, root), cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
        tree_cpu(world.at("cpuacct", path, root), cpuacct__usage="1234000")
    leaf = world.tree().find(UID, qos, ID, runtime)
    assert isinstance(leaf.freezer, FreezerV2 if version == "v2" else FreezerV1)
    assert leaf.freezer.cgroup.inode == leaf.spot.inode == inode
    assert (leaf.spot.root, leaf.spot.path) == (root, path)
    assert limit_of(leaf) == Limit(None, 100_000)
    assert leaf.cpu_usec() == 1234
    leaf.close()


@pytest.mark.fz("FZ-078")
def test_wrong_hints_still_lead_there(world: World) -> None:
    path = path_of(qos="guaranteed", runtime="cri-o")
    tree_v2(world.at("v2", path))
    leaf = world.tree().find(UID, "besteffort", ID, "containerd")
    assert leaf.spot.path == path
    assert leaf.throttle is None, "no limit there: it cannot be throttled, but frozen"
    leaf.close()


@pytest.mark.fz("FZ-078")
def test_an_unusual_place_is_found_by_walking(world: World) -> None:
    path = f"tenant.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-{ID}.scope"
    tree_v2(world.at("v2", path))
    leaf = world.tree().find(UID, "burstable", ID)
    assert leaf.spot.path == path
    leaf.close()


def test_a_kubepods_directory_that_comes_later_is_found(world: World) -> None:
    (world.top / "v2").mkdir()
    tree = world.tree()
    assert tree.found() == ()
    with pytest.raises(FileNotFoundError):
        tree.find(UID, "burstable", ID)
    tree_v2(world.at("v2", path_of()))
    tree.find(UID, "burstable", ID).close()
    assert tree.found() == (f"{world.top}/v2/kubepods.slice",)
    assert repr(tree) == f"<Tree <Kubepods {world.top}/v2 kubepods.slice>>"


@pytest.mark.fz("FZ-078")
def test_crun_s_leaf_is_taken_and_the_limit_of_the_scope_where_it_has_none(world: World) -> None:
    scope = tree_v2(tree_cpu(world.at("v2", path_of(runtime="cri-o")), **LIMITS))
    inner = tree_v2(tree_cpu(scope / "container", cpu__stat="usage_usec 99"), procs="1234\n")
    leaf = world.tree().find(UID, "burstable", ID, "cri-o")
    assert leaf.spot.path == f"{path_of(runtime='cri-o')}/container"
    assert leaf.freezer.cgroup.inode == inner.stat().st_ino
    assert leaf.cpu_spot is not None
    assert leaf.cpu_spot.path == path_of(runtime="cri-o")
    assert leaf.cpu_spot.inode == scope.stat().st_ino
    assert leaf.cpu_usec() == 99
    leaf.close()


@pytest.mark.fz("FZ-078")
def test_crun_s_leaf_with_a_limit_of_its_own_has_that_one(world: World) -> None:
    scope = tree_v2(tree_cpu(world.at("v2", path_of()), **LIMITS))
    tree_v2(tree_cpu(scope / "container", **LIMITS | {"cpu__max": "5000 100000"}))
    leaf = world.tree().find(UID, "burstable", ID)
    assert leaf.cpu_spot == leaf.spot
    assert limit_of(leaf) == Limit(5_000, 100_000)
    leaf.close()


@pytest.mark.parametrize("beside", ["own-process", "another-child", "other-name"])
def test_cgroups_that_the_container_made_are_not_walked_into(world: World, beside: str) -> None:
    """T-25: a process of the container can make them, and must not choose what is frozen."""
    scope = tree_v2(world.at("v2", path_of()), procs="4321\n" if beside == "own-process" else "")
    tree_v2(scope / ("mine" if beside == "other-name" else "container"))
    if beside == "another-child":
        tree_v2(scope / "mine")
    leaf = world.tree().find(UID, "burstable", ID)
    assert leaf.spot.path == path_of()
    leaf.close()


@pytest.mark.fz("FZ-078")
@pytest.mark.parametrize("populated", ["v2", "freezer"])
def test_in_the_hybrid_world_the_freezer_that_holds_the_processes_is_taken(world: World, populated: str) -> None:
    path = path_of()
    tree_v2(world.at("v2", path), populated="01"[populated == "v2"])
    tree_v1(world.at("freezer", path), procs="1234\n")
    tree_cpu(world.at("cpu", path), cpu__cfs_quota_us="20000", cpu__cfs_period_us="100000")
    leaf = world.tree().find(UID, "burstable", ID)
    assert isinstance(leaf.freezer, FreezerV2 if populated == "v2" else FreezerV1)
    assert leaf.cpu_spot is not None
    assert leaf.cpu_spot.hierarchy == "cpu"
    assert limit_of(leaf) == Limit(20_000, 100_000)
    leaf.close()


def test_in_the_hybrid_world_a_container_without_processes_is_the_first_found(world: World) -> None:
    tree_v2(world.at("v2", path_of()), populated="0")
    tree_v1(world.at("freezer", path_of()))
    leaf = world.tree().find(UID, "burstable", ID)
    assert isinstance(leaf.freezer, FreezerV2)
    leaf.close()


def test_a_v2_cgroup_that_cannot_freeze_leaves_it_to_v1(world: World) -> None:
    tree_cpu(world.at("v2", path_of()), cpu__stat="usage_usec 1")
    tree_v1(world.at("freezer", path_of()))
    leaf = world.tree().find(UID, "burstable", ID)
    assert isinstance(leaf.freezer, FreezerV1)
    assert leaf.cpu_usec() is None
    leaf.close()


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize("uid", ["..", UID.upper(), ""])
def test_a_uid_of_another_shape_is_refused(world: World, uid: str) -> None:
    tree_v2(world.at("v2", path_of()))
    with pytest.raises(BadName):
        world.tree().find(uid, "burstable", ID)


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize("link", ["leaf", "pod", "kubepods", "nested"])
def test_a_link_anywhere_on_the_way_is_refused(world: World, link: str) -> None:
    path = world.at("v2", path_of())
    outside = tree_v2(world.top / "outside" / path.name)
    at = {"leaf": path, "pod": path.parent, "kubepods": world.at("v2", "").parent / "kubepods.slice", "nested": path}
    at[link].parent.mkdir(parents=True, exist_ok=True)
    if link == "nested":
        tree_v2(path)
        (path / "container").symlink_to(outside)
        leaf = world.tree().find(UID, "burstable", ID)
        assert leaf.spot.path == path_of(), "a link is no directory: the scope itself"
        leaf.close()
        return
    at[link].symlink_to(outside if link == "leaf" else outside.parent)
    with pytest.raises(NotACgroup):
        world.tree().find(UID, "burstable", ID)


@pytest.mark.fz("FZ-132")
def test_ordinary_directories_do_not_count(world: World) -> None:
    tree_v2(world.at("v2", path_of()))
    tree = Tree(Mounts(str(world.top / "v2"), {}, {}), {}, roots=["kubepods.slice"])
    world.trees.append(tree)
    with pytest.raises(NotACgroup, match="not on a cgroup filesystem"):
        tree.find(UID, "burstable", ID)


@pytest.mark.parametrize("how", ["by-pid", "by-place", "by-a-place-below", "by-pid-in-crun-s-leaf"])
def test_what_we_live_in_is_refused(world: World, how: str) -> None:
    """T-10: nobody would be left to thaw us."""
    scope = tree_v2(world.at("v2", path_of()), procs=f"{os.getpid()}\n" if how == "by-pid" else "")
    if how == "by-pid-in-crun-s-leaf":
        tree_v2(scope / "container", procs=f"{os.getpid()}\n")
    place = f"/kubepods.slice/{path_of()}"
    own = {"by-place": {"": place}, "by-a-place-below": {"": f"{place}/mine"}}.get(how)
    if how == "by-a-place-below":
        tree_v2(scope / "mine")
    with pytest.raises(NotACgroup, match="we live there"):
        world.tree(own=own).find(UID, "burstable", ID)


class TestAdopting:
    """What a journal says, opened again."""

    @staticmethod
    def remembered(leaf: Leaf) -> HeldContainer:
        return HeldContainer("app", ID, leaf.spot, True, leaf.cpu_spot, "max 100000", "1000 100000")

    @pytest.mark.parametrize("world_of", ["v2", "hybrid", "nested"])
    def test_the_same_cgroups_are_held_again(self, world: World, world_of: str) -> None:
        scope = tree_v2(world.at("v2", path_of()))
        if world_of == "hybrid":
            tree_v1(world.at("freezer", path_of()))
            tree_cpu(world.at("cpu", path_of()), cpu__cfs_quota_us="1000", cpu__cfs_period_us="100000")
        else:
            tree_cpu(scope, cpu__max="1000 100000")
        if world_of == "nested":
            tree_v2(scope / "container")
        tree = world.tree()
        first = tree.find(UID, "burstable", ID)
        again = tree.adopt(self.remembered(first))
        assert (again.spot, again.cpu_spot) == (first.spot, first.cpu_spot)
        assert again.throttle is not None
        assert again.throttle.previous == "max 100000"
        assert limit_of(again) == limit_of(first) == Limit(1_000, 100_000)
        first.close()
        again.close()

    def test_a_namesake_is_not_what_was_remembered(self, world: World) -> None:
        tree_v2(world.at("v2", path_of()))
        tree = world.tree()
        leaf = tree.find(UID, "burstable", ID)
        record = self.remembered(leaf)
        leaf.close()
        world.at("v2", path_of()).rename(world.top / "elsewhere")
        with pytest.raises(FileNotFoundError):
            tree.adopt(record)
        tree_v2(world.at("v2", path_of()))
        with pytest.raises(FileNotFoundError, match="namesake"):
            tree.adopt(record)

    def test_a_lost_limit_does_not_keep_the_freezer_from_being_held(self, world: World) -> None:
        tree_v1(world.at("freezer", path_of()))
        limited = tree_cpu(world.at("cpu", path_of()), cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
        tree = world.tree()
        leaf = tree.find(UID, "burstable", ID)
        record = self.remembered(leaf)
        leaf.close()
        limited.rename(world.top / "elsewhere")
        leaf = tree.adopt(record)
        assert leaf.throttle is leaf.cpu_spot is None
        leaf.close()

    @pytest.mark.parametrize("field", [{"hierarchy": "memory"}, {"root": "system.slice"}, {"root": "kubepods"}])
    def test_a_place_that_is_none_of_ours_is_refused(self, world: World, field: dict[str, str]) -> None:
        tree_v2(world.at("v2", path_of()))
        tree = world.tree(roots=("kubepods.slice",))
        leaf = tree.find(UID, "burstable", ID)
        record = self.remembered(leaf)
        leaf.close()
        with pytest.raises(NotACgroup, match="none of our kubepods directories"):
            tree.adopt(record._replace(freezer=leaf.spot._replace(**field)))

    def test_what_we_live_in_is_not_adopted(self, world: World) -> None:
        tree_v2(world.at("v2", path_of()))
        tree = world.tree()
        leaf = tree.find(UID, "burstable", ID)
        leaf.close()
        (world.at("v2", path_of()) / "cgroup.procs").write_text(f"{os.getpid()}\n")
        with pytest.raises(NotACgroup, match="we live there"):
            tree.adopt(self.remembered(leaf))


def real(*controllers: str) -> list[pytest.MarkDecorator]:
    return [mark for controller in controllers for mark in real_cgroups(controller)]


V1 = ("freezer", "cpu", "cpuacct")
REAL = [
    pytest.param(("", "cpu"), FreezerV2, "cpu", id="hybrid", marks=real("", "cpu")),
    pytest.param(("",), FreezerV2, None, id="v2", marks=real("")),
    pytest.param(V1, FreezerV1, "cpu", id="v1", marks=real(*V1)),
]


@pytest.mark.fz("FZ-078", "FZ-132")
@pytest.mark.parametrize("runtime", ["containerd", "cri-o"])
@pytest.mark.parametrize(("controllers", "kind", "cpu"), REAL)
@pytest.mark.parametrize("top", ["kubepods.slice", "kubepods"])
def test_a_real_container_is_found(
    controllers: tuple[str, ...], kind: type, cpu: str | None, top: str, runtime: str
) -> None:
    with Node(*controllers, top=top) as node:
        pod = node.pod(["app", "other"], runtime=runtime)
        work = node.run(pod.paths[0])
        before = descriptors()
        tree = node.tree()
        leaf = tree.find(pod.uid, pod.qos, pod.containers[0].id, runtime)
        assert type(leaf.freezer) is kind
        assert leaf.freezer.pids() == (work.pid,)
        assert leaf.spot.path == pod.paths[0]
        until(leaf.cpu_usec, "CPU time to be counted")
        assert (leaf.cpu_spot and leaf.cpu_spot.hierarchy) == (cpu if cpu or leaf.cpu_spot is None else "")
        with pytest.raises(FileNotFoundError):
            tree.find(pod.uid, pod.qos, "f" * 64, runtime)
        leaf.close()
        tree.close()
        assert descriptors() == before


@pytest.mark.parametrize("controller", [pytest.param("", marks=real_cgroups(""), id="v2")])
def test_a_freezer_inside_a_pod_finds_others_but_not_itself(controller: str) -> None:
    """The daemon runs in a pod like any other."""
    with Node(controller) as node:
        pod = node.pod(["freezer", "app"])
        script = (
            "import os, sys\n"
            "from queueproxy.freeze.node.locate import Tree\n"
            "procs, root, uid, own, other = sys.argv[1:]\n"
            "open(procs, 'w').write('0')\n"
            "tree = Tree.open(roots=[root])\n"
            "print(tree.find(uid, 'burstable', other).freezer.mechanism)\n"
            "tree.find(uid, 'burstable', own)\n"
        )
        own, other = (container.id for container in pod.containers)
        done = subprocess.run(
            [sys.executable, "-c", script, f"{node.at(pod.paths[0])}/cgroup.procs", node.root, pod.uid, own, other],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.stdout == "cgroup2\n"
        assert "we live there" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("controller", [pytest.param("", marks=real_cgroups(""), id="v2")])
def test_the_hierarchies_are_found_where_they_are_mounted(controller: str) -> None:
    place = place_of(controller)
    assert place is not None
    with Lab(controller) as lab:
        lab.make("kubepods")
        tree = Tree.open(under=os.path.dirname(place), roots=[f"{os.path.basename(lab.root)}/kubepods"])
        assert f"{lab.root}/kubepods" in tree.found()
        tree.close()
