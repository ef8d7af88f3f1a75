"""Holds what the connections of the sidecars' port share: who may connect, who is there, whom they ask, what they did.

`Door` and `Desk` are the two sides of the freezer that a call meets, in this order: who is it, and what becomes of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from queueproxy.freeze.node.sessions import Sessions
from queueproxy.freeze.wire import OldAction, Problem, StateRequest, View
from queueproxy.log import Log

__all__ = ["Admission", "Answered", "Caller", "Desk", "Door", "Port"]

READ_FOR: Final = 2.0  # seconds for a whole request, and for a new connection's first (FZ-134)

Answered = Callable[[View | None, Problem | None, str], None]


class Admission(NamedTuple):
    """Whose token it was, or why it does not count. `fresh`: confirmed lately, so that it may also put to sleep."""

    uid: str
    problem: Problem | None = None
    retry_after_s: float | None = None
    fresh: bool = True


class Door(Protocol):
    """Knows who is calling."""

    def admit(self, token: str, secret: str | None, peer: str, admitted: Callable[[Admission], None]) -> None:
        """Calls back exactly once, before it returns when the verdict is known."""

    def admit_again(self, key: bytes, peer: str) -> Admission | None:
        """The same, of a token that is known by its key; None when it has to be shown again."""

    def locked_out(self, peer: str) -> bool:
        """Somebody came with a good token and without the session. True: too often to be answered."""

    def pace(self, uid: str) -> float:
        """Seconds that a call for this pod has to wait for its turn; 0 for the ordinary ones."""


class Desk(Protocol):
    """Knows every pod of this node and carries wishes out. Calls back exactly once, often before it returns."""

    def sidecar_of(self, uid: str) -> str: ...

    def viewed(self, uid: str, answered: Answered) -> None: ...

    def asked(self, uid: str, request: StateRequest, answered: Answered, *, fresh: bool) -> None: ...

    def asked_of_old(self, uid: str, action: OldAction, answered: Answered, *, fresh: bool) -> None: ...


class Caller(Protocol):
    """A connection, as far as it concerns others."""

    peer: str
    uid: str  # the pod it proved to speak for, "" before

    def drop(self) -> None: ...
    def end(self) -> None: ...

    def __hash__(self) -> int: ...


class Port:
    """What all connections share: who may connect, who is there, and what was counted."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        door: Door,
        desk: Desk,
        sessions: Sessions,
        log: Log,
        *,
        most: int = 1024,
        per_source: int = 8,
        old_protocol: bool = True,
        read_for: float = READ_FOR,
    ) -> None:
        self.loop = loop
        self.door = door
        self.desk = desk
        self.sessions = sessions
        self.log = log
        self.most = most
        self.per_source = per_source
        self.old_protocol = old_protocol
        self.read_for = read_for
        self.known: set[Caller] = set()
        self.strangers: dict[Caller, None] = {}  # in order of their arrival
        self.sources: Counter[str] = Counter()
        self.answers: Counter[tuple[str, int]] = Counter()  # by kind of call and status
        self.cut_off: Counter[str] = Counter()  # by reason
        self.errors = 0  # of our own; there should be none

    def __repr__(self) -> str:
        return f"<Port known={len(self.known)} strangers={len(self.strangers)} errors={self.errors}>"

    def arrived(self, caller: Caller) -> bool:
        """Whether one more connection may stay; a full house drops the stranger that has been there longest."""
        if self.per_source and self.sources[caller.peer] >= self.per_source:
            self.cut_off["source"] += 1
            return False
        if len(self.known) + len(self.strangers) >= self.most:
            self.cut_off["full"] += 1
            if not self.strangers:
                return False
            next(iter(self.strangers)).drop()
        self.strangers[caller] = None
        self.sources[caller.peer] += 1
        return True

    def proved(self, caller: Caller) -> None:
        """It speaks for a pod from now on."""
        self.strangers.pop(caller, None)
        self.known.add(caller)

    def left(self, caller: Caller) -> None:
        """It is closed; a second call does nothing."""
        if caller not in self.strangers and caller not in self.known:
            return
        self.strangers.pop(caller, None)
        self.known.discard(caller)
        self.sources[caller.peer] -= 1
        if self.sources[caller.peer] <= 0:
            del self.sources[caller.peer]
        self.sessions.left(caller)

    def gone(self, uid: str) -> None:
        """The pod is gone: nobody may speak for it any more."""
        self.sessions.forget(uid)
        for connection in [held for held in self.known if held.uid == uid]:
            connection.drop()

    def hang_up(self) -> None:
        """To everybody known, after what they are owed: they dial again and ask how things stand."""
        for connection in list(self.known):
            connection.end()

    def close(self) -> None:
        for connection in [*self.known, *self.strangers]:
            connection.drop()
