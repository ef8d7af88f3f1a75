"""Calls the sidecars' port of a freezer over a real socket, and the scripted parts that its tests put behind it."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.node.claims import token_key
from queueproxy.freeze.node.port import Admission, Answered
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import OldAction, Problem, StateRequest, View, Wanted

PATIENCE = 10.0


class Reply(NamedTuple):
    """One answer as the client sees it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """Of a problem."""
        assert self.headers["content-type"] == "application/problem+json"
        return self.json["type"].removeprefix("urn:queueproxy:")


class Caller:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def dial(cls, port: int, host: str = "127.0.0.1", source: str = "") -> Self:
        local = (source, 0) if source else None
        return cls(*await asyncio.open_connection(host, port, local_addr=local))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> Reply:
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rest = head[:-4].split("\r\n")
            headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in rest)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(int(line.split(" ")[1]), headers, body)

    async def call(self, data: bytes) -> Reply:
        self.send(data)
        return await self.reply()

    @property
    def is_lost(self) -> bool:
        return self.reader.at_eof() or self.reader.exception() is not None or self.writer.is_closing()

    async def ended(self) -> bytes:
        """What still comes before the other side ends the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.transport.abort()

    async def closed(self) -> None:
        """After `close`; the loop may end then."""
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def put(token: str, said: object, *, secret: str | None = None, path: str = "/v1/pods/self/state") -> bytes:
    """PUT …/state; `said` is JSON, or bytes as they are."""
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    session = f"Queueproxy-Session: {secret}\r\n" if secret is not None else ""
    head = f"PUT {path} HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {token}\r\n{session}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get(token: str, *, secret: str | None = None) -> bytes:
    session = f"Queueproxy-Session: {secret}\r\n" if secret is not None else ""
    return f"GET /v1/pods/self HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer {token}\r\n{session}\r\n".encode()


def old(token: str, action: str) -> bytes:
    """As the Go queue-proxy of 1.9 wrote it (recorded)."""
    body = b'{"action":"%s"}' % action.encode()
    head = f"POST / HTTP/1.1\r\nHost: 10.0.0.1:9696\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {len(body)}"
    return f"{head}\r\nToken: {token}\r\nAccept-Encoding: gzip\r\n\r\n".encode() + body


class ScriptedDoor:
    """Tokens are `token-of-<uid>`; `held` ones are answered when the test says so."""

    def __init__(self) -> None:
        self.refused: dict[str, Admission] = {}
        self.annoyed = False
        self.wait = 0.0
        self.only: frozenset[str] | None = None  # the tokens there are, where it matters
        self.held: dict[str, Callable[[Admission], None]] = {}
        self.hold = False
        self.again = 0  # calls let in without their token being shown
        self._tokens: dict[bytes, str] = {}

    def admit(self, token: str, secret: str | None, peer: str, admitted: Callable[[Admission], None]) -> None:
        self._tokens[token_key(token)] = token
        if self.hold:
            self.held[token] = admitted
            return
        uid = token.removeprefix("token-of-")
        if token in self.refused:
            admitted(self.refused[token])
        elif uid == token or (self.only is not None and token not in self.only):
            admitted(Admission("", Problem.UNAUTHENTICATED))
        else:
            admitted(Admission(uid))

    def admit_again(self, key: bytes, peer: str) -> Admission | None:
        found: list[Admission] = []
        if key in self._tokens and not self.hold:
            self.admit(self._tokens[key], None, peer, found.append)
        if not found or found[0].problem is not None:
            return None
        self.again += 1
        return found[0]

    def locked_out(self, peer: str) -> bool:
        return self.annoyed

    def pace(self, uid: str) -> float:
        wait, self.wait = self.wait, 0.0
        return wait


class ScriptedDesk:
    """Does at once what is asked, unless `hold`; then the test lets it."""

    def __init__(self) -> None:
        self.asks: list[tuple[str, StateRequest | OldAction]] = []
        self.held: list[Answered] = []
        self.hold = False
        self.sidecars: dict[str, str] = {}
        self.refusal: tuple[Problem, str] | None = None
        self.broken = False

    def sidecar_of(self, uid: str) -> str:
        return self.sidecars.get(uid, "")

    def viewed(self, uid: str, answered: Answered) -> None:
        answered(View(Rung.RUNNING, 0, policy=DEFAULTS), None, "")

    def asked(self, uid: str, request: StateRequest, answered: Answered, *, fresh: bool = True) -> None:
        if self.broken:
            raise KeyError(f"secret of {uid}")
        self.asks.append((uid, request))
        rung = request.rung if request.wanted is Wanted.IDLE else Rung.RUNNING
        view = View(rung, request.generation, "cgroup2", 120)
        if self.refusal is not None:
            answered(view, *self.refusal)
        elif self.hold:
            self.held.append(lambda _, problem, detail: answered(view, problem, detail))
        else:
            answered(view, None, "")

    def asked_of_old(self, uid: str, action: OldAction, answered: Answered, *, fresh: bool = True) -> None:
        self.asks.append((uid, action))
        problem, detail = self.refusal or (None, "")
        answered(None, problem, detail)
