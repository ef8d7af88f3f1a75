"""Decides at the sidecars' port who is calling: the token, and what this node knows of the pod; limits for the rest.

A known token costs one hash and a few look-ups, and the answer is there before `admit` returns. Anything else goes to
the API server through `Reviewer`, and the caller waits without holding anybody up.

When the API server cannot be asked, an older yes still counts for thawing and renewing (`Admission.fresh` is false).
After a restart of the freezer there is no older yes; then a caller is believed who shows the session secret that the
journal has the hash of, from the address the journal knows, for the pod that its token names: thaws never need the API
server (FZ-064, T-18, T-22). Reasons go to the log, callers get one and the same refusal (T-20, T-21).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Protocol

from queueproxy.clock import monotonic, wall_clock
from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.node.claims import (
    Claims,
    Refused,
    Standing,
    Verdict,
    decode_claims,
    objection,
    token_key,
)
from queueproxy.freeze.node.inventory import PodFacts
from queueproxy.freeze.node.limits import Limits
from queueproxy.freeze.node.port import Admission
from queueproxy.freeze.node.record import Record
from queueproxy.freeze.node.review import Reviewer
from queueproxy.freeze.wire import Problem
from queueproxy.log import Log

__all__ = ["Entrance", "facts_of"]

_COME_AGAIN = 1.0  # seconds, for those whose token nobody can judge now
_UNSEEN = 0.25  # seconds, for a pod that the watch is about to show


class Inventory(Protocol):
    """The pods of this node, as the API server shows them."""

    def get(self, uid: str) -> PodFacts | None: ...


class Entrance:
    """The `Door` of the sidecars' port."""

    def __init__(
        self,
        reviewer: Reviewer,
        pods: Inventory,
        adopted: Mapping[str, Record],
        limits: Limits,
        log: Log,
        *,
        audience: str,
        node: str,
        check_peer: bool = True,
    ) -> None:
        self._reviewer = reviewer
        self._pods = pods
        self._adopted = adopted
        self._limits = limits
        self._log = log
        self._audience = audience
        self._node = node
        self._check_peer = check_peer

    def __repr__(self) -> str:
        return f"<Entrance {self._reviewer!r} {self._limits!r}>"

    def admit(self, token: str, secret: str | None, peer: str, admitted: Callable[[Admission], None]) -> None:
        verdict = self._reviewer.known(token)
        if verdict is not None and verdict.standing is Standing.GOOD:
            admitted(self._judged(verdict, token, secret, peer))
            return
        # Whoever is not known pays by the call; a known sidecar is never kept out by somebody else's noise. Where
        # addresses mean nothing, all may share one: then each token pays for itself, and all together.
        source = peer if self._check_peer else token_key(token).hex()
        wait = self._limits.call(monotonic(), source)
        if not wait and verdict is None:
            wait = self._limits.unproven(monotonic(), source)
        if wait:
            admitted(Admission("", Problem.RATE_LIMITED, wait))
        elif verdict is not None:
            admitted(self._judged(verdict, token, secret, peer))
        elif self._vouched(token, secret) is not None:
            # A thaw does not wait for the API server either, not even for its client to be loaded.
            self._reviewer.ask(token, lambda verdict: None)
            admitted(self._judged(Verdict(Standing.UNKNOWN), token, secret, peer))
        else:
            self._reviewer.ask(token, lambda verdict: admitted(self._judged(verdict, token, secret, peer)))

    def admit_again(self, key: bytes, peer: str) -> Admission | None:
        verdict = self._reviewer.remembered(key)
        if verdict is None or verdict.standing is not Standing.GOOD or verdict.claims is None:
            return None
        claims = verdict.claims
        facts = self._pods.get(claims.uid)
        if facts is None or objection(claims, facts, peer if self._check_peer else None):
            return None
        return Admission(claims.uid)

    def locked_out(self, peer: str) -> bool:
        """Somebody with a good token and no session: charged like a stranger. True: too often."""
        return bool(self._limits.call(monotonic(), peer))

    def pace(self, uid: str) -> float:
        """How long the pod's next call has to wait for its turn, in seconds; usually not at all."""
        return self._limits.pod(monotonic(), uid)

    def facts(self, uid: str) -> PodFacts | None:
        """Of the inventory, or what the journal remembers while the inventory does not know the pod."""
        facts = self._pods.get(uid)
        if facts is None and (record := self._adopted.get(uid)) is not None:
            return facts_of(record, self._node)
        return facts

    def screen(self, claims: Claims) -> str:
        """For the reviewer: what speaks against these claims before a review is spent on them."""
        return objection(claims, self.facts(claims.uid), None)

    def _judged(self, verdict: Verdict, token: str, secret: str | None, peer: str) -> Admission:
        claims = verdict.claims
        if verdict.standing is Standing.UNKNOWN:
            claims = self._vouched(token, secret)
            if claims is None:
                return Admission("", Problem.NOT_READY, _COME_AGAIN)
        elif claims is None:
            return self._refused(token, verdict.reason, peer)
        facts = self.facts(claims.uid)
        if facts is None:
            return Admission("", Problem.NOT_READY, _UNSEEN)  # or a pod of another node: it will never be ready here
        reason = objection(claims, facts, peer if self._check_peer else None)
        if reason:
            return self._refused(token, reason, peer, claims)
        return Admission(claims.uid, fresh=verdict.standing is Standing.GOOD)

    def _vouched(self, token: str, secret: str | None) -> Claims | None:
        """By the journal, for a caller whose token cannot be judged."""
        try:
            claims = decode_claims(token, self._audience, self._node, wall_clock())
        except Refused:
            return None
        record = self._adopted.get(claims.uid)
        if record is None or not record.proof or secret is None:
            return None
        return claims if compare_digest(sha256(secret.encode()).hexdigest(), record.proof) else None

    def _refused(self, token: str, reason: str, peer: str, claims: Claims | None = None) -> Admission:
        told = {"pod": claims.pod, "namespace": claims.namespace, "jti": claims.jwt_id} if claims is not None else {}
        self._log.warning("caller refused", reason=reason, peer=peer, token=token_key(token).hex()[:12], **told)
        return Admission("", Problem.FORBIDDEN)


def facts_of(record: Record, node: str) -> PodFacts:
    """A pod that only the journal knows; it is never put to sleep by these."""
    return PodFacts(
        record.uid, record.namespace, record.name, node, record.ips, record.revision, record.qos, DEFAULTS, (),
        record.sidecar_id, False, "not known yet",
    )  # fmt: skip
