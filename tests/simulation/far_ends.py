"""Plays clients and apps at the far ends of the wires, and judges everything they hear.

Each request has a tag of its own in path, body and answer, so that nothing can be taken for something else unseen. Both
ends read with the fuzzers' grammar, not with the product's parser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from queueproxy.proxy.server import ClientConnection
from queueproxy.proxy.upstream import UpstreamConnection
from tests.fuzz import oracle
from tests.support.wires import Loop, Transport

PROBE = b"K-Network-Probe: queue\r\nUser-Agent: kube-probe/1\r\n"


class FarTransport(Transport):
    """Shows what is written to the far end at once. fate: what the peer did to the connection."""

    def __init__(self, loop: Loop, protocol: Any, heard: Callable[[bytes], None]) -> None:
        super().__init__(loop, protocol)
        self._heard = heard
        self.said_all = False  # the peer will send no more

    def write(self, data: bytes) -> None:
        before = len(self.out)
        super().write(data)
        if len(self.out) > before:
            self.out.clear()
            self._heard(data)

    @property
    def hears(self) -> bool:
        """Bytes and ends from the peer are seen now."""
        return self.reading and not self.is_closing() and not self.said_all

    @property
    def over(self) -> bool:
        """The peer sees an end of what we say."""
        return self.is_closing() or self.eof


def portion(data: bytes, share: int) -> int:
    """How much of data is a share of 1 to 4 quarters, one byte at least."""
    return max(1, len(data) * share // 4)


@dataclass
class Asked:
    """One request of a client. bad: no HTTP; it deserves one refusal and the end of the connection."""

    tag: bytes
    shape: str
    method: bytes = b"GET"
    minor: int = 1
    body: bytes = b""
    data: bytes = b""
    withheld: bytes = b""  # body that waits for a 100
    told: bool = False  # it heard the 100
    bad: bool = False


def ask(tag: bytes, shape: str, size: int) -> Asked:
    """A request of one of SHAPES; size: bytes of its body, roughly."""
    asked = Asked(tag, shape)
    fields, version = b"Host: h\r\n", b"HTTP/1.1"
    if shape == "head":
        asked.method = b"HEAD"
    elif shape == "old":
        version, asked.minor, fields = b"HTTP/1.0", 0, b""
    elif shape == "old kept":
        version, asked.minor, fields = b"HTTP/1.0", 0, b"Connection: keep-alive\r\n"
    elif shape == "closing":
        fields += b"Connection: close\r\n"
    elif shape == "marked":
        fields += b"K-Kubelet-Probe: x\r\n"
    elif shape == "proxied":
        fields += b"K-Proxy-Request: activator\r\n"
    elif shape == "probe":
        fields += PROBE
    elif shape == "upgrade":
        fields += b"Connection: Upgrade\r\nUpgrade: echo\r\n"
    elif shape == "repeatable":
        fields += b"Idempotency-Key: %b\r\n" % tag
        asked.method = b"POST"
    coded = b""
    if shape in ("sized", "chunked", "expecting", "half broken"):
        asked.method, asked.body = b"POST", (tag * (size // len(tag) + 1))[: max(size, 1)]
        if shape in ("chunked", "half broken"):
            fields += b"Transfer-Encoding: chunked\r\n"
            half = len(asked.body) // 2
            pieces = [piece for piece in (asked.body[:half], asked.body[half:]) if piece]
            coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nX-Sum: 1\r\n\r\n"
            if shape == "half broken":
                coded, asked.bad = coded[: len(coded) // 2] + b"\nnonsense\r\n\r\n", True
        else:
            fields += b"Content-Length: %d\r\n" % len(asked.body)
            coded = asked.body
        if shape == "expecting":
            fields += b"Expect: 100-continue\r\n"
            coded, asked.withheld = b"", coded
    asked.data = asked.method + b" /" + tag + b" " + version + b"\r\n" + fields + b"\r\n" + coded
    if shape == "bad":
        asked.data, asked.bad = b"GET /%b HTTP/1.1\r\nHost : h\r\n\r\n" % tag, True
    return asked


SHAPES = (
    "plain", "head", "old", "old kept", "closing", "marked", "proxied", "probe", "upgrade", "repeatable", "sized",
    "chunked", "expecting", "half broken", "bad",
)  # fmt: skip


class Client:
    """One client. outbox: written by it, not read by us yet. wire: everything it heard."""

    def __init__(self, loop: Loop, connection: ClientConnection, answers: dict[bytes, Answer]) -> None:
        self.connection = connection
        self.transport = FarTransport(loop, connection, self._heard)
        self.answers = answers
        self.asked: list[Asked] = []
        self.outbox = b""
        self.delivered = 0
        self.written = 0
        self.ends_at: list[int] = []  # where in its stream each request ends
        self.wire = b""
        self.finals = 0
        self.raw_at: int | None = None  # where in the wire the other protocol begins
        self.raw_said = b""
        self._at = 0
        connection.connection_made(cast(Any, self.transport))

    def __repr__(self) -> str:
        return f"<Client {[a.shape for a in self.asked]} finals={self.finals} over={self.transport.over}>"

    def _heard(self, data: bytes) -> None:
        self.wire += data

    @property
    def may_ask(self) -> bool:
        """A sane client sends nothing behind an upgrade or an expectation that is still open, or behind an end."""
        if self.transport.is_closing() or self.transport.eof or self.transport.said_all or self.raw_at is not None:
            return False
        if not self.asked:
            return True
        last = self.asked[-1]
        if last.bad or last.shape in ("closing", "old") or last.withheld:
            return False
        return last.shape != "upgrade" or self.finals == len(self.asked)

    def ask(self, asked: Asked) -> None:
        self.asked.append(asked)
        self.put(asked.data)
        self.ends_at.append(self.written + len(asked.withheld))

    def put(self, data: bytes) -> None:
        self.outbox += data
        self.written += len(data)

    def goes_on(self) -> None:
        """Sends the body that waited for a 100."""
        last = self.asked[-1]
        self.put(last.withheld)
        last.withheld = b""

    def deliver(self, share: int) -> None:
        size = portion(self.outbox, share)
        data, self.outbox = self.outbox[:size], self.outbox[size:]
        self.delivered += size
        self.transport.deliver(data)

    def listen(self) -> None:
        """Judges what came since the last call."""
        while self.raw_at is None and self._at < len(self.wire):
            assert self.finals < len(self.asked), f"an answer that nobody asked for: {self.wire[self._at :]!r}"
            asked = self.asked[self.finals]
            try:
                response, at = oracle.response(self.wire, self._at, to_head=asked.method == b"HEAD")
            except oracle.NotHttp:
                return  # not whole yet
            tags = oracle.values(response.fields, b"x-tag")
            assert tags in ([], [asked.tag]), f"the answer to {tags} for {asked.tag!r}"
            answer = self.answers.get(asked.tag)
            if response.status < 200:
                assert asked.minor, "an interim answer for HTTP/1.0"
                if response.status == 101:
                    assert asked.shape == "upgrade"
                    self.finals += 1
                    self.raw_at = at
                else:
                    asked.told = asked.told or response.status == 100
                self._at = at
                continue
            delimited = oracle.values(response.fields, b"content-length") or oracle.values(
                response.fields, b"transfer-encoding"
            )
            bodiless = asked.method == b"HEAD" or response.status in (204, 304)
            if not delimited and not bodiless:
                closing = b"close" in oracle.listed(response.fields, b"connection")
                assert not asked.minor or (asked.bad and closing), "a body without an end for HTTP/1.1"
                if not self.transport.over:
                    return
                if not self.transport.aborted and tags and not self.transport.said_all and answer is not None:
                    assert not self.transport.ours or answer.whole, "a cut answer that looks complete"
            elif tags and not bodiless:
                assert answer is not None and answer.whole, "a cut answer that looks complete"
                assert response.body == answer.body, (response.body, answer.body)
            elif not tags:
                assert response.status >= 400 or asked.shape == "probe", f"an answer out of nowhere: {response}"
            if asked.bad and asked.shape == "bad":
                assert response.status == 400
            assert not asked.withheld or asked.told or self.transport.over, "open, but will the body come or not?"
            self.finals += 1
            self._at = at

    @property
    def owed(self) -> list[Asked]:
        """Requests that went out whole and have no final answer."""
        return [a for a, end in zip(self.asked, self.ends_at, strict=True) if end <= self.delivered][self.finals :]


@dataclass
class Answer:
    """What an app said to one request. whole: to its end. heard: some of it arrived at us."""

    body: bytes = b""
    whole: bool = False
    heard: bool = False


@dataclass
class Script:
    """An answer to be given.

    needs: bytes of data that make it whole, -1: all. by_end: only the end of the connection makes it whole. ends: the
    app ends the connection after it. dirty: the connection must not be used again.
    """

    data: bytes
    body: bytes = b""
    ends: bool = False
    dirty: bool = False
    whole: bool = True
    switches: bool = False
    by_end: bool = False
    needs: int = -1

    def partial_line(self, size: int) -> bool:
        """So many bytes of it are no whole head, which counts as nothing."""
        return b"\r\n\r\n" not in self.data[:size]


ANSWERS = (
    "sized", "empty", "chunked", "until eof", "interim", "no content", "not modified", "error", "closing", "old",
    "garbage", "surplus", "truncated", "silent end", "switch", "wrong switch", "other framing",
)  # fmt: skip


def script(tag: bytes, shape: str, size: int, *, head_only: bool) -> Script:
    """What the app says to the request with this tag."""
    line, fields, body = b"HTTP/1.1 200 OK\r\n", b"X-Tag: " + tag + b"\r\n", (tag + b"." * size)[: max(size, 1)]
    length = b"Content-Length: %d\r\n" % len(body)
    shown = b"" if head_only else body
    sized = fields + length + b"\r\n" + shown
    coded = b"" if head_only else b"%x\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(body), body)
    if shape == "empty":
        return Script(line + fields + b"Content-Length: 0\r\n\r\n")
    if shape == "chunked":
        return Script(line + fields + b"Transfer-Encoding: chunked\r\n\r\n" + coded, body)
    if shape == "other framing":
        return Script(line + fields + length + b"Transfer-Encoding: chunked\r\n\r\n" + coded, body, dirty=True)
    if shape == "until eof" and head_only:
        return Script(line + fields + b"\r\n")
    if shape == "until eof":
        return Script(line + fields + b"\r\n" + shown, body, ends=True, dirty=True, by_end=True)
    if shape == "interim":
        early = b"HTTP/1.1 103 Early Hints\r\nX-Tag: " + tag + b"\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        return Script(early + line + sized, body)
    if shape in ("no content", "not modified"):
        line = b"HTTP/1.1 204 x\r\n" if shape == "no content" else b"HTTP/1.1 304 x\r\n"
        return Script(line + fields + b"\r\n")
    if shape == "error":
        return Script(b"HTTP/1.1 500 x\r\n" + sized, body)
    if shape == "closing":
        return Script(line + b"Connection: close\r\n" + sized, body, ends=True, dirty=True)
    if shape == "old":
        return Script(b"HTTP/1.0 200 OK\r\n" + sized, body, ends=True, dirty=True)
    if shape == "garbage":
        return Script(b"SSH-2.0-x\r\n", dirty=True, whole=False)
    if shape == "surplus":
        evil = b"HTTP/1.1 200 OK\r\nX-Tag: evil\r\nContent-Length: 0\r\n\r\n"
        return Script(line + sized + evil, body, dirty=True, needs=len(line + sized))
    if shape == "truncated":
        whole = line + sized
        return Script(whole[:-1], body, ends=True, dirty=True, whole=False)
    if shape == "silent end":
        return Script(b"", ends=True, dirty=True, whole=False)
    if shape in ("switch", "wrong switch"):
        protocol = b"echo" if shape == "switch" else b"other"
        head = b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"
        return Script(head, dirty=True, whole=False, switches=True)
    return Script(line + sized, body)


class App:
    """The app's end of one connection. outbox: said by it, not read by us yet."""

    def __init__(
        self,
        loop: Loop,
        connection: UpstreamConnection,
        answers: dict[bytes, Answer],
        asked: dict[bytes, Asked],
        running: Callable[[], bool],
    ) -> None:
        self.connection = connection
        self.transport = FarTransport(loop, connection, self._heard)
        self._answers, self._asked, self._running = answers, asked, running
        self._inbox = b""
        self.tag: bytes | None = None  # of the request that is being served
        self.head_only = False
        self.complete = False  # that request is here to its end
        self.answering: Script | None = None
        self.outbox = b""
        self.spoken = 0
        self.dirty = False
        self.gone = False  # ended, but the loop has not shown it to us
        self.raw = False
        self.raw_heard = b""
        self.raw_said = b""
        connection.connection_made(cast(Any, self.transport))
        connection.opened()

    def __repr__(self) -> str:
        return f"<App tag={self.tag!r} complete={self.complete} dirty={self.dirty} over={self.transport.over}>"

    def _heard(self, data: bytes) -> None:
        assert self._running(), f"bytes for an app that may be asleep: {data!r}"
        if self.raw:
            self.raw_heard += data
            return
        self._inbox += data
        if self.tag is None:
            if self.gone:
                asked = self._asked[self._inbox.split(b" ")[1][1:]]
                assert (not asked.body and asked.method in (b"GET", b"HEAD")) or asked.shape == "repeatable", asked
                return  # lost, and to be sent again
            assert not self.dirty, f"a request on a connection that must not be used again: {data!r}"
            assert b"\r\n\r\n" in self._inbox, "half a head"
            line, fields, _ = oracle.head_at(self._inbox, 0)
            method, target, _ = line.split(b" ")
            self.tag = target[1:]
            self.head_only = method == b"HEAD"
            self.complete = False
            assert oracle.values(fields, b"x-forwarded-for") == [b"10.0.0.9"]
            before = self._answers.get(self.tag)
            assert before is None or not before.heard, "sent again although an answer had begun"
            self._answers[self.tag] = Answer()
        assert not self.complete, f"bytes behind a whole request: {data!r}"
        try:
            request, end = oracle.request(self._inbox)
        except oracle.NotHttp:
            return
        assert end == len(self._inbox), "more than one request"
        assert request.body == self._asked[self.tag].body, "another body than the client's"
        self.complete, self._inbox = True, b""

    def answer(self, answer: Script) -> None:
        assert self.tag is not None and self.answering is None
        self.answering = answer
        self.outbox += answer.data
        self.spoken = 0
        self.dirty = self.dirty or answer.dirty
        self._answers[self.tag].body = answer.body
        self._check_whole()

    def deliver(self, share: int) -> None:
        size = portion(self.outbox, share)
        answer = self.answering
        if answer is not None and self.spoken + size == answer.needs:
            size += 1  # surplus that comes later than the answer's end is nobody's fault, and nobody can tell
        data, self.outbox = self.outbox[:size], self.outbox[size:]
        if answer is not None:
            if self.tag is not None and not answer.partial_line(self.spoken + size):
                self._answers[self.tag].heard = True
            self.spoken += size
            self._check_whole()
            if answer.switches and not self.outbox:
                self.raw = True
                self._inbox = b""
        self.transport.deliver(data)

    def _check_whole(self) -> None:
        answer = self.answering
        if answer is None or self.tag is None or not answer.whole or answer.by_end:
            return
        if self.spoken >= (len(answer.data) if answer.needs < 0 else answer.needs):
            self._answers[self.tag].whole = True
            if not self.outbox and not answer.ends:
                self.dirty = self.dirty or not self.complete
                self.tag = self.answering = None

    def end(self, error: Exception | None = None) -> None:
        """The app ends the connection; seen by us when all it said has been read."""
        answer = self.answering
        if answer is not None and self.tag is not None and answer.whole and not self.outbox and error is None:
            self._answers[self.tag].whole = True
        self.dirty = self.transport.said_all = True
        if error is not None:
            self.transport.lose(error)
        else:
            self.transport.make_stale()  # the kernel shows the end at once, `connection_lost` comes a turn later
            self.transport.deliver_eof()
