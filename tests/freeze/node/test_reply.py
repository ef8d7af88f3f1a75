"""Whole answers to sidecars, as an HTTP client reads them."""

import json

import pytest

from queueproxy.codec.response import answer_bytes
from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.node.reply import answer_of, last_word
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import Problem, View, encode_view
from tests.freeze.node.test_call import call
from tests.support.freezer_calls import get, old, put

DATE = b"Sun, 22 Nov 2026 18:00:00 GMT"
VIEW = View(Rung.RUNNING, 8, "cgroup2", 120, None, 0.0, DEFAULTS)
WISH = put("t0ken", {"state": "active"})


def parts(message: bytes) -> tuple[bytes, dict[str, str], bytes]:
    head, _, body = message.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    headers = dict(field.decode().lower().split(": ", 1) for field in fields)
    assert int(headers["content-length"]) == len(body)
    return line, headers, body


def test_a_view_is_answered_as_every_other_answer_is_written() -> None:
    said = answer_of(call(WISH), DATE, view=VIEW)
    assert said == (200, answer_bytes(200, encode_view(VIEW), date=DATE, content_type=b"application/json"))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        pytest.param(WISH.replace(b"Host", b"Connection: close\r\nHost"), "close", id="the last one"),
        pytest.param(WISH.replace(b"1.1", b"1.0"), "close", id="1.0"),
        pytest.param(WISH.replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n"), "keep-alive", id="1.0, kept"),
    ],
)
def test_whether_the_connection_stays_is_said_where_it_is_not_the_default(data: bytes, line: str) -> None:
    _, headers, body = parts(answer_of(call(data), DATE, view=VIEW)[1])
    assert headers["connection"] == line and body == encode_view(VIEW)


@pytest.mark.parametrize("problem", Problem)
def test_a_problem_has_its_status_and_its_type(problem: Problem) -> None:
    status, message = answer_of(call(WISH), DATE, problem, "so it is", VIEW, 0.25)
    line, headers, body = parts(message)
    assert line.split(b" ")[1] == b"%d" % status == b"%d" % problem.status
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["type"] == f"urn:queueproxy:{problem.kind}"
    assert headers.get("www-authenticate") == ("bearer" if status == 401 else None)
    assert headers.get("retry-after") == (None if status == 401 else "1")


@pytest.mark.fz("FZ-069")
@pytest.mark.parametrize(
    ("problem", "status"),
    [(None, 200), (Problem.FORBIDDEN, 403), (Problem.UNAUTHENTICATED, 403), (Problem.NOT_CONFIRMED, 500),
     (Problem.MALFORMED, 400), (Problem.NOT_FOUND, 404)],
)  # fmt: skip
def test_a_daemon_of_old_is_answered_without_a_body(problem: Problem | None, status: int) -> None:
    told, message = answer_of(call(old("t0ken", "pause")), DATE, problem, "detail", VIEW)
    line, headers, body = parts(message)
    assert told == status and line.startswith(b"HTTP/1.1 %d" % status)
    assert body == b"" and "content-type" not in headers


def test_the_last_word_ends_the_connection() -> None:
    line, headers, body = parts(last_word(DATE, Problem.TOO_LARGE, "a head of more than 4096 bytes"))
    assert line.split(b" ")[1] == b"413" and headers["connection"] == "close"
    assert json.loads(body)["detail"] == "a head of more than 4096 bytes"


def test_a_question_is_answered_like_a_wish() -> None:
    assert answer_of(call(get("t0ken")), DATE, view=VIEW) == answer_of(call(WISH), DATE, view=VIEW)
