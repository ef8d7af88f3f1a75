"""W3C trace context, and which traces are kept."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.traces.context import Parent, Sampler, parse, retitle

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
GOOD = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (GOOD, Parent(TRACE, SPAN, True)),
        (GOOD[:-1] + b"0", Parent(TRACE, SPAN, False)),
        (GOOD[:-2] + b"03", Parent(TRACE, SPAN, True)),
        (GOOD[:-2] + b"02", Parent(TRACE, SPAN, False)),
        (b"01" + GOOD[2:], Parent(TRACE, SPAN, True)),
        (b"01" + GOOD[2:] + b"-more", Parent(TRACE, SPAN, True)),
        (b"01" + GOOD[2:] + b"x", None),
        (GOOD + b"-more", None),
        (b"ff" + GOOD[2:], None),
        (b"", None),
        (GOOD.upper(), None),
        (GOOD[:-1], None),
        (GOOD.replace(b"-", b"_"), None),
        (GOOD.replace(b"4bf9", b"+bf9"), None),
        (b"00-" + b"0" * 32 + GOOD[35:], None),
        (GOOD[:36] + b"0" * 16 + GOOD[52:], None),
        (b"zz" + GOOD[2:], None),
    ],
)
def test_a_traceparent_is_read_as_the_standard_says(value: bytes, expected: Parent | None) -> None:
    assert parse(value) == expected


@given(st.binary(max_size=80))
def test_nothing_a_client_sends_is_an_error(value: bytes) -> None:
    found = parse(value)
    assert found is None or (int(found.trace, 16) > 0 and len(found.span) == 16)


@pytest.mark.qp("QP-239")
def test_a_share_of_the_traces_is_kept_and_always_the_same_ones() -> None:
    some = random.Random(7)
    traces = [b"%032x" % some.getrandbits(128) for _ in range(20_000)]
    kept = [t for t in traces if Sampler(0.1, parent_based=True).samples(t, None)]
    assert 1800 < len(kept) < 2200
    assert all(Sampler(0.3, parent_based=False).samples(t, None) for t in kept)


@pytest.mark.qp("QP-239")
def test_only_the_lower_half_of_the_id_decides_as_in_gos_sdk() -> None:
    sampler = Sampler(0.5, parent_based=False)
    low, high = b"7fffffffffffffff", b"8000000000000000"
    for upper in (b"0" * 16, b"f" * 16):
        assert sampler.samples(upper + low, None) and not sampler.samples(upper + high, None)
    assert Sampler(1.0, parent_based=False).samples(b"f" * 32, None)
    assert not Sampler(0.0, parent_based=False).samples(b"0" * 31 + b"1", None)


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_callers_decision_counts_only_where_it_is_followed(ratio: float, sampled: bool) -> None:
    parent = Parent(TRACE, SPAN, sampled)
    assert Sampler(ratio, parent_based=True).samples(TRACE, parent) is sampled
    assert Sampler(ratio, parent_based=False).samples(TRACE, parent) is (ratio == 1.0)


def lines(*fields: tuple[bytes, bytes]) -> list[bytes]:
    return [piece for name, value in fields for piece in (name, b": ", value, b"\r\n")]


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([(b"A", b"1")], [(b"A", b"1"), (b"traceparent", b"new")]),
        ([(b"Traceparent", b"old"), (b"A", b"1")], [(b"Traceparent", b"new"), (b"A", b"1")]),
        ([(b"X", b"old"), (b"traceparent", b"old")], [(b"X", b"old"), (b"traceparent", b"new")]),
        ([(b"old", b"1"), (b"traceparent", b"old")], [(b"old", b"1"), (b"traceparent", b"new")]),
        ([(b"traceparent", b"old"), (b"TRACEPARENT", b"x")], [(b"traceparent", b"new"), (b"TRACEPARENT", b"x")]),
        ([(b"traceparent", b"old"), (b"B", b"2"), (b"traceparent", b"x")], [(b"traceparent", b"new"), (b"B", b"2")]),
    ],
    ids=["none", "replaced", "value-elsewhere", "name-elsewhere", "twice-in-two-spellings", "twice"],
)
def test_the_app_is_told_our_span_in_place_of_the_callers(
    before: list[tuple[bytes, bytes]], after: list[tuple[bytes, bytes]]
) -> None:
    received = {name.lower(): value for name, value in reversed(before)}.get(b"traceparent")
    got = lines(*before)
    retitle(got, received, b"new")
    assert got == lines(*after)


def test_one_that_a_connection_header_took_away_is_written_anew() -> None:
    got = lines((b"A", b"1"))
    retitle(got, b"old", b"new")
    assert got == lines((b"A", b"1"), (b"traceparent", b"new"))
