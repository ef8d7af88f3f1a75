"""What the machine boots with: an archive the kernel unpacks, modules in an order that loads."""

import gzip
import lzma
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.vm.archive import DIRECTORY, FILE, PROGRAM, decompressed, in_order, module_name, newc
from tests.vm.debian import INIT


def unpacked(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Read back by the kernel's own description: fields of eight hex digits, names and contents padded to four."""
    found, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + length]
        assert name.endswith(b"\0")
        at += 110 + length
        at += -at % 4
        content = archive[at : at + size]
        at += size
        at += -at % 4
        if name == b"TRAILER!!!\0":
            return found
        found.append((name[:-1].decode(), mode, content))


def test_an_archive_holds_what_was_put_in() -> None:
    entries = [("bin", DIRECTORY, b""), ("bin/sh", PROGRAM, b"\x7fELF" + bytes(range(99))), ("é", FILE, b"1\n")]
    archive = newc(entries)
    assert unpacked(archive) == entries
    assert len(archive) % 4 == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs the command cpio")
def test_cpio_unpacks_it(tmp_path: Path) -> None:
    archive = newc([("a", DIRECTORY, b""), ("a/b", PROGRAM, b"content")])
    subprocess.run(["cpio", "-i", "--quiet"], input=archive, cwd=tmp_path, check=True, timeout=20)
    assert (tmp_path / "a/b").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("./lib/modules/6.1.0-1-amd64/kernel/fs/9p/9p.ko", "9p"),
        ("./lib/modules/6.12.1/kernel/drivers/virtio/virtio-pci.ko.xz", "virtio_pci"),
        ("overlay.ko.zst", "overlay"),
        ("./boot/vmlinuz-6.1.0-1-amd64", None),
        ("./lib/modules/6.1.0-1-amd64/modules.order", None),
    ],
)
def test_a_module_is_known_by_the_kernel_s_name(path: str, name: str | None) -> None:
    assert module_name(path) == name


def test_a_compressed_module_becomes_what_the_kernel_loads() -> None:
    module = b"\x7fELF" + struct.pack("<99Q", *range(99))
    assert decompressed("a.ko", module) == module
    assert decompressed("a.ko.xz", lzma.compress(module)) == module
    assert decompressed("a.ko.gz", gzip.compress(module)) == module


def module(depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0vermagic=6.1.0 depends=nonsense\0"


def test_what_a_module_needs_is_loaded_before_it() -> None:
    modules = {
        "9pnet_virtio": module("9pnet,virtio-ring"),
        "9p": module("9pnet,netfs"),
        "9pnet": module(""),
        "netfs": module("built_in"),
        "virtio_ring": module(""),
        "unwanted": module("9p"),
    }
    order = in_order(["9pnet_virtio", "not_a_file", "9p"], modules.get)
    assert order == ["9pnet", "virtio_ring", "9pnet_virtio", "netfs", "9p"]


@pytest.mark.slow
def test_the_first_program_is_a_script_the_shell_understands() -> None:
    assert INIT.read_text().startswith("#!/bin/busybox sh\n")
    subprocess.run(["sh", "-n", INIT], check=True, timeout=20)
