"""Which spans a request leaves: names, kinds, parents and attributes."""

import pytest

from queueproxy.traces.spans import OTELHTTP, QUEUE, Span, SpanKind, Trace, spans

OTHERS = 11 | 22 << 64 | 33 << 128 | 44 << 192  # ids of server, proxy, wait, thaw
ORDINARY = Trace(
    trace=1, span=2, others=OTHERS, parent=9, server=True, proxied=True, limited=True, method=b"GET", target=b"/a?b=c",
    host=b"h.example:8080", agent=b"curl", forwarded_for=b"1.2.3.4, 5.6.7.8", tag=b"", default=b"", peer=b"10.0.0.9",
    peer_port=4711, minor=1, secure=False, status=200, app_status=200, error="", received=3, size=5, began_at=100.0,
    admitted_at=100.25, thaw_wait=0.0, sent_at=100.5, ended_at=101.0,
)  # fmt: skip


def left(**changes: object) -> dict[str, Span]:
    found = list(spans(ORDINARY._replace(**changes), 8080))  # type: ignore[arg-type]
    assert len({span.span for span in found}) == len(found) and {span.trace for span in found} == {1}
    return {span.name: span for span in found}


@pytest.mark.qp("QP-239")
def test_names_kinds_scopes_and_parents_are_upstreams() -> None:
    found = left()
    assert {name: (span.kind, span.scope, span.span, span.parent) for name, span in found.items()} == {
        "GET": (SpanKind.SERVER, OTELHTTP, 11, 9),
        "kn.queueproxy.proxy": (SpanKind.INTERNAL, QUEUE, 22, 11),
        "kn.queueproxy.wait": (SpanKind.INTERNAL, QUEUE, 33, 22),
        "HTTP GET": (SpanKind.CLIENT, OTELHTTP, 2, 33),
    }
    assert {name for name, span in found.items() if span.remote} == {"GET"}


@pytest.mark.qp("QP-239")
def test_times_are_those_of_the_request() -> None:
    assert {name: (span.began_at, span.ended_at) for name, span in left().items()} == {
        "GET": (100.0, 101.0), "kn.queueproxy.proxy": (100.0, 101.0), "kn.queueproxy.wait": (100.0, 100.25),
        "HTTP GET": (100.5, 101.0),
    }  # fmt: skip


@pytest.mark.qp("QP-239")
def test_without_a_limiter_the_client_span_is_the_proxy_spans_child() -> None:
    found = left(limited=False)
    assert "kn.queueproxy.wait" not in found and found["HTTP GET"].parent == 22


@pytest.mark.qp("QP-239")
def test_a_request_that_is_a_probe_by_its_headers_begins_a_trace_at_the_proxy_span() -> None:
    found = left(server=False, parent=0)
    assert "GET" not in found and found["kn.queueproxy.proxy"].parent == 0
    alone = left(server=False, proxied=False, parent=0)
    assert set(alone) == {"HTTP GET"} and alone["HTTP GET"].parent == 0


@pytest.mark.fz("FZ-106")
@pytest.mark.parametrize(("limited", "parent"), [(True, 33), (False, 22)])
def test_a_thaw_is_the_parent_of_the_clients_span(limited: bool, parent: int) -> None:
    found = left(thaw_wait=0.2, limited=limited)
    thaw = found["thaw"]
    assert found["HTTP GET"].parent == thaw.span
    assert (thaw.kind, thaw.parent, thaw.span) == (SpanKind.INTERNAL, parent, 44)
    assert (thaw.began_at, thaw.ended_at) == (pytest.approx(100.3), 100.5)


@pytest.mark.qp("QP-239")
def test_a_request_that_never_reached_the_app_has_no_client_span() -> None:
    found = left(sent_at=0.0, admitted_at=0.0, status=503, app_status=0, error="_OTHER")
    assert set(found) == {"GET", "kn.queueproxy.proxy", "kn.queueproxy.wait"}
    assert found["kn.queueproxy.wait"].ended_at == 101.0 and found["GET"].error == ""


@pytest.mark.qp("QP-239")
def test_the_server_spans_attributes() -> None:
    assert left()["GET"].attributes == {
        "http.request.method": "GET", "url.scheme": "http", "server.address": "h.example", "server.port": 8080,
        "url.path": "/a", "network.peer.address": "10.0.0.9", "network.peer.port": 4711, "client.address": "1.2.3.4",
        "network.protocol.version": "1.1", "http.request.body.size": 3, "http.response.body.size": 5,
        "http.response.status_code": 200, "kn.route.tag": "kn:disabled", "user_agent.original": "curl",
    }  # fmt: skip
    bare = left(agent=b"", forwarded_for=b"", host=b"h", peer_port=0, secure=True, default=b"x")["GET"].attributes
    assert bare["client.address"] == "10.0.0.9" and bare["url.scheme"] == "https"
    assert bare["kn.route.tag"] == "kn:default"
    assert not {"user_agent.original", "server.port", "network.peer.port"} & set(bare)


@pytest.mark.qp("QP-239")
def test_the_client_spans_attributes() -> None:
    assert left()["HTTP GET"].attributes == {
        "http.request.method": "GET", "url.full": "http://127.0.0.1:8080/a?b=c", "server.address": "127.0.0.1",
        "server.port": 8080, "network.protocol.version": "1.1", "http.response.status_code": 200,
    }  # fmt: skip


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize(
    ("status", "app_status", "server_error", "client_error"),
    [(200, 200, None, None), (404, 404, None, ""), (500, 500, "", ""), (502, 0, "", "net.OpError")],
)
def test_errors_are_from_400_at_the_client_and_from_500_at_the_server(
    status: int, app_status: int, server_error: str | None, client_error: str | None
) -> None:
    found = left(status=status, app_status=app_status, error="net.OpError")
    assert (found["GET"].error, found["HTTP GET"].error) == (server_error, client_error)
    assert ("error.type" in found["HTTP GET"].attributes) is (app_status == 0)


@pytest.mark.qp("QP-239")
def test_an_unknown_method_does_not_become_a_name() -> None:
    found = left(method=b"BREW")
    assert found["HTTP"].attributes["http.request.method"] == "_OTHER"
    assert found["HTTP"].attributes["http.request.method_original"] == "BREW"


def test_bytes_that_are_not_utf_8_are_no_error() -> None:
    found = left(target=b"/\xff", agent=b"\xfe")
    assert found["GET"].attributes["url.path"] == "/\ufffd"
