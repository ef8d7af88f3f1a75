"""The request side of a connection: framing, pipelining, refusals, and that splits never matter."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueproxy.codec import headers
from queueproxy.codec.http1 import HEAD, MAX_HEAD, PAUSED, RAW, VIEWED, BadMessage, RequestHead, RequestReader

H = b"Host: a\r\n"
MALFORMED_HOST = "400 Bad Request: malformed Host header"
TE = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding"


class Sink:
    """Writes down what it is told, adjacent body pieces joined; resumes pipelined requests like a server."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.heads: list[RequestHead] = []

    def head_received(self, head: RequestHead) -> None:
        self.heads.append(head)
        special = {kind: head.special[kind] for kind in sorted(head.special)}
        self.said.append(
            (head.method, head.target, head.minor, head.keep_alive, head.body, head.upgrade, b"".join(head.lines))
            + (special,)
        )

    def body_received(self, data: bytes) -> None:
        assert data, "an empty piece of body"
        if self.said and isinstance(self.said[-1], bytes):
            self.said[-1] += data
        else:
            self.said.append(data)

    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self.said.append(("end", trailers))

    def raw_received(self, data: bytes) -> None:
        self.said.append(("raw", data))


def read(pieces: list[bytes], *, pipelined: bool = True) -> tuple[list[object], str]:
    """(what the sink heard, how it ended) of one connection that gets these pieces."""
    sink = Sink()
    reader = RequestReader(sink)
    try:
        for piece in pieces:
            reader.feed(piece)
            while pipelined and reader.state == PAUSED and reader.held:
                reader.resume()
    except BadMessage as bad:
        return sink.said, f"{bad.status} {bad.reason}"
    return sink.said, f"held {len(reader.held)}" if reader.held else "read"


def head_of(data: bytes) -> RequestHead:
    sink = Sink()
    RequestReader(sink).feed(data)
    (head,) = sink.heads
    return head


MESSAGES = {
    "plain": b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nX-A: 1\r\n\r\n",
    "leading empty lines": b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "sized": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": TE + b": chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n",
    "unknown method": b"brew /pot HTTP/1.2\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    "1.0": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "upgrade with a body": (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nabc"
    ),
    "absolute": b"GET http://b:8/p?q HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.qp("QP-053", "QP-074")
@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_split_at_any_byte_is_the_same_message(message: bytes) -> None:
    stream = message + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    whole = read([stream])
    assert whole[1] == "read" and whole[0][-1][1] == b"/next"  # type: ignore[index]
    for at in range(1, len(stream)):
        assert read([stream[:at], stream[at:]]) == whole, stream[:at]
    assert read([stream[i : i + 1] for i in range(len(stream))]) == whole


@pytest.mark.qp("QP-053")
@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(MESSAGES)), min_size=1, max_size=5),
    splits=st.lists(st.integers(1, 2000), max_size=10),
)
def test_pipelined_messages_come_out_one_by_one_however_the_stream_is_cut(names: list[str], splits: list[int]) -> None:
    stream = b"".join(MESSAGES[name] for name in names)
    expected = [said for name in names for said in read([MESSAGES[name]])[0]]
    edges = sorted({0, len(stream), *(split % len(stream) for split in splits)})
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert read(pieces) == (expected, "read")


