"""An extension is tested like any class: requests are made of bytes, answers of headers."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from queueproxy_apikey import DENIED, ApiKey, owners

from queueproxy.extensions import Headers, Outcome, Request, Response, Setup

KEY = "s3cret"
ANNOTATIONS = f'other="x"\nexample.com/apikeys="{sha256(KEY.encode()).hexdigest()}=ann, 00=bob"\n'


class Log:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def info(self, message: str, /, **fields: object) -> None:
        self.lines.append((message, fields))

    debug = warning = error = info


def extension(tmp_path: Path, annotations: str = ANNOTATIONS) -> tuple[ApiKey, Log]:
    podinfo, log, loop = tmp_path / "annotations", Log(), asyncio.new_event_loop()
    podinfo.write_text(annotations)
    loop.close()
    return ApiKey(Setup("apikey", log, loop, podinfo=str(podinfo))), log


def request(*lines: str) -> Request:
    return Request.of("\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, "", ""]).encode())


@pytest.mark.parametrize("line", [f"Authorization: Bearer {KEY}", f"authorization: bearer  {KEY}"])
def test_a_known_key_opens_and_goes_no_further(tmp_path: Path, line: str) -> None:
    apikey, _ = extension(tmp_path)
    asked = request(line, "X-Caller: root")
    assert apikey.request(asked) is None
    assert asked.headers.all(b"X-Caller") == [b"ann"] and b"Authorization" not in asked.headers


@pytest.mark.parametrize(
    "lines", [(), ("Authorization: Bearer wrong",), (f"Authorization: Basic {KEY}",), ("Authorization: Bearer",)]
)
def test_others_stay_outside(tmp_path: Path, lines: tuple[str, ...]) -> None:
    apikey, _ = extension(tmp_path)
    assert apikey.request(request(*lines)) is DENIED


def test_without_the_annotation_everybody_may_in_and_nobody_says_who_he_is(tmp_path: Path) -> None:
    apikey, _ = extension(tmp_path, 'other="x"\n')
    asked, response = request("X-Caller: root", "Authorization: Bearer mine"), Response(200, Headers.of([]))
    assert apikey.request(asked) is None
    apikey.response(asked, response)
    assert b"X-Caller" not in asked.headers and b"Authorization" in asked.headers and b"Vary" not in response.headers


def test_caches_are_told(tmp_path: Path) -> None:
    apikey, _ = extension(tmp_path)
    response = Response(200, Headers.of([(b"Vary", b"Accept")]))
    apikey.response(request(), response)
    assert response.headers.all(b"vary") == [b"Accept", b"Authorization"]


@pytest.mark.parametrize(("took", "said"), [(0.5, 0), (1.5, 1)])
def test_slow_requests_are_logged_with_their_caller(tmp_path: Path, took: float, said: int) -> None:
    apikey, log = extension(tmp_path)
    asked = request(f"Authorization: Bearer {KEY}")
    apikey.request(asked)
    apikey.finished(asked, Outcome(200, 200, 0, 5, took, 0.0, took, ""))
    expected: list[Any] = [("slow request", {"caller": "ann", "status": 200, "took": took})]
    assert log.lines[1:] == expected[:said]


@pytest.mark.parametrize(
    "annotation", ['example.com/apikeys="x"', "example.com/apikeys=x", 'example.com/apikeys="a=b=c"']
)
def test_keys_that_cannot_be_read_are_an_error(annotation: str) -> None:
    with pytest.raises(ValueError):
        owners(annotation)
