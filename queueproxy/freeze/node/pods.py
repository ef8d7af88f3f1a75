"""Runs the inventory: lists and watches this node's Knative pods for as long as the freezer lives.

One task. It lists, applies the difference to what it had, then watches from that version on; a watch that the server
ends is taken up where it ended. Anything else, a lost connection, an error, garbage, silence, ends in a pause and a
new list, so that nothing that happened meanwhile is missed. `410 Gone` needs no pause. Nothing is ever raised.

While the API server is away the inventory stays as it was and says since when (`stale_for`): thaws and renewals go by
it, only a new freeze may care (FZ-064). `known` and `gone` are called on the loop, only when something changed, with
at most a few pods between two turns of the loop.
"""

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from contextlib import aclosing
from math import inf
from typing import Final, NamedTuple

from queueproxy.clock import monotonic
from queueproxy.freeze.annotations import PodPolicy
from queueproxy.freeze.node.cluster import ApiError, Cluster
from queueproxy.freeze.node.inventory import REVISION_LABEL, PodFacts, Rules, pod_facts
from queueproxy.freeze.node.listing import members
from queueproxy.log import Log

__all__ = ["Patience", "Pods"]

_PATH: Final = "/api/v1/pods"
_LIST_WITHIN: Final = 30.0  # seconds for one list
_AT_ONCE: Final = 8  # pods of a list between two turns of the loop: 2 ms


class Patience(NamedTuple):
    """How long what may take, in seconds."""

    watch_for: int = 300  # and up to twice that, as client-go asks, so that nodes do not renew together
    silence: float = 150.0  # without even a bookmark, which the server sends each minute: the connection is dead
    pause: float = 0.5  # after a failure; doubles, and half of it is chance
    pause_max: float = 30.0
    settled: float = 5.0  # a watch that lasted so long starts the pauses anew


class _Expired(Exception):
    """The server no longer knows our version (410)."""


