"""Holding a directory: paths that lead elsewhere, directories that vanish, filesystems that are not the kernel's."""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.node import directory
from queueproxy.freeze.node.directory import Cgroup, NotACgroup, Version
from tests.support.cgroupfs import place_of, real_cgroups, tree_v2


@pytest.fixture(params=["openat2", "component-walk"])
def resolver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every path promise holds on kernels and seccomp profiles without openat2 as well."""
    if request.param == "component-walk":

        def refused(root: int, path: str, rules: int) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), path)

        monkeypatch.setattr(directory, "_openat2", refused)
    return str(request.param)


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


def test_a_path_and_a_path_beneath_a_root_hold_the_same_directory(resolver: str, tree: Path, root: int) -> None:
    with held(str(tree / "root/pod/app")) as one, held((root, "pod/app")) as other:
        assert (one.device, one.inode) == (other.device, other.inode)
        assert one.inode == (tree / "root/pod/app").stat().st_ino
        assert one.version is Version.FILES


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret",
        "pod/../../outside/secret",
        "/pod/app",
        "",
        ".",
        "pod//app",
        "pod/./app",
        "pod/app/",
        "..",
        "a\0b",
    ],
    ids=["up", "down-and-up", "absolute", "empty", "dot", "double-slash", "inner-dot", "trailing", "dotdot", "nul"],
)
def test_a_path_that_is_not_plain_is_refused(resolver: str, root: int, path: str) -> None:
    with pytest.raises(NotACgroup):
        held((root, path))


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize("link", ["pod/link", "link/secret", "pod/abs", "pod/self"])
def test_no_symlink_is_followed_at_any_place(resolver: str, tree: Path, root: int, link: str) -> None:
    (tree / "root/pod/link").symlink_to("app")
    (tree / "root/link").symlink_to("../outside")
    (tree / "root/pod/abs").symlink_to(tree / "outside/secret")
    (tree / "root/pod/self").symlink_to("/proc/self/cwd")
    with pytest.raises(NotACgroup):
        held((root, link))
    with pytest.raises(NotACgroup):
        held(str(tree / "root" / link))


@pytest.mark.fz("FZ-132")
def test_a_mount_below_the_root_is_not_entered(resolver: str) -> None:
    slash = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(NotACgroup):
            held((slash, "proc/self"))  # /proc is another filesystem, and self a link
        with pytest.raises(NotACgroup):
            held((slash, "proc/tty"))
        with held("/proc/tty") as tty:
            assert tty.version is Version.FILES, "an absolute path may cross mounts: cgroupfs is one"
    finally:
        os.close(slash)


@pytest.mark.fz("FZ-132")
def test_a_file_is_not_a_cgroup(resolver: str, tree: Path, root: int) -> None:
    with pytest.raises(NotACgroup):
        held((root, "pod/app/cgroup.procs"))
    with pytest.raises(NotACgroup):
        held((root, "pod/app/cgroup.procs/x"))


def test_a_relative_path_without_a_root_is_refused() -> None:
    with pytest.raises(NotACgroup, match="not an absolute path"):
        held("pod/app")


def test_a_missing_path_is_file_not_found(resolver: str, root: int) -> None:
    with pytest.raises(FileNotFoundError):
        held((root, "pod/none"))


@pytest.mark.fz("FZ-132")
def test_the_filesystem_must_be_the_kernel_s_unless_said_otherwise(resolver: str, tree: Path) -> None:
    with pytest.raises(NotACgroup, match="not on a cgroup filesystem"):
        Cgroup.open(str(tree / "root/pod/app"))


def test_nothing_is_left_open_by_a_refusal(tree: Path, root: int, resolver: str) -> None:
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
def test_the_version_is_read_from_the_superblock(resolver: str, controller: str, version: Version) -> None:
    place = place_of(controller)
    assert place is not None
    with Cgroup.open(place) as cgroup:
        assert cgroup.version is version


def test_openat2_is_really_used_where_the_kernel_has_it(root: int) -> None:
    """A typo in the call would otherwise hide behind the component walk for ever."""
    probe = ctypes.CDLL(None, use_errno=True).syscall(directory.SYS_OPENAT2, -1, None, None, ctypes.c_size_t(0))
    assert probe == -1
    if ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
        pytest.skip("NOT PROVEN HERE: this kernel or its seccomp profile has no openat2")
    os.close(directory._openat2(root, "pod/app", directory.RESOLVE_BENEATH))
    with pytest.raises(OSError) as caught:
        directory._openat2(root, "../outside", directory.RESOLVE_BENEATH)
    assert caught.value.errno == errno.EXDEV
