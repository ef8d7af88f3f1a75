"""A long list in pieces is the same list."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.node.listing import members

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def whole(text: str) -> dict[str, Any]:
    """What the pieces add up to."""
    result: dict[str, Any] = {}
    for key, value in members(text):
        if key == "items":
            result.setdefault("items", []).append(value)
        else:
            result[key] = value
    return result


@pytest.mark.slow
@given(
    st.dictionaries(st.text(), JSON, max_size=4).map(lambda made: {k: v for k, v in made.items() if k != "items"}),
    st.lists(JSON, min_size=1, max_size=4),
    st.sampled_from([None, 1, "\t"]),
)
def test_the_pieces_add_up_to_what_json_reads(rest: dict[str, Any], items: list[Any], indent: Any) -> None:
    value = {**rest, "items": items, "after": 1}
    assert whole(json.dumps(value, indent=indent)) == value


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("{}", []),
        (' { "items" : [ ] } ', []),
        ('{"items":[1,[2],{"items":[3]}]}', [("items", 1), ("items", [2]), ("items", {"items": [3]})]),
        ('{"items":null,"kind":"PodList"}', [("items", None), ("kind", "PodList")]),
    ],
)
def test_the_elements_of_items_come_one_by_one(text: str, pieces: list[Any]) -> None:
    assert list(members(text)) == pieces


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", '"items"', "{", '{"items"', '{"items":', '{"items":[', '{"items":[1', '{"items":[1,', "{}{}",
        '{"items":[1,]}', '{"items":[1 2]}', '{"a":1,}', "{1:2}", '{"a" 1}', "<html>", '{"items":[1]} more', "{,}",
    ],
)  # fmt: skip
def test_what_is_no_object_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        list(members(text))


@given(st.text(alphabet='{}[]":,items1 '))
def test_whatever_comes_is_pieces_or_a_value_error_as_json_says(text: str) -> None:
    try:
        expected = json.loads(text)
        expected = expected if isinstance(expected, dict) else None
    except ValueError:
        expected = None
    try:
        list(members(text))
        accepted = True
    except ValueError:
        accepted = False
    assert accepted is (expected is not None)
