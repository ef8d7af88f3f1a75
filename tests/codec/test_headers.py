"""What each header means: kinds, tokens, the Forwarded shim, nominated headers, and a memo that cannot be grown."""

import pytest

from queueproxy.codec import headers
from queueproxy.codec.headers import (
    DROP,
    FORWARD,
    HOST,
    MEMO_LIMIT,
    REQUEST_KINDS,
    RESPONSE_KINDS,
    USER_AGENT,
    forwarded,
    learn,
    tokens,
    without,
)


@pytest.mark.parametrize("name", [b"user-agent", b"User-Agent", b"USER-AGENT", b"uSeR-aGeNt"])
def test_a_name_means_the_same_in_every_spelling(name: bytes) -> None:
    assert REQUEST_KINDS.get(name, learn(REQUEST_KINDS, name)) == USER_AGENT


@pytest.mark.qp("QP-192", "QP-193")
@pytest.mark.parametrize(
    "name",
    [
        b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authenticate", b"Proxy-Authorization",
        b"Knative-Serving-Revision", b"Knative-Serving-Namespace",
    ],
)  # fmt: skip
def test_hop_by_hop_and_routing_headers_end_here(name: bytes) -> None:
    assert learn(REQUEST_KINDS, name) == DROP


@pytest.mark.qp("QP-192")
def test_the_two_directions_have_their_own_tables() -> None:
    assert learn(REQUEST_KINDS, b"hOST") == HOST
    assert learn(RESPONSE_KINDS, b"hOST") == FORWARD
    assert learn(RESPONSE_KINDS, b"kEEP-aLIVE") == DROP


@pytest.mark.qp("QP-353")
@pytest.mark.parametrize("table", ["REQUEST_KINDS", "RESPONSE_KINDS"])
def test_ten_thousand_hostile_names_do_not_grow_the_memo(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = dict(getattr(headers, table))
    monkeypatch.setattr(headers, table, kinds)
    for number in range(10_000):
        assert learn(kinds, b"X-Hostile-%d" % number) == FORWARD
    assert len(kinds) == MEMO_LIMIT
    assert learn(kinds, b"COnTENT-lENGTH") == headers.CONTENT_LENGTH, "a full memo still knows what matters"
    assert len(kinds) == MEMO_LIMIT


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([b"close"], [b"close"], id="one"),
        pytest.param([b"Keep-Alive, X-A"], [b"keep-alive", b"x-a"], id="two, lower-cased"),
        pytest.param([b"a", b" b\t,c "], [b"a", b"b", b"c"], id="several lines are one list"),
        pytest.param([b",, a,,\t,"], [b"a"], id="empty elements do not count"),
        pytest.param([b""], [], id="nothing"),
    ],
)
def test_tokens_of_a_list_field(lines: list[bytes], expected: list[bytes]) -> None:
    assert tokens(lines) == expected


@pytest.mark.qp("QP-196")
@pytest.mark.parametrize(
    ("xff", "host", "proto", "expected"),
    [
        # The reference outputs of contract 3.9 ...
        pytest.param([b"127.0.0.1, ::1"], b"h", b"p", b'for=127.0.0.1;host=h;proto=p, for="[::1]"', id="all, IPv6"),
        pytest.param([b"127.0.0.1"], b"h", b"p", b"for=127.0.0.1;host=h;proto=p", id="all"),
        pytest.param([b"127.0.0.1, ::1"], None, None, b'for=127.0.0.1, for="[::1]"', id="for alone"),
        pytest.param([], b"h", b"p", b"host=h;proto=p", id="host and proto"),
        pytest.param([], None, b"p", b"proto=p", id="proto alone"),
        # ... and the rest of upstream's combinations.
        pytest.param([], b"h", None, b"host=h", id="host alone"),
        pytest.param([b"127.0.0.1"], None, b"p", b"for=127.0.0.1;proto=p", id="for and proto"),
        pytest.param([b"127.0.0.1"], b"h", None, b"for=127.0.0.1;host=h", id="for and host"),
        pytest.param([b",,,"], None, None, b"for=, for=, for=", id="commas"),
        pytest.param([b"::1"], b"h", b"p", b'for="[::1]";host=h;proto=p', id="IPv6 first"),
        pytest.param([], None, None, None, id="nothing"),
        # Ours.
        pytest.param([b"1.1.1.1 ,  2.2.2.2"], None, None, b"for=1.1.1.1, for=2.2.2.2", id="elements are trimmed"),
        pytest.param([b"1.1.1.1", b"2.2.2.2"], None, None, b"for=1.1.1.1", id="only the first line counts"),
        pytest.param([b""], None, None, None, id="an empty line is nothing"),
        pytest.param([b"1.1.1.1,"], None, None, b"for=1.1.1.1", id="a trailing empty element"),
    ],
)
def test_forwarded_is_made_of_x_forwarded(
    xff: list[bytes], host: bytes | None, proto: bytes | None, expected: bytes | None
) -> None:
    assert forwarded(xff, host, proto) == expected


@pytest.mark.qp("QP-192")
def test_nominated_lines_are_removed_in_any_spelling_and_order_is_kept() -> None:
    lines = [part for name in (b"A", b"X-Secret", b"B", b"x-SECRET", b"C") for part in (name, b": ", b"v", b"\r\n")]
    assert without(lines, [b"x-secret"])[::4] == [b"A", b"B", b"C"]
    assert without(lines, [b"other"]) == lines


def test_what_a_request_log_asks_for_is_kept_only_once_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {b"referer": headers.REFERER, b"Traceparent": headers.TRACEPARENT, b"X-B3-Traceid": headers.X_B3_TRACEID}
    odd = {b"REFERER": headers.REFERER, b"reFerer": headers.REFERER, b"traceParent": headers.TRACEPARENT}
    bare = {name: kind for name, kind in headers._REQUEST.items() if kind not in asked.values()}
    monkeypatch.setattr(headers, "_REQUEST", bare)
    monkeypatch.setattr(
        headers, "REQUEST_KINDS", kinds := {n: k for name, k in bare.items() for n in (name, name.title())}
    )
    assert [kinds.get(name) for name in asked] == [None] * 3
    assert headers.learn(kinds, b"reFerer") == FORWARD
    headers.remember_for_log()
    assert {name: kinds[name] for name in asked} == asked
    assert {name: kinds.get(name) or headers.learn(kinds, name) for name in odd} == odd
    assert kinds[b"reFerer"] == headers.REFERER, "met before, and told anew"
    assert max(asked.values()) <= headers.LAST_FORWARDED
