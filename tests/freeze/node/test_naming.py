"""Where a container's cgroup should be, for every cgroup driver, QoS class and runtime; and what is never a name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.node.naming import (
    NESTED,
    QOS,
    ROOTS,
    BadName,
    Driver,
    candidates,
    check,
    driver_of,
    is_leaf,
    leaf_names,
    pod_names,
    pod_path,
    roots_below,
)

UID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
FLAT = "0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9"
ID = "0123456789abcdef" * 4

SYSTEMD_PODS = {
    "guaranteed": f"kubepods-pod{FLAT}.slice",
    "burstable": f"kubepods-burstable.slice/kubepods-burstable-pod{FLAT}.slice",
    "besteffort": f"kubepods-besteffort.slice/kubepods-besteffort-pod{FLAT}.slice",
}
SYSTEMD_LEAVES = {
    "containerd": f"cri-containerd-{ID}.scope",
    "cri-o": f"crio-{ID}.scope",
    "docker": f"docker-{ID}.scope",
}
CGROUPFS_PODS = {
    "guaranteed": f"pod{UID}",
    "burstable": f"burstable/pod{UID}",
    "besteffort": f"besteffort/pod{UID}",
}
CGROUPFS_LEAVES = {"containerd": ID, "cri-o": f"crio-{ID}", "docker": ID}

TABLE = [
    pytest.param(root, qos, runtime, f"{pods[qos]}/{leaves[runtime]}", id=f"{root}-{qos}-{runtime}")
    for root, pods, leaves in (
        ("kubepods.slice", SYSTEMD_PODS, SYSTEMD_LEAVES),
        ("kubepods", CGROUPFS_PODS, CGROUPFS_LEAVES),
        ("kubelet/kubepods", CGROUPFS_PODS, CGROUPFS_LEAVES),
    )
    for qos in QOS
    for runtime in ("containerd", "cri-o", "docker")
]


@pytest.mark.fz("FZ-078")
@pytest.mark.parametrize(("root", "qos", "runtime", "path"), TABLE)
def test_the_first_guess_is_what_kubelet_and_runtime_make(root: str, qos: str, runtime: str, path: str) -> None:
    assert next(candidates(root, UID, qos, ID, runtime)) == path
    assert is_leaf(root, path, UID, ID)
    assert is_leaf(root, f"{path}/{NESTED}", UID, ID)


@pytest.mark.fz("FZ-078")
def test_a_kubepods_slice_below_another_repeats_its_own_name_as_systemd_wants_it() -> None:
    assert next(candidates("kubelet.slice/kubelet-kubepods.slice", UID, "besteffort", ID, "containerd")) == (
        f"kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{FLAT}.slice/cri-containerd-{ID}.scope"
    )


@pytest.mark.fz("FZ-078")
@pytest.mark.parametrize(
    ("cgroup_root", "systemd", "cgroupfs"),
    [
        ("/", "kubepods.slice", "kubepods"),
        ("/kubelet", "kubelet.slice/kubelet-kubepods.slice", "kubelet/kubepods"),
        ("/a/b", "a.slice/a-b.slice/a-b-kubepods.slice", "a/b/kubepods"),
        ("/on-prem", "on_prem.slice/on_prem-kubepods.slice", "on-prem/kubepods"),
    ],
)
def test_a_cgroup_root_leads_to_kubepods(cgroup_root: str, systemd: str, cgroupfs: str) -> None:
    assert roots_below(cgroup_root) == (systemd, cgroupfs)


def test_the_usual_places_are_those_of_no_root_and_of_kinds() -> None:
    assert roots_below("/") + roots_below("/kubelet") == ROOTS


@pytest.mark.parametrize("root", ROOTS)
def test_wrong_hints_cost_tries_and_nothing_else(root: str) -> None:
    found = [
        set(candidates(root, UID, qos, ID, runtime)) for qos in QOS for runtime in ("containerd", "cri-o", "", "?")
    ]
    assert all(paths == found[0] for paths in found)
    assert len(found[0]) == (9 if driver_of(root) is Driver.SYSTEMD else 6), "three QoS classes, each name once"


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize(
    "container_id",
    [
        pytest.param("", id="empty"),
        pytest.param(ID[:-1], id="63-digits"),
        pytest.param(ID + "0", id="65-digits"),
        pytest.param(ID.upper(), id="upper-case"),
        pytest.param(ID[:-1] + "g", id="no-hex"),
        pytest.param(ID + "\n", id="newline"),
        pytest.param("../" * 21 + "x", id="upwards"),
        pytest.param("/" * 64, id="slashes"),
        pytest.param("٠" * 64, id="digits-of-another-script"),
        pytest.param(f"containerd://{ID}", id="with-its-runtime"),
    ],
)
def test_what_is_no_container_id_becomes_no_path(container_id: str) -> None:
    with pytest.raises(BadName, match="no container id"):
        next(candidates("kubepods", UID, "burstable", container_id))
    with pytest.raises(BadName):
        is_leaf("kubepods", f"pod{UID}/{container_id}", UID, container_id)


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize(
    "uid",
    [
        pytest.param("", id="empty"),
        pytest.param(FLAT, id="underscores"),
        pytest.param(UID.upper(), id="upper-case"),
        pytest.param(UID.replace("-", ""), id="no-dashes"),
        pytest.param(f"{UID}\n", id="newline"),
        pytest.param(f"../pod{UID}", id="upwards"),
        pytest.param(f"{UID}/..", id="and-back"),
        pytest.param("*", id="star"),
    ],
)
def test_what_is_no_pod_uid_becomes_no_path(uid: str) -> None:
    with pytest.raises(BadName, match="no pod uid"):
        check(uid, ID)


def test_what_is_no_qos_class_becomes_no_path() -> None:
    with pytest.raises(BadName, match="no QoS class"):
        pod_path("kubepods", UID, "../system")


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize("root", ["kubepods.slice", "kubepods"])
def test_no_path_means_a_pod_or_a_monitor_or_another_container(root: str) -> None:
    pod = pod_path(root, UID, "burstable")
    other_pod = pod_path(root, UID.replace("0a", "0b"), "burstable")
    name = leaf_names(driver_of(root), ID)[0]
    assert is_leaf(root, f"{pod}/{name}", UID, ID)
    for path in (
        pod,
        f"{pod}/{NESTED}",
        f"{other_pod}/{name}",
        name,
        f"{pod}/{name}/app",
        f"{pod}/crio-conmon-{ID}.scope",
        f"{pod}/{leaf_names(driver_of(root), ID.replace('0', '1'))[0]}",
    ):
        assert not is_leaf(root, path, UID, ID), path


@given(
    st.sampled_from(ROOTS),
    st.uuids().map(str),
    st.sampled_from(QOS),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.sampled_from(["containerd", "cri-o", "docker", ""]),
)
def test_every_candidate_ends_at_container_level_and_goes_only_down(
    root: str, uid: str, qos: str, container_id: str, runtime: str
) -> None:
    for path in candidates(root, uid, qos, container_id, runtime):
        *above, name = path.split("/")
        assert container_id in name
        assert above[-1] in pod_names(root, uid)
        assert not {"", ".", ".."}.intersection(path.split("/"))
        assert is_leaf(root, path, uid, container_id)
