"""Decodes what the journal remembers of the cgroups held for one pod, and believes nothing of it.

Theory of operation. Before the kernel is asked to freeze, the journal writes down what a successor needs to undo it:
which directory (hierarchy, kubepods directory, path beneath it, inode), whether a freeze found there is ours to lift,
and which CPU limit to put back over which. The record comes back as JSON from a file, so each field is checked for
type, shape and size, and a path is taken only when it can be the container's own (`naming.is_leaf`). Opening it again
beneath the held kubepods directory, inode compared, is the business of `locate`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from queueproxy.freeze.node.naming import is_leaf

__all__ = ["HeldContainer", "HeldError", "JournalHeld", "Spot", "decode_held", "encode_held", "held_text"]

JournalHeld = Mapping[str, object]

# A pod may have no more containers than this for us; Kubernetes sets no bound, sane pods have fewer than ten.
MOST = 64
_LIMIT = re.compile(r"(?:max|[0-9]{1,19}) [0-9]{1,19}")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # DNS label, as Kubernetes wants container names


class HeldError(ValueError):
    """The record is not one of ours, or no longer."""


class Spot(NamedTuple):
    """One cgroup directory: `path` beneath the kubepods directory `root` of a hierarchy ("" is v2)."""

    hierarchy: str
    root: str
    path: str
    inode: int


class HeldContainer(NamedTuple):
    """One container as the journal has it."""

    name: str
    id: str
    freezer: Spot
    owned: bool  # a freeze found there is ours to lift
    cpu: Spot | None
    previous: str | None  # the CPU limit to put back
    squeezed: str | None  # over this one, which was ours


class _Encoded(dict[str, object]):
    """A record as JSON types, and its text: it is written at each sleep of a pod and hardly ever changes."""

    __slots__ = ("text",)

    text: str


def encode_held(uid: str, containers: Sequence[HeldContainer]) -> JournalHeld:
    """The record as JSON types; not to be changed, because it may be had again."""
    return _encoded(uid, tuple(containers))


def held_text(held: JournalHeld | None) -> str:
    """The record in JSON."""
    return held.text if isinstance(held, _Encoded) else json.dumps(held, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=512)
def _encoded(uid: str, containers: tuple[HeldContainer, ...]) -> _Encoded:
    said = _Encoded(
        uid=uid,
        containers=[
            {**held._asdict(), "freezer": held.freezer._asdict(), "cpu": held.cpu and held.cpu._asdict()}
            for held in containers
        ],
    )
    said.text = json.dumps(said, separators=(",", ":"), allow_nan=False)
    return said


def decode_held(record: JournalHeld, uid: str) -> tuple[HeldContainer, ...]:
    """The containers of a record of this pod; HeldError for anything else."""
    if record.get("uid") != uid:
        raise HeldError("the record of another pod")
    found = record.get("containers")
    if not isinstance(found, list) or len(found) > MOST:
        raise HeldError("no list of containers")
    return tuple(_container(entry, uid) for entry in found)


def _container(entry: object, uid: str) -> HeldContainer:
    if not isinstance(entry, Mapping):
        raise HeldError("a container that is no object")
    name, container_id, owned = entry.get("name"), entry.get("id"), entry.get("owned")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise HeldError("a container without a name")
    if not isinstance(container_id, str) or not isinstance(owned, bool):
        raise HeldError(f"{name}: id or owned missing")
    cpu = entry.get("cpu")
    held = HeldContainer(
        name,
        container_id,
        _spot(entry.get("freezer"), uid, container_id),
        owned,
        None if cpu is None else _spot(cpu, uid, container_id),
        _limit(entry.get("previous"), name),
        _limit(entry.get("squeezed"), name),
    )
    if (held.previous is None) != (held.squeezed is None) or (held.previous is not None and held.cpu is None):
        raise HeldError(f"{name}: half a CPU limit")
    return held


def _spot(entry: object, uid: str, container_id: str) -> Spot:
    if not isinstance(entry, Mapping):
        raise HeldError("a place that is no object")
    hierarchy, root, path, inode = (entry.get(field) for field in Spot._fields)
    if not isinstance(hierarchy, str) or not isinstance(root, str) or not isinstance(path, str):
        raise HeldError("a place without a path")
    if not isinstance(inode, int) or isinstance(inode, bool) or inode <= 0:
        raise HeldError(f"{path[:80]!r}: no inode")
    try:
        is_its_own = is_leaf(root, path, uid, container_id)
    except ValueError as error:
        raise HeldError(str(error)) from error
    if not is_its_own:
        raise HeldError(f"{path[:80]!r} is no cgroup of this container")
    return Spot(hierarchy, root, path, inode)


def _limit(value: object, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _LIMIT.fullmatch(value):
        raise HeldError(f"{name}: no CPU limit")
    return value
