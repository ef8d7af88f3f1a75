"""What a journal says of held cgroups: what was written comes back, and anything else is not believed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.node.held import MOST, HeldContainer, HeldError, Spot, decode_held, encode_held

UID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
ID = "0123456789abcdef" * 4
PATH = f"burstable/pod{UID}/{ID}"

APP = HeldContainer(
    "app", ID, Spot("", "kubepods", PATH, 4711), True, Spot("cpu", "kubepods", PATH, 12), "max 100000", "1000 100000"
)
BARE = HeldContainer("bare", ID, Spot("freezer", "kubepods", PATH, 2**63), False, None, None, None)


def record() -> dict[str, Any]:
    """As it comes back from the file."""
    return json.loads(json.dumps(encode_held(UID, [APP, BARE])))


def test_what_was_written_comes_back() -> None:
    assert decode_held(record(), UID) == (APP, BARE)
    assert decode_held(encode_held(UID, []), UID) == ()


HOSTILE = {
    "another-pod": ((), "uid", UID.replace("0a", "0b")),
    "no-uid": ((), "uid", None),
    "containers-no-list": ((), "containers", {"0": {}}),
    "too-many-containers": ((), "containers", [{}] * (MOST + 1)),
    "container-no-object": (("containers",), 0, "app"),
    "name-missing": (("containers", 0), "name", None),
    "name-with-a-newline": (("containers", 0), "name", "app\nfake log line"),
    "name-too-long": (("containers", 0), "name", "a" * 64),
    "id-of-another-shape": (("containers", 0), "id", "../../system.slice"),
    "id-of-another-container": (("containers", 0), "id", ID.replace("0", "1")),
    "id-no-text": (("containers", 0), "id", 7),
    "owned-no-truth-value": (("containers", 0), "owned", "yes"),
    "freezer-missing": (("containers", 0), "freezer", None),
    "path-of-the-pod": (("containers", 0, "freezer"), "path", f"burstable/pod{UID}"),
    "path-elsewhere": (("containers", 0, "freezer"), "path", f"system.slice/{ID}"),
    "path-of-another-pod": (("containers", 0, "freezer"), "path", f"burstable/pod{UID.replace('0a', '0b')}/{ID}"),
    "path-no-text": (("containers", 0, "freezer"), "path", 1),
    "root-no-text": (("containers", 0, "freezer"), "root", None),
    "root-of-the-other-driver": (("containers", 0, "freezer"), "root", "kubepods.slice"),
    "hierarchy-no-text": (("containers", 0, "freezer"), "hierarchy", 2),
    "inode-missing": (("containers", 0, "freezer"), "inode", None),
    "inode-zero": (("containers", 0, "freezer"), "inode", 0),
    "inode-a-truth-value": (("containers", 0, "freezer"), "inode", True),
    "cpu-elsewhere": (("containers", 0, "cpu"), "path", "kubepods"),
    "limit-no-limit": (("containers", 0), "previous", "max 100000\n1"),
    "limit-negative": (("containers", 0), "squeezed", "-1 100000"),
    "half-a-limit": (("containers", 0), "squeezed", None),
    "limit-without-a-place": (("containers", 0), "cpu", None),
}


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize(("where", "key", "value"), HOSTILE.values(), ids=HOSTILE)
def test_a_record_that_was_tampered_with_is_not_believed(where: tuple[Any, ...], key: Any, value: Any) -> None:
    whole = record()
    place: Any = whole
    for step in where:
        place = place[step]
    assert place[key] != value
    place[key] = value
    with pytest.raises(HeldError):
        decode_held(whole, UID)


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize("detour", ["..", ".", "", "burstable/../.."])
def test_a_path_that_goes_anywhere_but_down_is_not_believed(detour: str) -> None:
    whole = record()
    whole["containers"][0]["freezer"]["path"] = f"{detour}/pod{UID}/{ID}"
    with pytest.raises(HeldError, match="no cgroup of this container"):
        decode_held(whole, UID)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(ID) | st.just(UID) | st.just(PATH),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["uid", "containers", "name", "id", "freezer", "owned", "cpu", "previous", "squeezed", *Spot._fields]
    ), inner, max_size=6),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["uid", "containers", "else"]), _JSON), st.booleans())
def test_whatever_the_file_holds_it_is_a_record_or_an_error(whole: dict[str, Any], is_ours: bool) -> None:
    if is_ours:
        whole["uid"] = UID
    try:
        found = decode_held(whole, UID)
    except HeldError:
        return
    assert decode_held(json.loads(json.dumps(encode_held(UID, found))), UID) == found
    for container in found:
        assert container.id in container.freezer.path
