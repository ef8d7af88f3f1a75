"""The short way to read an answer: in no case another reading than the long one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queueproxy.freeze import plainview, wire
from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import View, WireError, encode_view
from tests.freeze.test_wire import VIEWS

USUAL = encode_view(View(Rung.RUNNING, 41, "cgroup2", 143, None, 29.87, DEFAULTS))


def read(body: bytes, decode: object) -> object:
    try:
        return decode(body)  # type: ignore[operator]
    except WireError as error:
        return error.kind, error.detail


@pytest.mark.fz("FZ-060")
@given(VIEWS)
def test_a_view_survives(view: View) -> None:
    assert plainview.decode_view(encode_view(view)) == view


@pytest.mark.parametrize("view", [View(Rung.FROZEN, 7, "cgroup1", 9, None, 30.0, DEFAULTS), View(Rung.RUNNING, 0)])
def test_what_our_freezer_says_takes_the_short_way(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    plainview.decode_view(encode_view(view))
    monkeypatch.setattr(wire, "decode_view", None)
    assert plainview.decode_view(encode_view(view)) == view


def mutilated(at: int, instead: bytes, gone: int) -> bytes:
    return USUAL[:at] + instead + USUAL[at + gone :]


PIECES = [b'"', b"}", b"{", b",", b'"x":1,', b',"x":1', b"null", b"0", b"-", b"9" * 15, b"\xff", b"\n", b'"policy":{},']


@pytest.mark.fz("FZ-060", "FZ-131")
@given(
    st.builds(
        mutilated, st.integers(0, len(USUAL)), st.binary(max_size=3) | st.sampled_from(PIECES), st.integers(0, 40)
    )
)
@example(USUAL[:-1] + b',"generation":5}')
@example(USUAL[:-1] + b',"x":{}}')
@example(USUAL[:-1] + b',"policy":{}}')
@example(USUAL[:-1])
@example(USUAL.replace(b'"policy":{', b'"policy":{},"policy":{'))
@example(USUAL.replace(b"29.87", b"29." + b"1" * 30))
@example(USUAL.replace(b'"knock"', b'"knocks"'))
def test_whatever_else_comes_is_read_as_the_long_way_reads_it(body: bytes) -> None:
    assert read(body, plainview.decode_view) == read(body, wire.decode_view)
