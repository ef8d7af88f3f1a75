"""Holds what is known of tokens and asks the API server about the rest, one TokenReview per token at a time.

`known` answers without waiting and is all that the common path needs. `ask` answers through a callback, once: callers
with the same token share one review, eight reviews run at once, the others wait in a bounded queue. When the API
server does not answer, an older yes still lets a pod thaw and renew (`Standing.STALE`, FZ-064), everybody else is told
to come again, and for a moment nobody is asked at all, so that an outage costs neither time nor calls.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from queueproxy.clock import monotonic, wall_clock
from queueproxy.freeze.node.claims import (
    FRESH_FOR,
    Claims,
    Refused,
    Standing,
    Verdict,
    Verdicts,
    confirm,
    decode_claims,
    token_key,
)
from queueproxy.freeze.node.cluster import ApiError, Cluster
from queueproxy.log import Log

__all__ = ["Reviewer"]

Answered = Callable[[Verdict], None]

_PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_AT_ONCE: Final = 8  # FZ-130; a review takes some milliseconds
_QUEUED_MAX: Final = 256  # all pods of a node at once
_SHARING_MAX: Final = 64  # callers that wait for the same token
_WITHIN: Final = 3.0  # seconds for one review
_PAUSE, _PAUSE_MAX = 0.25, 5.0  # seconds without calls after a failed one; doubles


class Reviewer:
    """`screen`: what the node itself holds against some claims, before a review is spent on them; empty: nothing.
    `within`: seconds for one review; `fresh_for`: how long its yes is good for everything."""

    def __init__(
        self,
        cluster: Cluster,
        audience: str,
        node: str,
        log: Log,
        screen: Callable[[Claims], str] = lambda claims: "",
        within: float = _WITHIN,
        fresh_for: float = FRESH_FOR,
    ) -> None:
        self._cluster = cluster
        self._audience = audience
        self._node = node
        self._log = log
        self._screen = screen
        self._within = within
        self._verdicts = Verdicts(fresh_for)
        self._waiting: dict[bytes, list[Answered]] = {}
        self._queue: deque[tuple[bytes, str, Claims]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._pause = 0.0
        self._quiet_until = 0.0
        self.reviews = 0  # calls made, for the metrics
        self.failures = 0  # of these without an answer

    def __repr__(self) -> str:
        return f"<Reviewer {self._verdicts!r} running={len(self._running)} queued={len(self._queue)}>"

    def known(self, token: str) -> Verdict | None:
        """What is known without asking; None: `ask`."""
        wall = wall_clock()
        verdict = self._verdicts.get(monotonic(), wall, token_key(token))
        if verdict is not None:
            return verdict
        try:
            self._screened(token, wall)
        except Refused as refused:
            return Verdict(Standing.REFUSED, None, str(refused))
        return None

    def remembered(self, key: bytes) -> Verdict | None:
        """The same of a token by its `token_key`; nothing is judged anew."""
        return self._verdicts.get(monotonic(), wall_clock(), key)

    def ask(self, token: str, answered: Answered) -> None:
        """Calls `answered` once, now or later."""
        key, now, wall = token_key(token), monotonic(), wall_clock()
        verdict = self._verdicts.get(now, wall, key)
        if verdict is not None:
            answered(verdict)
            return
        try:
            claims = self._screened(token, wall)
        except Refused as refused:
            answered(Verdict(Standing.REFUSED, None, str(refused)))
            return
        sharing = self._waiting.get(key)
        if sharing is not None and len(sharing) < _SHARING_MAX:
            sharing.append(answered)
        elif now < self._quiet_until:
            answered(self._without_review(key, "the API server does not answer"))
        elif sharing is not None or len(self._queue) >= _QUEUED_MAX:
            answered(self._without_review(key, "too many reviews are waiting"))
        else:
            self._waiting[key] = [answered]
            self._queue.append((key, token, claims))
            self._start_next()

    def gone(self, uid: str) -> None:
        """The pod was deleted."""
        self._verdicts.gone(uid)

    async def close(self) -> None:
        """Who still waits is told to come again."""
        self._queue.clear()
        for task in (running := list(self._running)):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for key in list(self._waiting):
            self._settle(key, Verdict(Standing.UNKNOWN, None, "the freezer is stopping"))

    def _screened(self, token: str, wall: float) -> Claims:
        claims = decode_claims(token, self._audience, self._node, wall)
        if objection := self._screen(claims):
            raise Refused(objection)
        return claims

    def _start_next(self) -> None:
        while self._queue and len(self._running) < _AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._review(*self._queue.popleft()))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._start_next()

    async def _review(self, key: bytes, token: str, claims: Claims) -> None:
        verdict = Verdict(Standing.UNKNOWN)
        try:
            verdict = await self._judged(key, token, claims)
        finally:
            self._settle(key, verdict)

    async def _judged(self, key: bytes, token: str, claims: Claims) -> Verdict:
        if monotonic() < self._quiet_until:  # the calls before this one failed while it was queued
            return self._without_review(key, "the API server does not answer")
        self.reviews += 1
        spec = {"token": token, "audiences": [self._audience]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        try:
            answer = await self._cluster.post(_PATH, body, self._within)
        except ApiError as error:
            self.failures += 1
            self._pause = min(max(self._pause * 2, _PAUSE), _PAUSE_MAX)
            self._quiet_until = monotonic() + (error.retry_after or self._pause)
            self._log.warning("TokenReview failed", error=str(error), pod=claims.pod, namespace=claims.namespace)
            return self._without_review(key, str(error))
        self._pause = 0.0
        now, wall = monotonic(), wall_clock()
        told = {"pod": claims.pod, "namespace": claims.namespace, "token": key.hex()[:12], "jti": claims.jwt_id}
        try:
            confirm(claims, answer, self._audience, self._node)
        except Refused as refused:
            self._log.warning("token refused", reason=str(refused), **told)
            return self._verdicts.refused(now, key, str(refused))
        self._log.debug("token confirmed", **told)
        return self._verdicts.confirmed(now, wall, key, claims)

    def _without_review(self, key: bytes, reason: str) -> Verdict:
        return self._verdicts.aged(wall_clock(), key) or Verdict(Standing.UNKNOWN, None, reason)

    def _settle(self, key: bytes, verdict: Verdict) -> None:
        for answered in self._waiting.pop(key, ()):
            try:
                answered(verdict)
            except Exception as error:  # one caller's mistake is not the next one's
                self._log.error("review: a caller failed", error=repr(error))
