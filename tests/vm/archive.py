"""Packs what the machine boots with: an initramfs (cpio, "newc") and the kernel modules in an order that loads."""

import lzma
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable

__all__ = ["DIRECTORY", "FILE", "PROGRAM", "decompressed", "in_order", "module_name", "newc"]

DIRECTORY, FILE, PROGRAM = 0o040755, 0o100644, 0o100755
_DEPENDS = re.compile(rb"(?<=\0)depends=([^\0]*)\0")


def newc(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive of (path, mode, content), directories before what is in them (kernel: initramfs buffer format)."""
    out = bytearray()
    for inode, (path, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        name = path.encode() + b"\0"
        #        inode  mode  uid gid links mtime size      device, rdevice  name       checksum
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def module_name(path: str) -> str | None:
    """The kernel's name of a module file; None for any other file."""
    found = re.fullmatch(r"(?:.*/)?([^/]+)\.ko(?:\.(?:xz|zst|gz))?", path)
    return found[1].replace("-", "_") if found else None


def decompressed(path: str, content: bytes) -> bytes:
    """A module as the kernel wants it; Debian compresses them from 13 on."""
    if path.endswith(".xz"):
        return lzma.decompress(content)
    for ending, command in ((".zst", "zstd"), (".gz", "gzip")):
        if path.endswith(ending):
            if shutil.which(command) is None:
                raise FileNotFoundError(f"{path} needs the command {command}")
            return subprocess.run([command, "-dc"], input=content, capture_output=True, check=True).stdout
    return content


def in_order(wanted: Iterable[str], content_of: Callable[[str], bytes | None]) -> list[str]:
    """The modules wanted and what they need, needs first. One without content is taken to be built in."""
    order: list[str] = []

    def add(name: str) -> None:
        if name in order or not (content := content_of(name)):
            return
        declared = _DEPENDS.search(content)
        for need in (declared[1].decode() if declared else "").split(","):
            add(need.replace("-", "_"))
        order.append(name)

    for name in wanted:
        add(name)
    return order
