"""Decodes and encodes one journal record: what a freezer that takes over has to know of a pod, and nothing is believed.

Theory of operation. A record is written before the kernel is asked to freeze and removed when the pod is confirmed
running (or kept, with `ended`, while its containers must stay awake). It holds what adoption, thaw and renewal need
without the API server (FZ-064): identity, generation, containers, and where their cgroups are (`held`, see `held.py`).
It comes back as bytes from a file: each field is checked for type, shape and size, a path is taken only if it can be
the container's own cgroup, and what fails is one `RecordError` that says why (FZ-132).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import isfinite
from typing import Any, Final, NamedTuple

from queueproxy.freeze.node.held import MOST, HeldContainer, HeldError, JournalHeld, decode_held, encode_held, held_text
from queueproxy.freeze.node.inventory import ContainerFacts
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import MAX_GENERATION

__all__ = ["LARGEST", "Record", "RecordError", "decode_record", "encode_record", "salvage"]

VERSION: Final = 1
LARGEST: Final = 65_536  # bytes; a pod of one container needs about a thousand
_UID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ID: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")  # DNS subdomain: pods, revisions
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")  # DNS label: namespaces, containers
_ADDRESS: Final = re.compile(r"[0-9a-fA-F.:]{2,45}")
_RUNTIMES: Final = frozenset({"", "containerd", "cri-o", "docker"})
_QOS: Final = frozenset({"guaranteed", "burstable", "besteffort"})
_MOST_ADDRESSES: Final = 8


class RecordError(ValueError):
    """No record of ours, or not any more."""


class Record(NamedTuple):
    """One pod that sleeps, may be asleep, or must not sleep again."""

    uid: str
    namespace: str
    name: str
    revision: str
    qos: str
    ips: tuple[str, ...]
    sidecar_id: str  # queue-proxy's container; "" unknown
    containers: tuple[ContainerFacts, ...]
    generation: int
    rung: Rung  # the deepest it may be at; RUNNING: only `ended` matters
    lease_s: float  # what was left when it was written, for people
    ended: tuple[str, ...] = ()  # container ids that never sleep again (FZ-050)
    held: JournalHeld | None = None
    proof: str = ""  # SHA-256 of the session's secret, hex: lets the sidecar back in without the API server


_POD_FIELDS: Final = Record._fields.index("containers") + 1


def encode_record(record: Record) -> bytes:
    """One line of JSON. What changes from one sleep to the next is written out here; the rest has been before."""
    pod = _pod_said(record[:_POD_FIELDS])
    rung, lease, ended = record.rung.name.lower(), float(record.lease_s), json.dumps(record.ended)
    if not isfinite(lease):
        raise ValueError(f"a lease of {lease}")
    return (
        f'{pod},"generation":{record.generation},"rung":"{rung}","lease_s":{lease!r},"ended":{ended},'
        f'"held":{held_text(record.held)},"proof":{json.dumps(record.proof)}}}\n'
    ).encode()


@lru_cache(maxsize=512)  # one for each pod of a large node
def _pod_said(pod: tuple[Any, ...]) -> str:
    """The beginning of the object: what stays as it is while the pod has these containers."""
    said = {"version": VERSION, **dict(zip(Record._fields, pod, strict=False))}
    said["containers"] = [container._asdict() for container in said["containers"]]
    return json.dumps(said, separators=(",", ":"))[:-1]


def decode_record(data: bytes) -> Record:
    """Raises RecordError."""
    if len(data) > LARGEST:
        raise RecordError(f"larger than {LARGEST} bytes")
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        raise RecordError("no JSON") from None
    if not isinstance(said, dict):
        raise RecordError("no JSON object")
    if said.get("version") != VERSION:
        raise RecordError(f"version {str(said.get('version'))[:20]!r} is not {VERSION}")
    uid = _shape(said, "uid", _UID)
    containers = tuple(_container(entry) for entry in _list(said, "containers", MOST))
    held = said.get("held")
    if held is not None:
        _held(held, uid, {container.id for container in containers})
    return Record(
        uid=uid,
        namespace=_shape(said, "namespace", _LABEL),
        name=_shape(said, "name", _NAME),
        revision=_shape(said, "revision", _NAME, empty=True),
        qos=_one_of(said, "qos", _QOS),
        ips=_texts(said, "ips", _ADDRESS, _MOST_ADDRESSES),
        sidecar_id=_shape(said, "sidecar_id", _ID, empty=True),
        containers=containers,
        generation=_number(said, "generation", MAX_GENERATION),
        rung=_rung(said),
        lease_s=_seconds(said, "lease_s"),
        ended=_texts(said, "ended", _ID, MOST),
        held=held,
        proof=_shape(said, "proof", _ID, empty=True),
    )


def salvage(data: bytes, uid: str) -> JournalHeld | None:
    """Of what is no record: the cgroups it names that can be those of this pod, each judged for itself."""
    found: list[HeldContainer] = []
    try:
        entries = json.loads(data[:LARGEST])["held"]["containers"]
        if not isinstance(entries, list):
            return None
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    for entry in entries[:MOST]:
        try:
            found += decode_held({"uid": uid, "containers": [entry]}, uid)
        except HeldError:
            continue
    return encode_held(uid, found) if found else None


def _container(entry: object) -> ContainerFacts:
    if not isinstance(entry, dict):
        raise RecordError("a container that is no object")
    return ContainerFacts(
        name=_shape(entry, "name", _LABEL),
        id=_shape(entry, "id", _ID),
        runtime=_one_of(entry, "runtime", _RUNTIMES),
        stop_signal=_number(entry, "stop_signal", 64, least=1),
    )


def _held(held: object, uid: str, ids: set[str]) -> None:
    """Only the cgroups of the record's own containers."""
    if not isinstance(held, Mapping):
        raise RecordError("held is no object")
    try:
        found = decode_held(held, uid)
    except HeldError as error:
        raise RecordError(f"held: {error}") from None
    strange = [container.id for container in found if container.id not in ids]
    if strange:
        raise RecordError(f"held: {strange[0][:12]} is no container of the record")


