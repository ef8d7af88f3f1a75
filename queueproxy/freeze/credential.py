"""Holds the projected token a sidecar shows its freezer: found once, read again when the kubelet rotated it.

What it touches: one file, by `stat` (2 us) whenever somebody may need it, by reading it when its inode, size or time
changed. What happens when that breaks: no token, and the caller fails open.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["AUDIENCE", "TokenFile", "find"]

AUDIENCE: Final = "concurrency-state-hook"  # Knative's default, and what the file is called then (design D7)
_LONGEST: Final = 16384  # bytes; a projected token has about 1,200


def find(directory: str) -> str | None:
    """The path of the token to use: our audience's, or the only one there is. None: freezing is not wanted."""
    try:
        names = [name for name in os.listdir(directory) if not name.startswith(".")]
    except OSError:
        return None
    if AUDIENCE in names:
        return os.path.join(directory, AUDIENCE)
    return os.path.join(directory, names[0]) if len(names) == 1 else None


class TokenFile:
    """One file. `value` is empty while there is nothing to show."""

    __slots__ = ("_seen", "path", "value")

    def __init__(self, path: str) -> None:
        self.path = path
        self.value = ""
        self._seen: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return f"<TokenFile {self.path} {'read' if self.value else 'empty'}>"

    def refresh(self) -> bool:
        """Looks whether the file is another one; True when the token is. A file that is gone for a moment, as during
        a rotation, leaves the token as it was: the freezer will say when it is too old."""
        try:
            status = os.stat(self.path)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen == self._seen:
                return False
            with open(self.path, "rb") as file:
                raw = file.read(_LONGEST + 1)
        except OSError:
            return False
        self._seen = seen
        text = raw.strip().decode("ascii", "replace")
        # It becomes part of a head: nothing that could end a line.
        usable = len(raw) <= _LONGEST and text.isascii() and text.isprintable() and " " not in text
        changed, self.value = self.value != (text if usable else ""), text if usable else ""
        return changed
