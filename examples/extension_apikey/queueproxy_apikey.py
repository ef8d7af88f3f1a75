"""Lets requests through that carry a key the revision knows, and tells the app whose key it was.

A revision opts in with an annotation on its pods; the keys are in it only as SHA-256:

    example.com/apikeys: "9f86d0…=ann,60303a…=bob"

    $ curl -H "Authorization: Bearer <key>" …      the app sees X-Caller: ann, and not the key
"""

from __future__ import annotations

import json
from hashlib import sha256

from queueproxy.extensions import Answer, Extension, Outcome, Request, Response, Setup

ANNOTATION = "example.com/apikeys="
DENIED = Answer(401, b"a valid API key is needed\n", [(b"WWW-Authenticate", b"Bearer")])
SLOW = 1.0  # seconds


class ApiKey(Extension):
    """Made once, when the process starts. What is raised here keeps it from starting."""

    def __init__(self, setup: Setup) -> None:
        self.log = setup.log
        with open(setup.podinfo) as annotations:  # needs `queueproxy.mount-podinfo: enabled` in config-features
            self.owners = owners(annotations.read())
        self.log.info("API keys are asked for" if self.owners else "everybody may come in", keys=len(self.owners))

    def request(self, request: Request) -> Answer | None:
        request.headers.remove(b"X-Caller")  # nobody says that but us
        if not self.owners:
            return None
        scheme, _, key = (request.headers.get(b"Authorization") or b"").partition(b" ")
        owner = self.owners.get(sha256(key.strip()).hexdigest()) if scheme.lower() == b"bearer" else None
        if owner is None:
            return DENIED
        request.headers.remove(b"Authorization")  # the app has no need of the key
        request.headers.set(b"X-Caller", owner)
        request.notes["caller"] = owner.decode()
        return None

    def response(self, request: Request, response: Response) -> None:
        if self.owners:
            response.headers.add(b"Vary", b"Authorization")  # a cache must not hand one caller's answer to another

    def finished(self, request: Request, outcome: Outcome) -> None:
        if outcome.took > SLOW:
            caller = request.notes.get("caller", "")
            self.log.warning("slow request", caller=caller, status=outcome.status, took=round(outcome.took, 3))


def owners(annotations: str) -> dict[str, bytes]:
    """Owner by SHA-256 of the key, from the file of the pod's annotations: `name="value"`, one a line."""
    for line in annotations.splitlines():
        if line.startswith(ANNOTATION):
            pairs = json.loads(line.removeprefix(ANNOTATION)).split(",")
            return {digest.strip().lower(): owner.strip().encode() for digest, owner in (p.split("=") for p in pairs)}
    return {}
