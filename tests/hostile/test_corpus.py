"""Every hostile request against the codec: the verdict of the corpus, and what goes out is unambiguous."""

import re

import pytest

from tests.hostile.corpus import Case, Outcome, corpus
from tests.hostile.reading import outcomes_of

CASES = [pytest.param(case, id=case.name) for case in corpus("requests")]
FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e\x80-\xff]*")
LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [\x21-\x7e]+ HTTP/1\.1")


def assert_as_written(case: Case, got: list[Outcome]) -> None:
    """`got` are the outcomes the corpus wants; it may leave out the reason of a refusal."""
    assert [outcome.kind for outcome in got] == [outcome.kind for outcome in case.outcomes]
    for outcome, wanted in zip(got, case.outcomes, strict=True):
        assert outcome.text == wanted.text or (wanted.kind == "reject" and outcome.text.startswith(wanted.text))
        assert (outcome.out, outcome.body, outcome.trailers) == (wanted.out, wanted.body, wanted.trailers)


def assert_unambiguous(head: bytes) -> None:
    """Nobody can read this head in two ways (RFC 9112 11.2)."""
    assert head.endswith(b"\r\n\r\n")
    first, *fields = head[:-4].split(b"\r\n")
    assert LINE.fullmatch(first), first
    assert all(FIELD.fullmatch(field) for field in fields), fields
    names = [field.split(b":")[0].lower() for field in fields]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    for field in fields:
        if field.lower().startswith(b"content-length:"):
            assert re.fullmatch(rb"Content-Length: (0|[1-9][0-9]*)", field)
        elif field.lower().startswith(b"transfer-encoding:"):
            assert field == b"Transfer-Encoding: chunked"


@pytest.mark.qp("QP-053", "QP-054")
@pytest.mark.parametrize("case", CASES)
def test_a_hostile_request_gets_its_verdict(case: Case) -> None:
    got = outcomes_of([case.data])
    assert_as_written(case, got)
    for outcome in got:
        if outcome.out:
            assert_unambiguous(outcome.out)


def test_the_corpus_is_as_large_as_it_says_and_covers_every_verdict() -> None:
    cases = corpus("requests")
    assert len(cases) >= 300
    kinds = {outcome.kind for case in cases for outcome in case.outcomes}
    assert kinds == {"forward", "close", "reject", "abort", "begun", "local", "wait"}


# -- every byte in every place


def verdict(data: bytes) -> str:
    outcomes = outcomes_of([data])
    if outcomes[-1].out:
        assert_unambiguous(outcomes[-1].out)
    return outcomes[-1].kind


TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
VISIBLE = frozenset({*range(33, 127), *range(128, 256)})
VALUE = VISIBLE | {9, 32}
NOT_HOST = frozenset(b'"<>\\^`{|}/?#@,')
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HOST = b"\r\nHost: a\r\n\r\n"


@pytest.mark.qp("QP-053")
@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        pytest.param(b"G%cT / HTTP/1.1" + HOST, TOKEN, id="in a method"),
        pytest.param(b"GET /a%cb HTTP/1.1" + HOST, VISIBLE - {ord("%")}, id="in a target"),
        pytest.param(b"GET /?a%cb HTTP/1.1" + HOST, VISIBLE, id="in a query"),
        pytest.param(b"GET /%cHTTP/1.1" + HOST, b" ", id="before the version"),
        pytest.param(b"GET / HTTP/1.1%c" + HOST, b"", id="after the version"),
        pytest.param(b"GET / HTTP/1.%c" + HOST, b"123456789", id="as the minor version"),
        pytest.param(b"GET / HTTP/1.1%cHost: a\r\n\r\n", b"", id="as a line end"),
        pytest.param(b"GET / HTTP/1.1\r%cHost: a\r\n\r\n", b"\n", id="after the CR of a line end"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a%cb\r\n\r\n", VISIBLE - NOT_HOST, id="in Host"),
        pytest.param(GET + b"X%cY: b\r\n\r\n", TOKEN | {ord(":")}, id="in a name"),
        pytest.param(GET + b"X: b%cd\r\n\r\n", VALUE, id="in a value"),
        pytest.param(GET + b"X:%cb\r\n\r\n", VALUE, id="before a value"),
        pytest.param(GET + b"X: b%c\r\n\r\n", VALUE, id="after a value"),
        pytest.param(POST + b"Content-Length: 1%c\r\n\r\na", b"\t ", id="after a length"),
        pytest.param(POST + b"Content-Length:%c1\r\n\r\na", b"\t 0", id="before a length"),
        pytest.param(POST + b"Transfer-Encoding: chunked%c\r\n\r\n0\r\n\r\n", b"\t ", id="after a coding"),
        pytest.param(POST + b"Transfer-Encoding:%cchunked\r\n\r\n0\r\n\r\n", b"\t ", id="before a coding"),
        pytest.param(CHUNKED + b"1%c\r\na\r\n0\r\n\r\n", b";", id="after a chunk size"),
        pytest.param(CHUNKED + b"%c1\r\na\r\n0\r\n\r\n", b"0", id="before a chunk size"),
        pytest.param(CHUNKED + b"1\r\na%c\n0\r\n\r\n", b"\r", id="after chunk data"),
        pytest.param(CHUNKED + b"1\r\na\r\n0\r\n%c\r\n", b"", id="before the end of the trailers"),
    ],
)
def test_only_these_bytes_may_stand(place: bytes, allowed: bytes | frozenset[int]) -> None:
    passed = {byte for byte in range(256) if verdict(place.replace(b"%c", bytes([byte]))) == "forward"}
    assert passed == set(allowed)
