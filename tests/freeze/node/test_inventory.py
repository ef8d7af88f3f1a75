"""What of a pod may be put to sleep: captured pods of a real cluster, and every reason not to."""

from copy import deepcopy
from signal import SIGINT, SIGRTMAX, SIGRTMIN, SIGTERM
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueproxy.freeze.annotations import DEFAULTS, Liveness, Mode
from queueproxy.freeze.node.inventory import PodFacts, Rules, pod_facts
from tests.support import captured
from tests.support.knative_pod import container_id, knative_pod, merged

RULES = Rules("node1")
POD = knative_pod()
UID = POD["metadata"]["uid"]


def facts(pod: dict[str, Any], rules: Rules = RULES) -> PodFacts:
    return pod_facts(pod, DEFAULTS, rules)


def changed(**parts: Any) -> dict[str, Any]:
    return merged(POD, parts)


def with_container(name: str = "user-container", **parts: Any) -> dict[str, Any]:
    """One container's specification changed."""
    pod = deepcopy(POD)
    pod["spec"]["containers"] = [
        merged(each, parts) if each["name"] == name else each for each in pod["spec"]["containers"]
    ]
    return pod


def with_status(name: str = "user-container", **parts: Any) -> dict[str, Any]:
    pod = deepcopy(POD)
    pod["status"]["containerStatuses"] = [
        merged(each, parts) if each["name"] == name else each for each in pod["status"]["containerStatuses"]
    ]
    return pod


@pytest.mark.fz("FZ-073")
def test_the_revisions_running_container_may_be_frozen() -> None:
    seen = facts(POD)
    assert seen.refusal == "" and seen.policy == DEFAULTS and seen.warnings == ()
    assert (seen.uid, seen.namespace, seen.node, seen.ips) == (UID, "default", "node1", ("10.244.0.39",))
    assert (seen.revision, seen.qos, seen.terminating) == ("hello-00001", "burstable", False)
    (container,) = seen.containers
    assert container == ("user-container", container_id(UID, "user-container"), "containerd", SIGTERM)
    assert seen.sidecar_id == container_id(UID, "queue-proxy")


# What the cluster says beside the usual one container that may be frozen.
CAPTURED = {
    "07-readiness-exec": (("user-container",), Mode.THROTTLE, "exec readiness probe of container user-container"),
    "14-multi-container": (("serving", "sidecar"), Mode.FREEZE, ""),
    "15-multi-container-probing": (("serving", "sidecar"), Mode.FREEZE, ""),
    "31-multi-probing-mixed": (
        ("serving", "side-exec", "side-grpc"), Mode.THROTTLE, "exec readiness probe of container side-exec",
    ),
}  # fmt: skip


@pytest.mark.fz("FZ-073", "D-04", "L-08", "FZ-005")
@pytest.mark.parametrize("name", captured.each_name())
def test_a_captured_pod_freezes_what_its_service_declared_and_nothing_else(name: str) -> None:
    pod = captured.case(name).pod
    seen = facts(pod)  # type: ignore[arg-type]
    running = {status["name"] for status in pod["status"]["containerStatuses"] if "running" in status["state"]}
    declared = {each["name"] for each in pod["spec"]["containers"]} - {"queue-proxy"}
    assert {each.name for each in seen.containers} == running & declared
    assert seen.refusal == "" and seen.warnings == ()
    names, mode, reason = CAPTURED.get(name, (("user-container",), Mode.FREEZE, ""))
    assert tuple(each.name for each in seen.containers) == names
    assert (seen.policy.mode, seen.policy.reason) == (mode, reason)
    assert all(each.runtime == "containerd" and len(each.id) == 64 for each in seen.containers)
    assert seen.sidecar_id and seen.sidecar_id not in {each.id for each in seen.containers}


@pytest.mark.fz("FZ-073", "D-30", "D-34")
@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(with_container(env=[]), id="not declared by the revision"),
        pytest.param(with_container(env=[{"name": "K_REVISION", "value": "other-00001"}]), id="of another revision"),
        pytest.param(with_container(name="user-container") | {"status": {}}, id="without a status"),
        pytest.param(with_status(state={"running": None, "waiting": {"reason": "CrashLoopBackOff"}}), id="waiting"),
        pytest.param(with_status(state={"running": None, "terminated": {"exitCode": 0}}), id="ended"),
        pytest.param(with_status(containerID=""), id="without an id"),
        pytest.param(with_status(containerID="containerd://../../../system.slice"), id="an id that is a path"),
        pytest.param(with_status(containerID="containerd://" + "A" * 64), id="an id in capitals"),
        pytest.param(with_status(containerID="containerd://" + "a" * 64 + "\n"), id="an id with a line end"),
    ],
)
def test_a_container_is_not_chosen(pod: dict[str, Any]) -> None:
    seen = facts(pod)
    assert seen.containers == () and seen.refusal


