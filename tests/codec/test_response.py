"""The app's answers: framing, 1xx, upgrades, what makes a connection unfit for another request; and our own heads."""

import pytest

from queueproxy.codec.response import (
    BadResponse,
    ResponseReader,
    answer_bytes,
    connection_line,
    interim_bytes,
    response_bytes,
    status_line,
    switching_bytes,
)


class Sink:
    """Writes down what it is told, adjacent body pieces joined."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def informed(self, status: int, lines: list[bytes]) -> None:
        self.said.append((status, b"".join(lines)))

    def switched(self, protocol: bytes, lines: list[bytes]) -> None:
        self.said.append(("switched", protocol, b"".join(lines)))

    def response_received(self, response: ResponseReader) -> None:
        self.said.append((response.status, b"".join(response.lines), response.content_length, response.chunked))

    def response_body(self, data: bytes) -> None:
        if self.said and isinstance(self.said[-1], bytes):
            self.said[-1] += data
        else:
            self.said.append(data)

    def response_ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self.said.append(("end", trailers))


class App:
    """One upstream connection as the reader sees it."""

    def __init__(self) -> None:
        self.reader = ResponseReader()

    def answers(self, *pieces: bytes, head_only: bool = False) -> list[object]:
        sink = Sink()
        self.reader.expect(sink, head_only=head_only)
        for piece in pieces:
            assert self.reader.feed(piece) == b""
        return sink.said

    @property
    def fit(self) -> bool:
        """As the pool decides it."""
        return self.reader.complete and self.reader.clean and self.reader.keep_alive


OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
SAID_HELLO = [(200, b"", b"5", False), b"hello", ("end", [])]
END = ("end", [])

SPLITTABLE = {
    "sized": (HELLO, SAID_HELLO),
    "chunked with trailers": (
        OK + b"X: 1\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n5;e\r\nhello\r\n1\r\n!\r\n0\r\nSum: 2\r\n\r\n",
        [(200, b"X: 1\r\nTrailer: Sum\r\n", None, True), b"hello!", ("end", [(b"Sum", b"2")])],
    ),
    "1xx twice, then final": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + HELLO,
        [(100, b""), (103, b"Link: a\r\n"), *SAID_HELLO],
    ),
    "204": (b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n", [(204, b"X: 1\r\n", None, False), END]),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", [(304, b"", b"5", False), END]),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", [(200, b"", b"0", False), END]),
    "no reason phrase": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", [(200, b"", b"0", False), END]),
    "499": (b"HTTP/1.1 499 x\r\nContent-Length: 0\r\n\r\n", [(499, b"", b"0", False), END]),
}


@pytest.mark.qp("QP-075", "QP-078", "QP-087", "QP-207")
@pytest.mark.parametrize(("answer", "said"), SPLITTABLE.values(), ids=SPLITTABLE)
def test_an_answer_split_at_any_byte_is_the_same_answer_and_the_connection_stays_fit(
    answer: bytes, said: list[object]
) -> None:
    app = App()
    for at in range(len(answer)):
        assert app.answers(*filter(None, (answer[:at], answer[at:]))) == said, answer[:at]
        assert app.fit
    assert app.answers(*(answer[i : i + 1] for i in range(len(answer)))) == said
    assert app.answers(HELLO) == SAID_HELLO


@pytest.mark.qp("QP-087")
@pytest.mark.parametrize("declared", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_an_answer_to_head_has_no_body_whatever_it_declares(declared: bytes) -> None:
    app = App()
    said = app.answers(OK + declared + b"\r\n", head_only=True)
    assert [len(said), said[-1], app.reader.complete] == [2, END, True]


@pytest.mark.qp("QP-087")
@pytest.mark.parametrize("body", [b"hello", HELLO], ids=["bytes", "a whole answer"])
@pytest.mark.parametrize("declared", [b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b""], ids=["5", "0", "-"])
def test_an_illegal_body_after_head_is_not_delivered_and_the_connection_is_unfit(body: bytes, declared: bytes) -> None:
    app = App()
    said = app.answers(OK + declared + b"\r\n" + body, head_only=True)
    assert said[1:] == [END] and not app.fit


@pytest.mark.qp("QP-087")
@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("declared", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"], ids=["CL", "TE"])
def test_what_204_and_304_declare_does_not_swallow_the_next_answer(status: bytes, declared: bytes) -> None:
    app = App()
    app.answers(b"HTTP/1.1 " + status + b"\r\n" + declared + b"\r\n")
    if app.fit:
        assert app.answers(HELLO) == SAID_HELLO


@pytest.mark.qp("QP-087")
def test_a_body_after_204_makes_the_connection_unfit() -> None:
    app = App()
    assert app.answers(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello")[1:] == [END]
    assert not app.fit


@pytest.mark.qp("QP-200")
@pytest.mark.parametrize(
    "surplus", [b"x", HELLO, b"HTTP/1.1 200", b"\x00" * 9, b"GET / HTTP/1.1\r\n\r\n"],
    ids=["a byte", "a second answer", "half an answer", "zeros", "a request"],
)  # fmt: skip
def test_surplus_bytes_after_an_answer_are_nobodys_and_the_connection_is_unfit(surplus: bytes) -> None:
    app = App()
    assert app.answers(HELLO + surplus) == SAID_HELLO
    assert not app.fit


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\n", True), (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", False), (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
    ids=["1.1", "close", "close among others", "1.0", "1.0 keep-alive"],
)  # fmt: skip
def test_who_keeps_the_connection(head: bytes, keep: bool) -> None:
    app = App()
    app.answers(head + b"Content-Length: 0\r\n\r\n")
    assert app.fit is keep


def test_head_answers_close_when_they_say_so() -> None:
    app = App()
    app.answers(OK + b"Connection: close\r\n\r\n", head_only=True)
    assert not app.fit


@pytest.mark.qp("QP-054")
def test_chunked_wins_over_a_length_and_the_connection_is_unfit() -> None:
    app = App()
    said = app.answers(OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert said == [(200, b"", None, True), b"hello", END]
    assert not app.fit


def test_without_length_the_body_ends_with_the_connection() -> None:
    app = App()
    assert app.answers(OK + b"\r\nhel", b"lo") == [(200, b"", None, False), b"hello"]
    reader = app.reader
    assert reader.until_eof and not reader.complete
    assert reader.ended_by_eof() and reader.complete


@pytest.mark.qp("QP-084")
@pytest.mark.parametrize(
    "part", [OK + b"Content-Length: 5\r\n\r\nhell", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", OK, b""],
    ids=["sized", "chunked", "head", "nothing"],
)  # fmt: skip
def test_an_end_in_the_middle_completes_nothing(part: bytes) -> None:
    app = App()
    app.answers(*filter(None, [part]))
    assert not app.reader.ended_by_eof() and not app.reader.complete


@pytest.mark.qp("QP-080")
def test_a_101_hands_over_what_follows_it() -> None:
    sink, reader = Sink(), ResponseReader()
    reader.expect(sink, head_only=False)
    answer = b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: web\r\nSec-WebSocket-Accept: k\r\n\r\n"
    assert reader.feed(answer + b"\x81\x00raw") == b"\x81\x00raw"
    assert sink.said == [("switched", b"web", b"Sec-WebSocket-Accept: k\r\n")]
    assert reader.complete and not reader.clean


@pytest.mark.qp("QP-200")
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 world\r\n\r\n", id="status is a word"),
        pytest.param(b"HTTP/1.1 099 x\r\n\r\n", id="status below 100"),
        pytest.param(b"\x00\x00\x12\x04\x00", id="HTTP/2"),
        pytest.param(b"220 smtp\r\n", id="another protocol"),
        pytest.param(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", id="two lengths"),
        pytest.param(OK + b"Content-Length: five\r\n\r\n", id="length is a word"),
        pytest.param(OK + b"Transfer-Encoding: gzip\r\n\r\n", id="another transfer coding"),
        pytest.param(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", id="two transfer codings"),
        pytest.param(OK + b"X: a\r\n b\r\n\r\n", id="folded"),
        pytest.param(OK + b"X: a\x00b\r\n\r\n", id="NUL"),
        pytest.param(OK + b"X : a\r\n\r\n", id="blank before the colon"),
        pytest.param(b"HTTP/1.1 101 x\r\n\r\n", id="101 to nothing"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", id="chunk size is a word"),
    ],
)
def test_what_is_not_http_is_one_line_of_complaint(answer: bytes) -> None:
    reader = ResponseReader()
    reader.expect(Sink(), head_only=False)
    with pytest.raises(BadResponse) as raised:
        reader.feed(answer)
    assert str(raised.value) and "\n" not in str(raised.value)
    assert not reader.clean


@pytest.mark.qp("QP-192")
def test_hop_by_hop_and_nominated_headers_end_here_and_repeated_ones_stay() -> None:
    said = App().answers(
        OK + b"Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nProxy-Authenticate: x\r\nTE: a\r\n"
        b"Set-Cookie: a\r\nset-cookie: b\r\nUpgrade: h2c\r\nServer: \r\nContent-Length: 0\r\n\r\n"
    )
    assert said[0] == (200, b"Set-Cookie: a\r\nset-cookie: b\r\nServer: \r\n", b"0", False)


def test_trailers_that_could_frame_or_route_are_dropped() -> None:
    said = App().answers(
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 3\r\nset-cookie: x\r\n\r\n"
    )
    assert said[-1] == ("end", [(b"Grpc-Status", b"0")])


def test_headers_of_one_answer_do_not_leak_into_the_next() -> None:
    app = App()
    app.answers(OK + b"A: 1\r\nDate: d\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n0\r\nT: 1\r\n\r\n")
    assert app.answers(HELLO) == SAID_HELLO
    assert not app.reader.has_date


def test_a_fault_of_our_own_is_not_blamed_on_the_app() -> None:
    class Broken(Sink):
        def response_body(self, data: bytes) -> None:
            raise RuntimeError("ours")

    reader = ResponseReader()
    reader.expect(Broken(), head_only=False)
    with pytest.raises(Exception) as raised:
        reader.feed(HELLO)
    assert not isinstance(raised.value, BadResponse)


# === Heads that we write. ===


def written(answer: bytes, *, chunked: bool = False, connection: bytes = b"", head_only: bool = False) -> bytes:
    app = App()
    app.answers(answer, head_only=head_only)
    return response_bytes(app.reader, chunked=chunked, connection=connection, date=b"now")


@pytest.mark.qp("QP-087")
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(HELLO, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: now\r\n\r\n", id="sized"),
        pytest.param(b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nDate: now\r\n\r\n",
                     id="304"),
        pytest.param(b"HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n",
                     id="204"),
        pytest.param(OK + b"Date: then\r\nContent-Length: 0\r\n\r\n",
                     b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n", id="the app's own date"),
    ],
)  # fmt: skip
def test_the_final_head(answer: bytes, expected: bytes) -> None:
    assert written(answer) == expected


@pytest.mark.qp("QP-087")
def test_head_keeps_its_content_length() -> None:
    assert b"Content-Length: 5\r\n" in written(OK + b"Content-Length: 5\r\n\r\n", head_only=True)


def test_a_chunked_body_is_announced_and_the_connection_line_written() -> None:
    head = written(OK + b"\r\n", chunked=True, connection=b"Connection: close\r\n")
    assert head == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDate: now\r\nConnection: close\r\n\r\n"


@pytest.mark.qp("QP-207")
@pytest.mark.parametrize(
    ("status", "line"),
    [(200, b"200 OK"), (418, b"418 I'm a teapot"), (999, b"999 status code 999"), (499, b"499 status code 499")],
)
def test_reason_phrases_are_gos(status: int, line: bytes) -> None:
    assert status_line(status) == status_line(status) == b"HTTP/1.1 " + line + b"\r\n"


@pytest.mark.parametrize(
    ("keep", "minor", "line"),
    [
        (True, 1, b""), (True, 0, b"Connection: keep-alive\r\n"),
        (False, 1, b"Connection: close\r\n"), (False, 0, b"Connection: close\r\n"),
    ],
)  # fmt: skip
def test_connection_is_said_where_it_is_not_the_default(keep: bool, minor: int, line: bytes) -> None:
    assert connection_line(keep=keep, minor=minor) == line


@pytest.mark.qp("QP-078", "QP-080")
def test_interim_and_switching_heads() -> None:
    assert interim_bytes(103, [b"Link", b": ", b"a", b"\r\n"]) == b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
    assert switching_bytes(b"web", [b"A", b": ", b"b", b"\r\n"]) == (
        b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n"
    )


def test_an_answer_of_our_own() -> None:
    assert answer_bytes(503, b"no\n", date=b"now", extra=b"X: y\r\n", connection=b"Connection: close\r\n") == (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nX: y\r\nDate: now\r\n"
        b"Content-Length: 3\r\nConnection: close\r\n\r\nno\n"
    )
    assert answer_bytes(200, b"", date=b"") == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert answer_bytes(200, b"ab", date=b"", head_only=True).endswith(b"Content-Length: 2\r\n\r\n")
