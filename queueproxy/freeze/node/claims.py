"""Decides which pod a token speaks for: by its shape before anybody is asked, and by the API server's answer after.

Theory of operation. A projected token is a JWT whose payload names its pod. `decode_claims` reads it without verifying
anything, only to turn away what can never be good: another audience, expired, not bound to a pod, bound to another
node. That costs no call, so a flood of bad tokens makes no TokenReviews (T-13). What passes proves nothing yet.

`confirm` reads the API server's answer to the review. It must say authenticated, name our audience (without that a
token for the API server itself would do, T-02), and name the very pod that the claims name (T-03). `Verdicts` keeps
what was learned under the token's hash: a yes is fresh for five minutes and kept for as long as the token lives, since
thawing may not depend on the API server (FZ-064); a no is kept for ten seconds (FZ-126).

`objection` finally compares with what this node knows: the pod runs here under that name and the call comes from its
address (T-04, T-05, FZ-128). Reasons are for the log. Callers get one and the same 403 for all of them (T-20).

`now` is monotonic and `wall` is seconds since the epoch, because that is what `exp` means.
"""

import binascii
import hashlib
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from enum import IntEnum
from ipaddress import IPv6Address, ip_address
from math import isfinite
from typing import Final, NamedTuple

from queueproxy.freeze.node.inventory import PodFacts

__all__ = [
    "FRESH_FOR",
    "Claims",
    "Refused",
    "Standing",
    "Verdict",
    "Verdicts",
    "confirm",
    "decode_claims",
    "objection",
    "token_key",
]

TOKEN_MAX: Final = 4096  # bytes (FZ-134); a projected token has about 1,200
LEEWAY: Final = 10.0  # seconds by which two clocks of one cluster may differ
FRESH_FOR: Final = 300.0  # FZ-126
REFUSED_FOR: Final = 10.0  # FZ-126; a pod that is just starting is not locked out for long
_KEPT_MAX: Final = 4096  # verdicts; 250 pods with two tokens each around a rotation leave room for strangers
_SHAPE: Final = re.compile(r"([A-Za-z0-9_-]{4,})\.([A-Za-z0-9_-]{4,})\.([A-Za-z0-9_-]{4,})")
_EXTRA: Final = "authentication.kubernetes.io/"
_ACCOUNT: Final = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})")


class Refused(Exception):
    """Not a token that speaks for a pod here. The words are for the log."""


class Claims(NamedTuple):
    """The pod that a token is bound to."""

    namespace: str
    pod: str
    uid: str
    account: str
    node: str  # empty where the cluster does not bind tokens to nodes (before Kubernetes 1.30)
    expires_at: float  # wall clock
    jwt_id: str  # may be logged, unlike the token (T-21)


class Standing(IntEnum):
    """What is known of a token."""

    GOOD = 0  # confirmed lately: may do everything
    STALE = 1  # confirmed once, and the API server cannot be asked now: may thaw, renew and read
    REFUSED = 2  # the 403
    UNKNOWN = 3  # nobody can be asked now: try again later


class Verdict(NamedTuple):
    """What became of a token. `reason` is for the log."""

    standing: Standing
    claims: Claims | None = None
    reason: str = ""


def token_key(token: str) -> bytes:
    """The token's name in tables and, shortened, in logs."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def decode_claims(token: str, audience: str, node: str, wall: float) -> Claims:
    """What the token says of itself, unverified. Raises `Refused`."""
    match = _SHAPE.fullmatch(token) if len(token) <= TOKEN_MAX else None
    if match is None:
        raise Refused("not a token")
    head, payload = _decoded(match[1]), _decoded(match[2])
    algorithm = head.get("alg")
    if not isinstance(algorithm, str) or algorithm.lower() == "none":
        raise Refused("not signed")
    audiences = payload.get("aud")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise Refused("another audience")
    expires_at = _instant(payload, "exp")
    if expires_at is None or wall >= expires_at + LEEWAY:
        raise Refused("expired")
    starts_at = _instant(payload, "nbf")
    if starts_at is not None and wall < starts_at - LEEWAY:
        raise Refused("not valid yet")
    bound = _mapping(payload.get("kubernetes.io"))
    pod, account = _mapping(bound.get("pod")), _mapping(bound.get("serviceaccount"))
    claims = Claims(
        namespace=_string(bound.get("namespace")),
        pod=_string(pod.get("name")),
        uid=_string(pod.get("uid")),
        account=_string(account.get("name")),
        node=_string(_mapping(bound.get("node")).get("name")),
        expires_at=expires_at,
        jwt_id=_printable(_string(payload.get("jti"))),
    )
    if not (claims.namespace and claims.pod and claims.uid):
        raise Refused("not bound to a pod")
    if payload.get("sub") != f"system:serviceaccount:{claims.namespace}:{claims.account}":
        raise Refused("not a service account's")
    if claims.node and claims.node != node:
        raise Refused("bound to another node")
    return claims


def confirm(claims: Claims, answer: Mapping[str, object], audience: str, node: str) -> Claims:
    """The claims, now that the API server's TokenReview says the same. Raises `Refused`."""
    status = _mapping(answer.get("status"))
    user = _mapping(status.get("user"))
    if status.get("authenticated") is not True:
        raise Refused("not authenticated")
    audiences = status.get("audiences")
    if not isinstance(audiences, list) or audience not in audiences:
        raise Refused("authenticated for another audience")
    account = _ACCOUNT.fullmatch(_string(user.get("username")))
    if account is None or account[1] != claims.namespace or account[2] != claims.account:
        raise Refused("authenticated as another account")
    extra = _mapping(user.get("extra"))
    if (_only(extra, "pod-uid"), _only(extra, "pod-name")) != (claims.uid, claims.pod):
        raise Refused("authenticated for another pod")
    if _EXTRA + "node-name" in extra and _only(extra, "node-name") != node:
        raise Refused("authenticated for another node")
    return claims


