"""Protocol version 1 and the protocol of old: what goes in comes out, and nothing else gets in."""

import json
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.annotations import DEFAULTS, Liveness, Mode, PodPolicy
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import (
    LEASE_S,
    MAX_BODY,
    MAX_GENERATION,
    OldAction,
    Problem,
    Refusal,
    StateRequest,
    View,
    Wanted,
    WireError,
    decode_old,
    decode_problem,
    decode_request,
    decode_view,
    encode_old,
    encode_problem,
    encode_request,
    encode_view,
)

SECONDS = st.floats(0, 1e6)
GENERATIONS = st.integers(0, MAX_GENERATION)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, categories=("L", "N", "P")), max_size=200)
POLICIES = st.builds(
    PodPolicy, st.sampled_from(Mode), SECONDS | st.none(), SECONDS | st.none(), SECONDS, st.sampled_from(Liveness),
    st.lists(WORDS, max_size=3).map(tuple), WORDS, SECONDS | st.none(),
    st.booleans(),
)  # fmt: skip
SECRETS = st.text("abcXYZ019-_", min_size=1, max_size=128)
VIEWS = st.builds(
    View, st.sampled_from(Rung), GENERATIONS, WORDS, st.integers(0, 10**9), SECRETS | st.none(), SECONDS,
    POLICIES | st.none(),
)  # fmt: skip
VALID = {"state": "idle", "generation": 1}
SEEN = {"state": "frozen", "generation": 1}


@pytest.mark.fz("FZ-060")
def test_a_wish_on_the_wire() -> None:
    assert encode_request(StateRequest(Wanted.IDLE, 7, 30.0, "idle for 2 s", Rung.THROTTLED)) == (
        b'{"state":"idle","generation":7,"rung":"throttled","lease_s":30,"reason":"idle for 2 s"}'
    )
    assert encode_request(StateRequest(Wanted.ACTIVE, 8, reason="request")) == (
        b'{"state":"active","generation":8,"reason":"request"}'
    )
    assert decode_request(b'{"state":"terminating","generation":9}') == StateRequest(Wanted.TERMINATING, 9, LEASE_S)


@pytest.mark.fz("FZ-060")
@given(st.builds(StateRequest, st.just(Wanted.IDLE), GENERATIONS, SECONDS, WORDS, st.sampled_from([*Rung][1:])))
def test_a_wish_survives_the_wire(request: StateRequest) -> None:
    assert decode_request(encode_request(request)) == request


@pytest.mark.fz("FZ-060")
@given(VIEWS)
def test_a_view_survives_the_wire(view: View) -> None:
    assert decode_view(encode_view(view)) == view


@pytest.mark.fz("FZ-060")
def test_unknown_fields_are_ignored_and_absent_ones_have_defaults() -> None:
    assert decode_request(json.dumps(VALID | {"heartbeat_s": 5, "nested": {"a": [1]}}).encode()) == StateRequest(
        Wanted.IDLE, 1, LEASE_S, "", Rung.FROZEN
    )
    assert decode_view(json.dumps(SEEN | {"children": []}).encode()) == View(Rung.FROZEN, 1)


@pytest.mark.fz("FZ-060")
def test_a_reclaimed_pod_is_a_frozen_one() -> None:
    assert decode_view(b'{"state":"reclaimed","generation":1}').rung is Rung.FROZEN
    assert decode_request(b'{"state":"idle","generation":1,"rung":"reclaimed"}').rung is Rung.FROZEN


WRONG_REQUESTS: dict[str, Any] = {
    "no state": {"generation": 1}, "state of another type": {"state": 1, "generation": 1},
    "unknown state": {"state": "asleep", "generation": 1}, "no generation": {"state": "idle"},
    "negative": VALID | {"generation": -1}, "fraction": VALID | {"generation": 1.0},
    "true": VALID | {"generation": True}, "too large": VALID | {"generation": MAX_GENERATION + 1},
    "endless": VALID | {"generation": 10**3900},
    "text": VALID | {"generation": "1"}, "null": VALID | {"generation": None},
    "negative lease": VALID | {"lease_s": -1}, "lease in words": VALID | {"lease_s": "30s"},
    "boolean lease": VALID | {"lease_s": True}, "endless lease": VALID | {"lease_s": 1e300},
    "reason of another type": VALID | {"reason": 1}, "running while idle": VALID | {"rung": "running"},
    "unknown rung": VALID | {"rung": "gone"}, "list": [VALID], "number": 1, "nothing": None,
}  # fmt: skip


@pytest.mark.fz("FZ-060", "FZ-131")
@pytest.mark.parametrize("said", WRONG_REQUESTS.values(), ids=WRONG_REQUESTS.keys())
def test_a_wish_that_makes_no_sense_is_refused(said: object) -> None:
    with pytest.raises(WireError) as caught:
        decode_request(json.dumps(said).encode())
    assert caught.value.kind is Problem.MALFORMED and caught.value.detail.isprintable()


