"""What a template needs to be tried without a proxy: a head parsed by the real codec, and the rest of an input."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from queueproxy.codec.headers import remember_for_log
from queueproxy.codec.http1 import RequestHead, RequestReader
from queueproxy.requestlog.compiler import compiled
from queueproxy.requestlog.inputs import Input, Revision

# The cases were made once by Go 1.26's text/template, net/http and Knative's RequestLogTemplateInput. `js` there wrote
# an apostrophe as we do (D15).
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "requestlog" / "golden.json").read_text())
REVISION = Revision(name="rev", namespace="ns", service="svc", configuration="conf", pod="pod-1", pod_ip="10.0.0.1")
GET = GOLDEN["heads"]["get"].encode()


class _Sink:
    head: RequestHead

    def head_received(self, head: RequestHead) -> None:
        self.head = head

    def body_received(self, data: bytes) -> None: ...
    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def raw_received(self, data: bytes) -> None: ...


def parsed(raw: bytes) -> RequestHead:
    remember_for_log()
    sink = _Sink()
    RequestReader(sink).feed(raw)
    return sink.head


def input_of(
    raw: bytes = GET,
    *,
    status: int = 200,
    size: int = 1234,
    took: float = 0.002674909,
    thaw_wait: float = 0.0,
    tls: Any = None,
) -> Input:
    """A finished request with that head."""
    client = SimpleNamespace(remote=b"10.0.0.9:5123", tls=tls, heads=SimpleNamespace(raw=raw))
    return Input(parsed(raw), client, status, size, took, thaw_wait, REVISION)


def line(template: str, raw: bytes = GET, **facts: Any) -> bytes:
    """What the template writes."""
    return compiled(template)(input_of(raw, **facts))


def with_headers(*lines: str, target: str = "/", method: str = "GET") -> bytes:
    """A head with those header lines."""
    return "".join(f"{part}\r\n" for part in (f"{method} {target} HTTP/1.1", "Host: h", *lines, "")).encode()