def _shape(said: Mapping[str, Any], key: str, shape: re.Pattern[str], *, empty: bool = False) -> str:
    value = said.get(key)
    if not isinstance(value, str) or not (shape.fullmatch(value) or (empty and not value)):
        raise RecordError(f"{key}: {_shown(value)}")
    return value


def _one_of(said: Mapping[str, Any], key: str, words: frozenset[str]) -> str:
    value = said.get(key)
    if not isinstance(value, str) or value not in words:
        raise RecordError(f"{key}: {_shown(value)}")
    return value


def _list(said: Mapping[str, Any], key: str, most: int) -> list[Any]:
    value = said.get(key)
    if not isinstance(value, list) or len(value) > most:
        raise RecordError(f"{key}: no list of at most {most}")
    return value


def _texts(said: Mapping[str, Any], key: str, shape: re.Pattern[str], most: int) -> tuple[str, ...]:
    values = _list(said, key, most)
    wrong: Callable[[Any], bool] = lambda value: not isinstance(value, str) or not shape.fullmatch(value)  # noqa: E731
    for value in filter(wrong, values):
        raise RecordError(f"{key}: {_shown(value)}")
    return tuple(values)


def _number(said: Mapping[str, Any], key: str, most: int, *, least: int = 0) -> int:
    value = said.get(key)
    if type(value) is not int or not least <= value <= most:
        raise RecordError(f"{key}: {_shown(value)}")
    return value


def _seconds(said: Mapping[str, Any], key: str) -> float:
    value: Any = said.get(key)
    if type(value) not in (int, float) or not isfinite(value) or value < 0:
        raise RecordError(f"{key}: {_shown(value)}")
    return float(value)


def _rung(said: Mapping[str, Any]) -> Rung:
    word = said.get("rung")
    for rung in Rung:
        if word == rung.name.lower():
            return rung
    raise RecordError(f"rung: {_shown(word)}")


def _shown(value: object) -> str:
    """Short and printable: it goes to a log."""
    return ascii(value)[:80]
