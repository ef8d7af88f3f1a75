"""The kubepods directories of a hierarchy: held, seen to come and go, and walked within bounds."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.node import kubepods
from queueproxy.freeze.node.kubepods import Kubepods, directories
from tests.support.kubepods import descriptors

UID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
ID = "0123456789abcdef" * 4


def cgroup(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "cgroup.procs").touch()
    return path


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Kubepods]:
    held = Kubepods("", str(tmp_path))
    yield held
    held.close()


def test_a_kubepods_directory_is_held_once_it_is_there(pods: Kubepods, tmp_path: Path) -> None:
    assert not pods.refresh(["kubepods.slice", "kubepods"])
    assert repr(pods) == f"<Kubepods {tmp_path} none>"
    cgroup(tmp_path / "kubepods")
    assert pods.refresh(["kubepods.slice", "kubepods"])
    assert list(pods.tops) == ["kubepods"]
    assert not pods.refresh(["kubepods.slice", "kubepods"]), "nothing new"


def test_a_kubepods_directory_that_was_made_anew_is_the_new_one(pods: Kubepods, tmp_path: Path) -> None:
    cgroup(tmp_path / "kubepods")
    pods.refresh(["kubepods"])
    shutil.rmtree(tmp_path / "kubepods")
    inode = cgroup(tmp_path / "kubepods").stat().st_ino
    assert pods.refresh(["kubepods"])
    assert os.fstat(pods.tops["kubepods"]).st_ino == inode
    shutil.rmtree(tmp_path / "kubepods")
    assert not pods.refresh(["kubepods"])
    assert pods.tops == {}


def test_closing_leaves_nothing_open(tmp_path: Path) -> None:
    cgroup(tmp_path / "kubepods")
    pods = Kubepods("", str(tmp_path))
    pods.refresh(["kubepods"])
    assert list(pods.walk("kubepods", UID, ID)) == []
    assert len(descriptors(str(tmp_path))) == 2
    pods.close()
    pods.close()
    assert descriptors(str(tmp_path)) == []


@pytest.mark.fz("FZ-078")
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(f"pod{UID}/{ID}", id="as-guaranteed"),
        pytest.param(f"tenant-a/pod{UID}/{ID}", id="another-level-above"),
        pytest.param(f"burstable/pod{UID}/app/{ID}", id="another-level-below"),
        pytest.param(f"burstable/pod{UID}/crio-{ID}", id="another-runtime"),
    ],
)
def test_a_layout_nobody_knows_is_found_by_walking(pods: Kubepods, tmp_path: Path, path: str) -> None:
    cgroup(tmp_path / "kubepods" / path)
    cgroup(tmp_path / f"kubepods/burstable/pod{UID.replace('0a', '0b')}/{ID}")
    pods.refresh(["kubepods"])
    assert list(pods.walk("kubepods", UID, ID)) == [path]


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(f"burstable/{ID}", id="in-no-pod"),
        pytest.param(f"burstable/pod{UID.replace('0a', '0b')}/{ID}", id="in-another-pod"),
        pytest.param(f"{ID}/pod{UID}/app", id="above-the-pod"),
        pytest.param(f"pod{UID}/crio-conmon-{ID}.scope", id="the-monitor"),
        pytest.param(f"pod{UID}/a/b/c/{ID}", id="too-deep"),
    ],
)
def test_a_walk_does_not_find_what_is_elsewhere(pods: Kubepods, tmp_path: Path, path: str) -> None:
    cgroup(tmp_path / "kubepods" / path)
    pods.refresh(["kubepods"])
    assert list(pods.walk("kubepods", UID, ID)) == []


@pytest.mark.fz("FZ-132")
def test_a_walk_follows_no_link(pods: Kubepods, tmp_path: Path) -> None:
    cgroup(tmp_path / f"outside/{ID}")
    cgroup(tmp_path / "kubepods/burstable")
    (tmp_path / f"kubepods/burstable/pod{UID}").symlink_to(tmp_path / "outside")
    pods.refresh(["kubepods"])
    assert list(pods.walk("kubepods", UID, ID)) == []


def test_a_walk_goes_no_further_into_what_it_found(pods: Kubepods, tmp_path: Path) -> None:
    cgroup(tmp_path / f"kubepods/pod{UID}/{ID}/{ID}")
    pods.refresh(["kubepods"])
    assert list(pods.walk("kubepods", UID, ID)) == [f"pod{UID}/{ID}"]


def test_a_walk_is_bounded(pods: Kubepods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        cgroup(tmp_path / f"kubepods/z{number:02}")
    cgroup(tmp_path / f"kubepods/zz/pod{UID}/{ID}")
    cgroup(tmp_path / "kubepods/zz/beside")
    pods.refresh(["kubepods"])
    read: list[int] = []
    monkeypatch.setattr(kubepods, "directories", lambda fd: read.append(fd) or directories(fd))
    assert list(pods.walk("kubepods", UID, ID)) == [f"zz/pod{UID}/{ID}"]
    assert len(read) == 23, "the top, what is in it, the pod; nothing beside the pod once it is found"
    read.clear()
    assert list(pods.walk("kubepods", UID.replace("0a", "0b"), ID)) == []
    assert len(read) == 25, "nothing found: everything, down to the last level"
    read.clear()
    monkeypatch.setattr(kubepods, "MOST_DIRECTORIES", 10)
    assert list(pods.walk("kubepods", UID, ID)) == []
    assert len(read) == 10