@pytest.mark.fz("FZ-073", "D-31")
@pytest.mark.parametrize("name", ["queue-proxy", "istio-proxy", "linkerd-proxy"])
def test_infrastructure_is_never_chosen_even_when_it_claims_the_revision(name: str) -> None:
    pod = knative_pod(containers=("user-container", name) if name != "queue-proxy" else ("user-container",))
    for container in pod["spec"]["containers"]:
        container["env"] = [{"name": "K_REVISION", "value": "hello-00001"}]
    assert [each.name for each in facts(pod).containers] == ["user-container"]


@pytest.mark.fz("FZ-073", "D-32")
def test_init_native_sidecar_and_ephemeral_containers_are_never_chosen() -> None:
    claims = [{"name": "K_REVISION", "value": "hello-00001"}]
    pod = changed(
        spec={
            "initContainers": [
                {"name": "migrate", "env": claims},
                {"name": "logger", "restartPolicy": "Always", "env": claims},
            ],
            "ephemeralContainers": [{"name": "debugger", "env": claims}],
        },
        status={
            f"{kind}ContainerStatuses": [{"name": name, "containerID": f"containerd://{'a' * 64}",
                                          "state": {"running": {}}}]
            for kind, name in (("init", "logger"), ("ephemeral", "debugger"))
        },
    )  # fmt: skip
    assert [each.name for each in facts(pod).containers] == ["user-container"]


@pytest.mark.fz("FZ-073", "D-09", "D-30")
def test_the_newest_attempt_counts() -> None:
    pod = with_status(
        containerID=f"containerd://{container_id(UID, 'user-container', 1)}",
        restartCount=1,
        lastState={"terminated": {"containerID": f"containerd://{container_id(UID, 'user-container')}"}},
    )
    (container,) = facts(pod).containers
    assert container.id == container_id(UID, "user-container", 1)


@pytest.mark.fz("FZ-110")
def test_an_annotation_narrows_the_choice() -> None:
    pod = knative_pod(containers=("serving", "worker"), annotations={"queueproxy.dev/containers": "worker"})
    assert [each.name for each in facts(pod).containers] == ["worker"]
    pod = knative_pod(containers=("serving",), annotations={"queueproxy.dev/containers": "queue-proxy,nobody"})
    assert facts(pod).containers == () and facts(pod).refusal == "has none of the containers its annotation names"


@pytest.mark.fz("FZ-110")
def test_annotations_set_the_policy_and_mistakes_are_told() -> None:
    pod = knative_pod(annotations={"queueproxy.dev/freeze-after": "250ms", "queueproxy.dev/min-uptime": "soon"})
    seen = facts(pod)
    assert seen.policy == DEFAULTS._replace(freeze_after_s=0.25)
    assert len(seen.warnings) == 1 and "min-uptime" in seen.warnings[0]


PROBE = {"exec": {"command": ["true"]}}


@pytest.mark.fz("FZ-044")
@pytest.mark.parametrize("word", ["liveness", "startup", "readiness"])
def test_an_exec_probe_is_throttled_not_frozen_with_the_reason(word: str) -> None:
    seen = facts(with_container(**{f"{word}Probe": PROBE}))
    assert seen.policy.mode is Mode.THROTTLE and seen.containers
    assert seen.policy.reason == f"exec {word} probe of container user-container"


def test_a_probe_of_another_kind_and_one_of_another_container_change_nothing() -> None:
    assert facts(with_container(livenessProbe={"httpGet": {"port": 8080}})).policy.mode is Mode.FREEZE
    pod = knative_pod(containers=("serving", "worker"), annotations={"queueproxy.dev/containers": "worker"})
    pod["spec"]["containers"][0]["livenessProbe"] = PROBE
    assert facts(pod).policy.mode is Mode.FREEZE


@pytest.mark.parametrize("mode", ["off", "shadow", "throttle"])
def test_a_mode_below_freezing_is_left_as_it_is(mode: str) -> None:
    pod = with_container(livenessProbe=PROBE)
    pod["metadata"]["annotations"] = {"queueproxy.dev/freeze": mode}
    assert facts(pod).policy == DEFAULTS._replace(mode=Mode[mode.upper()])


def test_a_liveness_policy_of_throttle_throttles() -> None:
    seen = facts(knative_pod(annotations={"queueproxy.dev/liveness": "throttle"}))
    assert seen.policy.mode is Mode.THROTTLE and seen.policy.liveness is Liveness.THROTTLE
    assert seen.policy.reason == "liveness: throttle"