def objection(claims: Claims, facts: PodFacts | None, peer: str | None) -> str:
    """Why these claims do not fit what the node knows; empty when they do. No facts, no objection: a thaw may come
    before the pod is known. `peer` is the caller's address, None where that is not to be checked."""
    if facts is None:
        return ""
    if (facts.uid, facts.namespace, facts.name) != (claims.uid, claims.namespace, claims.pod):
        return "the pod of that uid has another name"
    if peer is not None and not _among(peer, facts.ips):
        return "the call does not come from the pod's address"
    return ""


class Verdicts:
    """What was learned of tokens, by `token_key`; bounded, the longest unused goes first. `fresh_for`: seconds that a
    yes is good for everything."""

    __slots__ = ("_fresh_for", "_kept")

    def __init__(self, fresh_for: float = FRESH_FOR) -> None:
        self._fresh_for = fresh_for
        self._kept: dict[bytes, tuple[Claims | None, str, float]] = {}  # claims or reason, and until when fresh

    def __repr__(self) -> str:
        return f"<Verdicts {len(self._kept)}>"

    def get(self, now: float, wall: float, key: bytes) -> Verdict | None:
        """None: somebody has to be asked. A yes that has aged is None too: `aged` has it."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return None
        claims, reason, fresh_until = kept
        if claims is None:
            if now >= fresh_until:
                return None
            self._kept[key] = kept
            return Verdict(Standing.REFUSED, None, reason)
        if wall >= claims.expires_at + LEEWAY:
            return None
        self._kept[key] = kept
        return Verdict(Standing.GOOD, claims) if now < fresh_until else None

    def aged(self, wall: float, key: bytes) -> Verdict | None:
        """A yes of any age whose token is still alive: for when nobody can be asked (FZ-064)."""
        claims, _, _ = self._kept.get(key, (None, "", 0.0))
        if claims is None or wall >= claims.expires_at + LEEWAY:
            return None
        return Verdict(Standing.STALE, claims)

    def confirmed(self, now: float, wall: float, key: bytes, claims: Claims) -> Verdict:
        self._keep(key, claims, "", now + min(self._fresh_for, claims.expires_at - wall))
        return Verdict(Standing.GOOD, claims)

    def refused(self, now: float, key: bytes, reason: str) -> Verdict:
        self._keep(key, None, reason, now + REFUSED_FOR)
        return Verdict(Standing.REFUSED, None, reason)

    def gone(self, uid: str) -> None:
        """The pod was deleted: a yes for it is no longer worth anything."""
        for key in [key for key, (claims, _, _) in self._kept.items() if claims is not None and claims.uid == uid]:
            del self._kept[key]

    def _keep(self, key: bytes, claims: Claims | None, reason: str, fresh_until: float) -> None:
        self._kept.pop(key, None)
        self._kept[key] = (claims, reason, fresh_until)
        if len(self._kept) > _KEPT_MAX:
            # A flood of bad tokens must not push out the good ones: of the oldest, a refusal goes first.
            self._drop_one()

    def _drop_one(self) -> None:
        oldest = next(iter(self._kept))
        victim = next((key for key, (claims, _, _) in self._kept.items() if claims is None), oldest)
        del self._kept[victim]


def _decoded(part: str) -> Mapping[str, object]:
    try:
        value = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise Refused("not a token") from None
    if not isinstance(value, dict):
        raise Refused("not a token")
    return value


def _instant(payload: Mapping[str, object], key: str) -> float | None:
    value = payload.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if isfinite(seconds) else None


def _only(extra: Mapping[str, object], key: str) -> str:
    """An extra's value: there must be exactly one (indexing the first of none was the old daemon's panic, T-03)."""
    values = extra.get(_EXTRA + key)
    return _string(values[0]) if isinstance(values, list) and len(values) == 1 else ""


def _among(peer: str, addresses: Sequence[str]) -> bool:
    if peer in addresses:
        return True
    known = {_canonical(address) for address in addresses}
    return _canonical(peer) in known - {None}


def _canonical(address: str) -> object:
    try:
        parsed = ip_address(address.partition("%")[0])  # without the scope of a link-local address
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _printable(text: str) -> str:
    return "".join(letter for letter in text[:64] if letter.isascii() and letter.isprintable())
