"""What a parsed request head holds, as the reader hands it over."""

from queueproxy.codec.head import RequestHead
from queueproxy.codec.http1 import RequestReader


class Sink:
    """Keeps the heads it is given."""

    def __init__(self) -> None:
        self.heads: list[RequestHead] = []

    def head_received(self, head: RequestHead) -> None:
        self.heads.append(head)

    def body_received(self, data: bytes) -> None: ...
    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def raw_received(self, data: bytes) -> None: ...


def head_of(request: bytes) -> RequestHead:
    sink = Sink()
    RequestReader(sink).feed(request)
    (head,) = sink.heads
    return head


def test_a_head_says_in_its_repr_what_a_log_reader_asks_first() -> None:
    assert (
        repr(head_of(b"PUT /a HTTP/1.0\r\nContent-Length: 3\r\n\r\n")) == "<RequestHead b'PUT' b'/a' HTTP/1.0 body=1>"
    )


def test_a_body_that_comes_with_its_head_is_early() -> None:
    assert not head_of(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").early
    assert head_of(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab").early


def test_the_original_host_is_forwarded_when_it_is_kept_and_only_once() -> None:
    head = head_of(b"GET / HTTP/1.1\r\nHost: a\r\nK-Original-Host: b\r\n\r\n")
    assert b"K-Original-Host" not in head.lines
    head.keep_original_host()
    head.keep_original_host()
    assert head.lines.count(b"K-Original-Host") == 1 and b"b" in head.lines


def test_without_an_original_host_there_is_nothing_to_keep() -> None:
    head = head_of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    before = list(head.lines)
    head.keep_original_host()
    assert head.lines == before