class Pods:
    """This node's pods, by uid."""

    def __init__(
        self,
        cluster: Cluster,
        rules: Rules,
        defaults: PodPolicy,
        log: Log,
        *,
        known: Callable[[PodFacts], None],
        gone: Callable[[str], None],
        chance: random.Random | None = None,
        patience: Patience = Patience(),  # noqa: B008 - immutable
    ) -> None:
        self._cluster = cluster
        self._rules = rules
        self._defaults = defaults
        self._log = log
        self._known = known
        self._gone = gone
        self._chance = chance or random.Random()
        self._patience = patience
        self._facts: dict[str, PodFacts] = {}
        self._select = {"fieldSelector": f"spec.nodeName={rules.node}", "labelSelector": REVISION_LABEL}
        self._version = "0"  # to begin with, whatever the server has at hand
        self._task: asyncio.Task[None] | None = None
        self._lost_at = -inf  # since when nothing is heard; inf while the watch is open
        self._pause = 0.0
        self._failing = False
        self.synced = False
        self.lists = self.watches = self.events = self.failures = 0  # for the metrics

    def __repr__(self) -> str:
        state = "watching" if self._lost_at == inf else "lost" if self.synced else "not synced"
        return f"<Pods {len(self._facts)} {state} version={self._version}>"

    def __len__(self) -> int:
        return len(self._facts)

    def __iter__(self) -> Iterator[PodFacts]:
        return iter(self._facts.values())

    def get(self, uid: str) -> PodFacts | None:
        return self._facts.get(uid)

    def stale_for(self, now: float) -> float:
        """Seconds since the watch was lost; 0 while it is open, infinity before the first list."""
        return max(0.0, now - self._lost_at)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._list()
                while True:
                    await self._watch()
            except _Expired:
                self._log.info("pods: version expired, listing again", version=self._version)
                self._version = ""  # the newest there is
                if self._pause:  # and again, shortly after the last time
                    await asyncio.sleep(self._longer_pause())
                self._pause = max(self._pause, self._patience.pause / 2)
            except Exception as error:
                await asyncio.sleep(self._failed(error))

    async def _list(self) -> None:
        self.lists += 1
        query = self._select | {"resourceVersion": self._version}
        if self._version not in ("", "0"):
            query["resourceVersionMatch"] = "NotOlderThan"  # never back to what we have seen change
        try:
            text = (await self._cluster.get(_PATH, query, _LIST_WITHIN)).decode()
        except ApiError as error:
            if error.status in (410, 504):  # 504: a server that is behind us for longer than it wants to wait
                raise _Expired from error
            raise
        seen, version = set(), ""
        for count, (key, value) in enumerate(members(text)):
            if key == "items" and isinstance(value, dict):
                seen.add(self._apply(value))
            elif key == "metadata" and isinstance(value, dict):
                version = str(value.get("resourceVersion", ""))
            if count % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        if not version:
            raise ValueError("a list without a version")
        for uid in self._facts.keys() - seen:  # deleted while nobody was looking
            self._forget(uid)
        self._version = version
        self._lost_at = monotonic()  # until the watch is open
        if not self.synced:
            self._log.info("pods: listed", pods=len(self._facts), version=version)
        self.synced = True

    async def _watch(self) -> None:
        self.watches += 1
        patience = self._patience
        lasts = patience.watch_for + self._chance.randrange(patience.watch_for)
        query = self._select | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(lasts),
        }
        began_at = monotonic()
        try:
            async with aclosing(self._cluster.lines(_PATH, query, patience.silence, lasts + _LIST_WITHIN)) as lines:
                async for line in lines:
                    if line:
                        self._event(json.loads(line))
                    else:
                        self._open()
        except ApiError as error:
            if error.status == 410:
                raise _Expired from error
            raise
        finally:
            self._lost_at = min(self._lost_at, monotonic())
            if monotonic() - began_at >= patience.settled:
                self._pause = 0.0
        if monotonic() - began_at < patience.settled:
            raise ApiError(0, "the watch ended at once")

    def _open(self) -> None:
        self._lost_at = inf
        if self._failing:
            self._log.info("pods: watching again", pods=len(self._facts), version=self._version)
        self._failing = False

    def _event(self, event: dict[str, object]) -> None:
        self.events += 1
        kind, pod = event.get("type"), event.get("object")
        if not isinstance(pod, dict):
            raise ValueError("an event without an object")
        if kind == "ERROR":
            code = pod.get("code")
            if code == 410:
                raise _Expired
            raise ApiError(code if isinstance(code, int) else 0, str(pod.get("message", "watch failed")))
        version = pod["metadata"]["resourceVersion"]
        if kind in ("ADDED", "MODIFIED"):
            self._apply(pod)
        elif kind == "DELETED":
            self._forget(str(pod["metadata"].get("uid", "")))
        self._version = str(version)

    def _apply(self, pod: dict[str, object]) -> str:
        facts = pod_facts(pod, self._defaults, self._rules)
        before = self._facts.get(facts.uid)
        if facts == before or not facts.uid:
            return facts.uid
        self._facts[facts.uid] = facts
        if before is None or before.warnings != facts.warnings:
            for warning in facts.warnings:  # once for each value, not with each event (FZ-110)
                self._log.warning(warning, pod=facts.name, namespace=facts.namespace)
        self._known(facts)
        return facts.uid

    def _forget(self, uid: str) -> None:
        if self._facts.pop(uid, None) is not None:
            self._gone(uid)

    def _failed(self, error: Exception) -> float:
        """Seconds to wait. Said once, until it works again (D13)."""
        self.failures += 1
        if not self._failing:
            self._log.warning(
                "pods: lost the API server; thaws and renewals go on without it",
                error=str(error) or type(error).__name__,
                pods=len(self._facts),
            )
        self._failing = True
        asked_for = error.retry_after if isinstance(error, ApiError) else None
        return min(max(self._longer_pause(), asked_for or 0.0), self._patience.pause_max)

    def _longer_pause(self) -> float:
        self._pause = min(max(self._pause * 2, self._patience.pause), self._patience.pause_max)
        return self._pause * self._chance.uniform(0.5, 1.0)