@pytest.mark.fz("FZ-131")
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[" * 4000, b'{"a":' * 600, b'{"state":"idle","generation":1,"generation":2}',
     b'{"state":"idle","generation":NaN}', b'{"state":"idle","generation":1,"lease_s":Infinity}', b"\x00" * 100],
    ids=["empty", "cut", "no utf-8", "deep list", "deep object", "twice", "nan", "infinity", "zeroes"],
)  # fmt: skip
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    for decode in (decode_request, decode_view, decode_old):
        with pytest.raises(WireError) as caught:
            decode(body)
        assert caught.value.kind is Problem.MALFORMED


@pytest.mark.fz("FZ-134")
def test_a_body_that_is_too_large_is_refused_unread() -> None:
    for decode in (decode_request, decode_old):
        with pytest.raises(WireError) as caught:
            decode(b" " * (MAX_BODY + 1))
        assert caught.value.kind is Problem.TOO_LARGE


@pytest.mark.fz("FZ-131")
@pytest.mark.parametrize(
    "wrong",
    [{"session": "a\r\nX: y"}, {"session": ""}, {"session": "x" * 129}, {"session": 1}, {"session": "ä"},
     {"took_us": -1}, {"took_us": 1.5}, {"lease_s": -1}, {"policy": []}, {"policy": {}}, {"mechanism": 1},
     {"policy": {"mode": "on", "min_uptime_s": 1}}, {"policy": {"mode": "freeze", "containers": [1]}},
     {"policy": {"mode": "freeze", "freeze_after_s": "1s"}}, {"state": "melted"}],
    ids=lambda wrong: json.dumps(wrong)[:40],
)  # fmt: skip
def test_a_view_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(WireError):
        decode_view(json.dumps(SEEN | wrong).encode())


@pytest.mark.slow
@pytest.mark.fz("FZ-131")
@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["state", "generation", "rung", "lease_s", "reason", "policy", "mode", "view", "type"]),
        inner, max_size=6), max_leaves=12,
).map(lambda said: json.dumps(said).encode()))  # fmt: skip
def test_nothing_but_a_wire_error_ever_comes_out(body: bytes) -> None:
    for decode in (decode_request, decode_view, decode_old):
        try:
            decode(body)
        except WireError as error:
            assert error.detail.isprintable()
    assert isinstance(decode_problem(500, body), Refusal)


@pytest.mark.fz("FZ-102")
def test_a_reason_is_printable_and_short_whatever_was_sent() -> None:
    said = VALID | {"reason": "a\x1b[31m\n\ud800" + "x" * 1000}
    reason = decode_request(json.dumps(said).encode()).reason
    assert reason.startswith("a?[31m??xxx") and len(reason) == 200
    assert len(encode_request(StateRequest(Wanted.IDLE, 1, reason="\n" * 9000))) < 400


@pytest.mark.parametrize("problem", Problem, ids=lambda problem: problem.kind)
def test_every_problem_survives_the_wire(problem: Problem) -> None:
    view = View(Rung.FROZEN, 3, policy=DEFAULTS)
    refusal = decode_problem(problem.status, encode_problem(problem, "why", view, 1.5))
    if problem is Problem.FORBIDDEN:
        assert refusal == Refusal(403, problem)
    else:
        assert refusal == Refusal(problem.status, problem, "why", view, 1.5)
        assert refusal.words == "refused: why"


@pytest.mark.fz("FZ-127")
def test_forbidden_has_one_body_for_every_reason() -> None:
    bodies = {
        encode_problem(Problem.FORBIDDEN),
        encode_problem(Problem.FORBIDDEN, "pod of another node"),
        encode_problem(Problem.FORBIDDEN, "", View(Rung.FROZEN, 1), 3.0),
    }
    assert len(bodies) == 1


def test_a_problem_keeps_its_name_when_the_rest_makes_no_sense() -> None:
    body = b'{"type":"urn:queueproxy:stale-generation","view":{"state":"gone"},"retry_after_s":"soon"}'
    assert decode_problem(409, body) == Refusal(409, Problem.STALE_GENERATION)
    assert decode_problem(404, b"<html>") == Refusal(404, None)
    assert decode_problem(404, b"x" * 99999).words == "the freezer answered with status 404"
    assert decode_problem(503, b'{"type":"about:blank"}').problem is None
    assert Refusal(409, Problem.TERMINAL).words == "refused: The pod is ending and stays awake"


@pytest.mark.fz("FZ-069")
def test_the_protocol_of_old_is_as_go_wrote_it() -> None:
    assert (
        encode_old(OldAction.PAUSE) == b'{"action":"pause"}' and encode_old(OldAction.RESUME) == b'{"action":"resume"}'
    )
    assert decode_old(b'{ "action" : "resume", "x": 1 }') is OldAction.RESUME
    for other in (b'{"action":"stop"}', b"{}", b'{"action":null}', b'{"action":["pause"]}'):
        with pytest.raises(WireError) as caught:
            decode_old(other)
        assert caught.value.kind is Problem.NOT_FOUND


def test_seconds_that_no_json_can_carry_are_never_sent() -> None:
    with pytest.raises((ValueError, OverflowError)):
        encode_request(StateRequest(Wanted.IDLE, 1, inf))
