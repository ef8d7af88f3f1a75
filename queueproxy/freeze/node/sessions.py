"""Decides who may speak for a pod among those who hold a valid token for it: sessions (FZ-129, T-05, T-06, T-22).

Theory of operation. Knative lets user containers mount a token of the same audience, so a token proves the pod and
not the sidecar. The first valid request for a pod opens a session and learns its secret; the secret belongs to the
connection that asked. From then on

    the holder's own connection     may speak; a wrong secret is refused even there
    another connection, secret      the holder has dialled anew: the session moves to that connection
    another connection, no secret   refused while the holder's connection is open
    the same, holder's is closed    a new session, a new secret
    the same, new sidecar           a new session: the pod watch shows another queue-proxy container than the holder's

So a restarted sidecar is never locked out, a restarted freezer asks for nothing that it forgot, and an app cannot act
while its sidecar is connected. Secrets come from `mint`, compare in constant time and stay out of every repr. The
journal gets a hash of them, the `proof`, with which a successor recognises the sidecar of a sleeping pod (`restore`).
"""

from collections.abc import Callable, Hashable
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NamedTuple

__all__ = ["LOCKED_OUT", "Entry", "Sessions"]


class Entry(NamedTuple):
    """Whether a request may go on. `issue`: the secret to tell with the answer, None when the caller knows it."""

    allowed: bool
    issue: str | None


LOCKED_OUT: Final = Entry(False, None)
_GO_ON: Final = Entry(True, None)


class _Session:
    __slots__ = ("connection", "proof", "secret", "sidecar")

    def __init__(self, proof: str, secret: str | None, sidecar: str) -> None:
        self.proof = proof
        self.secret = secret  # None: only its proof is known
        self.connection: Hashable | None = None
        self.sidecar = sidecar


class Sessions:
    """The sessions of all pods of this node, at most one each."""

    __slots__ = ("_by_connection", "_by_uid", "_mint", "takeovers")

    def __init__(self, mint: Callable[[], str]) -> None:
        self._mint = mint
        self._by_uid: dict[str, _Session] = {}
        self._by_connection: dict[Hashable, set[str]] = {}
        self.takeovers = 0  # sessions that passed to somebody without the secret

    def __repr__(self) -> str:
        held = sum(session.connection is not None for session in self._by_uid.values())
        return f"<Sessions {len(self._by_uid)}, {held} connected, {self.takeovers} taken over>"

    def enter(self, uid: str, connection: Hashable, offered: str | None, sidecar: str = "") -> Entry:
        """A request with a valid token for pod `uid` came on `connection`, with this secret or None.

        sidecar: the queue-proxy container as the pod watch shows it now, "" when it does not show.
        """
        session = self._by_uid.get(uid)
        if session is None:
            return self._open(uid, connection, sidecar)
        if offered is not None and compare_digest(_hashed(offered), session.proof):
            if session.connection != connection:
                self._bind(uid, session, connection)
            if sidecar:
                session.sidecar = sidecar
            return _GO_ON
        if session.connection == connection:
            # A first answer may still be on its way when the second request leaves: nothing offered is no lie.
            return Entry(True, session.secret) if offered is None else LOCKED_OUT
        if session.connection is None or (sidecar and session.sidecar and sidecar != session.sidecar):
            self.takeovers += 1
            self._release(uid, session)
            return self._open(uid, connection, sidecar)
        return LOCKED_OUT

    def held(self, uid: str, sidecar: str = "") -> bool:
        """Whether a connected sidecar speaks for the pod. The old protocol, which has no secrets, is silent then."""
        session = self._by_uid.get(uid)
        if session is None or session.connection is None:
            return False
        return not (sidecar and session.sidecar and sidecar != session.sidecar)

    def proof(self, uid: str) -> str:
        """What the journal may keep of the pod's secret; "" without a session."""
        session = self._by_uid.get(uid)
        return session.proof if session is not None else ""

    def restore(self, uid: str, proof: str, sidecar: str) -> None:
        """A former freezer's session, from the journal: its sidecar is known by its secret again."""
        if proof and uid not in self._by_uid:
            self._by_uid[uid] = _Session(proof, None, sidecar)

    def left(self, connection: Hashable) -> None:
        """The connection is closed: its sessions wait for their secret or for a successor."""
        for uid in self._by_connection.pop(connection, ()):
            self._by_uid[uid].connection = None

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        session = self._by_uid.pop(uid, None)
        if session is not None:
            self._release(uid, session)

    def _open(self, uid: str, connection: Hashable, sidecar: str) -> Entry:
        secret = self._mint()
        session = self._by_uid[uid] = _Session(_hashed(secret), secret, sidecar)
        self._bind(uid, session, connection)
        return Entry(True, secret)

    def _bind(self, uid: str, session: _Session, connection: Hashable) -> None:
        self._release(uid, session)
        session.connection = connection
        self._by_connection.setdefault(connection, set()).add(uid)

    def _release(self, uid: str, session: _Session) -> None:
        held = self._by_connection.get(session.connection)
        if held is not None:
            held.discard(uid)
            if not held:
                del self._by_connection[session.connection]
        session.connection = None


def _hashed(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
