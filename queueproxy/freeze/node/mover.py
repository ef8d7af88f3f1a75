"""Moves all containers of one pod to a rung, together or not at all, stepped by the event loop.

What it touches: the pod's containers, each a `Container` with its held cgroups. Nothing is decided here but how to get
there and back. A move goes to every container at once, so a pod of three takes little longer than a pod
of one, and it is answered when the kernel has confirmed the last of them, usually before `move` returns, because most
transitions end within the first looks.

    running      CPU limits back first (FZ-083), then a thaw to every container, whatever becomes of the others
    throttled    CPU limits down, then a thaw of what was frozen
    frozen       CPU limits back, because a throttled task needs its next period to reach the point where it can stop;
                 then a freeze

When one container does not follow a move down, whatever the others have reached is taken back at once, CPU limits
included, and the answer says so only when that is confirmed too (FZ-074). A newer move supersedes an older one, whose
answer never comes.

What happens when that breaks: a container that is gone holds nothing and counts as running, which is an answer to a
thaw and a failure of anything else; a container frozen by somebody else is reported and not fought (FZ-076). State
lives in the kernel. A successor gets `held()` out of the journal and adopts what it finds; a pod with other containers
than before needs a new mover, which may adopt `held()` of the old one.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from queueproxy.clock import monotonic
from queueproxy.freeze.node.beneath import NotACgroup
from queueproxy.freeze.node.container import Container
from queueproxy.freeze.node.held import HeldContainer, HeldError, JournalHeld, decode_held, encode_held
from queueproxy.freeze.node.inventory import ContainerFacts
from queueproxy.freeze.node.locate import Leaf, Tree
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.node.transition import Outcome, Transition
from queueproxy.freeze.vocabulary import Rung

__all__ = ["HeldError", "JournalHeld", "Moved", "PodMover"]

Done = Callable[[Moved], None]

_RUNNING, _THROTTLED, _FROZEN = Rung  # Python 3.11: an enum's attribute is 900 instructions
_GONE, _AS_WISHED = Outcome.GONE, (Outcome.FROZEN, Outcome.THAWED)


class PodMover:
    """Of one pod. Close it when the pod is gone or has other containers."""

    __slots__ = (
        "_began_at", "_containers", "_done", "_frozen_at", "_frozen_for", "_is_taking_back", "_loop", "_problems",
        "_qos", "_rung", "_timer", "_tree", "uid",
    )  # fmt: skip

    def __init__(
        self,
        loop: AbstractEventLoop,
        tree: Tree,
        containers: Sequence[ContainerFacts],
        uid: str,
        qos: str,
        *,
        adopt: JournalHeld | None = None,
    ) -> None:
        """With `adopt`, what a journal remembers of this pod: HeldError when that is not to be believed, OSError when
        it cannot be opened now."""
        self.uid = uid
        self._loop = loop
        self._tree = tree
        self._qos = qos
        self._containers = [Container(facts, may_sleep=True) for facts in containers]
        self._rung = _RUNNING
        self._done: Done | None = None
        self._timer: TimerHandle | None = None
        self._began_at = 0.0
        self._problems: list[str] = []
        self._is_taking_back = False
        self._frozen_at: float | None = None
        self._frozen_for = 0.0
        if adopt is not None:
            try:
                for held in decode_held(adopt, uid):
                    self._adopt(held)
            except BaseException:
                self.close()
                raise
            self._rung = self.seen()
            self._frozen_at = monotonic() if self._rung is _FROZEN else None

    # === Moving. ===

    def move(self, rung: Rung, done: Done) -> None:
        """Start towards `rung`; `done` is called at most once, perhaps before this returns."""
        self._drop()
        self._began_at = monotonic()
        self._rung, self._done = rung, done
        self._is_taking_back = False
        self._problems.clear()
        if rung is not _FROZEN:
            self._count_frozen(self._began_at)
        for container in self._containers:
            if container.leaf is None:
                self._note(container, container.open(self._tree, self.uid, self._qos))
        if rung is _RUNNING:
            for container in self._containers:
                self._restore(container)
                container.thaw()
        else:
            self._sink(rung)
        self._step()

    def close(self) -> None:
        """Let go of everything as it is: nothing is thawed, no answer comes after this."""
        self._drop()
        for container in self._containers:
            container.close()

    def _drop(self) -> None:
        self._done = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for container in self._containers:
            if container.transition is not None:
                container.drop()

    def _restore(self, container: Container) -> None:
        """Lift our CPU limit, if there is one."""
        if problem := container.restore():
            self._note(container, problem)

    def _sink(self, rung: Rung) -> None:
        if not any(container.may_sleep for container in self._containers):
            self._problems.append("no container of this pod may sleep")
        for container in self._containers:
            if container.gone:
                self._note(container, "the cgroup is gone")
            elif not self._problems:  # the first refusal is enough, and what follows would have to be taken back
                if rung is _THROTTLED and container.may_sleep:
                    self._note(container, container.squeeze())
                else:
                    self._restore(container)
        if self._problems:
            self._take_back()
            return
        for container in self._containers:
            if rung is _FROZEN and container.may_sleep:
                container.freeze()
            else:
                container.thaw()

    def _step(self) -> None:
        self._timer = None
        # Spinning is bounded by the schedule of the transitions: 0.1 ms, less than a timer and a turn of the loop.
        while (pause := self._step_all()) == 0.0:
            pass
        if pause is None:
            self._finish()
        else:
            self._timer = self._loop.call_later(pause, self._step)

    def _step_all(self) -> float | None:
        """One step of everything under way; the shortest pause, None when nothing is."""
        shortest: float | None = None
        for container in self._containers:
            transition = container.transition
            if transition is None:
                continue
            pause = transition.step(monotonic())
            if pause is None:
                container.transition = None
                self._ended(container, transition)
            elif shortest is None or pause < shortest:
                shortest = pause
            if self._problems and self._rung is not _RUNNING and not self._is_taking_back:
                self._take_back()
                return 0.0
        return shortest

    def _ended(self, container: Container, transition: Transition) -> None:
        outcome = transition.outcome
        if outcome in _AS_WISHED:
            return
        if outcome is _GONE:
            container.gone = True
            # Nothing holds the app where nothing of ours is left.
            if self._rung is _RUNNING or self._is_taking_back:
                return
        self._note(container, f"{outcome.name.lower().replace('_', ' ')}: {transition.detail}")

    def _take_back(self) -> None:
        """Thaw whatever we have frozen or are about to, and lift every limit of ours."""
        self._is_taking_back = True
        for container in self._containers:
            self._restore(container)
            transition = container.transition
            if transition is None or transition.is_freeze:
                container.drop()
                if container.leaf is not None and container.leaf.freezer.owned:
                    container.thaw()

    def _finish(self) -> None:
        now = monotonic()
        is_reached = not self._problems and not self._is_taking_back
        if not is_reached:
            self._count_frozen(now)
        elif self._rung is _FROZEN and self._frozen_at is None:
            self._frozen_at = now
        gone = bool(self._containers)
        for container in self._containers:
            gone = gone and container.gone
        rung = self._rung if is_reached else None
        moved = Moved(rung, self.mechanism, now - self._began_at, "; ".join(self._problems), gone)
        done, self._done = self._done, None
        if done is not None:
            done(moved)

    def _note(self, container: Container, problem: str) -> None:
        """A problem of a container that only the journal knows is no reason to keep the others awake."""
        if problem and (container.may_sleep or self._rung is _RUNNING):
            self._problems.append(f"{container.facts.name}: {problem}")

    def _count_frozen(self, now: float) -> None:
        if self._frozen_at is not None:
            self._frozen_for += now - self._frozen_at
            self._frozen_at = None

    def _adopt(self, held: HeldContainer) -> None:
        container = next((one for one in self._containers if one.facts.id == held.id), None)
        if container is None:
            container = Container(ContainerFacts(held.name, held.id, ""), may_sleep=False)
            self._containers.append(container)
        try:
            container.adopt(self._tree, held)
        except NotACgroup as error:
            raise HeldError(str(error)) from error

    # === Looking. ===

    @property
    def mechanism(self) -> str:
        """Of the first container found, "" before."""
        for container in self._containers:
            if container.leaf is not None:
                return container.leaf.freezer.mechanism
        return ""

    @property
    def is_blind(self) -> bool:
        """Whether stop signals cannot be seen, because the containers' processes cannot."""
        return any(container.is_blind for container in self._containers)

    def seen(self) -> Rung:
        """The deepest rung that any container is on, whoever put it there: half asleep is not awake."""
        return max((container.seen() for container in self._containers), default=_RUNNING)

    def frozen_usec(self) -> int | None:
        """Time spent frozen, by the kernel's count where it has one, else by our clock (FZ-103); None when nothing is
        held. Differences count: where it starts differs."""
        leaves = list(self._leaves())
        if not leaves:
            return None
        counted: list[int] = []
        with suppress(OSError):
            counted = [count for leaf in leaves if (count := leaf.freezer.frozen_usec()) is not None]
        if counted:
            return max(counted)
        since = 0.0 if self._frozen_at is None else monotonic() - self._frozen_at
        return round((self._frozen_for + since) * 1e6)

    def cpu_usec(self) -> int | None:
        """CPU time all containers have used, None when none of them tells (FZ-105)."""
        counted: list[int] = []
        with suppress(OSError, ValueError):
            counted = [count for leaf in self._leaves() if (count := leaf.cpu_usec()) is not None]
        return sum(counted) if counted else None

    def pids(self) -> frozenset[int]:
        """The processes of all containers, as the harm detector counts them; none that we cannot see."""
        found: set[int] = set()
        for leaf in self._leaves():
            with suppress(OSError):
                found.update(leaf.freezer.pids())
        return frozenset(found - {0})

    def stop_pending(self) -> str | None:
        """The name of a container that waits to be thawed for a stop signal (FZ-055)."""
        for container in self._containers:
            if container.is_stop_pending(self._tree.proc):
                return container.facts.name
        return None

    def held(self) -> JournalHeld:
        """What the journal must remember to undo the next move down, and what has been done. Opens what is not yet."""
        found: list[HeldContainer] = []
        for container in self._containers:
            container.open(self._tree, self.uid, self._qos)  # a problem will show again at the move
            held = container.held()
            if held is not None:
                found.append(held)
        return encode_held(self.uid, found)

    def _leaves(self) -> Iterator[Leaf]:
        return (container.leaf for container in self._containers if container.leaf is not None)

    def __repr__(self) -> str:
        state = "at rest" if self._done is None else "taking back" if self._is_taking_back else "moving"
        return f"<PodMover {self.uid} {self._rung.name} {state} {self._containers!r}>"
