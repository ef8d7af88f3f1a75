"""Holds one container of a pod: its cgroups once found, the transition it is in, and the watch for its stop signal.

What it touches: the freezer and the CPU limit of one container, by held descriptors. A problem comes back as text, ""
being none; a container that has gone sets `gone`, which is not a problem here but a fact for the mover to judge.
"""

from contextlib import suppress

from queueproxy.freeze.node.beneath import NotACgroup
from queueproxy.freeze.node.held import HeldContainer
from queueproxy.freeze.node.inventory import ContainerFacts
from queueproxy.freeze.node.locate import Leaf, Tree
from queueproxy.freeze.node.naming import BadName
from queueproxy.freeze.node.stopsign import StopSign
from queueproxy.freeze.node.throttle import Squeeze
from queueproxy.freeze.node.transition import Transition
from queueproxy.freeze.vocabulary import Rung

__all__ = ["Container"]


class Container:
    """One container. `may_sleep` is false for one that only the journal knows: it is thawed, never put to sleep."""

    __slots__ = ("_sign", "facts", "gone", "leaf", "may_sleep", "transition")

    def __init__(self, facts: ContainerFacts, *, may_sleep: bool) -> None:
        self.facts = facts
        self.may_sleep = may_sleep
        self.leaf: Leaf | None = None
        self.transition: Transition | None = None
        self.gone = False
        self._sign: StopSign | None = None

    # === Finding it. ===

    def open(self, tree: Tree, uid: str, qos: str) -> str:
        """Hold its cgroups, unless they are held already."""
        if self.leaf is not None:
            return ""
        try:
            self.leaf = tree.find(uid, qos, self.facts.id, self.facts.runtime)
        except FileNotFoundError:
            self.gone = True
            return ""
        except (NotACgroup, BadName, OSError) as error:
            return f"cannot be opened: {error}"
        self.gone = False
        return ""

    def adopt(self, tree: Tree, held: HeldContainer) -> None:
        """Hold what a journal remembers, a freeze and a CPU limit of ours included; NotACgroup where we may not."""
        try:
            self.leaf = leaf = tree.adopt(held)
        except FileNotFoundError:
            self.gone = True
            return
        throttle = leaf.throttle
        # A record that cannot be compared now is compared again when the limit is lifted.
        with suppress(OSError, ValueError):
            if held.owned:
                leaf.freezer.adopt()
            if throttle is not None and throttle.is_squeezed and str(throttle.read()) != throttle.squeezed:
                throttle.restore()  # writes nothing then, and forgets what was never done

    def held(self) -> HeldContainer | None:
        """What a journal must remember of it before it is put to sleep; None when there is nothing to hold."""
        leaf = self.leaf
        if leaf is None or self.gone:
            return None
        owned = leaf.freezer.owned
        previous = squeezed = None
        throttle = leaf.throttle
        with suppress(OSError, ValueError):
            # Not frozen now: what is found frozen later is ours, because this is written before we freeze.
            owned = owned or not leaf.freezer.observe().wanted_frozen
            if throttle is not None and throttle.previous is not None:
                previous, squeezed = throttle.previous, throttle.squeezed
            elif throttle is not None:
                present = throttle.read()
                if present is not None and present.share > throttle.limit.share:
                    previous, squeezed = str(present), str(throttle.limit)
        return HeldContainer(self.facts.name, self.facts.id, leaf.spot, owned, leaf.cpu_spot, previous, squeezed)

    def close(self) -> None:
        """Let go of it as it is."""
        self.drop()
        if self._sign is not None:
            self._sign.close()
        if self.leaf is not None:
            self.leaf.close()
        self.leaf = self._sign = None

    # === Moving it. ===

    def freeze(self) -> None:
        if self.leaf is not None:
            self.transition = self.leaf.freezer.freeze()

    def thaw(self) -> None:
        """At once where it is a plain freeze of ours, which a request waits for; else step by step."""
        if self.leaf is not None and not self.leaf.freezer.thaw_at_once():
            self.transition = self.leaf.freezer.thaw()

    def drop(self) -> None:
        """Stop driving the transition; whatever has been written stays."""
        if self.transition is not None:
            self.transition.abandon()
            self.transition = None

    def squeeze(self) -> str:
        throttle = None if self.leaf is None else self.leaf.throttle
        if throttle is None:
            return "no cpu controller"
        outcome = throttle.squeeze()
        if outcome is Squeeze.SQUEEZED or outcome is Squeeze.UNCHANGED:
            return ""
        self.gone = outcome is Squeeze.GONE
        return "the cgroup is gone" if self.gone else f"cannot throttle: {throttle.detail}"

    def restore(self) -> str:
        """Lift our CPU limit. A vanished cgroup limits nothing, and somebody else's limit is theirs (FZ-082)."""
        throttle = None if self.leaf is None else self.leaf.throttle
        if throttle is not None and throttle.is_squeezed and throttle.restore() is Squeeze.FAILED:
            return f"cannot restore the CPU limit: {throttle.detail}"
        return ""

    # === Looking at it. ===

    def seen(self) -> Rung:
        """Where the kernel has it, whoever put it there."""
        leaf = self.leaf
        if leaf is None:
            return Rung.RUNNING
        with suppress(OSError, ValueError):
            if leaf.freezer.observe().frozen:
                return Rung.FROZEN
            throttle = leaf.throttle
            if throttle is not None and throttle.is_squeezed and str(throttle.read()) == throttle.squeezed:
                return Rung.THROTTLED
        return Rung.RUNNING

    def is_stop_pending(self, proc: str) -> bool:
        """Whether it waits to be thawed for a stop signal (FZ-055)."""
        if self.leaf is None:
            return False
        if self._sign is None:
            self._sign = StopSign(self.leaf.freezer.cgroup, self.facts.stop_signal, proc=proc)
        with suppress(OSError):
            return self._sign.is_pending()
        return False

    @property
    def is_blind(self) -> bool:
        """Whether its processes, and so its stop signals, are hidden from us."""
        return self._sign is not None and self._sign.blind

    def __repr__(self) -> str:
        return f"<Container {self.facts.name} {self.transition!r}{' gone' if self.gone else ''}>"
