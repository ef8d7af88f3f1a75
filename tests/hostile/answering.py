"""Plays the proxy's app side in memory: the real response codec, a list instead of a client."""

from __future__ import annotations

from collections.abc import Iterable

from queueproxy.codec.response import BadResponse, ResponseReader, interim_bytes, response_bytes
from tests.hostile.corpus import Case, Outcome


class Client:
    """A sink that writes down what the client would get; HTTP/1.1, and it keeps its connection."""

    def __init__(self, *, asked: bytes) -> None:
        self._asked = asked
        self._heads: list[bytes] = []
        self.body = b""
        self.trailers: list[bytes] = []
        self.answered = False
        self.chunked = False

    @property
    def heads(self) -> bytes:
        return b"".join(self._heads)

    def informed(self, status: int, lines: list[bytes]) -> None:
        self._heads.append(interim_bytes(status, lines))

    def switched(self, protocol: bytes, lines: list[bytes]) -> None:
        if protocol != self._asked:
            raise BadResponse("another protocol")  # as proxy.tunnel.switch has it

    def response_received(self, response: ResponseReader) -> None:
        self.answered = True
        self.chunked = response.in_body and response.content_length is None
        self._heads.append(response_bytes(response, chunked=self.chunked, connection=b"", date=b"D"))

    def response_body(self, data: bytes) -> None:
        self.body += data

    def response_ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self.trailers = [b"%b: %b\r\n" % field for field in trailers]


def outcome_of(case: Case, pieces: Iterable[bytes]) -> Outcome:
    """What the client gets when the app's bytes come in these pieces."""
    asked = case.settings.get("ask", "GET")
    client = Client(asked=b"x" if asked == "upgrade" else b"")
    reader = ResponseReader()
    reader.expect(client, head_only=asked == "HEAD")
    kept = True
    try:
        for piece in pieces:
            if reader.complete:
                kept = False  # in the pool, and somebody speaks: dropped at once
                break
            reader.feed(piece)
        whole = reader.complete or ("end" in case.settings and reader.ended_by_eof())
    except BadResponse:
        whole = False
    if not client.answered:
        return Outcome("bad")
    if not whole:
        return Outcome("cut", "", client.heads)
    kept = kept and reader.clean and reader.keep_alive and "end" not in case.settings
    return Outcome("forward", "kept" if kept else "dropped", client.heads, client.body, client.trailers)
