"""Every hostile answer of an app against the codec, whole and cut at every byte."""

import re

import pytest

from tests.hostile.answering import outcome_of
from tests.hostile.corpus import Case, corpus

CASES = [pytest.param(case, id=case.name) for case in corpus("responses")]
FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e\x80-\xff]*")


@pytest.mark.qp("QP-200")
@pytest.mark.parametrize("case", CASES)
def test_a_hostile_answer_gets_its_verdict(case: Case) -> None:
    (wanted,) = case.outcomes
    got = outcome_of(case, [case.data])
    assert (got.kind, got.text, got.out, got.trailers) == (wanted.kind, wanted.text, wanted.out, wanted.trailers)
    if wanted.kind == "forward":
        assert got.body == wanted.body
    for head in got.out.split(b"\r\n\r\n")[:-1]:
        first, *fields = head.split(b"\r\n")
        assert re.fullmatch(rb"HTTP/1\.1 [1-9][0-9][0-9] [A-Za-z0-9 '-]+", first)
        assert all(FIELD.fullmatch(field) for field in fields), fields
        names = [field.split(b":")[0].lower() for field in fields]
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1


@pytest.mark.qp("QP-200")
@pytest.mark.parametrize("case", CASES)
def test_however_it_is_cut(case: Case) -> None:
    data = case.data
    whole = outcome_of(case, [data])
    places = range(1, len(data)) if not case.large else (20, 70_000)
    for at in places:
        got = outcome_of(case, [data[:at], data[at:]])
        assert (got.kind, got.text, got.out, got.trailers) == (whole.kind, whole.text, whole.out, whole.trailers), at
        if whole.kind == "forward":
            assert got.body == whole.body, at


def test_the_corpus_is_as_large_as_it_says() -> None:
    cases = corpus("responses")
    assert len(cases) >= 100
    assert {case.outcomes[0].kind for case in cases} == {"forward", "bad", "cut"}
