"""Fetches Debian's kernel and busybox as packages and unpacks the little of them that a machine boots with.

Nothing is installed: packages and what was taken from them stay in a cache directory, by name and version.
"""

import functools
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.vm.archive import DIRECTORY, FILE, PROGRAM, decompressed, in_order, module_name, newc

__all__ = ["QEMU", "Boot", "Unavailable", "boot_files", "initramfs", "missing"]

QEMU = "qemu-system-x86_64"
# The share that it runs from, and what the accept-queue watch asks the kernel.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "tcp_diag")
KERNEL, SHELL = "linux-image-amd64", "busybox-static"
INIT = Path(__file__).with_name("init.sh")
FETCH_WITHIN = 300.0


T = TypeVar("T")


class Unavailable(Exception):
    """What is missing, and how to get it."""


class Boot(NamedTuple):
    """What a machine is made of."""

    version: str  # of the kernel package
    kernel: Path
    modules: Path
    shell: Path  # the package it is in


def missing() -> str:
    """What keeps a machine from starting here; "" when nothing does."""
    if platform.machine() != "x86_64":
        return f"an x86-64 machine (this is {platform.machine()}): boards and consoles of others are not described here"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "Debian's apt-get and dpkg-deb, which fetch the kernel"
    if shutil.which(QEMU) is None:
        return f"the command {QEMU}; as root: apt-get install --no-install-recommends qemu-system-x86"
    return ""


def boot_files(cache: Path, say: Callable[[str], None], packages: Sequence[Path] = ()) -> Boot:
    """Kernel, modules and shell; from the cache when they are the newest that the package lists know.

    `packages` are files to take the kernel from instead: of another release, say."""
    if what := missing():
        raise Unavailable(f"needs {what}")
    cache.mkdir(exist_ok=True)
    shell_package = _fetched(SHELL, cache, say)
    packages = packages or [_fetched(name, cache, say) for name in _kernel_of_today()]
    version = packages[0].stem
    kernel, modules = cache / f"{version}.vmlinuz", cache / f"{version}.modules"
    if not kernel.exists():
        say(f"unpacking {version}")
        _unpack_kernel(packages, kernel, modules)
    return Boot(version, kernel, modules, shell_package)


def initramfs(boot: Boot, first: Sequence[str]) -> bytes:
    """What the kernel starts with. `first` is the command that init becomes, once it has the host's files."""
    folders = [(name, DIRECTORY, b"") for name in ("bin", "dev", "proc", "sys", "modules", "host", "upper", "new")]
    loaded = [(f"modules/{file.name}", FILE, file.read_bytes()) for file in sorted(boot.modules.iterdir())]
    become = "".join(f"{word}\n" for word in first).encode()
    shell = ("bin/busybox", PROGRAM, _content(boot.shell, "bin/busybox"))
    return newc([*folders, *loaded, shell, ("init", PROGRAM, INIT.read_bytes()), ("command", FILE, become)])


def _apt(*words: str, cwd: Path | None = None) -> str:
    run = subprocess.run(
        words, cwd=cwd, capture_output=True, text=True, timeout=FETCH_WITHIN, env={**os.environ, "LC_ALL": "C"}
    )
    if run.returncode != 0:
        raise Unavailable(f"{' '.join(words)}: {run.stderr.strip() or run.stdout.strip()}")
    return run.stdout


def _updated(attempt: Callable[[], T]) -> T:
    """Try; where package lists are missing or name a file that an update has replaced, root gets new ones first."""
    try:
        return attempt()
    except Unavailable:
        if os.geteuid() != 0:
            raise
    _apt("apt-get", "-q", "update")
    return attempt()


def _depends(package: str) -> list[str]:
    lines = [line.split() for line in _apt("apt-cache", "depends", package).splitlines()]
    return [line[1] for line in lines if line[:1] == ["Depends:"]]


def _kernel_of_today() -> list[str]:
    """The packages of the kernel that the meta package depends on: one, or of newer releases three."""

    def look() -> list[str]:
        for image in _depends(KERNEL):
            if image.startswith("linux-image-"):
                parts = (image.replace("-image-", part) for part in ("-binary-", "-modules-"))
                there = _depends(image)
                return [image, *(part for part in parts if part in there)]
        raise Unavailable(f"apt knows no {KERNEL}; as root: apt-get update")

    return _updated(look)


def _fetched(package: str, cache: Path, say: Callable[[str], None]) -> Path:
    def fetch() -> Path:
        _, name, size, *_ = _apt("apt-get", "-qq", "download", "--print-uris", package).split()
        file = cache / name
        if not file.exists() or file.stat().st_size != int(size):
            say(f"fetching {package}, {int(size) / 1e6:.0f} MB")
            _apt("apt-get", "-qq", "download", package, cwd=cache)
        return file

    return _updated(fetch)


def _members(package: Path, wanted: Callable[[str], bool], took: Callable[[str, bytes], None]) -> None:
    """Read a package's files one after the other, without unpacking the 400 MB that a kernel's are."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdout is not None
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar:
                for member in tar:
                    if member.isfile() and wanted(member.name) and (content := tar.extractfile(member)):
                        took(member.name, content.read())
        except tarfile.TarError as error:
            raise Unavailable(f"{package.name} cannot be unpacked: {error}") from None
    if unpacking.returncode != 0:
        raise Unavailable(f"{package.name} cannot be unpacked")


def _content(package: Path, ending: str) -> bytes:
    found: list[bytes] = []
    _members(package, lambda name: name.endswith(ending), lambda _, content: found.append(content))
    if not found:
        raise Unavailable(f"{package.name} has no {ending}")
    return found[0]


def _unpack_kernel(packages: Sequence[Path], kernel: Path, folder: Path) -> None:
    modules: dict[str, tuple[str, bytes]] = {}
    images: list[bytes] = []

    def took(name: str, content: bytes) -> None:
        if module := module_name(name):
            modules[module] = name, content
        else:
            images.append(content)

    @functools.cache
    def content_of(module: str) -> bytes | None:
        return decompressed(*modules[module]) if module in modules else None

    # Everything a share, a file system or a socket may need; drivers of real hardware stay where they are.
    rooms = ("/kernel/drivers/virtio/", "/kernel/fs/", "/kernel/net/", "/kernel/lib/", "/kernel/crypto/")
    for package in packages:
        _members(package, lambda name: "/vmlinuz" in name or any(room in name for room in rooms), took)
    if not images:
        raise Unavailable(f"{' '.join(package.name for package in packages)}: no kernel in there")
    folder.mkdir(exist_ok=True)
    for number, module in enumerate(in_order(MODULES, content_of)):
        (folder / f"{number:02}-{module}.ko").write_bytes(content_of(module) or b"")
    kernel.with_suffix(".part").write_bytes(images[0])
    kernel.with_suffix(".part").rename(kernel)  # last, and whole: it stands for all of them
