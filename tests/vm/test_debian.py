"""What is taken from packages, and what is said where there is no machine to be had."""

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.vm import debian
from tests.vm.debian import Boot, Unavailable, boot_files, initramfs, missing

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs the command dpkg-deb")


def package(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """A real one, as Debian packs them."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: test\n"
    )
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    file = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", tree, file], check=True, capture_output=True, timeout=60)
    return file


def module(depends: str) -> bytes:
    return b"\x7fELF\0depends=" + depends.encode() + b"\0"


@needs_dpkg
@pytest.mark.slow
def test_the_kernel_and_the_modules_it_needs_are_taken_in_order(tmp_path: Path) -> None:
    kernel = tmp_path / "k.vmlinuz"
    folder = tmp_path / "k.modules"
    binary = package(tmp_path, "linux-binary", {"usr/lib/modules/7/vmlinuz": b"kernel"})
    there = "usr/lib/modules/7/kernel"
    modules = package(
        tmp_path,
        "linux-modules",
        {
            f"{there}/fs/9p/9p.ko.xz": lzma.compress(module("9pnet")),
            f"{there}/net/9p/9pnet.ko.xz": lzma.compress(module("")),
            f"{there}/fs/ext4/ext4.ko.xz": b"not even looked at",
            f"{there}/drivers/gpu/9p.ko": b"of another room",
        },
    )
    debian._unpack_kernel([binary, modules], kernel, folder)
    assert kernel.read_bytes() == b"kernel"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "00-9pnet.ko": module(""),
        "01-9p.ko": module("9pnet"),
    }
    shell = package(tmp_path, "busybox-static", {"bin/busybox": b"the shell"})
    image = initramfs(Boot("k", kernel, folder, shell), ["python", "a b"])
    for part in (b"the shell", b"modules/00-9pnet.ko\0", b"python\na b\n", b"TRAILER!!!\0"):
        assert part in image


@needs_dpkg
@pytest.mark.slow
def test_packages_without_a_kernel_are_refused(tmp_path: Path) -> None:
    empty = package(tmp_path, "linux-image", {"usr/share/doc/x": b""})
    with pytest.raises(Unavailable, match=r"linux-image_1_all\.deb: no kernel in there"):
        debian._unpack_kernel([empty], tmp_path / "k.vmlinuz", tmp_path / "k.modules")
    assert not (tmp_path / "k.vmlinuz").exists()


@needs_dpkg
@pytest.mark.slow
def test_a_package_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"nothing of the kind")
    with pytest.raises(Unavailable, match=r"x\.deb cannot be unpacked"):
        debian._unpack_kernel([tmp_path / "x.deb"], tmp_path / "k.vmlinuz", tmp_path / "k.modules")


@pytest.mark.parametrize(
    ("machine", "commands", "said"),
    [
        ("aarch64", {"apt-get", "dpkg-deb", debian.QEMU}, "an x86-64 machine (this is aarch64)"),
        ("x86_64", {debian.QEMU}, "Debian's apt-get and dpkg-deb"),
        ("x86_64", {"apt-get", "dpkg-deb"}, "as root: apt-get install --no-install-recommends qemu-system-x86"),
        ("x86_64", {"apt-get", "dpkg-deb", debian.QEMU}, ""),
    ],
    ids=["another processor", "not Debian", "no qemu", "all there"],
)
def test_what_is_missing_is_said_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, commands: set[str], said: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("shutil.which", lambda command: command if command in commands else None)
    assert said in missing() and bool(missing()) is bool(said)
    if said:
        with pytest.raises(Unavailable, match=r"^needs "):
            boot_files(tmp_path, print)
