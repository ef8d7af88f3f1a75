"""Holds one status line at the foot of a terminal while the app's own output scrolls above it, untouched.

The last row is taken out of the scrolling region (DECSTBM) and written between save and restore of the cursor, in one
write each time, so lines of the app never mix with it. Drawn when something changed, at most four times a second, and
by no timer in between: while the app sleeps we sleep as well. `RESET` gives the row back; whoever ends the run writes
it, the guardian included.
"""

from __future__ import annotations

import contextlib
import os
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable

__all__ = ["RESET", "StatusLine", "fit"]

AT_MOST_EVERY = 0.25

# Save the cursor, scroll the whole screen again, clear the last row, restore. Row 999 is clamped to the last one by
# every terminal.
RESET = b"\x1b7\x1b[r\x1b[999;1H\x1b[2K\x1b8"


def fit(text: str, columns: int) -> str:
    """The text cut to a width, with an ellipsis when something is lost."""
    return text if len(text) <= columns else text[: max(0, columns - 1)] + "…"


class StatusLine:
    """The last row of the terminal behind `fd`."""

    __slots__ = ("_compose", "_fd", "_loop", "_next_at", "_rows", "_shown", "_timer")

    def __init__(self, fd: int, loop: AbstractEventLoop, compose: Callable[[], str]) -> None:
        self._fd = fd
        self._loop = loop
        self._compose = compose
        self._rows = 0
        self._shown = ""
        self._next_at = 0.0
        self._timer: TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<StatusLine {self._shown!r}>"

    def changed(self) -> None:
        """Something the line tells has changed: draw it now, or as soon as the rate allows."""
        if self._timer is None:
            wait = self._next_at - self._loop.time()
            if wait <= 0:
                self._draw()
            else:
                self._timer = self._loop.call_later(wait, self._draw)

    def resized(self) -> None:
        """SIGWINCH: the last row is another one now."""
        self._rows = 0
        self._shown = ""
        self.changed()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._rows:
            self._rows = 0
            self._write(RESET)

    def _draw(self) -> None:
        self._timer = None
        self._next_at = self._loop.time() + AT_MOST_EVERY
        try:
            columns, rows = os.get_terminal_size(self._fd)
        except OSError:
            return
        if rows < 3 or columns < 20:
            return  # no room for a line of ours
        text = fit(self._compose(), columns - 1)
        if text == self._shown and rows == self._rows:
            return
        region = b""
        if rows != self._rows:
            # Make room first (a newline on the last row scrolls), then shrink the region; setting it homes the
            # cursor, hence save and restore.
            region = b"\n\x1b[1A\x1b7\x1b[1;%dr\x1b8" % (rows - 1)
            self._rows = rows
        self._shown = text
        self._write(region + b"\x1b7\x1b[%d;1H\x1b[2K\x1b[7m%b\x1b[0m\x1b8" % (rows, text.encode()))

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._fd, data)
