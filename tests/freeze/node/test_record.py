"""What the journal says of a pod, there and back, and everything that is not believed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.node.held import HeldContainer, Spot, decode_held, encode_held
from queueproxy.freeze.node.record import LARGEST, Record, RecordError, decode_record, encode_record, salvage
from queueproxy.freeze.vocabulary import Rung
from tests.support import podfacts

UID = podfacts.pod_uid()
ID, OTHER = podfacts.container_id(16), podfacts.container_id(17)
POD_PATH = f"kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"


def spot(id_: str = ID) -> Spot:
    return Spot("", "kubepods.slice", f"{POD_PATH}/cri-containerd-{id_}.scope", 4711)


def held(*ids: str) -> dict[str, object]:
    return encode_held(UID, [HeldContainer("user-0", id_, spot(id_), True, None, None, None) for id_ in ids])


def record(**changed: object) -> Record:
    facts = podfacts.pod()
    found = Record(
        facts.uid, facts.namespace, facts.name, facts.revision, facts.qos, facts.ips, facts.sidecar_id,
        facts.containers, 7, Rung.FROZEN, 12.5, (ID,), held(ID), "ab" * 32,
    )  # fmt: skip
    return found._replace(**changed)  # type: ignore[arg-type]


@pytest.mark.fz("FZ-092")
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({}, id="everything"),
        pytest.param(
            {"held": None, "ended": (), "proof": "", "sidecar_id": "", "revision": "", "ips": ()}, id="little"
        ),
        pytest.param({"rung": Rung.RUNNING, "lease_s": 0.0, "containers": (), "held": held()}, id="only the end"),
        pytest.param({"ips": ("10.1.2.3", "fd00::1")}, id="two addresses"),
    ],
)
def test_a_record_comes_back_as_it_was(changed: dict[str, object]) -> None:
    data = encode_record(record(**changed))
    assert decode_record(data) == record(**changed) and data.endswith(b"}\n") and data.count(b"\n") == 1


def test_a_record_of_the_largest_pod_fits() -> None:
    containers = tuple(podfacts.ContainerFacts("c" * 63, podfacts.container_id(n), "containerd") for n in range(64))
    cpu = [HeldContainer("c" * 63, c.id, spot(c.id), True, spot(c.id), "max 100000", "1000 100000") for c in containers]
    data = encode_record(record(containers=containers, held=encode_held(UID, cpu)))
    assert len(data) < LARGEST and len(decode_record(data).containers) == 64


def broken(**changed: object) -> bytes:
    said = json.loads(encode_record(record()))
    for path, value in changed.items():
        at: Any = said
        *above, last = path.split("__")
        for step in above:
            at = at[int(step)] if isinstance(at, list) else at[step]
        if value is DELETED:
            del at[last]
        else:
            at[last] = value
    return json.dumps(said).encode()


DELETED = object()
LONG = "a" * 300


@pytest.mark.fz("FZ-097", "FZ-132")
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"version": 2}, "version '2' is not 1"),
        ({"version": DELETED}, "version 'None' is not 1"),
        ({"uid": "../../etc/passwd"}, "held|uid"),
        ({"uid": UID.upper().replace("0", "A")}, "held|uid"),
        ({"uid": 7}, "held|uid"),
        ({"namespace": "a/b"}, "namespace: 'a/b'"),
        ({"namespace": ""}, "namespace: ''"),
        ({"name": LONG}, "name: 'aaa"),
        ({"revision": "x y"}, "revision: 'x y'"),
        ({"revision": None}, "revision: None"),
        ({"qos": "best"}, "qos: 'best'"),
        ({"qos": ["burstable"]}, r"qos: \['burstable'\]"),
        ({"ips": "10.0.0.1"}, "ips: no list of at most 8"),
        ({"ips": ["10.0.0.1"] * 9}, "ips: no list of at most 8"),
        ({"ips": ["10.0.0.1; rm"]}, "ips: '10.0.0.1; rm'"),
        ({"ips": [1]}, "ips: 1"),
        ({"sidecar_id": "abc"}, "sidecar_id: 'abc'"),
        ({"containers": {}}, "containers: no list"),
        ({"containers": [{}] * 65}, "containers: no list of at most 64"),
        ({"containers": ["x"]}, "a container that is no object"),
        ({"containers__0__id": ID.upper().replace("0", "A")}, "id: "),
        ({"containers__0__id": f"../{ID}"[:64]}, "id: "),
        ({"containers__0__name": "User"}, "name: 'User'"),
        ({"containers__0__runtime": "rkt"}, "runtime: 'rkt'"),
        ({"containers__0__stop_signal": 0}, "stop_signal: 0"),
        ({"containers__0__stop_signal": 65}, "stop_signal: 65"),
        ({"containers__0__stop_signal": True}, "stop_signal: True"),
        ({"generation": -1}, "generation: -1"),
        ({"generation": 2**53}, "generation: 9007199254740992"),
        ({"generation": 1.5}, "generation: 1.5"),
        ({"rung": "melted"}, "rung: 'melted'"),
        ({"rung": 2}, "rung: 2"),
        ({"lease_s": -1}, "lease_s: -1"),
        ({"lease_s": "30"}, "lease_s: '30'"),
        ({"lease_s": True}, "lease_s: True"),
        ({"ended": ["x"]}, "ended: 'x'"),
        ({"proof": "z" * 64}, "proof: 'zzz"),
        ({"held": []}, "held is no object"),
        ({"held__uid": podfacts.pod_uid(2)}, "held: the record of another pod"),
        ({"held__containers": 1}, "held: no list of containers"),
        ({"held__containers__0__freezer__path": f"{POD_PATH}"}, "held: .* is no cgroup of this container"),
        ({"held__containers__0__freezer__path": f"../{POD_PATH}/cri-containerd-{ID}.scope"}, "held: "),
        ({"held__containers__0__freezer__path": "/etc"}, "held: '/etc' is no cgroup of this container"),
        ({"held__containers__0__freezer__inode": 0}, "held: .*: no inode"),
        ({"held__containers__0__owned": 1}, "held: user-0: id or owned missing"),
    ],
)
def test_a_record_with_anything_wrong_is_none(changed: dict[str, object], why: str) -> None:
    with pytest.raises(RecordError, match=why):
        decode_record(broken(**changed))


@pytest.mark.fz("FZ-132")
def test_only_the_records_own_containers_are_held() -> None:
    data = encode_record(record(held=held(OTHER)))
    with pytest.raises(RecordError, match=f"held: {OTHER[:12]} is no container of the record"):
        decode_record(data)


@pytest.mark.fz("FZ-097")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 60_000, "no JSON"),
        (b"null", "no JSON object"),
        (b" " * (LARGEST + 1), "larger than 65536 bytes"),
    ],
    ids=["empty", "torn", "not utf-8", "list", "deep", "null", "large"],
)
def test_what_is_no_json_object_is_no_record(data: bytes, why: str) -> None:
    with pytest.raises(RecordError, match=why):
        decode_record(data)


def test_what_is_said_about_a_wrong_value_is_short_and_printable() -> None:
    with pytest.raises(RecordError) as error:
        decode_record(broken(namespace="\x1b[31m" + "\u202e" * 1000))
    assert len(str(error.value)) < 120 and str(error.value).isascii() and str(error.value).isprintable()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    ),
    st.sampled_from(sorted(json.loads(encode_record(record())))),
)
def test_no_value_in_any_field_gets_past_or_raises_anything_else(value: object, field: str) -> None:
    try:
        found = decode_record(broken(**{field: value}))
    except RecordError:
        salvage(broken(**{field: value}), UID)
        return
    assert decode_record(encode_record(found)) == found


@pytest.mark.fz("FZ-097", "FZ-132")
def test_of_a_broken_record_the_cgroups_that_can_be_the_pods_are_saved() -> None:
    said = json.loads(encode_record(record(held=held(ID, OTHER))))
    said["version"] = 99
    said["held"]["containers"].insert(0, {"name": "evil", "id": ID, "owned": True, "freezer": {"path": "/"}})
    said["held"]["containers"].append("x")
    found = salvage(json.dumps(said).encode(), UID)
    assert found is not None and [container.id for container in decode_held(found, UID)] == [ID, OTHER]
    assert salvage(json.dumps(said).encode(), podfacts.pod_uid(2)) is None, "the paths are another pod's"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"held":1}',
        b'{"held":{"containers":{}}}',
        b'{"held":{"containers":[]}}',
        b"[" * 60_000,
    ],
)
def test_where_nothing_can_be_saved_nothing_is(data: bytes) -> None:
    assert salvage(data, UID) is None
