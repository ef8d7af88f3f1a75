"""Holding a directory: by descriptor, through renames and removals; on the kernel's filesystem only."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.node import directory
from queueproxy.freeze.node.directory import Cgroup, NotACgroup, Version
from tests.support.cgroupfs import Lab, place_of, real_cgroups, tree_v2


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """root/pod/app is a cgroup; outside/secret is not for us."""
    tree_v2(tmp_path / "root" / "pod" / "app")
    tree_v2(tmp_path / "outside" / "secret")
    return tmp_path


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    fd = os.open(tree / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def held(where: directory.Where) -> Cgroup:
    return Cgroup.open(where, require_cgroupfs=False)


def test_a_path_and_a_path_beneath_a_root_hold_the_same_directory(tree: Path, root: int) -> None:
    with held(str(tree / "root/pod/app")) as one, held((root, "pod/app")) as other:
        assert (one.device, one.inode) == (other.device, other.inode)
        assert one.inode == (tree / "root/pod/app").stat().st_ino
        assert one.version is Version.FILES


@pytest.mark.fz("FZ-132")
def test_the_filesystem_must_be_the_kernel_s_unless_said_otherwise(tree: Path) -> None:
    with pytest.raises(NotACgroup, match="not on a cgroup filesystem"):
        Cgroup.open(str(tree / "root/pod/app"))


def test_nothing_is_left_open_by_a_refusal(tree: Path, root: int) -> None:
    (tree / "root/link").symlink_to("pod")
    before = len(os.listdir("/proc/self/fd"))
    for where in ((root, "link/app"), (root, "pod/none"), (root, "pod/app"), str(tree / "root/pod/app")):
        with pytest.raises((NotACgroup, FileNotFoundError)):
            Cgroup.open(where)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_held_does_not_change_when_the_path_does(tree: Path, root: int) -> None:
    with held((root, "pod/app")) as cgroup:
        (tree / "root/pod/app").rename(tree / "root/pod/old")
        tree_v2(tree / "root/pod/app", freeze="1")
        assert cgroup.read("cgroup.freeze") == "0"
        assert cgroup.write("cgroup.freeze", "x")
        assert (tree / "root/pod/app/cgroup.freeze").read_text() == "1\n"


def test_a_removed_cgroup_is_an_answer_and_a_missing_file_is_an_error(tree: Path, root: int) -> None:
    with held((root, "pod/app")) as cgroup:
        for act in (lambda: cgroup.read("cpu.max"), lambda: cgroup.write("cpu.max", "1")):
            with pytest.raises(FileNotFoundError, match=r"pod/app/cpu\.max"):
                act()
        assert not cgroup.is_gone
        shutil.rmtree(tree / "root/pod/app")
        assert cgroup.is_gone
        assert cgroup.read("cpu.max") is None
        assert cgroup.read("cgroup.procs") is None
        assert cgroup.write("cpu.max", "1") is False
        assert cgroup.open_file("cgroup.events") is None
        assert cgroup.pids() == ()
        assert not cgroup.has("cgroup.procs")


def test_a_shorter_text_leaves_nothing_of_the_longer_one(tree: Path, root: int) -> None:
    with held((root, "pod/app")) as cgroup:
        cgroup.write("cgroup.freeze", "max 100000")
        cgroup.write("cgroup.freeze", "1")
        assert cgroup.read("cgroup.freeze") == "1"


def test_pids_longer_than_one_read_are_all_there(tree: Path, root: int) -> None:
    pids = tuple(range(1000, 31000))
    (tree / "root/pod/app/cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    with held((root, "pod/app")) as cgroup:
        assert cgroup.pids() == pids


def test_an_endless_file_is_not_read_to_its_end(tree: Path, root: int) -> None:
    os.truncate(tree / "root/pod/app/cgroup.procs", directory.READ_LIMIT + 100_000)
    with held((root, "pod/app")) as cgroup, pytest.raises(OSError, match="File too large"):
        cgroup.pids()


def test_closing_twice_is_once_and_shows(tree: Path, root: int) -> None:
    cgroup = held((root, "pod/app"))
    assert repr(cgroup) == f"<Cgroup 'pod/app' FILES inode={cgroup.inode}>"
    cgroup.close()
    cgroup.close()
    assert "closed" in repr(cgroup)


@pytest.mark.parametrize(
    ("controller", "version"),
    [
        pytest.param("", Version.V2, id="v2", marks=real_cgroups("")),
        pytest.param("freezer", Version.V1, id="v1", marks=real_cgroups("freezer")),
    ],
)
def test_the_version_is_read_from_the_superblock(controller: str, version: Version) -> None:
    place = place_of(controller)
    assert place is not None
    with Cgroup.open(place) as cgroup:
        assert cgroup.version is version


@pytest.mark.parametrize("writable", [True, False], ids=["kept-for-writing", "kept-for-reading"])
@pytest.mark.parametrize("controller", [pytest.param("", marks=real_cgroups(""), id="v2")])
def test_kept_files_are_read_afresh_and_notice_the_removal(controller: str, writable: bool) -> None:
    """One kept for reading is written all the same, by its name."""
    with Lab(controller) as lab:
        path = lab.make("app")
        with Cgroup.open(path) as cgroup:
            before = len(os.listdir("/proc/self/fd"))
            cgroup.keep("cgroup.freeze", "no.such.file", writable=writable)
            cgroup.keep("cgroup.events")
            assert len(os.listdir("/proc/self/fd")) == before + 2
            for text in ("1", "0", "1"):
                lab.write(path, "cgroup.freeze", text)
                assert cgroup.read("cgroup.freeze") == text
                assert cgroup.read("cgroup.events") == f"populated 0\nfrozen {text}"
            assert cgroup.write("cgroup.freeze", "0")
            assert lab.read(path, "cgroup.freeze") == "0"
            with pytest.raises(OSError, match=r"Numerical result out of range|Invalid argument"):
                cgroup.write("cgroup.freeze", "7")
            os.rmdir(path)
            assert cgroup.read("cgroup.freeze") is None
            assert cgroup.read("cgroup.events") is None
            assert cgroup.write("cgroup.freeze", "1") is False
        assert len(os.listdir("/proc/self/fd")) == before - 1, "closed with the cgroup"


def test_files_of_an_ordinary_directory_are_never_kept(tree: Path, root: int) -> None:
    with held((root, "pod/app")) as cgroup:
        cgroup.keep("cgroup.freeze")
        (tree / "root/pod/app/cgroup.freeze").unlink()
        (tree / "root/pod/app/cgroup.freeze").write_text("1")
        assert cgroup.read("cgroup.freeze") == "1"
