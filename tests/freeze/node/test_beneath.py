"""Paths that try to lead elsewhere, with openat2 and with the component walk that stands in for it."""

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.node import beneath
from queueproxy.freeze.node.beneath import NotACgroup, filesystem_magic, open_absolute, open_beneath


@pytest.fixture(params=["openat2", "component-walk"])
def resolver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every path promise holds on kernels and seccomp profiles without openat2 as well."""
    if request.param == "component-walk":

        def refused(root: int, path: str, rules: int) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), path)

        monkeypatch.setattr(beneath, "_openat2", refused)
    return str(request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """root/pod/app is a cgroup; outside/secret is not for us."""
    for path in ("root/pod/app", "outside/secret"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "cgroup.procs").touch()
    return tmp_path


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    fd = os.open(tree / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def inode_of(fd: int) -> int:
    """Of a descriptor, which is closed."""
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def test_a_plain_path_opens_the_directory_it_names(resolver: str, tree: Path, root: int) -> None:
    inode = (tree / "root/pod/app").stat().st_ino
    assert inode_of(open_beneath(root, "pod/app")) == inode
    assert inode_of(open_absolute(str(tree / "root/pod/app"))) == inode


def test_what_is_opened_is_a_directory_and_not_inherited(resolver: str, root: int) -> None:
    fd = open_beneath(root, "pod")
    try:
        assert not os.get_inheritable(fd)
        assert os.listdir(fd) == ["app"]
    finally:
        os.close(fd)


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
        open_beneath(root, path)


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize("link", ["pod/link", "link/secret", "pod/abs", "pod/self"])
def test_no_symlink_is_followed_at_any_place(resolver: str, tree: Path, root: int, link: str) -> None:
    (tree / "root/pod/link").symlink_to("app")
    (tree / "root/link").symlink_to("../outside")
    (tree / "root/pod/abs").symlink_to(tree / "outside/secret")
    (tree / "root/pod/self").symlink_to("/proc/self/cwd")
    with pytest.raises(NotACgroup):
        open_beneath(root, link)
    with pytest.raises(NotACgroup):
        open_absolute(str(tree / "root" / link))


@pytest.mark.fz("FZ-132")
def test_a_mount_below_the_root_is_not_entered(resolver: str) -> None:
    slash = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(NotACgroup):
            open_beneath(slash, "proc/self")  # /proc is another filesystem, and self a link
        with pytest.raises(NotACgroup):
            open_beneath(slash, "proc/tty")
        tty = open_absolute("/proc/tty")  # an absolute path may cross mounts: cgroupfs is one
        assert filesystem_magic(tty) == 0x9FA0, "PROC_SUPER_MAGIC"
        os.close(tty)
    finally:
        os.close(slash)


@pytest.mark.fz("FZ-132")
def test_a_file_is_not_a_cgroup(resolver: str, tree: Path, root: int) -> None:
    with pytest.raises(NotACgroup):
        open_beneath(root, "pod/app/cgroup.procs")
    with pytest.raises(NotACgroup):
        open_beneath(root, "pod/app/cgroup.procs/x")


def test_a_relative_path_without_a_root_is_refused() -> None:
    with pytest.raises(NotACgroup, match="not an absolute path"):
        open_absolute("pod/app")


def test_a_missing_path_is_file_not_found(resolver: str, root: int) -> None:
    with pytest.raises(FileNotFoundError):
        open_beneath(root, "pod/none")


def test_openat2_is_really_used_where_the_kernel_has_it(root: int) -> None:
    """A typo in the call would otherwise hide behind the component walk for ever."""
    probe = ctypes.CDLL(None, use_errno=True).syscall(beneath.SYS_OPENAT2, -1, None, None, ctypes.c_size_t(0))
    assert probe == -1
    if ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
        pytest.skip("NOT PROVEN HERE: this kernel or its seccomp profile has no openat2")
    os.close(beneath._openat2(root, "pod/app", beneath.RESOLVE_BENEATH))
    with pytest.raises(OSError) as caught:
        beneath._openat2(root, "../outside", beneath.RESOLVE_BENEATH)
    assert caught.value.errno == errno.EXDEV
