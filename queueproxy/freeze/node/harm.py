"""Watches whether freezing harms a pod: asks the kernel how old its processes are, and whether they are still there.

What it touches: `/proc/<pid>/stat`, once for each process until it has settled, and a signal 0 to those that have when
the pod is put to sleep. What counts as harm is decided in `losses.py`. Pids are as the
freezer's own namespace has them; where it cannot see the host's processes there are none, and nobody is watched. What
happens when a process cannot be asked: it has not settled, and does not count.

The other kind of harm, a first request after a thaw that failed at connection level, only the sidecar sees (FZ-084).
"""

from __future__ import annotations

import os
from collections.abc import Collection

from queueproxy.clock import monotonic
from queueproxy.freeze.node.losses import Losses

__all__ = ["Harm"]

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


class Harm:
    """Who lost processes after a thaw?"""

    __slots__ = ("_losses", "_proc")

    def __init__(self, proc: str = "/proc") -> None:
        self._losses = Losses()
        self._proc = proc

    def __repr__(self) -> str:
        return f"<Harm {self._losses!r}>"

    def thawed(self, now: float, uid: str, pids: Collection[int]) -> None:
        """The pod runs again with these processes. A thaw inside the window of an earlier one starts anew."""
        losses = self._losses
        strangers = losses.strangers(uid, pids)
        born = {pid: at for pid in strangers if (at := self._born(pid)) is not None} if strangers else {}
        missing = [pid for pid in losses.settled(uid) if pid not in pids and _is_gone(pid)]
        losses.thawed(now, uid, pids, born, missing)

    def forget(self, uid: str) -> None:
        """It sleeps again, or is gone: what dies from now on proves nothing."""
        losses = self._losses
        losses.slept(monotonic(), uid, [pid for pid in losses.settled(uid) if _is_gone(pid)])

    def next_at(self) -> float:
        """When somebody is due for a look; infinity while nobody is."""
        return self._losses.next_at()

    def due(self, now: float) -> list[str]:
        """Whose pids to read now and hand to `looked`."""
        return self._losses.due(now)

    def looked(self, uid: str, pids: Collection[int]) -> str:
        """What harm was done, in words, or nothing. Who is there all the same, elsewhere or because the list could
        not be read, has not ended."""
        losses = self._losses
        elsewhere = [pid for pid in losses.settled(uid) if pid not in pids and not _is_gone(pid)]
        return losses.looked(uid, {*pids, *elsewhere})

    def _born(self, pid: int) -> float | None:
        """In the seconds of the monotonic clock, on a node that is never suspended; later than true on others, which
        makes a process younger and excuses it."""
        try:
            fd = os.open(f"{self._proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # The name in brackets may hold anything; 20 fields after it comes the start time.
            return int(os.read(fd, 4096).rpartition(b")")[2].split()[19]) * _TICK
        except (OSError, IndexError, ValueError):
            return None
        finally:
            os.close(fd)


def _is_gone(pid: int) -> bool:
    """A number that was given to another process is taken for the same one, which is then not missed."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # not ours to signal, and therefore there
    return False
