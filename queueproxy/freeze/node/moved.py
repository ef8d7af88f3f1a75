"""Names what moving one pod has come to. Pure, so that the ledger may judge what the mover did."""

from typing import NamedTuple

from queueproxy.freeze.vocabulary import Rung

__all__ = ["Moved"]


class Moved(NamedTuple):
    """The end of one move, as the kernel confirmed it."""

    # The rung all containers have reached. None: not reached. A freeze or throttle has then been taken back as far as
    # the kernel let us; a thaw went to every container, and `detail` names those that did not follow.
    rung: Rung | None
    mechanism: str  # "cgroup2", "cgroup1"; "" when no container was found
    took: float  # seconds from the call of `move` to the last confirmation
    detail: str
    gone: bool  # none of the containers exists any more: nothing is left to move, and nothing to remember
