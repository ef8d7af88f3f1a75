"""Stacks are counted, named once, and written as viewers read them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from queueproxy.admin.profiling_samples import DEPTH, OTHERS, Place, Samples, shortened

Take = Callable[[], FrameType]


def here() -> FrameType:
    return sys._getframe(1)


def inner() -> FrameType:
    return here()


def outer() -> FrameType:
    return inner()


def deep(levels: int) -> FrameType:
    return deep(levels - 1) if levels else here()


def names(collapsed: str) -> list[tuple[list[str], int]]:
    found = []
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        found.append(([place.partition(" (")[0] for place in stack.split(";")], int(count)))
    return found


def test_a_stack_is_written_from_the_outside_and_the_most_frequent_first() -> None:
    samples = Samples()
    samples.add("", inner())
    for _ in range(2):
        samples.add("", outer())
    assert samples.taken == 3
    (first, twice), (second, once) = names(samples.collapsed())
    assert (first[-2:], twice) == (["outer", "inner"], 2)
    assert (second[-1], once) == ("inner", 1)
    assert "outer" not in second


def test_a_place_tells_file_and_line_of_the_function() -> None:
    samples = Samples()
    samples.add("", inner())
    line = inner.__code__.co_firstlineno
    assert samples.collapsed().endswith(f";inner ({shortened(__file__)}:{line}) 1\n")


def test_threads_are_told_apart_by_name() -> None:
    samples = Samples()
    samples.add("a", None)
    samples.add("b", None)
    samples.add("b", None)
    assert names(samples.collapsed()) == [(["[b]", OTHERS], 2), (["[a]", OTHERS], 1)]


def test_a_separator_in_a_name_does_not_split_it() -> None:
    assert Place("f", "a;b.py", 3).label == "f (a,b.py:3)"


def test_a_deep_stack_keeps_what_is_innermost() -> None:
    samples = Samples()
    samples.add("", deep(DEPTH + 20))
    ((stack, _count),) = names(samples.collapsed())
    assert stack == ["deep"] * DEPTH


def test_beyond_the_limit_different_stacks_are_counted_together() -> None:
    samples = Samples(limit=2)
    for levels in (1, 2, 3, 4, 1):
        samples.add("", deep(levels))
    counts = {tuple(stack[-1:]): count for stack, count in names(samples.collapsed())}
    assert counts[(OTHERS,)] == 2
    assert sum(count for _, count in names(samples.collapsed())) == samples.taken == 5


def test_no_sample_is_no_line_and_a_valid_file() -> None:
    assert Samples().collapsed() == ""
    (profile,) = json.loads(Samples().speedscope("idle", 0.01))["profiles"]
    assert (profile["samples"], profile["weights"], profile["endValue"]) == ([], [], 0)


def test_speedscope_weighs_in_seconds_and_names_each_frame_once() -> None:
    samples = Samples()
    for take in (inner, outer, outer):
        samples.add("main", take())
    document = json.loads(samples.speedscope("cpu", 0.25))
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = document["shared"]["frames"]
    assert len({tuple(frame.items()) for frame in frames}) == len(frames)
    (profile,) = document["profiles"]
    assert (profile["type"], profile["unit"], profile["name"]) == ("sampled", "seconds", "cpu")
    assert (profile["weights"], profile["startValue"], profile["endValue"]) == ([0.5, 0.25], 0, 0.75)
    stacks = [[frames[index]["name"] for index in stack] for stack in profile["samples"]]
    assert (stacks[0][0], stacks[0][-2:], stacks[1][-1]) == ("[main]", ["outer", "inner"], "inner")


@pytest.mark.parametrize(
    ("file", "short"),
    [
        ("/lib/site/pkg/a.py", "pkg/a.py"),
        ("/lib/pkg/b.py", "pkg/b.py"),
        ("<frozen x>", "<frozen x>"),
        ("/library/c.py", "/library/c.py"),
    ],
    ids=["longest-root", "other-root", "no-file", "no-root"],
)
def test_a_file_is_named_from_where_it_was_imported(monkeypatch: pytest.MonkeyPatch, file: str, short: str) -> None:
    monkeypatch.setattr(sys, "path", ["", "/lib", "/lib/site/"])
    assert shortened(file) == short