def test_the_next_request_is_not_looked_at_before_the_present_one_is_done() -> None:
    sink = Sink()
    reader = RequestReader(sink)
    reader.feed(b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 2\r\n\r\nhiGARBAGE\x00\r\n\r\n")
    assert [len(sink.heads), sink.said[-1], reader.backlog] == [1, ("end", []), True]
    reader.feed(b"more")
    assert reader.held == b"GARBAGE\x00\r\n\r\nmore"
    with pytest.raises(BadMessage):
        reader.resume()


@pytest.mark.fz("FZ-021")
def test_it_knows_when_a_message_is_half_read() -> None:
    reader = RequestReader(Sink())
    assert not reader.mid_message
    reader.feed(b"\r\n")
    assert not reader.mid_message
    reader.feed(b"POST / HT")
    assert reader.mid_message and reader.state == HEAD
    reader.feed(b"TP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh")
    assert reader.mid_message
    reader.feed(b"i")
    assert not reader.mid_message


@pytest.mark.qp("QP-053", "QP-054")
@pytest.mark.parametrize(
    ("head", "refusal"),
    [
        # Contract 1.3, the shapes Go was seen to answer with.
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "400 Bad Request: missing required Host header", id="no Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", MALFORMED_HOST, id="blank in Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", MALFORMED_HOST, id="slash in Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400 Bad Request", id="two Hosts"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "400 Bad Request",
                     id="two lengths"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 5, 5\r\n\r\n", "400 Bad Request", id="length list"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"Content-Length: -5\r\n\r\n", "400 Bad Request", id="negative"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"Content-Length: +5\r\n\r\n", "400 Bad Request", id="signed length"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 0x5\r\n\r\n", "400 Bad Request", id="hex length"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"Content-Length:\r\n\r\n", "400 Bad Request", id="empty length"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 9999999999999999999\r\n\r\n", "400 Bad Request",
                     id="length beyond 18 digits"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"X: a\x01b\r\n\r\n", "400 Bad Request", id="control in a value"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"X: a\x00b\r\n\r\n", "400 Bad Request", id="NUL in a value"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"X\xe9: a\r\n\r\n", "400 Bad Request", id="name is no token"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"X : a\r\n\r\n", "400 Bad Request", id="blank before the colon"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b": a\r\n\r\n", "400 Bad Request", id="empty name"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"nonsense\r\n\r\n", "400 Bad Request", id="no colon"),
        pytest.param(b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n", "400 Bad Request", id="folded"),
        pytest.param(b"GET / HTTP/1.1\r\n X: a\r\n" + H + b"\r\n", "400 Bad Request", id="folded first line"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "400 Bad Request", id="bare LF"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", "400 Bad Request", id="bare CR"),
        pytest.param(b"GET / HTTP/1.1\n" + H + b"\r\n", "400 Bad Request", id="bare LF after the request line"),
        pytest.param(b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="blank in the target"),
        pytest.param(b"GET /\x01 HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="control in the target"),
        pytest.param(b"GET /\x7f HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="DEL in the target"),
        pytest.param(b"GET x HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="target without slash"),
        pytest.param(b"GET * HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="GET *"),
        pytest.param(b"GET ftp://b/ HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="another scheme"),
        pytest.param(b"GET http:// HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="no authority"),
        pytest.param(b"GET http://u:p@b/ HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="user info"),
        pytest.param(b"GET http://a,b/ HTTP/1.1\r\n" + H + b"\r\n", MALFORMED_HOST,
                     id="authority that is no host"),
        pytest.param(b"G@T / HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="method is no token"),
        pytest.param(b"GET  / HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="two blanks"),
        pytest.param(b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="tab"),
        pytest.param(b" GET / HTTP/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="leading blank"),
        pytest.param(b"GET / HTTP/1.1 \r\n" + H + b"\r\n", "400 Bad Request", id="trailing blank"),
        # Versions. llhttp alone would take all but the last three.
        pytest.param(b"GET /\r\n" + H + b"\r\n", "400 Bad Request", id="no version"),
        pytest.param(b"GET / HTTP/0.9\r\n" + H + b"\r\n", "505 HTTP Version Not Supported", id="0.9"),
        pytest.param(b"GET / HTTP/2.0\r\n" + H + b"\r\n", "505 HTTP Version Not Supported", id="2.0"),
        pytest.param(b"SOURCE / ICE/1.0\r\n" + H + b"\r\n", "400 Bad Request", id="ICE"),
        pytest.param(b"DESCRIBE / RTSP/1.0\r\n" + H + b"\r\n", "400 Bad Request", id="RTSP"),
        pytest.param(b"GET / HTTP/3.0\r\n" + H + b"\r\n", "505 HTTP Version Not Supported", id="3.0"),
        pytest.param(b"GET / HTTP/1.10\r\n" + H + b"\r\n", "400 Bad Request", id="1.10"),
        pytest.param(b"GET / http/1.1\r\n" + H + b"\r\n", "400 Bad Request", id="lower-case version"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported", id="HTTP/2 preface"),
        # Transfer codings: exactly chunked, and never in 1.0.
        *(
            pytest.param(
                TE + b": " + coding + b"\r\n\r\n",
                "501 Unsupported transfer encoding",
                id=f"TE {coding.decode()!r}",
            )
            for coding in (b"gzip", b"gzip, chunked", b"chunked, gzip", b"identity", b"", b"xchunked", b"chunked, x")
        ),
        pytest.param(TE + b": chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                     "501 Unsupported transfer encoding", id="TE twice"),
        pytest.param(TE + b" : chunked\r\n\r\n", "400 Bad Request", id="TE, blank"),
        pytest.param(TE + b": \x0bchunked\r\n\r\n", "400 Bad Request", id="TE, VT"),
        pytest.param(b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n", "400 Bad Request", id="1.0"),
    ],
)  # fmt: skip
def test_what_is_malformed_or_ambiguous_is_refused_however_it_is_split(head: bytes, refusal: str) -> None:
    assert read([head]) == ([], refusal)
    assert read([head[i : i + 1] for i in range(len(head))]) == ([], refusal)


@pytest.mark.qp("QP-053")
@pytest.mark.parametrize(
    "start", [b"\x16\x03\x01\x02\x00\x01\x00", b"\x00", b" GET", b"\xffGET", b"GET / HTTP/1.1\n"],
    ids=["TLS", "NUL", "blank", "high byte", "bare LF"],
)  # fmt: skip
def test_what_can_never_become_a_request_is_refused_before_its_end(start: bytes) -> None:
    assert read([start]) == ([], "400 Bad Request")


@pytest.mark.qp("QP-050")
@pytest.mark.parametrize("pieces", [1, 100], ids=["in one piece", "in many"])
def test_a_head_of_a_mebibyte_passes_and_a_larger_one_is_431(pieces: int) -> None:
    start = b"GET / HTTP/1.1\r\n" + H + b"X: "

    def ending(size: int) -> tuple[list[object], str]:
        data = start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"
        step = -(-len(data) // pieces)
        return read([data[i : i + step] for i in range(0, len(data), step)] if pieces > 1 else [data])

    assert ending(MAX_HEAD)[1] == "read"
    assert ending(MAX_HEAD + 1) == ([], "431 Request Header Fields Too Large")
    assert read([start + b"x" * MAX_HEAD]) == ([], "431 Request Header Fields Too Large"), "refused before it ends"


@pytest.mark.qp("QP-054")
def test_chunked_wins_over_a_length_and_the_connection_closes() -> None:
    said, end = read([TE + b": Chunked\r\nContent-Length: 4\r\n\r\n2\r\nhi\r\n0\r\n\r\n"])
    head = said[0]
    assert isinstance(head, tuple)
    assert (head[3], head[4], headers.CONTENT_LENGTH in head[7]) == (False, 2, False)
    assert (said[1:], end) == ([b"hi", ("end", [])], "read")


@pytest.mark.qp("QP-076")
def test_trailers_come_with_the_end_but_not_those_that_could_frame_or_route() -> None:
    said, _ = read([
        TE + b": chunked\r\n\r\n0\r\nGrpc-Status: 0\r\ncontent-length: 9\r\n"
        b"HOST: evil\r\nTransfer-Encoding: chunked\r\nK-Original-Host: evil\r\nX-Sum: 1\r\nAuthorization: x\r\n\r\n"
    ])  # fmt: skip
    assert said[-1] == ("end", [(b"Grpc-Status", b"0"), (b"X-Sum", b"1")])


@pytest.mark.qp("QP-053")
@pytest.mark.parametrize(
    ("message", "method", "target", "minor"),
    [
        pytest.param(b"get / HTTP/1.1\r\n", b"get", b"/", 1, id="lower-case method"),
        pytest.param(b"BREW /pot HTTP/1.1\r\n", b"BREW", b"/pot", 1, id="unknown method"),
        pytest.param(b"M-SEARCH / HTTP/1.1\r\n", b"M-SEARCH", b"/", 1, id="odd method"),
        pytest.param(b"GET / HTTP/1.2\r\n", b"GET", b"/", 1, id="1.2 is 1.1"),
        pytest.param(b"GET / HTTP/1.0\r\n", b"GET", b"/", 0, id="1.0"),
        pytest.param(b"CONNECT h:80 HTTP/1.1\r\n", b"CONNECT", b"h:80", 1, id="CONNECT"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\n", b"OPTIONS", b"*", 1, id="OPTIONS *"),
        pytest.param(b"OPTIONS /x HTTP/1.1\r\n", b"OPTIONS", b"/x", 1, id="OPTIONS"),
    ],
)
def test_methods_and_versions_pass_as_go_passes_them(message: bytes, method: bytes, target: bytes, minor: int) -> None:
    head = head_of(message + H + b"\r\n")
    assert (head.method, head.target, head.minor) == (method, target, minor)


@pytest.mark.qp("QP-197")
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(b"//a/../b", b"//a/../b", id="not normalised"),
        pytest.param(b"/a%2Fb%41", b"/a%2Fb%41", id="not decoded"),
        pytest.param(b"/?a=%zz;b&c", b"/?a=%zz;b&c", id="query untouched"),
        pytest.param(b"/a#b", b"/a%23b", id="number sign"),
        pytest.param("/é?ü".encode(), b"/%C3%A9?%C3%BC", id="raw UTF-8"),
        pytest.param(b"/'\"<>[]{}|\\^`", b"/'\"<>[]{}|\\^`", id="what browsers escape"),
    ],
)
def test_path_and_query_bytes_are_kept(target: bytes, expected: bytes) -> None:
    assert head_of(b"GET " + target + b" HTTP/1.1\r\n" + H + b"\r\n").target == expected


@pytest.mark.qp("QP-206")
@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://b:8/p?q", b"b:8", b"/p?q"),
        (b"HTTP://b/", b"b", b"/"),
        (b"https://b", b"b", b"/"),
        (b"http://b?x=/y", b"b", b"/?x=/y"),
        (b"http://[::1]:80/p", b"[::1]:80", b"/p"),
    ],
)
def test_the_authority_of_an_absolute_target_replaces_the_host(target: bytes, host: bytes, path: bytes) -> None:
    head = head_of(b"GET " + target + b" HTTP/1.1\r\n" + H + b"\r\n")
    assert (head.special[headers.HOST], head.target) == (host, path)


@pytest.mark.parametrize(
    ("version", "connection", "keep"),
    [
        (b"1.1", b"", True), (b"1.1", b"close", False), (b"1.1", b"x, Close", False), (b"1.1", b"keep-alive", True),
        (b"1.0", b"", False), (b"1.0", b"Keep-Alive", True), (b"1.0", b"keep-alive, close", False),
    ],
)  # fmt: skip
def test_who_keeps_the_connection(version: bytes, connection: bytes, keep: bool) -> None:
    line = b"Connection: " + connection + b"\r\n" if connection else b""
    assert head_of(b"GET / HTTP/" + version + b"\r\n" + H + line + b"\r\n").keep_alive is keep


@pytest.mark.qp("QP-192", "QP-193", "QP-077")
def test_what_may_not_pass_is_not_among_the_lines() -> None:
    head = head_of(
        b"GET / HTTP/1.1\r\n" + H + b"Connection: X-Secret, close, TE\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n"
        b"Proxy-Connection: x\r\nProxy-Authorization: y\r\nTE: gzip;q=1, trailers\r\nKnative-Serving-Revision: r\r\n"
        b"Knative-Serving-Namespace: n\r\n"
        b"K-Proxy-Request: activator\r\nAccept-Encoding: br\r\nCookie: a=b\r\nCookie: c=d\r\nTrailer: x\r\n\r\n"
    )
    assert b"".join(head.lines) == (
        b"K-Proxy-Request: activator\r\nAccept-Encoding: br\r\nCookie: a=b\r\nCookie: c=d\r\nTe: trailers\r\n"
    )


@pytest.mark.qp("QP-192", "QP-195", "QP-196")
def test_a_nominated_x_forwarded_for_ends_here_after_forwarded_was_made_of_it() -> None:
    head = head_of(b"GET / HTTP/1.1\r\n" + H + b"Connection: x-forwarded-for\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n")
    assert headers.X_FORWARDED_FOR not in head.special
    assert b"".join(head.lines) == b"Forwarded: for=1.1.1.1\r\n"


@pytest.mark.qp("QP-080")
@pytest.mark.parametrize(
    ("version", "lines", "upgrade"),
    [
        pytest.param(b"1.1", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"websocket", id="asked"),
        pytest.param(b"1.1", b"Connection: keep-alive, upgrade\r\nUpgrade: a, b\r\n", b"a, b", id="among others"),
        pytest.param(b"1.1", b"Upgrade: websocket\r\n", None, id="not in Connection"),
        pytest.param(b"1.1", b"Connection: Upgrade\r\n", None, id="to nothing"),
        pytest.param(b"1.0", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", None, id="not in 1.0"),
    ],
)
def test_who_asks_for_an_upgrade(version: bytes, lines: bytes, upgrade: bytes | None) -> None:
    assert head_of(b"GET / HTTP/" + version + b"\r\n" + H + lines + b"\r\n").upgrade == upgrade


@pytest.mark.qp("QP-080")
@pytest.mark.parametrize(
    "body", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
    ids=["sized", "chunked"],
)  # fmt: skip
def test_the_body_of_an_upgrade_request_is_not_mistaken_for_the_new_protocol(body: bytes) -> None:
    sink = Sink()
    reader = RequestReader(sink)
    reader.feed(b"POST / HTTP/1.1\r\n" + H + b"Connection: Upgrade\r\nUpgrade: x\r\n" + body + b"EARLY")
    assert sink.said[1:] == [b"hello", ("end", [])]
    assert reader.go_raw() == b"EARLY"
    reader.feed(b"later")
    assert (sink.said[-1], reader.state) == (("raw", b"later"), RAW)


def test_a_fault_of_our_own_is_not_blamed_on_the_client() -> None:
    class Broken(Sink):
        def head_received(self, head: RequestHead) -> None:
            raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        RequestReader(Broken()).feed(b"GET / HTTP/1.1\r\n" + H + b"\r\n")


@pytest.mark.qp("QP-157")
def test_a_marked_request_keeps_its_original_host_header() -> None:
    head = head_of(b"GET / HTTP/1.1\r\n" + H + b"K-Original-Host: o\r\n\r\n")
    assert b"".join(head.lines) == b""
    head.keep_original_host()
    assert b"".join(head.lines) == b"K-Original-Host: o\r\n" and headers.K_ORIGINAL_HOST not in head.special
    head.keep_original_host()
    assert b"".join(head.lines).count(b"K-Original-Host") == 1


def test_readers_say_where_they_are() -> None:
    reader = RequestReader(Sink())
    reader.feed(b"GET / HT")
    assert repr(reader) == "<RequestReader state=0 held=8 left=0>"
    assert repr(head_of(MESSAGES["sized"])) == "<RequestHead b'POST' b'/' HTTP/1.1 body=1>"


@pytest.mark.qp("QP-353")
def test_a_head_that_comes_byte_by_byte_grows_in_place() -> None:
    sink = Sink()
    reader = RequestReader(sink)
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 3000 + b"\r\n\r\n"
    reader.feed(data[:1])
    held = reader.held
    for at in range(1, len(data) - 1):
        reader.feed(data[at : at + 1])
        assert reader.held is held  # not copied, or a megabyte would cost half a million of them
    reader.feed(data[-1:])
    assert (reader.held, len(sink.heads)) == (b"", 1)
    assert type(sink.heads[0].lines[0]) is bytes


@pytest.mark.parametrize(
    ("data", "early"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET", False),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1", False),
    ],
    ids=["body", "no body yet", "another request", "half a chunk"],
)
def test_a_head_knows_whether_its_body_has_begun(data: bytes, early: bool) -> None:
    sink = Sink()
    RequestReader(sink).feed(data)
    assert sink.heads[0].early is early


@pytest.mark.qp("QP-074")
@pytest.mark.parametrize("surplus", [b"", b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"], ids=["alone", "pipelined"])
@pytest.mark.parametrize("size", [VIEWED, VIEWED + 1, 5 * VIEWED])
def test_a_large_body_in_one_read_with_its_head_is_not_copied_and_ends_where_it_ends(size: int, surplus: bytes) -> None:
    pieces: list[bytes | memoryview] = []

    class Noting(Sink):
        def body_received(self, data: bytes | memoryview) -> None:
            pieces.append(data)
            super().body_received(bytes(data))

    sink = Noting()
    reader = RequestReader(sink)
    body = b"0123456789abcdef" * (size // 16) + b"!" * (size % 16)
    reader.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + body + surplus)
    assert b"".join(pieces) == body
    assert isinstance(pieces[0], memoryview) == (size > VIEWED and not surplus)
    assert (reader.state, reader.held, type(reader.held)) == (PAUSED, surplus, bytes)
