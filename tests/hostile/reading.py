"""Plays the proxy's client side in memory: the real codec, a list instead of an app."""

from __future__ import annotations

from collections.abc import Iterable

from queueproxy.codec.encode import request_bytes
from queueproxy.codec.headers import EXPECT
from queueproxy.codec.http1 import HEAD, PAUSED, BadMessage, RequestHead, RequestReader
from tests.hostile.corpus import Outcome

PEER = b"127.0.0.1"
DEFAULT_HOST = b"127.0.0.1:8080"


class Forwarding:
    """A sink that writes down what the app would get. The app answers at once, so messages follow one another."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.keep = True

    def head_received(self, head: RequestHead) -> None:
        self.keep = head.keep_alive
        expected = head.special.get(EXPECT)
        if head.target == b"*":
            self.outcomes.append(Outcome("local", "200"))
        elif expected is not None and expected.lower() != b"100-continue":
            self.outcomes.append(Outcome("local", "417"))
            self.keep = False
        else:
            out = request_bytes(head, PEER, DEFAULT_HOST)
            self.outcomes.append(Outcome("begun" if head.body else "forward", "", out))

    def body_received(self, data: bytes) -> None:
        if self.outcomes[-1].out:
            self.outcomes[-1].body += data

    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        last = self.outcomes[-1]
        if last.kind == "begun":
            last.kind = "forward"
        last.trailers = [b"%b: %b\r\n" % field for field in trailers]

    def raw_received(self, data: bytes) -> None:
        raise AssertionError("nothing was upgraded")


def outcomes_of(pieces: Iterable[bytes]) -> list[Outcome]:
    """What comes of a connection that brings these pieces and then nothing."""
    sink = Forwarding()
    reader = RequestReader(sink)
    try:
        for piece in pieces:
            reader.feed(piece)
            while reader.state == PAUSED and reader.held and sink.keep:
                reader.resume()
            if reader.state == PAUSED and not sink.keep:
                break
            if reader.state == PAUSED:
                reader.state = HEAD
    except BadMessage as bad:
        last = sink.outcomes[-1] if sink.outcomes else None
        if last is not None and last.kind == "begun":
            last.kind, last.text = "abort", bad.reason
            last.body = b""  # how much of it went out depends on how it came
        else:
            sink.outcomes.append(Outcome("reject", f"{bad.status} {bad.reason}"))
        return sink.outcomes
    if not sink.keep and sink.outcomes[-1].kind != "local":
        sink.outcomes.append(Outcome("close"))
    return sink.outcomes or [Outcome("wait")]
