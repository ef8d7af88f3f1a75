"""The fuzzers' corpus, seeds and everything they ever found, passes through the targets in every test run."""

import importlib
from pathlib import Path

import pytest

CORPUS = Path(__file__).with_name("corpus")
INPUTS = sorted(CORPUS.glob("*/*"))


@pytest.mark.qp("QP-053", "QP-074", "QP-200")
@pytest.mark.parametrize("path", INPUTS, ids=[f"{path.parent.name}-{path.name}" for path in INPUTS])
def test_an_input_of_the_corpus_breaks_no_invariant(path: Path) -> None:
    importlib.import_module(f"tests.fuzz.fuzz_{path.parent.name}").one_input(path.read_bytes())


def test_each_target_has_a_corpus_and_it_stays_small() -> None:
    assert {path.parent.name for path in INPUTS} == {"request", "response", "chunked"}
    assert sum(path.stat().st_size for path in INPUTS) < 300_000
