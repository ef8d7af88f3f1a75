"""Invariant: a request is refused with BadMessage or is, in all its parts, the request that the grammar sees.

However it is cut; never read beyond its end; one framing; and what goes to the app, read by us again, is the same.
"""

from __future__ import annotations

from queueproxy.codec.encode import chunk, last_chunk, request_bytes
from queueproxy.codec.headers import CONTENT_LENGTH, FORBIDDEN_IN_TRAILERS, HOST, K_ORIGINAL_HOST
from queueproxy.codec.http1 import HEAD, LENGTH, MAX_HEAD, PAUSED, BadMessage, RequestHead, RequestReader
from tests.fuzz import oracle
from tests.fuzz.cuts import byte_by_byte, cut

# Written anew or dropped by our hop; all other fields go to the app as they came (contract 3.12).
OURS = frozenset(
    b"host content-length transfer-encoding connection te trailer upgrade x-forwarded-for k-original-host "
    b"proxy-connection keep-alive proxy-authenticate proxy-authorization knative-serving-revision "
    b"knative-serving-namespace".split()
)
STAY = (b"close", b"keep-alive", b"upgrade", b"te")  # options of Connection that nominate no field


class Message:
    """What the sink heard of one request. trailers: None while the body is not whole."""

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.body = b""
        self.trailers: oracle.Fields | None = [] if head.body == 0 else None

    def parts(self) -> tuple[object, ...]:
        head = self.head
        return (
            head.method, head.target, head.minor, head.keep_alive, head.body, head.content_length, head.upgrade,
            head.lines, head.special, self.body, self.trailers,
        )  # fmt: skip


class Sink:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    def head_received(self, head: RequestHead) -> None:
        assert not self.messages or self.messages[-1].trailers is not None, "a request inside a request"
        self.messages.append(Message(head))

    def body_received(self, data: bytes) -> None:
        message = self.messages[-1]
        assert data and message.trailers is None and message.head.body
        message.body += data

    def body_ended(self, trailers: oracle.Fields) -> None:
        message = self.messages[-1]
        assert message.trailers is None
        message.trailers = trailers

    def raw_received(self, data: bytes) -> None:
        raise AssertionError("raw bytes without an upgrade")


def read(pieces: list[bytes]) -> tuple[list[Message], str]:
    """(requests, how it ended) of a connection on which these bytes come."""
    sink = Sink()
    reader = RequestReader(sink)
    try:
        for piece in pieces:
            reader.feed(piece)
            assert reader.state == PAUSED or len(reader.held) <= MAX_HEAD, "holds too much"
            while reader.state == PAUSED and reader.held:
                reader.resume()
    except BadMessage as bad:
        assert 400 <= bad.status <= 505 and bad.reason and "\n" not in bad.reason
        return sink.messages, f"{bad.status} {bad.reason}"
    return sink.messages, {HEAD: "head", PAUSED: "between", LENGTH: "body"}.get(reader.state, "chunks")


def expected_target(request: oracle.Request) -> bytes:
    """As the app gets it (contract 3.12, QP-206)."""
    target = b"".join(b"%c" % c if c < 127 else b"%%%02X" % c for c in request.target).replace(b"#", b"%23")
    if target.startswith(b"/") or request.method == b"CONNECT" or target == b"*":
        return target
    scheme, _, rest = target.partition(b"//")
    assert scheme.lower() in (b"http:", b"https:"), target
    at = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    return rest[at:] if rest[at : at + 1] == b"/" else b"/" + rest[at:]


def agree(message: Message, request: oracle.Request) -> None:
    """The sink heard of the request what the grammar says."""
    head = message.head
    assert (head.method, head.minor) == (request.method, request.minor)
    assert head.target == expected_target(request), (head.target, request.target)
    assert message.body == request.body
    listed = oracle.listed(request.fields, b"connection")  # for this hop only, in whichever section
    forwardable = [t for t in request.trailers if t[0].lower() not in FORBIDDEN_IN_TRAILERS.union(listed)]
    assert message.trailers == forwardable
    assert head.body == {"none": 0, "sized": 1 if request.body else 0, "chunked": 2}[request.framing]
    nominated = [t for t in listed if t not in STAY]
    came = [f for f in request.fields if f[0].lower() not in OURS and f[0].lower() not in nominated]
    goes = [(name, value.rstrip()) for name, value in zip(head.lines[::4], head.lines[2::4], strict=True)]
    assert goes[: len(came)] == came, (goes, came)
    assert {name for name, _ in goes[len(came) :]} <= {b"Te", b"Trailer", b"Forwarded"}
    assert not head.keep_alive or b"close" not in listed


def sent(message: Message) -> bytes:
    """What the app gets."""
    head = message.head
    data = request_bytes(head, b"192.0.2.1", b"default:80")
    if head.body == 2:
        return data + (chunk(message.body) if message.body else b"") + last_chunk(message.trailers or [])
    return data + message.body


def stable(message: Message) -> None:
    """What goes to the app is one request, and the same one when it passes through us again."""
    head, data = message.head, sent(message)
    onward, end = oracle.request(data)
    assert end == len(data), "more or less than one request"
    framing = [name for name, _ in onward.fields if name.lower() in (b"content-length", b"transfer-encoding")]
    assert len(framing) == (1 if head.body == 2 or CONTENT_LENGTH in head.special else 0)
    (host,) = oracle.values(onward.fields, b"host")
    assert host == (head.special.get(K_ORIGINAL_HOST) or head.special.get(HOST) or b"default:80")
    assert (onward.method, onward.body) == (head.method, message.body)
    assert oracle.values(onward.fields, b"x-forwarded-for")[0].endswith(b"192.0.2.1")
    if head.upgrade is None:
        assert not oracle.values(onward.fields, b"connection") and not oracle.values(onward.fields, b"upgrade")
    (again,), ending = read([data])
    assert ending == "between"
    twice, _ = oracle.request(sent(again))
    assert passed(twice) == passed(onward), "not the same the second time"


def passed(request: oracle.Request) -> tuple[object, ...]:
    """The parts that do not tell how many hops there were."""
    fields = [f for f in request.fields if f[0] not in (b"Forwarded", b"X-Forwarded-For")]
    return request.method, request.target, fields, request.framing, request.body, request.trailers


def same(messages: list[Message], ending: str, others: list[Message], end: str) -> None:
    """Two ways to cut one stream. A refusal may come earlier and in other words, but not for another message."""
    refused = ending[0] in "45"
    assert (end[0] in "45") == refused and (refused or end == ending), (end, ending)
    said, heard = [message.parts() for message in messages], [other.parts() for other in others]
    if refused and said and heard:
        said[-1], heard[-1] = said[-1][:-2], heard[-1][:-2]  # how much of a broken body was read is nobody's business
    assert said == heard, "cuts matter"


def one_input(data: bytes) -> None:
    pieces, stream = cut(data)
    if not stream:
        return
    messages, ending = read([stream])
    for others in (pieces, byte_by_byte(stream) if len(stream) < 200 else []):
        if others:
            same(messages, ending, *read(others))
    at = 0
    for message in messages:
        if message.trailers is None:
            return
        request, at = oracle.request(stream, at)
        agree(message, request)
        stable(message)