@pytest.mark.fz("FZ-127")
@pytest.mark.parametrize(
    ("pod", "refusal"),
    [
        pytest.param(changed(metadata={"labels": None}), "belongs to no Knative revision", id="not Knative"),
        pytest.param(changed(spec={"nodeName": "node2"}), "runs on another node", id="elsewhere"),
        pytest.param(changed(spec={"nodeName": None}), "runs on another node", id="nowhere"),
        pytest.param(
            changed(metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}), "is a static pod", id="mirror"
        ),
        pytest.param(
            changed(metadata={"annotations": {"kubernetes.io/config.source": "file"}}), "is a static pod", id="static"
        ),
        pytest.param(changed(spec={"hostPID": True}), "uses hostPID", id="host pid"),
        pytest.param(changed(spec={"hostNetwork": True}), "uses hostNetwork", id="host network"),
        pytest.param(changed(spec={"hostIPC": True}), "uses hostIPC", id="host ipc"),
        pytest.param(
            changed(spec={"shareProcessNamespace": True}), "shares one process namespace", id="one process namespace"
        ),
        pytest.param(
            with_container(securityContext={"privileged": True}),
            "has the privileged container user-container",
            id="privileged",
        ),
        pytest.param(
            changed(metadata={"namespace": "kube-system"}),
            "is in namespace kube-system, where freezing is not allowed",
            id="system namespace",
        ),
        pytest.param(changed(metadata={"uid": "../../etc"}), "has no proper identity", id="a uid that is a path"),
        pytest.param(changed(metadata={"uid": None}), "has no proper identity", id="without a uid"),
        pytest.param(changed(metadata={"deletionTimestamp": "2026-11-22T06:04:34Z"}), "is being deleted", id="deleted"),
    ],
)
def test_a_pod_is_refused(pod: dict[str, Any], refusal: str) -> None:
    seen = facts(pod)
    assert (seen.refusal, seen.containers) == (refusal, ())


@pytest.mark.fz("FZ-127")
def test_namespaces_are_allowed_by_name_and_denied_first() -> None:
    team = Rules("node1", allow=frozenset({"team", "kube-system"}))
    assert facts(POD, team).refusal == "is in namespace default, where freezing is not allowed"
    assert facts(knative_pod(namespace="team"), team).refusal == ""
    assert facts(knative_pod(namespace="kube-system"), team).refusal
    assert facts(POD, RULES._replace(own_uid=UID)).refusal == "is the freezer itself"


def test_a_terminating_pod_says_so_and_keeps_its_identity() -> None:
    seen = facts(changed(metadata={"deletionTimestamp": "2026-11-22T06:04:34Z"}))
    assert seen.terminating and seen.uid == UID and seen.sidecar_id


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGINT", SIGINT), ("SIGRTMIN+3", SIGRTMIN + 3), ("SIGRTMAX-1", SIGRTMAX - 1), ("SIGRTMIN+99", SIGTERM),
        ("SIGINT+1", SIGTERM), ("SIGNOTHING", SIGTERM), ("9", SIGTERM), ("", SIGTERM),
    ],
)  # fmt: skip
def test_the_stop_signal_is_read_from_the_status_or_the_specification(name: str, number: int) -> None:
    assert facts(with_status(stopSignal=name)).containers[0].stop_signal == number
    assert facts(with_container(lifecycle={"stopSignal": name})).containers[0].stop_signal == number


def test_both_addresses_of_a_dual_stack_pod_are_known() -> None:
    assert facts(changed(status={"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]})).ips == ("10.0.0.1", "fd00::1")
    assert facts(changed(status={"podIPs": None})).ips == ("10.244.0.39",)
    assert facts(changed(status={"podIPs": None, "podIP": None})).ips == ()


@pytest.mark.parametrize(
    ("said", "qos"), [("Guaranteed", "guaranteed"), ("BestEffort", "besteffort"), ("Odd", "burstable")]
)
def test_the_quality_of_service_class_is_in_small_letters(said: str, qos: str) -> None:
    assert facts(changed(status={"qosClass": said})).qos == qos


def test_a_runtime_nobody_knows_is_still_found_by_its_id() -> None:
    (container,) = facts(knative_pod(runtime="youki")).containers
    assert container.runtime == ""


def test_a_sidecar_that_does_not_run_has_no_id() -> None:
    assert facts(with_status("queue-proxy", state={"running": None, "waiting": {}})).sidecar_id == ""
    assert facts(with_status("queue-proxy", containerID="odd")).sidecar_id == ""


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(longer for key, part in parts for longer in _paths(part, (*path, key)))]


PATHS = _paths(POD)[1:]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_a_pod_with_any_part_replaced_never_raises_and_never_widens_the_choice(
    path: tuple[Any, ...], value: Any
) -> None:
    pod = deepcopy(POD)
    place = pod
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert {each.id for each in facts(pod).containers} <= {container_id(UID, "user-container")}


def test_an_empty_pod_is_refused() -> None:
    assert facts({}).refusal == "has no proper identity"
